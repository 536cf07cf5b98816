"""Connections that speak HTTP/1.1, with what the operator needs and no more: each hook takes four requests.

Responses are parsed by llhttp. There are no redirects, cookies, proxies, compression or pipelining, and nothing is ever
sent twice. The caller must know whether a request may have taken effect, so the errors tell it: as long as there is no
connection, nothing has been sent; after that, everything may have been.

Servers are not trusted: what is kept of a response before somebody reads it is bounded.
"""

import asyncio
import os
import select
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

#: How much of a response may be other than its body: the head, in which a token can have many KB, and what frames
#: chunks; responses that are only informational, too.
_OVERHEAD_BYTES = 256 * 1024
_MAX_HEADERS = 256
#: How much of a body is received before it is read, and what each part of it counts as, at least. More than the longest
#: one that is read part by part: when a server closes a connection while reading is paused, uvloop drops what has come.
_AHEAD_BYTES = 2 * 1024 * 1024
_LEAST_PART_BYTES = 64
#: The longest request of which nothing can be left to send when the response is there; with TLS, nobody tells.
_SENT_BYTES = 64 * 1024
#: After how long the next address of a host is tried as well (RFC 8305).
_NEXT_ADDRESS_SECONDS = 0.25
#: The ports of servers whose address names none.
PORTS = {"http": 80, "https": 443}
_LENGTHS = (b"content-length", b"transfer-encoding")


class NotConnectedError(ConnectionError):
    """There is no connection, so nothing has been sent."""


class ConnectTimeoutError(NotConnectedError):
    """There was no connection in time, so nothing has been sent."""


class BadResponseError(ConnectionError):
    """What the server has sent is not a response of HTTP/1.1, or is too long but for its body."""


class Origin(NamedTuple):
    """Where to connect to. A name for the certificate is only needed if it is not that of the host."""

    host: str
    port: int
    is_tls: bool
    server_name: str = ""


