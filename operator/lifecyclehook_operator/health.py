"""The probes: /healthz (liveness) and /readyz (readiness)."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

#: A watch shows each change at once. One that lags this far behind is dead, and only a restart helps.
_WATCH_LAG_LIMIT_SECONDS = 180
#: How long the result of a probe is reused: anybody may call /readyz, and must not load the API server by that.
_GOOD_SECONDS = 5
_BAD_SECONDS = 1


class Health:
    """Serves the probes; a response at all proves that the event loop is running."""

    def __init__(
        self,
        count_resources: Callable[[], int],
        watch_lag_seconds: Callable[[], float],
        find_readiness: Callable[[], Awaitable[tuple[bool, str]]],
    ) -> None:
        """
        Args:
            count_resources: returns the number of resources that are managed.
            watch_lag_seconds: returns for how long the watch has not shown a known version, 0 if it has shown all.
            find_readiness: returns whether the process can work right now, and its state or what is missing.
        """
        self._count_resources = count_resources
        self._watch_lag_seconds = watch_lag_seconds
        self._find_readiness = find_readiness

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
        is_ready, status = await self._find_readiness()
        return web.json_response({"status": status}, status=200 if is_ready else 503)


class Probe:
    """Looks for a problem, once at a time and at most every few seconds however often it is asked."""

    def __init__(self, find_problem: Callable[[], Awaitable[str]]) -> None:
        """Take the function that looks for a problem and returns it, "" if there is none."""
        self._find_problem = find_problem
        self._lock = asyncio.Lock()
        self._problem = ""
        self._valid_until = 0.0

    async def find_problem(self) -> str:
        """Return the problem, "" if there is none, as it was found a few seconds ago at most."""
        clock = asyncio.get_running_loop()
        async with self._lock:
            if clock.time() >= self._valid_until:
                self._problem = await self._find_problem()
                self._valid_until = clock.time() + (_BAD_SECONDS if self._problem else _GOOD_SECONDS)
            return self._problem
