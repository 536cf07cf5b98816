"""IAM tokens (API v3, password method) as an httpx authentication flow, and what a token says about where AS is."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx
from pydantic import AwareDatetime, BaseModel, SecretStr, ValidationError

from lifecyclehook_operator.credentials import Credentials
from lifecyclehook_operator.errors import CallError, CredentialsError, Reason, TransientError
from lifecyclehook_operator.transport import error_from_response, share, transport_errors

logger = logging.getLogger(__name__)

OPERATION = "authenticate"
TOKEN_HEADER = "X-Auth-Token"  # noqa: S105  (the name of a header, not a secret)

#: How long before its expiry a token is renewed, in seconds: longer than any call takes.
_RENEWAL_MARGIN_SECONDS = 300
#: A token that AS refuses right after it was issued is not renewed: the login was accepted, so a new one won't help.
_PROBATION_SECONDS = 60
#: For how long a refused login is not tried again, however many hooks wait for it.
_REFUSED_LOGIN_SECONDS = 30


class _Endpoint(BaseModel):
    interface: str
    region: str | None = None
    url: str


class _Service(BaseModel):
    type: str
    endpoints: list[_Endpoint] = []


class _Project(BaseModel):
    id: str
    name: str

    @property
    def region(self) -> str:
        """A project is named after its region: eu-de, or eu-de_something."""
        return self.name.partition("_")[0]


class _TokenBody(BaseModel):
    expires_at: AwareDatetime
    issued_at: AwareDatetime
    project: _Project
    catalog: list[_Service] = []


class _TokenAnswer(BaseModel):
    token: _TokenBody


@dataclass(frozen=True)
class Token:
    """A project-scoped token: its value, for how long it serves, and where it says that AS is."""

    value: SecretStr
    renew_at: float
    project_id: str
    project_name: str
    project_region: str
    catalog_endpoint: str | None

    @classmethod
    def from_answer(cls, response: httpx.Response, region_name: str) -> Self:
        """Read the answer of POST /v3/auth/tokens.

        The lifetime is the difference of the answer's own two times, so that no clock here has to be right.
        """
        body = _TokenAnswer.model_validate_json(response.content).token
        lifetime = (body.expires_at - body.issued_at).total_seconds()
        margin = min(_RENEWAL_MARGIN_SECONDS, lifetime / 4)
        return cls(
            value=SecretStr(response.headers["X-Subject-Token"]),
            renew_at=time.monotonic() + lifetime - margin,
            project_id=body.project.id,
            project_name=body.project.name,
            project_region=body.project.region,
            catalog_endpoint=_find_endpoint(body.catalog, region_name, body.project.region),
        )


def _find_endpoint(catalog: list[_Service], region_name: str, project_region: str) -> str | None:
    """Return where AS is in the region asked for; if none is, in the project's, or else in any."""
    urls = {
        endpoint.region: endpoint.url
        for service in catalog
        if service.type in ("asv1", "as")
        for endpoint in service.endpoints
        if endpoint.interface == "public"
    }
    if region_name:
        return urls.get(region_name)
    return urls.get(project_region) or next(iter(urls.values()), None)


class TokenAuth(httpx.Auth):
    """Puts an IAM token on each request. One login is in flight at a time, however many requests wait for it.

    A 401 leads to one new token and one repeat of the request.
    """

    def __init__(self, credentials: Credentials, http: httpx.AsyncClient) -> None:
        self._credentials = credentials
        self._http = http
        self._token: Token | None = None
        self._login: asyncio.Task[Token] | None = None
        self._login_refused: tuple[CallError, float] | None = None
        self._on_probation_until = 0.0

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self.get_token()
        request.headers[TOKEN_HEADER] = token.value.get_secret_value()
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and (renewed := await self._renew_refused(token)):
            request.headers[TOKEN_HEADER] = renewed.value.get_secret_value()
            yield request

    async def get_token(self) -> Token:
        """Return a token that serves for a while yet.

        Raises CallError if IAM can't be reached or refuses.
        """
        if self._token is not None and time.monotonic() < self._token.renew_at:
            return self._token
        if self._login_refused is not None:
            error, until = self._login_refused
            if time.monotonic() < until:
                raise error.with_traceback(None)
        if self._login is None:
            self._login = share(self._log_in())
        return await asyncio.shield(self._login)  # one waiter's cancellation is not the others'

    async def _renew_refused(self, refused: Token) -> Token | None:
        """Return a token other than the refused one, or None where another would be refused as well."""
        if self._token is refused:
            if time.monotonic() < self._on_probation_until:
                return None
            self._on_probation_until = time.monotonic() + _PROBATION_SECONDS
            self._token = None
        return await self.get_token()

    async def _log_in(self) -> Token:
        try:
            self._token = await self._request_token()
        except CredentialsError as error:
            self._login_refused = (error, time.monotonic() + _REFUSED_LOGIN_SECONDS)
            raise
        finally:
            self._login = None
        logger.info("Logged in to project %s (%s)", self._token.project_name, self._token.project_id)
        return self._token

    async def _request_token(self) -> Token:
        url = f"{_with_version(self._credentials.auth_url)}/auth/tokens"
        with transport_errors(OPERATION):
            response = await self._http.post(url, json=_login_body(self._credentials))
        if response.status_code != httpx.codes.CREATED:
            raise _login_error(response)
        try:
            return Token.from_answer(response, self._credentials.region_name)
        except (ValidationError, KeyError) as error:
            # The answer itself stays out of the message: its header is a token.
            raise TransientError(
                Reason.UNEXPECTED_RESPONSE,
                "IAM's answer is not the documented one",
                operation=OPERATION,
                http_status=response.status_code,
            ) from error


def _login_error(response: httpx.Response) -> CallError:
    error = error_from_response(response, OPERATION)
    if response.status_code not in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND):
        return error
    return CredentialsError(
        Reason.CREDENTIALS_INVALID,
        f"IAM does not know the user's domain or the project: {error.message}",
        operation=OPERATION,
        http_status=error.http_status,
        code=error.code,
        request_id=error.request_id,
    )


def _with_version(auth_url: str) -> str:
    base = auth_url.rstrip("/")
    return base if base.endswith("/v3") else f"{base}/v3"


def _login_body(credentials: Credentials) -> Mapping[str, Any]:
    user_domain = _reference(credentials.user_domain_id, credentials.user_domain_name)
    project = _reference(credentials.project_id, credentials.project_name)
    return {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {
                        "name": credentials.username,
                        "password": credentials.password.get_secret_value(),
                        "domain": user_domain,
                    }
                },
            },
            "scope": {"project": project if "id" in project else {**project, "domain": user_domain}},
        }
    }


def _reference(id_: str, name: str) -> Mapping[str, str]:
    return {"id": id_} if id_ else {"name": name}
