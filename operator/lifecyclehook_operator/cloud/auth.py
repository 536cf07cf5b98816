"""Authentication as httpx auth flows: an IAM token of a user (API v3, password method), or a signing access key.

Both also find the project and its AS endpoint.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlencode
from weakref import WeakValueDictionary

import httpx
from pydantic import AwareDatetime, BaseModel, SecretStr, ValidationError

from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.endpoints import Endpoint, Project, Services, find_url
from lifecyclehook_operator.cloud.errors import (
    CallError,
    CredentialsError,
    Reason,
    TransientError,
    error_from_response,
    undocumented,
)
from lifecyclehook_operator.cloud.http import HttpClient, paused_deadline
from lifecyclehook_operator.cloud.signing import SignatureAuth
from lifecyclehook_operator.cloud.singleflight import SingleFlight
from lifecyclehook_operator.metrics import TOKEN_REQUESTS

logger = logging.getLogger(__name__)

OPERATION = "authenticate"
PROJECT_HEADER = "X-Project-Id"
TOKEN_HEADER = "X-Auth-Token"  # noqa: S105  (the name of a header, not a secret)

#: How long before its expiry a token is renewed, in seconds: longer than any call takes.
_RENEWAL_MARGIN_SECONDS = 300
#: A token that replaces a refused one and is refused too is not renewed: its login was accepted, so that is not why.
_PROBATION_SECONDS = 60
#: How many tokens are renewed in that time even if other calls succeed: one kind of call may always be refused.
_RENEWALS_LIMIT = 3
#: How long the login is not retried with credentials that IAM has refused, in seconds.
_REFUSED_LOGIN_SECONDS = 300
#: IAM locks a user, for everybody, at the fifth refused login within 15 minutes. The operator stays below that.
_REFUSED_LOGINS_LIMIT = 4
_REFUSED_LOGINS_SECONDS = 900

_REFUSED_LOGIN_OUTLOOK = "the login is tried again after 5 minutes, or at once when the credentials change"
_LOCKED_CODE = b"IAM.0061"
_LOCKED_ADVICE = (
    "By default, IAM locks a user for 15 minutes after 5 refused logins within 15 minutes: correct the password "
    "wherever a wrong one is in use."
)
_NO_PROJECTS_ADVICE = (
    "Give project_id instead of project_name, and as_endpoint_override if the catalog can't be read either, or grant "
    "the user the right to list projects."
)
#: What is said of a response that may be a token.
_UNDOCUMENTED = "the body is not as IAM documents it"
_NO_CATALOG_ADVICE = "Give as_endpoint_override, or grant the user the right to read the catalog."


Content = TypeVar("Content", bound=BaseModel)


class _TokenBody(BaseModel):
    expires_at: AwareDatetime
    issued_at: AwareDatetime
    project: Project
    catalog: Services = []


class _TokenResponse(BaseModel):
    token: _TokenBody


class _Projects(BaseModel):
    projects: list[Project]


class _Catalog(BaseModel):
    catalog: Services


@dataclass(frozen=True)
class Token:
    """A project-scoped token: its value, when to renew it, and the AS endpoint."""

    value: SecretStr
    renew_at: float
    project_name: str
    endpoint: Endpoint

    @classmethod
    def from_response(cls, response: httpx.Response, credentials: Credentials) -> Self:
        """Read the response to POST /v3/auth/tokens.

        The lifetime is the difference of two times of the response, so that no clock here has to be right.
        """
        body = _TokenResponse.model_validate_json(response.content).token
        lifetime = (body.expires_at - body.issued_at).total_seconds()
        return cls(
            value=SecretStr(response.headers["X-Subject-Token"]),
            renew_at=time.monotonic() + lifetime - min(_RENEWAL_MARGIN_SECONDS, lifetime / 4),
            project_name=body.project.name,
            endpoint=Endpoint(
                body.project.id,
                find_url(credentials, body.project, body.catalog),
                project_name=body.project.name,
            ),
        )


class LoginLimit:
    """Keeps the refused logins of one user, to any project, below the number at which IAM locks the user."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._refused_at: list[float] = []

    @asynccontextmanager
    async def turn(self, timeout_seconds: float) -> AsyncIterator[None]:
        """Wait for the turn to log in, one login at a time. The caller counts a refusal by `count_refusal`.

        Raises CredentialsError if one more refusal could lock the user, and TransientError if the logins before take
        longer than `timeout_seconds`.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._lock.acquire()
        except TimeoutError as error:
            message = "IAM has not answered other logins of this user in time"
            raise TransientError(Reason.CLOUD_UNAVAILABLE, message, operation=OPERATION) from error
        try:
            self._check()
            yield
        finally:
            self._lock.release()

    def count_refusal(self) -> None:
        """Count a login that IAM has refused."""
        self._refused_at.append(time.monotonic())
        # Keeps this object, and so the count, even if the client whose login was refused is forgotten before.
        asyncio.get_running_loop().call_later(_REFUSED_LOGINS_SECONDS, self._forget_old_refusals)

    def _check(self) -> None:
        self._forget_old_refusals()
        if len(self._refused_at) >= _REFUSED_LOGINS_LIMIT:
            raise CredentialsError(
                Reason.AUTHENTICATION_FAILED,
                f"IAM has refused {_REFUSED_LOGINS_LIMIT} logins of this user within 15 minutes, for any project, and "
                "may lock the user at the next one; the operator waits until the 15 minutes are over",
                operation=OPERATION,
                retry_after_seconds=self._refused_at[0] + _REFUSED_LOGINS_SECONDS - time.monotonic(),
            )

    def _forget_old_refusals(self) -> None:
        now = time.monotonic()
        self._refused_at = [at for at in self._refused_at if now - at < _REFUSED_LOGINS_SECONDS]


class LoginLimits:
    """The limits of all users."""

    def __init__(self) -> None:
        self._limits: WeakValueDictionary[Hashable, LoginLimit] = WeakValueDictionary()

    def of_user(self, credentials: Credentials) -> LoginLimit:
        """Return the limit of the user in these credentials."""
        domain = credentials.user_domain_id or credentials.user_domain_name
        user = credentials.user_id or (credentials.username, domain)
        return self._limits.setdefault((_with_version(credentials.auth_url), user), LoginLimit())


class TokenAuth(httpx.Auth):
    """Adds an IAM token to each request. There is one login at a time, however many requests wait for it.

    After a 401, a new token is requested and the request repeated, once.
    """

    def __init__(self, credentials: Credentials, http: HttpClient, limit: LoginLimit) -> None:
        self._credentials = credentials
        self._http = http
        self._limit = limit
        self._token: Token | None = None
        self._login = SingleFlight(self._log_in)
        self._renewals: list[float] = []
        self._is_accepted = True

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if (token := self._find_valid_token()) is None:
            with paused_deadline(request):
                token = await self.get_token()
        request.headers[TOKEN_HEADER] = token.value.get_secret_value()
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            with paused_deadline(request):
                renewed = await self._renew_refused(token)
            if renewed is not None:
                request.headers[TOKEN_HEADER] = renewed.value.get_secret_value()
                response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            self._is_accepted = True

    async def find_endpoint(self) -> Endpoint:
        """Return the project and its AS endpoint, from the token.

        Raises CallError if IAM can't be reached or refuses.
        """
        return (await self.get_token()).endpoint

    async def get_token(self) -> Token:
        """Return a token that is valid for a while.

        Raises CallError if IAM can't be reached or refuses.
        """
        return self._find_valid_token() or await self._login.answer()

    def _find_valid_token(self) -> Token | None:
        return self._token if self._token is not None and time.monotonic() < self._token.renew_at else None

    async def _renew_refused(self, refused: Token) -> Token | None:
        """Return a token other than the refused one, or None if another would be refused as well."""
        if self._token is refused:
            now = time.monotonic()
            recent = [renewed_at for renewed_at in self._renewals if now - renewed_at < _PROBATION_SECONDS]
            if len(recent) >= _RENEWALS_LIMIT or (recent and not self._is_accepted):
                return None
            self._renewals, self._is_accepted, self._token = [*recent, now], False, None
        return await self.get_token()

    async def _log_in(self) -> Token:
        async with self._limit.turn(self._http.timeout_seconds):
            try:
                self._token = await self._request_token()
            except CallError as error:
                TOKEN_REQUESTS.labels("denied" if isinstance(error, CredentialsError) else "error").inc()
                if error.http_status == httpx.codes.UNAUTHORIZED:
                    self._limit.count_refusal()
                raise
        TOKEN_REQUESTS.labels("success").inc()
        logger.info("Logged in to project %s (%s)", self._token.project_name, self._token.endpoint.project_id)
        return self._token

    async def _request_token(self) -> Token:
        url = f"{_with_version(self._credentials.auth_url)}/auth/tokens"
        response = await self._http.send(OPERATION, "POST", url, json=_login_body(self._credentials))
        if response.status_code != httpx.codes.CREATED:
            raise _login_error(response)
        try:
            return Token.from_response(response, self._credentials)
        except (ValidationError, KeyError) as error:
            raise undocumented(OPERATION, response, _UNDOCUMENTED) from error


class AccessKeyAuth(SignatureAuth):
    """Signs each request with an access key. Project and endpoint are looked up once, unless they are configured."""

    def __init__(self, credentials: Credentials, http: HttpClient) -> None:
        super().__init__(credentials.ak, credentials.sk or SecretStr(""), credentials.security_token)
        self._credentials = credentials
        self._http = http
        self._search = SingleFlight(self._find_endpoint)
        self._endpoint: Endpoint | None = None

    async def find_endpoint(self) -> Endpoint:
        """Return the project and its AS endpoint, as configured or from IAM.

        Raises CallError if IAM can't be reached or refuses, or does not know the project.
        """
        return self._endpoint or await self._search.answer()

    async def _find_endpoint(self) -> Endpoint:
        project = await self._find_project()
        headers = {PROJECT_HEADER: project.id}
        catalog = []
        if not self._credentials.as_endpoint:
            catalog = (await self._ask(_Catalog, "/auth/catalog", headers, _NO_CATALOG_ADVICE)).catalog
        url = find_url(self._credentials, project, catalog)
        self._endpoint = Endpoint(project.id, url, headers, project.name)
        return self._endpoint

    async def _find_project(self) -> Project:
        name = self._credentials.project_name
        if self._credentials.project_id:
            return Project(id=self._credentials.project_id, name=name)
        path = f"/projects?{urlencode({'name': name})}"
        projects = (await self._ask(_Projects, path, {}, _NO_PROJECTS_ADVICE)).projects
        if len(projects) != 1:
            raise CredentialsError(
                Reason.CREDENTIALS_INVALID, f"IAM knows {len(projects)} projects named {name!r}", operation=OPERATION
            )
        return projects[0]

    async def _ask(
        self, content: type[Content], path: str, headers: Mapping[str, str], forbidden_advice: str
    ) -> Content:
        url = f"{_with_version(self._credentials.auth_url)}{path}"
        response = await self._http.send(OPERATION, "GET", url, headers=headers, auth=self)
        if not response.is_success:
            raise _login_error(response, forbidden_advice)
        try:
            return content.model_validate_json(response.content)
        except ValidationError as error:
            raise undocumented(OPERATION, response, _UNDOCUMENTED) from error


def _login_error(response: httpx.Response, forbidden_advice: str = "") -> CallError:
    error = error_from_response(response, OPERATION)
    advice, retry_after_seconds = "", error.retry_after_seconds
    message, reason, class_ = error.message, error.reason, type(error)
    if response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND):
        class_, reason = CredentialsError, Reason.CREDENTIALS_INVALID
        message = f"IAM does not know the user's domain or the project: {message}"
    elif response.status_code == httpx.codes.UNAUTHORIZED:
        retry_after_seconds = _REFUSED_LOGIN_SECONDS
        message = f"{message.rstrip('.')}; {_REFUSED_LOGIN_OUTLOOK}"
        advice = _LOCKED_ADVICE if _LOCKED_CODE in response.content else ""
    elif response.status_code == httpx.codes.FORBIDDEN:
        advice = forbidden_advice
    else:
        return error
    return class_(
        reason,
        message,
        operation=OPERATION,
        http_status=error.http_status,
        code=error.code,
        request_id=error.request_id,
        retry_after_seconds=retry_after_seconds,
        advice=advice,
    )


def _with_version(auth_url: str) -> str:
    base = auth_url.rstrip("/")
    return base if base.endswith("/v3") else f"{base}/v3"


def _login_body(credentials: Credentials) -> Mapping[str, Any]:
    user_domain = _reference(credentials.user_domain_id, credentials.user_domain_name)
    user = _in_domain(_reference(credentials.user_id, credentials.username), user_domain)
    project_domain = _reference(credentials.project_domain_id, credentials.project_domain_name) or user_domain
    project = _in_domain(_reference(credentials.project_id, credentials.project_name), project_domain)
    password = credentials.password.get_secret_value() if credentials.password else ""
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": {**user, "password": password}}},
            "scope": {"project": project},
        }
    }


def _in_domain(reference: Mapping[str, str], domain: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a reference to a user or a project with its domain, which an ID does not need."""
    return reference if "id" in reference or not domain else {**reference, "domain": domain}


def _reference(id_: str, name: str) -> Mapping[str, str]:
    return {"id": id_} if id_ else {"name": name} if name else {}
