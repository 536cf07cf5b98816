"""What Kubernetes asks a pod: /healthz, whether it should go on living, and /readyz, whether it can work right now."""

from collections.abc import Awaitable, Callable

from aiohttp import web

#: The API server tells of a write at once. Where it hasn't for so long, the watch is dead, and only a new start helps.
_UNSEEN_WRITE_LIMIT_SECONDS = 180


class Health:
    """Answers the probes; that it answers at all shows that the event loop runs."""

    def __init__(
        self,
        count_resources: Callable[[], int],
        unseen_write_seconds: Callable[[], float],
        why_not_ready: Callable[[], Awaitable[str]],
    ) -> None:
        """
        Args:
            count_resources: returns how many resources are looked after.
            unseen_write_seconds: returns for how long the watch has not told of a write of ours, 0 if of all.
            why_not_ready: returns what keeps the process from working right now, "" if nothing does.
        """
        self._count_resources = count_resources
        self._unseen_write_seconds = unseen_write_seconds
        self._why_not_ready = why_not_ready

    async def serve(self, port: int) -> Callable[[], Awaitable[None]]:
        """Listen on a port of all addresses, and return what ends that."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._answer_healthz), web.get("/readyz", self._answer_readyz)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner.cleanup

    async def _answer_healthz(self, _: web.Request) -> web.Response:
        unseen_seconds = self._unseen_write_seconds()
        is_watch_alive = unseen_seconds < _UNSEEN_WRITE_LIMIT_SECONDS
        body = {"resources": self._count_resources(), "watch": "alive" if is_watch_alive else "dead"}
        return web.json_response(body, status=200 if is_watch_alive else 503)

    async def _answer_readyz(self, _: web.Request) -> web.Response:
        problem = await self._why_not_ready()
        return web.json_response({"status": problem or "ready"}, status=503 if problem else 200)