class Connections:
    """Sends requests over connections that are kept for the next ones."""

    def __init__(
        self, *, context: ssl.SSLContext | None, max_connections: int, keepalive_seconds: float, connect_seconds: float
    ) -> None:
        """
        Args:
            context: for TLS.
            max_connections: how many connections may be in use; further requests wait for one.
            keepalive_seconds: how long a connection is kept while it is not used.
            connect_seconds: how long it may take to get a connection, TLS included.
        """
        self._context = context
        self._keepalive_seconds = keepalive_seconds
        self._connect_seconds = connect_seconds
        self._slots = asyncio.Semaphore(max_connections)
        self._idle: defaultdict[Origin, deque[_Connection]] = defaultdict(deque)
        self._is_closed = False

    async def send(
        self, origin: Origin, method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> "Response":
        """Send a request with just these headers. Return the response when its head is there; it has to be closed.

        There is no deadline but the caller's. Raises ValueError if this is no request, NotConnectedError if nothing has
        been sent, and another ConnectionError if the request may have taken effect.
        """
        message = _compose(method, target, headers, body)
        connection = await self._connect(origin)
        try:
            await connection.exchange(message)
        except BaseException:
            self._put_back(origin, connection)
            raise
        return Response(connection, lambda: self._put_back(origin, connection))

    def close(self) -> None:
        """Close all connections; those in use as soon as they are not any more."""
        self._is_closed = True
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    async def _connect(self, origin: Origin) -> "_Connection":
        """Return a connection that has a slot."""
        if not self._slots.locked() and (connection := self._find_idle(origin)):  # mostly, and needs no timeout
            await self._slots.acquire()
            return connection
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._slots.acquire()
                try:
                    return self._find_idle(origin) or await self._open(origin)
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError as error:
            raise ConnectTimeoutError("") from error
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a host
            raise NotConnectedError(_explain(error)) from error

    def _find_idle(self, origin: Origin) -> "_Connection | None":
        idle = self._idle[origin]
        self._expire(idle)
        while idle:
            connection = idle.pop()
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    async def _open(self, origin: Origin) -> "_Connection":
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        connected = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
        connection = _Connection()
        try:
            await loop.create_connection(lambda: connection, sock=connected, **self._describe_tls(origin))
        except BaseException:
            connection.close()  # first, or asyncio would take whatever has the socket's number next for it
            connected.close()
            raise
        return connection

    def _describe_tls(self, origin: Origin) -> dict[str, Any]:
        if not origin.is_tls:
            return {}
        name = origin.server_name or origin.host.rstrip(".")
        name.encode("idna")  # raises what uvloop does not recover from
        return {"ssl": self._context, "server_hostname": name}

    def _put_back(self, origin: Origin, connection: "_Connection") -> None:
        self._slots.release()
        if self._is_closed or not connection.is_reusable:
            connection.close()
            return
        connection.headers = []
        connection.parts.clear()
        connection.idle_since = asyncio.get_running_loop().time()
        idle = self._idle[origin]
        idle.append(connection)
        self._expire(idle)

    def _expire(self, idle: "deque[_Connection]") -> None:
        oldest = asyncio.get_running_loop().time() - self._keepalive_seconds
        while idle and idle[0].idle_since < oldest:
            idle.popleft().close()


class Response:
    """The response to a request. The body is received while it is read."""

    def __init__(self, connection: "_Connection", release: Callable[[], None]) -> None:
        self.status = connection.status
        self.reason = connection.reason
        self.headers = connection.headers
        self._connection: _Connection | None = connection
        self._release = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body. Raises ConnectionError if its end does not come."""
        while True:
            connection = self._connection
            if connection is None:
                raise RuntimeError("the response has been closed")
            if connection.parts:
                yield connection.parts.popleft()
            elif connection.is_complete:
                return
            else:
                await connection.wait()

    async def read(self) -> bytes:
        """Return the body, however long it is. Raises ConnectionError if its end does not come."""
        return b"".join([part async for part in self])

    def close(self) -> None:
        """Give the connection back if the body has been received; else close it."""
        if self._connection is not None:
            self._connection = None
            self._release()


class _Connection(asyncio.Protocol):
    """A connection, and the response that comes on it."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]

    def __init__(self) -> None:
        self.parts: deque[bytes] = deque()
        self.is_complete = True
        self.idle_since = 0.0
        self._parser = HttpResponseParser(self)
        self._error: ConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_kept_alive = False
        self._has_ended = False
        self._is_closed = True

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over on both sides, and another one may follow."""
        return (
            self.is_complete
            and self._is_kept_alive
            and self._is_sent
            and self._error is None
            and not self._transport.is_closing()
        )

    def is_quiet(self) -> bool:
        """Return whether nothing has come since the last response, neither read nor unread: not even the end."""
        if self._error is not None or self._transport.is_closing():
            return False
        return not self._incoming.poll(0)

    async def exchange(self, message: bytes) -> None:
        """Send a request, and wait for the head of the response."""
        if self._error is not None:
            raise self._error
        self.is_complete = self._has_head = False
        self._overhead = self._ahead = 0
        self._is_sent = len(message) <= _SENT_BYTES
        self._transport.write(message)
        while not self._has_head:
            await self.wait()

    async def wait(self) -> None:
        """Wait until more of the response is there."""
        if self._error is not None:
            raise self._error
        if self._ahead > _AHEAD_BYTES:
            self._transport.resume_reading()
        self._ahead = 0
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close it at once."""
        if not self._is_closed:
            self._transport.abort()

    def _fail(self, error: ConnectionError) -> None:
        self._error = self._error or error
        self.close()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is not the base class
        self._is_closed = False
        self._transport = transport
        self._incoming = select.poll()
        self._incoming.register(transport.get_extra_info("socket"), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self.is_complete:
            self._fail(BadResponseError("a response to no request"))
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(BadResponseError(str(error.__context__ or error)))
        if self._overhead > _OVERHEAD_BYTES:
            self._fail(BadResponseError("the head is too long"))
        elif self._ahead > _AHEAD_BYTES and not self.is_complete:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._has_ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._has_ended and not self.is_complete and self._has_head:
            self.is_complete = not any(name.lower() in _LENGTHS for name, _ in self.headers)
        self._error = self._error or ConnectionResetError(str(exc or "the server has closed the connection"))
        self._is_closed = True
        # Both know this object, too. With TLS there is a large buffer, not to be kept until garbage is looked for.
        del self._transport, self._parser
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise BadResponseError("a second response")
        self.reason = b""
        self.headers = []

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == _MAX_HEADERS:
            raise BadResponseError("too many headers")
        if not self._has_head:  # else it is a trailer
            self.headers.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < HTTPStatus.CONTINUE or status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise BadResponseError(f"unexpected status {status}")
        self.status = status
        self._has_head = status >= HTTPStatus.OK  # else it is informational, and another one follows

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)
        self._overhead -= len(part)
        self._ahead += max(len(part), _LEAST_PART_BYTES)

    def on_message_complete(self) -> None:
        self.is_complete = self._has_head
        self._is_kept_alive = self._parser.should_keep_alive()


def _compose(method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target), *(b"%b: %b" % header for header in headers)]
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\r") != ends or head.count(b"\n") != ends or b"\0" in head or not head.isascii():
        raise ValueError("what can be no part of the head of a request")
    return b"%b\r\n\r\n%b" % (head, body)


def _explain(error: Exception) -> str:
    """Return why there is no connection, in the same words for each address of a host."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ssl.SSLError, socket.gaierror)):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
