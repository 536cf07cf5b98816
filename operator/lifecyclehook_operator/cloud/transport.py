"""What httpx sends its requests with: aiohttp's connections, which take half the CPU time of httpx's own.

The caller must know whether a request may have taken effect. So the errors are told apart by where they come from: as
long as there is no connection, nothing has been sent; after that, everything may have been. Nothing is sent twice.
"""

import os
import select
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.tracing import Trace
from yarl import URL

#: The longest field of a head. A token is one, and has several KB if it lists roles or the catalog.
_FIELD_BYTES = 64 * 1024
#: What aiohttp would add to a request; httpx has done so already.
_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests of httpx as they are, byte for byte, over connections that are kept for the next ones.

    It knows no proxies, no cookies, no redirects and no compression. Reading has no deadline but the caller's.
    """

    def __init__(
        self, *, context: ssl.SSLContext, max_connections: int, keepalive_seconds: float, connect_seconds: float
    ) -> None:
        """
        Args:
            context: for TLS.
            max_connections: how many connections may be in use; further requests wait for one.
            keepalive_seconds: how long a connection is kept while it is not used.
            connect_seconds: how long it may take to get a connection, TLS included.
        """
        self._session = aiohttp.ClientSession(
            connector=_Connector(context=context, max_connections=max_connections, keepalive_seconds=keepalive_seconds),
            timeout=aiohttp.ClientTimeout(connect=connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTOMATIC_HEADERS,
            auto_decompress=False,
            max_field_size=_FIELD_BYTES,
            middlewares=(_send_once,),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response as soon as its head is there.

        Raises ConnectError, ConnectTimeout or UnsupportedProtocol if nothing has been sent, and another
        httpx.TransportError if the request may have taken effect.
        """
        url = b"%b://%b%b" % (request.url.raw_scheme, request.url.netloc, request.url.raw_path)
        try:
            response = await self._session.request(
                request.method,
                URL(url.decode("ascii"), encoded=True),
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
                data=await request.aread() or None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, ValueError) as error:  # neither from a connection nor for want of one
            raise httpx.UnsupportedProtocol(str(error)) from error
        if response.status < httpx.codes.OK:
            response.close()
            raise httpx.RemoteProtocolError(f"unexpected status {response.status}")
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            extensions={"reason_phrase": (response.reason or "").encode("utf-8", "surrogateescape")},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The body of a response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        with _losses():
            while not content.at_eof():
                part, _ = await content.readchunk()
                yield part

    async def aclose(self) -> None:
        """Close the connection, unless the body has been read to its end."""
        self._response.close()


class _Connector(aiohttp.TCPConnector):
    """Opens connections, and keeps them for the next request."""

    def __init__(self, *, context: ssl.SSLContext, max_connections: int, keepalive_seconds: float) -> None:
        super().__init__(ssl=context, limit=max_connections, keepalive_timeout=keepalive_seconds)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  (it is aiohttp's)
    ) -> Connection:
        """Return a connection; one that was used before only if the server has neither closed it nor sent more."""
        try:
            while True:
                connection = await super().connect(req, traces, timeout)
                if connection.protocol is not None and connection.protocol not in self._used:
                    self._used.add(connection.protocol)
                    return connection
                if _is_quiet(connection):
                    return connection
                connection.close()
        except TimeoutError as error:
            raise httpx.ConnectTimeout("") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise httpx.ConnectError(_explain(error)) from error


def _explain(error: Exception) -> str:
    """Return why there is no connection, in the same words for each address of a host."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, (ssl.SSLError, socket.gaierror)):
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__


def _is_quiet(connection: Connection) -> bool:
    """Return whether nothing has come in since the last response, neither read nor unread: not even the end."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return not poll.poll(0)


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Let aiohttp see no loss, after which it would send the request again; nor add a header that httpx has not."""
    if not request.body and request.method not in request.POST_METHODS:
        request.headers.pop("Content-Length", None)
    with _losses():
        return await send(request)


@contextmanager
def _losses() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise httpx.ReadTimeout("") from error
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise httpx.ReadError("") from error
    except (aiohttp.ClientError, HttpProcessingError) as error:
        raise httpx.RemoteProtocolError("") from error
    except ValueError as error:
        raise httpx.LocalProtocolError("") from error
