"""Requests to the API server, and how it is reached.

The official client says where it is and authenticates. Its typed calls are left out: they validate and convert what we
read from JSON ourselves, and cost more than all the rest of a call.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from pydantic_core import from_json, to_json
from yarl import URL

from lifecyclehook_operator.http1 import PORTS, Connections, Origin
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError, StaleError

#: Until a response is there, whatever it is.
_TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_KEEPALIVE_SECONDS = 15.0
_MAX_CONNECTIONS = 100
_WATCH_SECONDS = 240
#: An event of a watch is one line, with the metadata of an object in it.
_LINE_BYTES = 2 * 1024 * 1024
_JSON = "application/json"
_ERRORS: Mapping[int, type[KubernetesError]] = {
    HTTPStatus.NOT_FOUND: GoneError,
    HTTPStatus.CONFLICT: StaleError,
    HTTPStatus.UNPROCESSABLE_ENTITY: StaleError,
}


class ApiServer:
    """Sends requests to the API server.

    Every method raises KubernetesError, and one of its classes that says so if the object is gone or has changed.
    """

    def __init__(self, client: ApiClient, session: aiohttp.ClientSession, connections: Connections | None) -> None:
        """
        Args:
            client: knows the address and the credentials.
            session: watches, and knows all kinds of proxies, and addresses with a user.
            connections: send everything else, if none of that is needed, in less than half of the session's CPU time.
        """
        self.client = client
        self._session = session
        self._connections = connections
        self._url = client.configuration.host
        server_name = client.configuration.tls_server_name or ""
        self._tls: dict[str, Any] = {"server_hostname": server_name} if server_name else {}
        self._host, self._path, self._origin = _parse_address(self._url, server_name)

    async def call(self, method: str, path: str, **request: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Send a request, and return the object that is the answer; takes what `send` takes."""
        return _parse(await self.send(method, path, **request))

    async def send(  # noqa: PLR0913  # the parts of a request
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> bytes:
        """Send a request, with a body that becomes JSON, and return the answer."""
        content = b"" if body is None else to_json(body)
        with _failures():
            async with asyncio.timeout(timeout_seconds):
                headers = await self._describe(method, path, content_type, accept)
                status, reason, answer = await self._exchange(method, _add(query, path), headers, content)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise _error_from(status, reason, answer)
        return answer

    async def watch(self, path: str, *, since: str, accept: str) -> AsyncGenerator[Mapping[str, Any]]:
        """Yield what changes after a resourceVersion, for some minutes."""
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": str(_WATCH_SECONDS)}
        with _failures():
            headers = await self._describe("GET", path, _JSON, accept)
            async with self._request("GET", _add(query, path), headers, b"") as response:
                if response.status != HTTPStatus.OK:
                    raise _error_from(response.status, response.reason or "", await response.read())
                async for line in response.content:
                    event = _parse(line)
                    if event["type"] == "ERROR":
                        raise KubernetesError(f"the watch has ended: {event['object'].get('message')}")
                    yield event["object"]

    async def _describe(self, method: str, path: str, content_type: str, accept: str) -> dict[str, str]:
        headers = {**self.client.default_headers, "Accept": accept, "Content-Type": content_type}
        await self.client.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        return headers

    async def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[int, str, bytes]:
        """Return status, reason phrase and body."""
        if self._connections is None:
            async with self._request(method, target, headers, content) as answer:
                return answer.status, answer.reason or "", await answer.read()
        described = {"Host": self._host, **headers, "Content-Length": str(len(content))}
        response = await self._connections.send(
            self._origin,
            method,
            f"{self._path}{target}".encode("ascii"),
            [(name.encode("ascii"), value.encode("ascii")) for name, value in described.items()],
            content,
        )
        try:
            return response.status, response.reason.decode(errors="replace"), await response.read()
        finally:
            response.close()

    def _request(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        url = URL(f"{self._url}{target}", encoded=True)
        return self._session.request(
            method, url, headers=headers, data=content or None, allow_redirects=False, **self._tls
        )


@asynccontextmanager
async def connect() -> AsyncIterator[ApiServer]:
    """Connect with the identity of the pod, or where there is none, of the kubeconfig (KUBECONFIG, ~/.kube/config)."""
    configuration = Configuration()
    try:
        await _load_configuration(configuration)
    except ConfigException as error:
        raise KubernetesError(f"no cluster to connect to: {error}") from error
    # With trust_env, aiohttp looks for proxies and .netrc in a thread, twice for each request.
    trust_env = bool(getproxies())
    configuration.client_session_kwargs = {"trust_env": trust_env}
    async with (
        ApiClient(configuration) as client,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client.rest_client.ssl_context),
            timeout=aiohttp.ClientTimeout(total=_WATCH_SECONDS + _TIMEOUT_SECONDS),
            proxy=configuration.proxy,
            trust_env=trust_env,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_LINE_BYTES,
        ) as session,
    ):
        connections = Connections(
            context=client.rest_client.ssl_context,
            max_connections=_MAX_CONNECTIONS,
            keepalive_seconds=_KEEPALIVE_SECONDS,
            connect_seconds=_CONNECT_SECONDS,
        )
        with closing(connections):
            is_direct = not (configuration.proxy or trust_env or "@" in configuration.host)
            yield ApiServer(client, session, connections if is_direct else None)


async def _load_configuration(configuration: Configuration) -> None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]


@contextmanager
def _failures() -> Iterator[None]:
    """Raise KubernetesError for what fails until an answer is read."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError, ConfigException) as error:
        raise KubernetesError(f"cannot reach the API server: {str(error) or type(error).__name__}") from error


def _parse_address(url: str, server_name: str) -> tuple[str, str, Origin]:
    """Return the Host header, what all paths begin with, and where to connect to."""
    try:
        parsed = urlsplit(url)
        is_tls, port = parsed.scheme == "https", parsed.port or PORTS[parsed.scheme]
    except (KeyError, ValueError) as error:
        raise KubernetesError(f"the address of the API server is no URL of HTTP: {url}") from error
    return parsed.netloc, parsed.path, Origin(parsed.hostname or "", port, is_tls, server_name)


def _add(query: Mapping[str, str] | None, path: str) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _parse(content: bytes) -> Mapping[str, Any]:
    try:
        body = from_json(content)
    except ValueError as error:
        raise KubernetesError(f"the API server answered what is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise KubernetesError(f"the API server answered {type(body).__name__} instead of an object")
    return body


def _error_from(http_status: int, reason: str, content: bytes) -> KubernetesError:
    """Return the error for an answer; the message of the Status in it, if there is one, says why."""
    try:
        status = _parse(content)
    except KubernetesError:
        status = {"message": content.decode(errors="replace")}
    causes = (status.get("details") or {}).get("causes") or ()
    error = _ERRORS.get(http_status, KubernetesError)(f"{http_status} {reason}: {status.get('message')}")
    error.status = http_status
    error.causes = frozenset(cause.get("reason") for cause in causes)
    return error
