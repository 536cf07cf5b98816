"""HTTP to IAM and AS: deadlines, bounds on what is read, and connections, in one place.

Requests, responses, auth flows and errors are httpx's. Its client is left out where no proxy is needed: what it does
beside, such as cookies and redirects, must not be done here, and takes a third of the CPU time of a request.

Responses are not trusted. The body is bounded here, all else by the transport.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import Any
from urllib.request import Request, getproxies

import httpx
from pydantic_core import to_json

from lifecyclehook_operator.cloud.errors import UnreadableError, transport_errors
from lifecyclehook_operator.cloud.transport import Http1Transport
from lifecyclehook_operator.http1 import Connections

#: The longest body that is read unless the caller knows better: a token with the catalog of all services has 100 KB.
_LIMIT_BYTES = 1024 * 1024
#: What each part of a body counts as, at least: a body in chunks of one byte takes 50 times the CPU time of another.
_LEAST_PART_BYTES = 64
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "lifecyclehook-operator"}
#: After how long without a request connections are closed: before most servers and load balancers close them.
_KEEPALIVE_SECONDS = 15
#: How many contexts are kept for new connections, one for each set of trusted certificates, 0.8 MB each.
_TLS_CONTEXTS = 8
_NO_AUTH = httpx.Auth()


class HttpClient:
    """Sends requests. Connections are opened when they are needed, and closed when they have been idle for a while."""

    def __init__(self, *, timeout_seconds: float, max_connections: int, ca_certificates: str = "") -> None:
        """
        Args:
            timeout_seconds: how long a request may take, from connecting to the end of the response.
            max_connections: how many connections may be open; further requests wait for one.
            ca_certificates: certificates to trust beside the usual ones, in PEM form.
        """
        self.timeout_seconds = timeout_seconds
        self._max_connections = max_connections
        self._ca_certificates = ca_certificates
        self._transport: httpx.AsyncBaseTransport | None = None
        self._in_flight = 0
        self._is_superseded = False
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def send(  # noqa: PLR0913  (a request has that many parts)
        self,
        operation: str,
        method: str,
        url: str,
        *,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth = _NO_AUTH,
        limit_bytes: int = _LIMIT_BYTES,
    ) -> httpx.Response:
        """Send a request, and return the response with its body.

        The body of an error that is longer than `limit_bytes` is cut, and one that is compressed is dropped: the status
        code says what there is to know. Redirects are not followed, and cookies not kept.

        Raises CallError if no response can be had before the deadline, or if the body of a success can't be read. What
        `auth` waits for with `paused_deadline` does not count; it has a deadline of its own.
        """
        with transport_errors(operation), self._use() as transport:
            request = _build_request(method, _parse(url), json, headers or {})
            try:
                async with asyncio.timeout(self.timeout_seconds) as deadline:
                    request.extensions["deadline"] = deadline
                    return await _exchange(transport, request, auth, limit_bytes)
            except TimeoutError as error:
                raise httpx.ReadTimeout("", request=request) from error

    def close_when_unused(self) -> None:
        """Close the connections as soon as no request is in flight. A later request opens new ones."""
        self._is_superseded = True
        if not self._in_flight:
            self._disconnect()

    async def aclose(self) -> None:
        """Close all connections now."""
        self._disconnect()
        await asyncio.gather(*self._closing)

    @contextmanager
    def _use(self) -> Iterator[httpx.AsyncBaseTransport]:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is None:
            self._transport = self._build()
        self._in_flight += 1
        try:
            yield self._transport
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                delay = 0 if self._is_superseded else _KEEPALIVE_SECONDS
                self._timer = asyncio.get_running_loop().call_later(delay, self._disconnect)

    def _build(self) -> httpx.AsyncBaseTransport:
        # To connect, TLS included, takes less than the deadline, and so what the deadline ends may have been sent.
        connect_seconds = self.timeout_seconds / 3
        context = _trust(self._ca_certificates)
        if not _has_proxy():
            return Http1Transport(
                Connections(
                    context=context,
                    max_connections=self._max_connections,
                    keepalive_seconds=_KEEPALIVE_SECONDS,
                    connect_seconds=connect_seconds,
                )
            )
        # At debug level httpcore logs the headers of responses, and IAM's is the token.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        return _ProxyTransport(
            httpx.AsyncClient(
                cookies=_NoCookies(),
                timeout=httpx.Timeout(self.timeout_seconds, connect=connect_seconds),
                verify=context,
                limits=httpx.Limits(
                    max_connections=self._max_connections,
                    max_keepalive_connections=self._max_connections,
                    keepalive_expiry=_KEEPALIVE_SECONDS,
                ),
                event_hooks={"response": [_forget_location]},
            )
        )

    def _disconnect(self) -> None:
        transport, self._transport = self._transport, None
        if self._timer is not None:
            self._timer.cancel()
        if transport is not None:
            task = asyncio.get_running_loop().create_task(transport.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


@contextmanager
def paused_deadline(request: httpx.Request) -> Iterator[None]:
    """Stop the clock of a request while its auth flow waits for something that has a deadline of its own."""
    deadline: asyncio.Timeout = request.extensions["deadline"]
    loop = asyncio.get_running_loop()
    left = (deadline.when() or 0) - loop.time()
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(loop.time() + left)


@lru_cache(512)  # the hooks of a group have one, and each resync asks for the same ones
def _parse(url: str) -> httpx.URL:
    return httpx.URL(url)


def _build_request(
    method: str, url: httpx.URL, json: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> httpx.Request:
    """Return a request with all its headers: what httpx finds out on its own takes longer than the rest of it."""
    content = b"" if json is None else to_json(json)
    described = {} if json is None else {"Content-Type": "application/json", "Content-Length": str(len(content))}
    every = {"Host": url.netloc.decode("ascii"), **_HEADERS, **described, **headers}
    return httpx.Request(method, url, headers=every, stream=httpx.ByteStream(content))


async def _exchange(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, auth: httpx.Auth, limit_bytes: int
) -> httpx.Response:
    """Send a request as its auth flow has it, and whatever else that asks for, and return the last response."""
    flow = auth.async_auth_flow(request)
    try:
        request = await anext(flow)
        while True:
            response = await _receive(transport, request, limit_bytes)
            try:
                request = await flow.asend(response)
            except StopAsyncIteration:
                return response
    finally:
        await flow.aclose()


async def _receive(transport: httpx.AsyncBaseTransport, request: httpx.Request, limit_bytes: int) -> httpx.Response:
    """Send a request, and return the response with its body, without the connection and all that it refers to."""
    try:
        response = await transport.handle_async_request(request)
        response.request = request
        try:
            content = await _read(response, limit_bytes)
        finally:
            await response.aclose()
    except httpx.RequestError as error:
        error.request = request
        raise
    response.headers.pop("Content-Encoding", None)  # else httpx would decompress
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        content=content,
        extensions={"reason_phrase": response.reason_phrase.encode()},
    )


async def _read(response: httpx.Response, limit_bytes: int) -> bytes:
    """Return the body up to a limit. What is beyond it is cut off from an error, and makes a success one."""
    problem = f"the body is longer than {limit_bytes // 1024} KiB"
    if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
        limit_bytes, problem = 0, "the body is compressed, against Accept-Encoding"
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("an asynchronous transport streams asynchronously")
    parts: list[bytes] = []
    size = 0
    async for part in response.stream:
        size += len(part) and max(len(part), _LEAST_PART_BYTES)
        if size > limit_bytes:
            if response.is_success:
                raise UnreadableError(problem, response)
            break
        if parts:
            await asyncio.sleep(0)  # one read of the socket may bring thousands of parts
        parts.append(part)
    return b"".join(parts)


class _ProxyTransport(httpx.AsyncBaseTransport):
    """Sends requests by the proxies that the environment names: only httpx's own client knows them all."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True)

    async def aclose(self) -> None:
        await self._client.aclose()


class _NoCookies(CookieJar):
    """Keeps no cookies, and does not look for any."""

    def extract_cookies(self, response: HTTPResponse, request: Request) -> None:
        """Leave the response unread."""


async def _forget_location(response: httpx.Response) -> None:
    response.headers.pop("Location", None)  # httpx reads it even though it does not follow it


def _has_proxy() -> bool:
    """Return whether the environment names a proxy, as httpx reads it: only its own transport knows them all."""
    named = getproxies()
    excepted = [host.strip() for host in named.get("no", "").split(",")]
    return "*" not in excepted and any(named.get(scheme) for scheme in ("http", "https", "all"))


@lru_cache(_TLS_CONTEXTS)
def _trust(ca_certificates: str) -> ssl.SSLContext:
    """Return a context that trusts the usual authorities and these certificates."""
    context = httpx.create_ssl_context()
    if ca_certificates:
        context.load_verify_locations(cadata=ca_certificates)
    context.set_alpn_protocols(["http/1.1"])
    return context
