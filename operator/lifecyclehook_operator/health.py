"""The probes: /healthz (liveness) and /readyz (readiness)."""

from collections.abc import Awaitable, Callable

from aiohttp import web

#: A watch shows each write at once. One that lags this far behind is dead, and only a restart helps.
_WATCH_LAG_LIMIT_SECONDS = 180


class Health:
    """Serves the probes; a response at all proves that the event loop is running."""

    def __init__(
        self,
        count_resources: Callable[[], int],
        watch_lag_seconds: Callable[[], float],
        why_not_ready: Callable[[], Awaitable[str]],
    ) -> None:
        """
        Args:
            count_resources: returns the number of resources that are managed.
            watch_lag_seconds: returns for how long the watch has not shown one of our writes, 0 if it has shown all.
            why_not_ready: returns why the process cannot work right now, "" if it can.
        """
        self._count_resources = count_resources
        self._watch_lag_seconds = watch_lag_seconds
        self._why_not_ready = why_not_ready

    async def serve(self, port: int) -> Callable[[], Awaitable[None]]:
        """Listen on a port of all addresses, and return the function that stops it."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._answer_healthz), web.get("/readyz", self._answer_readyz)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner.cleanup

    async def _answer_healthz(self, _: web.Request) -> web.Response:
        is_watch_alive = self._watch_lag_seconds() < _WATCH_LAG_LIMIT_SECONDS
        body = {"resources": self._count_resources(), "watch": "alive" if is_watch_alive else "dead"}
        return web.json_response(body, status=200 if is_watch_alive else 503)

    async def _answer_readyz(self, _: web.Request) -> web.Response:
        problem = await self._why_not_ready()
        return web.json_response({"status": problem or "ready"}, status=503 if problem else 200)
