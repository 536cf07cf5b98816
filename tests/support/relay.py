"""A TCP relay on loopback whose connections break off, or go silent, when a test says so."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65536


class Relay:
    """Passes on what goes between its clients and a server's port, from a thread of its own."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._connections: set[_Connection] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Break off all connections."""
        self._loop.call_soon_threadsafe(self._cut)

    def silence(self) -> None:
        """Let all present connections stay, and nothing pass on them any more until they are cut."""
        self._loop.call_soon_threadsafe(self._silence)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        self._cut()
        await self._server.wait_closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self) -> None:
        for connection in self._connections:
            connection.cut()

    def _silence(self) -> None:
        for connection in self._connections:
            connection.is_open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            _Connection(writer).cut()
            return
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        try:
            await asyncio.gather(connection.pump(reader, server_writer), connection.pump(server_reader, writer))
        finally:
            self._connections.discard(connection)


class _Connection:
    """What goes both ways between a client and the server."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._writers = writers

    def cut(self) -> None:
        """Break off the connections to both ends; what is held is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self.is_open.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes from one end until either of them closes; then close both."""
        with suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await self.is_open.wait()
                writer.write(chunk)
                await writer.drain()
        for each in self._writers:
            each.close()
