"""What httpx sends its requests with: our own connections, which take a tenth of the CPU time of httpx's."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx

from lifecyclehook_operator.http1 import (
    PORTS,
    BadResponseError,
    Connections,
    ConnectTimeoutError,
    NotConnectedError,
    Origin,
    Response,
)


class Http1Transport(httpx.AsyncBaseTransport):
    """Sends requests of httpx as they are, byte for byte, over connections that are kept for the next ones.

    It knows no proxies, no cookies, no redirects and no compression. Reading has no deadline but the caller's.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response as soon as its head is there.

        Raises ConnectError, ConnectTimeout or UnsupportedProtocol if nothing has been sent, and another
        httpx.TransportError if the request may have taken effect.
        """
        url = request.url
        if url.scheme not in PORTS:
            raise httpx.UnsupportedProtocol(f"the scheme of {url} is not that of HTTP")
        origin = Origin(url.raw_host.decode("ascii"), url.port or PORTS[url.scheme], is_tls=url.scheme == "https")
        with _failures():
            response = await self._connections.send(
                origin, request.method, url.raw_path, request.headers.raw, await request.aread()
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions={"reason_phrase": response.reason},
        )

    async def aclose(self) -> None:
        """Close all connections; those in use as soon as they are not any more."""
        self._connections.close()


class _Body(httpx.AsyncByteStream):
    """The body of a response."""

    def __init__(self, response: Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _failures():
            async for part in self._response:
                yield part

    async def aclose(self) -> None:
        """Close the connection, unless the body has been read to its end."""
        self._response.close()


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except ConnectTimeoutError as error:
        raise httpx.ConnectTimeout("") from error
    except NotConnectedError as error:
        raise httpx.ConnectError(str(error)) from error
    except BadResponseError as error:
        raise httpx.RemoteProtocolError("") from error
    except ConnectionError as error:
        raise httpx.ReadError("") from error
    except ValueError as error:
        raise httpx.LocalProtocolError("") from error
