"""A proxy before the API server in which watches go silent when a test says so; all else passes."""

import asyncio
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.support.controlplane import ControlPlane

#: Of one connection, or of how a body is sent on it.
_OWN_HEADERS = {"connection", "content-length", "host", "transfer-encoding"}


class WatchProxy:
    """Serves under the API server's certificate, from a thread of its own."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.is_silent = False
        self._control_plane = control_plane
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="watchproxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, kubeconfig: Path) -> Path:
        """Return a copy of a kubeconfig that leads here."""
        path = kubeconfig.with_name(f"proxied-{kubeconfig.name}")
        path.touch(mode=0o600)
        path.write_text(kubeconfig.read_text().replace(self._control_plane.url, self._url))
        return path

    async def _begin(self) -> None:
        certificate = self._control_plane.ca_file
        self._session = aiohttp.ClientSession(
            self._control_plane.url,
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=certificate)),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
        )
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(certificate, certificate.with_suffix(".key"))
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=own).start()
        self._url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        is_watch = "watch" in request.query
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        async with self._session.request(
            request.method, request.rel_url, headers=headers, data=await request.read() or None, allow_redirects=False
        ) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN_HEADERS}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                if not (is_watch and self.is_silent):
                    await response.write(chunk)
            await response.write_eof()
            return response
