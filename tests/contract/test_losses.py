"""A request or its answer is lost, in each way there is: the error tells whether it may have taken effect.

Whatever happens, the server sees a request once at the most.
"""

import asyncio
import json
import logging
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from lifecyclehook_operator.cloud.errors import TransientError
from lifecyclehook_operator.cloud.http import HttpClient
from lifecyclehook_operator.cloud.transport import Http1Transport
from lifecyclehook_operator.http1 import Connections
from tests.contract.listening import listen
from tests.support.controlplane import ControlPlane

DEADLINE_SECONDS = 20
#: For what only the deadline ends.
SHORT_SECONDS = 1.5
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: A body that takes many reads.
LARGE = {"text": "x" * 1_000_000}
#: Each method that is used, with a body or without.
CALLS: dict[str, Any] = {"GET": None, "POST": {"name": "hook"}, "PUT": {"name": "hook"}, "DELETE": None}

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops that the operator may run on."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(params=CALLS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Server:
    """Does with each connection what `serve` does, and counts the requests that it has read."""

    def __init__(self, serve: Callable[["Server", Connection], Awaitable[None]]) -> None:
        self.url = ""
        self.requests: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.closed = asyncio.Event()
        self._serve = serve

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            await self._serve(self, (reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed.set()
        finally:
            writer.transport.abort()

    async def read(self, connection: Connection) -> None:
        """Read a request."""
        head = await connection[0].readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")]
        self.requests.append(head + await connection[0].readexactly(int(lengths[0]) if lengths else 0))


@asynccontextmanager
async def run(
    serve: Callable[[Server, Connection], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(serve)
    async with listen(server.accept, context) as address:
        server.url = "{}://{}:{}".format("https" if context else "http", *address)
        yield server


@asynccontextmanager
async def connect(timeout_seconds: float = DEADLINE_SECONDS) -> AsyncIterator[HttpClient]:
    client = HttpClient(timeout_seconds=timeout_seconds, max_connections=4)
    try:
        yield client
    finally:
        await client.aclose()


async def send(client: HttpClient, method: str, url: str, body: Any = None) -> httpx.Response:
    return await client.send("create", method, f"{url}/path", json=body or CALLS[method])


async def fail(client: HttpClient, method: str, url: str, body: Any = None) -> TransientError:
    with pytest.raises(TransientError) as caught:
        await send(client, method, url, body)
    return caught.value


def reset(connection: Connection) -> None:
    """End a connection with a RST."""
    sock = connection[1].get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection[1].transport.abort()


async def silence(server: Server, connection: Connection) -> None:
    await connection[0].read()
    await asyncio.Event().wait()


async def test_a_refused_connection_has_sent_nothing(method: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = "http://{}:{}".format(*taken.getsockname())
    async with connect() as client:
        error = await fail(client, method, url)
    assert (type(error.__cause__), error.outcome_unknown) == (httpx.ConnectError, False)
    assert error.message == "cannot connect to 127.0.0.1: Connection refused"


async def test_a_name_that_cannot_be_found_has_sent_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find)
    async with connect() as client:
        error = await fail(client, method, "http://as.example.com")
    assert (type(error.__cause__), error.outcome_unknown) == (httpx.ConnectError, False)
    assert error.message == "cannot connect to as.example.com: [Errno -2] Name or service not known"


async def test_an_address_that_is_not_of_http_has_sent_nothing(method: str) -> None:
    async with connect() as client:
        error = await fail(client, method, "ftp://127.0.0.1")
    assert (type(error.__cause__), error.outcome_unknown) == (httpx.UnsupportedProtocol, False)


async def test_a_server_that_does_not_accept_has_been_sent_nothing(method: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, socket.socket() as first:
        first.connect(listening.getsockname())
        async with connect(SHORT_SECONDS) as client:
            error = await fail(client, method, "http://{}:{}".format(*listening.getsockname()))
    assert (type(error.__cause__), error.outcome_unknown) == (httpx.ConnectTimeout, False)


async def test_a_server_that_says_nothing_to_the_handshake_has_been_sent_nothing(method: str) -> None:
    async with run(silence) as server, connect(SHORT_SECONDS) as client:
        error = await fail(client, method, server.url.replace("http:", "https:"))
    assert (type(error.__cause__), error.outcome_unknown) == (httpx.ConnectTimeout, False)


@pytest.mark.parametrize("end", ["close", "reset", "another protocol"])
async def test_a_handshake_that_breaks_off_has_sent_nothing(method: str, end: str) -> None:
    async def serve(server: Server, connection: Connection) -> None:
        await connection[0].read(1)
        if end == "reset":
            reset(connection)
        elif end == "another protocol":
            connection[1].write(b"HTTP/1.1 400 Plain HTTP\r\n\r\n")
            connection[1].close()
            await connection[1].wait_closed()

    async with run(serve) as server, connect() as client:
        error = await fail(client, method, server.url.replace("http:", "https:"))
    assert (type(error.__cause__), error.outcome_unknown) == (httpx.ConnectError, False)
    assert re.fullmatch(r"cannot connect to 127\.0\.0\.1: \S.*", error.message)


async def test_a_server_whose_certificate_is_not_trusted_has_been_sent_nothing(
    method: str, control_plane: ControlPlane
) -> None:
    pki = control_plane.work_dir / "pki"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    async with run(end_after_the_request, context) as server, connect() as client:
        error = await fail(client, method, server.url)
        assert (type(error.__cause__), error.outcome_unknown) == (httpx.ConnectError, False)
        assert error.message.startswith("cannot connect to 127.0.0.1: [SSL: CERTIFICATE_VERIFY_FAILED] ")
        assert server.requests == []


async def end_at_once(server: Server, connection: Connection) -> None:
    pass


async def end_in_the_head_of_the_request(server: Server, connection: Connection) -> None:
    await connection[0].read(1)


async def end_in_the_body_of_the_request(server: Server, connection: Connection) -> None:
    await connection[0].readuntil(b"\r\n\r\n")
    await connection[0].read(1)


async def end_after_the_request(server: Server, connection: Connection) -> None:
    await server.read(connection)


def end_after(answer: bytes) -> Callable[[Server, Connection], Awaitable[None]]:
    async def serve(server: Server, connection: Connection) -> None:
        await server.read(connection)
        connection[1].write(answer)
        await connection[1].drain()

    return serve


ENDS = {
    "at once": end_at_once,
    "in the head of the request": end_in_the_head_of_the_request,
    "after the request": end_after_the_request,
    "in the head": end_after(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "after an interim response": end_after(b"HTTP/1.1 102 Processing\r\n\r\n"),
    "before the body": end_after(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
    "in the body": end_after(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"),
    "in a chunk": end_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no"),
    "between chunks": end_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
}


def with_end(serve: Callable[[Server, Connection], Awaitable[None]], kind: str) -> Any:
    async def with_end(server: Server, connection: Connection) -> None:
        await serve(server, connection)
        if kind == "reset":
            reset(connection)
        else:
            connection[1].close()

    return with_end


@pytest.mark.parametrize("kind", ["close", "reset"])
@pytest.mark.parametrize("end", ENDS)
async def test_a_connection_that_ends_may_have_had_its_effect(method: str, end: str, kind: str) -> None:
    async with run(with_end(ENDS[end], kind)) as server, connect() as client:
        error = await fail(client, method, server.url)
        assert isinstance(error.__cause__, (httpx.ReadError, httpx.RemoteProtocolError))
        assert error.outcome_unknown
        assert len(server.connections) == 1
        assert len(server.requests) <= 1


@pytest.mark.parametrize("kind", ["close", "reset"])
async def test_a_connection_that_ends_in_the_body_of_the_request_may_have_had_its_effect(kind: str) -> None:
    async with run(with_end(end_in_the_body_of_the_request, kind)) as server, connect() as client:
        for method in ("POST", "PUT"):
            error = await fail(client, method, server.url, LARGE)
            assert isinstance(error.__cause__, (httpx.ReadError, httpx.RemoteProtocolError))
            assert error.outcome_unknown
        assert len(server.connections) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"]
)
async def test_an_answer_that_does_not_come_may_stand_for_an_effect(answer: bytes) -> None:
    async def serve(server: Server, connection: Connection) -> None:
        await end_after(answer)(server, connection)
        await silence(server, connection)

    async with run(serve) as server, connect(SHORT_SECONDS) as client:
        error = await fail(client, "PUT", server.url)
        assert (type(error.__cause__), error.outcome_unknown) == (httpx.ReadTimeout, True)
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["close", "reset"])
@pytest.mark.parametrize("end", [end for end in ENDS if end != "at once"])
async def test_a_used_connection_that_ends_at_the_very_moment_may_have_had_its_effect(
    method: str, end: str, kind: str
) -> None:
    """It ends when the second request comes in: many clients would send that once more."""

    async def serve(server: Server, connection: Connection) -> None:
        await end_after(OK)(server, connection)
        await ENDS[end](server, connection)

    async with run(with_end(serve, kind)) as server, connect() as client:
        assert (await send(client, method, server.url)).text == "ok"
        error = await fail(client, method, server.url)
        assert isinstance(error.__cause__, (httpx.ReadError, httpx.RemoteProtocolError))
        assert error.outcome_unknown
        assert len(server.connections) == 1
        assert len(server.requests) <= 2


@pytest.mark.parametrize("turns", [0, 10])
@pytest.mark.parametrize("late", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"])
async def test_a_connection_that_has_ended_or_said_more_is_not_used_again(method: str, late: bytes, turns: int) -> None:
    """Whether the event loop has read that already or not."""
    answered, ended = asyncio.Event(), asyncio.Event()

    async def serve(server: Server, connection: Connection) -> None:
        await end_after(OK)(server, connection)
        await answered.wait()
        if late:
            connection[1].write(late)
        else:
            connection[1].write_eof()
        ended.set()
        await connection[0].read()

    async with run(serve) as server, connect() as client:
        for _ in range(2):
            assert (await send(client, method, server.url)).text == "ok"
            answered.set()
            await ended.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
        assert (len(server.connections), len(server.requests)) == (2, 2)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"])
async def test_a_call_that_is_cancelled_closes_its_connection(method: str, answer: bytes) -> None:
    asked = asyncio.Event()

    async def serve(server: Server, connection: Connection) -> None:
        await server.read(connection)
        connection[1].write(answer if len(server.connections) == 1 else OK)
        await connection[1].drain()
        asked.set()
        with suppress(ConnectionError):
            await connection[0].read()
        server.closed.set()

    async with run(serve) as server, connect() as client, asyncio.timeout(DEADLINE_SECONDS):
        call = asyncio.create_task(send(client, method, server.url))
        await asked.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.closed.wait()
        assert (await send(client, method, server.url)).text == "ok"
        assert (len(server.connections), len(server.requests)) == (2, 2)


async def test_a_connection_is_closed_at_the_limit_of_the_body(method: str) -> None:
    async def serve(server: Server, connection: Connection) -> None:
        await server.read(connection)
        connection[1].write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection[1].write(bytes(65536))
            await connection[1].drain()

    async with run(serve) as server, connect() as client, asyncio.timeout(DEADLINE_SECONDS):
        error = await fail(client, method, server.url)
        assert (error.reason, error.outcome_unknown) == ("UnexpectedResponse", True)
        await server.closed.wait()
        assert len(server.requests) == 1


@pytest.mark.parametrize("path", ["/", "/a%2Fb/%C3%A4;x=1//c/../d", "/a?b=%20+&c=~%7E&c=%2f", "/a?b&&c="])
@pytest.mark.parametrize("body", [None, {"name": "漢"}])
async def test_a_request_is_sent_as_httpx_has_made_it(method: str, path: str, body: Any) -> None:
    """Byte for byte what httpx's own transport sends: a signature is over path, query and headers."""
    transports = (
        Http1Transport(
            Connections(context=None, max_connections=1, keepalive_seconds=1, connect_seconds=DEADLINE_SECONDS)
        ),
        httpx.AsyncHTTPTransport(),
    )
    async with run(end_after(OK)) as server:
        for transport in transports:
            headers = {"X-Sdk-Date": "now", "X-auth-TOKEN": "made-up"}
            request = httpx.Request(method, f"{server.url}{path}", headers=headers, json=body)
            async with transport:
                assert await (await transport.handle_async_request(request)).aread() == b"ok"
        ours, theirs = server.requests
    assert ours == theirs


@pytest.mark.parametrize("excepted", ["", "other.example.com, .example.net"])
async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, excepted: str, method: str) -> None:
    async with run(end_after(OK)) as proxy, connect() as client:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", excepted)
        assert (await send(client, method, "http://as.example.com")).text == "ok"
        (request,) = proxy.requests
        assert request.startswith(f"{method} http://as.example.com/path HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("excepted", ["*", "127.0.0.1", "as.example.com, *"])
async def test_a_proxy_of_the_environment_is_not_used_for_what_it_excepts(
    monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    async with run(end_after(OK)) as proxy, run(end_after(OK)) as server, connect() as client:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", excepted)
        assert (await client.send("list", "GET", f"{server.url}/path")).text == "ok"
        assert proxy.requests == []


async def test_what_is_logged_at_debug_level_has_no_token(caplog: pytest.LogCaptureFixture) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nX-Subject-Token: made-up\r\n\r\n")
    caplog.set_level(logging.DEBUG)
    async with run(end_after(answer)) as server, connect() as client:
        await client.send("create", "POST", server.url, json={}, headers={"X-Auth-Token": "made-up"})
    assert "made-up" not in json.dumps([record.getMessage() for record in caplog.records])
