"""A project of the cloud as it is on the wire: raw requests, as the API reference has them, and what comes back."""

import asyncio
import json
import ssl
import time
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.endpoints import Endpoint
from lifecyclehook_operator.cloud.signing import SignatureAuth

from .interrupts import Interrupts
from .masking import Masking

TIMEOUT_SECONDS = 30
#: How often a request is repeated that the gateway refuses for being one too many, and how long to wait in between
#: unless it says.
THROTTLED_TRIES = 5
THROTTLED_SECONDS = 5.0
THROTTLED_LIMIT_SECONDS = 60.0


class TokenHeader(httpx.Auth):
    """Adds a token as it is."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["X-Auth-Token"] = self._token
        yield request


class Project:
    """Sends requests to IAM and AS, one at a time.

    With a user and a password, requests carry a token; with an access key alone, they are signed.
    """

    def __init__(self, credentials: Credentials, interrupts: Interrupts, masking: Masking) -> None:
        self.credentials = credentials
        self.interrupts = interrupts
        self._masking = masking
        masking.add_credentials(credentials)
        self.http = httpx.Client(verify=_trust(credentials.ca_certificates), timeout=TIMEOUT_SECONDS)
        self.endpoint = self._find_endpoint()
        masking.add_name(self.endpoint.project_id, "PROJECT_ID")
        masking.add_name(self.endpoint.project_name, "PROJECT_NAME")
        self.auth: httpx.Auth = self.log_in(credentials) if self.has_user else self.signature()

    def close(self) -> None:
        self.http.close()

    @property
    def has_user(self) -> bool:
        return self.credentials.password is not None

    @property
    def has_key(self) -> bool:
        return bool(self.credentials.ak)

    @property
    def iam_url(self) -> str:
        """The address of IAM, which ends in /v3."""
        return self.credentials.auth_url.rstrip("/").removesuffix("/v3") + "/v3"

    @property
    def project_header(self) -> dict[str, str]:
        """What a signed request carries beside the signature."""
        return {"X-Project-Id": self.endpoint.project_id}

    def url(self, path: str, project_id: str = "") -> str:
        """Return the address of a call of AS, in this project unless another is given."""
        base = self.endpoint.url
        if project_id:
            base = base.removesuffix(self.endpoint.project_id) + project_id
        return f"{base}/{path}"

    def signature(self, *, secret: str = "") -> SignatureAuth:
        """Return the operator's own signer, with another secret if one is given."""
        key = self.credentials
        return SignatureAuth(key.ak, SecretStr(secret) if secret else key.sk or SecretStr(""), key.security_token)

    def log_in(self, credentials: Credentials) -> TokenHeader:
        """Return the token of a user, for the project. Raises httpx.HTTPStatusError if IAM refuses."""
        response = self.request_token(token_request(credentials))
        response.raise_for_status()
        return TokenHeader(response.headers["X-Subject-Token"])

    def request_token(self, body: Mapping[str, Any]) -> httpx.Response:
        """Ask IAM for a token."""
        response = self.send("POST", f"{self.iam_url}/auth/tokens", auth=None, json=body)
        self._masking.add_secret(response.headers.get("X-Subject-Token", ""))
        return response

    def call(
        self, method: str, path: str, *, project_id: str = "", auth: httpx.Auth | str | None = "own", **request: Any
    ) -> httpx.Response:
        """Send a request to AS. `auth`: None for none at all."""
        if auth == "own":
            auth = self.auth
        is_signed = auth is not None and not isinstance(auth, TokenHeader)
        headers = {**(self.project_header if is_signed else {}), **request.pop("headers", {})}
        return self.send(method, self.url(path, project_id), auth=auth, headers=headers, **request)

    def send(self, method: str, url: str, **request: Any) -> httpx.Response:
        """Send a request; one that the gateway refuses for the rate (429) is repeated a few times."""
        if "json" in request:  # as JSON has it, not with escapes: what is beyond ASCII is tried as it is
            request["content"] = json.dumps(request.pop("json"), ensure_ascii=False).encode()
        if request.get("content") is not None:
            request["headers"] = {"Content-Type": "application/json", **request.get("headers", {})}
        for _ in range(THROTTLED_TRIES):
            with self.interrupts.put_off():
                response = self.http.request(method, url, **request)
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            asked = response.headers.get("Retry-After", "")
            time.sleep(min(float(asked) if asked.isdecimal() else THROTTLED_SECONDS, THROTTLED_LIMIT_SECONDS))
        return response

    def _find_endpoint(self) -> Endpoint:
        async def find() -> Endpoint:
            client = AutoScalingClient(self.credentials, timeout_seconds=TIMEOUT_SECONDS, concurrency=1)
            try:
                return await client.find_endpoint()
            finally:
                await client.aclose()

        with self.interrupts.put_off():
            return asyncio.run(find())


def token_request(credentials: Credentials) -> dict[str, Any]:
    """Return the body of a login to the project, by password."""
    domain = _named(credentials.user_domain_id, credentials.user_domain_name)
    user = _named(credentials.user_id, credentials.username)
    user |= {} if credentials.user_id else {"domain": domain}
    project = _named(credentials.project_id, credentials.project_name)
    if not credentials.project_id:
        project["domain"] = _named(credentials.project_domain_id, credentials.project_domain_name) or domain
    password = credentials.password.get_secret_value() if credentials.password else ""
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": {**user, "password": password}}},
            "scope": {"project": {name: value for name, value in project.items() if value}},
        }
    }


def quoted(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="")


def _named(id_: str, name: str) -> dict[str, Any]:
    return {"id": id_} if id_ else {"name": name} if name else {}


def _trust(ca_certificates: str) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if ca_certificates:
        context.load_verify_locations(cadata=ca_certificates)
    return context
