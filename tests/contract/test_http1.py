"""Connections are kept, shared, bounded and closed as they should be; what a loss means is in test_losses."""

import asyncio
import gc
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from lifecyclehook_operator.http1 import (
    BadResponseError,
    Connections,
    ConnectTimeoutError,
    NotConnectedError,
    Origin,
    Response,
    _Connection,
)
from tests.contract.listening import listen
from tests.support.controlplane import ControlPlane

DEADLINE_SECONDS = 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1024 * 1024

Serve = Callable[["Exchange"], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops that the operator may run on."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module")
def contexts(control_plane: ControlPlane) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server with the API server's certificate, and for a client that trusts it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pki = control_plane.work_dir / "pki"
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    return context, ssl.create_default_context(cafile=control_plane.ca_file)


class Exchange:
    """A request that a server has read, and how to answer it."""

    def __init__(self, connection: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        self.connection = connection
        self.head = head
        self.writer = writer

    async def answer(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()


class Server:
    """Has each request answered, and tells of the connections."""

    def __init__(self, serve: Serve) -> None:
        self.origin = Origin("", 0, is_tls=False)
        self.connections = 0
        self.ended = asyncio.Semaphore(0)
        self._serve = serve

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                await self._serve(Exchange(number, await reader.readuntil(b"\r\n\r\n"), writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.ended.release()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def run(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(serve)
    async with listen(server.accept, context) as address, asyncio.timeout(DEADLINE_SECONDS):
        server.origin = Origin(*address, is_tls=context is not None)
        yield server


@asynccontextmanager
async def connect(
    *,
    context: ssl.SSLContext | None = None,
    max_connections: int = 4,
    keepalive_seconds: float = 60,
    connect_seconds: float = DEADLINE_SECONDS,
) -> AsyncIterator[Connections]:
    connections = Connections(
        context=context,
        max_connections=max_connections,
        keepalive_seconds=keepalive_seconds,
        connect_seconds=connect_seconds,
    )
    try:
        yield connections
    finally:
        connections.close()


async def send(connections: Connections, origin: Origin, target: bytes = b"/") -> Response:
    return await connections.send(origin, "GET", target, [(b"Host", b"as.example.com")], b"")


async def get(connections: Connections, origin: Origin, target: bytes = b"/") -> bytes:
    response = await send(connections, origin, target)
    try:
        return await response.read()
    finally:
        response.close()


def always(content: bytes) -> Serve:
    async def serve(exchange: Exchange) -> None:
        await exchange.answer(content)

    return serve


async def then_closes(exchange: Exchange) -> None:
    await exchange.answer(b"HTTP/1.0 200 OK\r\n\r\nok")
    raise ConnectionError


async def test_one_connection_serves_many_requests_and_is_closed_at_the_end() -> None:
    async with run(always(OK)) as server:
        async with connect() as connections:
            assert [await get(connections, server.origin) for _ in range(5)] == [b"ok"] * 5
        await server.ended.acquire()
        assert server.connections == 1


async def test_a_connection_in_use_at_the_end_is_closed_after_it() -> None:
    async with run(always(OK)) as server:
        async with connect() as connections:
            response = await send(connections, server.origin)
        assert await response.read() == b"ok"
        response.close()
        await server.ended.acquire()


async def test_status_reason_and_headers_are_told() -> None:
    answer = b"HTTP/1.1 418 Short and stout\r\nX-Empty:\r\nX-Name: value \r\nContent-Length: 0\r\n\r\n"
    async with run(always(answer)) as server, connect() as connections:
        response = await send(connections, server.origin)
        assert (response.status, response.reason) == (418, b"Short and stout")
        assert response.headers == [(b"X-Empty", b""), (b"X-Name", b"value"), (b"Content-Length", b"0")]
        response.close()


async def test_nothing_is_left_of_a_closed_connection_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with run(then_closes) as server, connect() as connections:
            response = await send(connections, server.origin)
            left = weakref.ref(response._connection)  # noqa: SLF001
            assert await response.read() == b"ok"
            response.close()
            del response
            await server.ended.acquire()
            while left() is not None:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_response_may_come_in_any_pieces(size: int) -> None:
    content = (
        b"HTTP/1.1 102 Processing\r\nX-Early: 1\r\n\r\n"
        b"HTTP/1.1 200 Fine indeed\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nsome\r\n5\r\n more\r\n0\r\nX-Late: 1\r\n\r\n"
    )

    async def serve(exchange: Exchange) -> None:
        for start in range(0, len(content), size):
            await exchange.answer(content[start : start + size])
            await asyncio.sleep(0)

    async with run(serve) as server, connect() as connections:
        for _ in range(2):
            response = await send(connections, server.origin)
            assert (response.status, response.reason) == (200, b"Fine indeed")
            assert response.headers == [(b"Transfer-Encoding", b"chunked")]
            assert await response.read() == b"some more"
            response.close()
        assert server.connections == 1


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with run(then_closes) as server, connect() as connections:
        assert [await get(connections, server.origin) for _ in range(2)] == [b"ok"] * 2
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + OK,
        OK + b"nonsense",
    ],
    ids=["close", "old", "two", "nonsense"],
)
async def test_a_connection_after_which_nothing_can_be_told_is_not_used_again(answer: bytes) -> None:
    async with run(always(answer)) as server, connect() as connections:
        assert [await get(connections, server.origin) for _ in range(2)] == [b"ok"] * 2
        assert server.connections == 2


async def test_a_connection_is_not_kept_for_long() -> None:
    async with run(always(OK)) as server, connect(keepalive_seconds=0.1) as connections:
        assert await get(connections, server.origin) == b"ok"
        await asyncio.sleep(0.2)
        first, second = await send(connections, server.origin), await send(connections, server.origin)
        for response in (first, second):
            assert await response.read() == b"ok"
        first.close()
        await asyncio.sleep(0.2)
        second.close()
        for _ in range(2):
            await server.ended.acquire()
        assert await get(connections, server.origin) == b"ok"
        assert server.connections == 3


async def test_further_requests_wait_for_a_connection_first_come_first_served() -> None:
    both = asyncio.Barrier(3)
    served: list[bytes] = []

    async def serve(exchange: Exchange) -> None:
        served.append(exchange.head.split()[1])
        if len(served) <= 2:
            await both.wait()
        await exchange.answer(OK)

    async with run(serve) as server, connect(max_connections=2) as connections:
        targets = [b"/%d" % number for number in range(6)]
        tasks = [asyncio.create_task(get(connections, server.origin, target)) for target in targets]
        await both.wait()
        assert await asyncio.gather(*tasks) == [b"ok"] * 6
        assert served[2:] == targets[2:]
        assert server.connections == 2


async def test_who_waits_for_a_connection_for_too_long_has_sent_nothing() -> None:
    async with run(always(OK)) as server, connect(max_connections=1, connect_seconds=0.2) as connections:
        response = await send(connections, server.origin)
        with pytest.raises(ConnectTimeoutError):
            await get(connections, server.origin)
        response.close()
        assert await get(connections, server.origin) == b"ok"


async def test_neither_errors_nor_cancelled_requests_use_up_the_connections() -> None:
    async def serve(exchange: Exchange) -> None:
        if exchange.head.startswith(b"GET /ok"):
            await exchange.answer(OK)
        elif exchange.head.startswith(b"GET /bad"):
            await exchange.answer(b"SSH-2.0-OpenSSH_9.9\r\n")
        elif exchange.head.startswith(b"GET /lost"):
            raise ConnectionError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = Origin(*taken.getsockname(), is_tls=False)
    async with run(serve) as server, connect(max_connections=1) as connections:
        for _ in range(3):
            with pytest.raises(BadResponseError):
                await get(connections, server.origin, b"/bad")
            with pytest.raises(ConnectionResetError):
                await get(connections, server.origin, b"/lost")
            with pytest.raises(NotConnectedError, match="Connection refused"):
                await get(connections, refused)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await get(connections, server.origin, b"/never")
            assert await get(connections, server.origin, b"/ok") == b"ok"


async def test_a_response_that_is_not_read_to_its_end_ends_the_connection() -> None:
    async with run(always(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok")) as server, connect() as connections:
        response = await send(connections, server.origin)
        response.close()
        response.close()
        await server.ended.acquire()
        with pytest.raises(RuntimeError, match="closed"):
            await response.read()


async def test_a_connection_on_which_a_request_may_still_be_under_way_is_not_used_again(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def serve(exchange: Exchange) -> None:
        await exchange.answer(OK)
        if b"POST" in exchange.head:
            await asyncio.Event().wait()  # and does not read the body

    body = bytes(16 * MIB)
    length = b"%d" % len(body)
    for context in (None, contexts[0]):
        async with run(serve, context) as server, connect(context=contexts[1]) as connections:
            response = await connections.send(server.origin, "POST", b"/", [(b"Content-Length", length)], body)
            assert await response.read() == b"ok"
            response.close()
            assert await get(connections, server.origin) == b"ok"
            assert server.connections == 2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_nothing_is_lost_when_the_server_closes_the_connection_after_a_response(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], head: bytes
) -> None:
    def serve() -> None:
        """Send the response and the end of the connection at once, so that a client may read the one with the other."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = contexts[0].wrap_bio(incoming, outgoing, server_side=True)
        sock, _ = listening.accept()
        sock.settimeout(DEADLINE_SECONDS)
        with sock:
            for step in (tls.do_handshake, tls.read):
                while True:
                    try:
                        step()
                        break
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                        incoming.write(sock.recv(MIB))
            tls.write(head + bytes(900_000))
            with suppress(ssl.SSLWantReadError):
                tls.unwrap()
            sock.sendall(outgoing.read())
            sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while sock.recv(MIB):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE_SECONDS)
        origin = Origin(*listening.getsockname(), is_tls=True)
        async with asyncio.timeout(DEADLINE_SECONDS), connect(context=contexts[1]) as connections:
            for _ in range(5):
                served = asyncio.create_task(asyncio.to_thread(serve))
                assert len(await get(connections, origin)) == 900_000
                await served


async def test_a_connection_that_nobody_waits_for_any_more_is_closed_as_soon_as_it_is_made(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever gets the number of its socket next: asyncio would go on reading there."""
    calls: list[asyncio.Task[bytes]] = []
    made = _Connection.connection_made

    def connection_made(connection: _Connection, transport: asyncio.Transport) -> None:
        made(connection, transport)
        calls[0].cancel()

    async with (
        run(always(OK), contexts[0]) as server,
        run(always(OK)) as other,
        connect(context=contexts[1]) as connections,
    ):
        for _ in range(3):
            with monkeypatch.context() as patched:
                patched.setattr(_Connection, "connection_made", connection_made)
                calls[:] = [asyncio.create_task(get(connections, server.origin))]
                with pytest.raises(asyncio.CancelledError):
                    await calls[0]
            await server.ended.acquire()
            assert await asyncio.gather(*(get(connections, other.origin) for _ in range(4))) == [b"ok"] * 4
            connections.close()


async def test_no_more_of_a_body_is_received_than_is_read() -> None:
    sent = 0

    async def serve(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        while sent < 64 * MIB:
            await exchange.answer(bytes(MIB))
            sent += MIB

    async with run(serve) as server, connect() as connections:
        response = await send(connections, server.origin)
        before = -1
        while sent != before:  # until the server is held up
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 32 * MIB
        assert len(await response.read()) == 64 * MIB
        response.close()


@pytest.mark.parametrize(
    ("target", "header"),
    [
        (b"/ HTTP/1.1\r\nX-Other: 1", b"value"),
        (b"/", b"value\r\nX-Other: 1"),
        (b"/", b"value\nX-Other: 1"),
        (b"/", b"value\rX-Other: 1"),
        (b"/", b"a\0b"),
        (b"/", "ä".encode()),
    ],
)
async def test_nothing_but_a_request_is_sent(target: bytes, header: bytes) -> None:
    async with run(always(OK)) as server, connect() as connections:
        with pytest.raises(ValueError, match="no part of the head"):
            await connections.send(server.origin, "GET", target, [(b"X-Header", header)], b"")
        assert server.connections == 0


@pytest.mark.parametrize("more", [b"X-Many: x\r\n" * 5000, b"X-Long: " + b"x" * 65536 + b"\r\n"])
async def test_a_head_is_bounded(more: bytes) -> None:
    async def serve(exchange: Exchange) -> None:
        await exchange.answer(b"HTTP/1.1 200 OK\r\n")
        while True:
            await exchange.answer(more)

    async with run(serve) as server, connect() as connections:
        with pytest.raises(BadResponseError):
            await get(connections, server.origin)
        await server.ended.acquire()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])  # the methods of uvloop's loop cannot be replaced
async def test_the_other_addresses_of_a_host_are_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(*kind, "", address) for address in (refused, server.origin[:2])]

    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = taken.getsockname()
    async with run(always(OK)) as server, connect() as connections:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", find)
        assert await get(connections, Origin("as.example.com", 80, is_tls=False)) == b"ok"
