"""Who we are for the cloud, as httpx authentication flows, and where that lets us find AS.

Either a user with an IAM token (API v3, password method), or an access key that signs each request.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Self, TypeVar
from urllib.parse import urlencode, urlsplit
from weakref import WeakValueDictionary

import httpx
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, SecretStr, ValidationError

from lifecyclehook_operator.credentials import Credentials, check_address, check_name
from lifecyclehook_operator.errors import CallError, CredentialsError, Reason, TransientError
from lifecyclehook_operator.metrics import TOKEN_REQUESTS
from lifecyclehook_operator.signing import SignatureAuth
from lifecyclehook_operator.transport import error_from_response, share, transport_errors

logger = logging.getLogger(__name__)

OPERATION = "authenticate"
_AS_ROOT = "/autoscaling-api"
_AS_PATH = f"{_AS_ROOT}/v1"
#: Service types of the catalog under which AS is found. The address of `asv1` has the project, that of `as` has not.
_AS_TYPES = ("asv1", "as")
PROJECT_HEADER = "X-Project-Id"
TOKEN_HEADER = "X-Auth-Token"  # noqa: S105  (the name of a header, not a secret)

#: How long before its expiry a token is renewed, in seconds: longer than any call takes.
_RENEWAL_MARGIN_SECONDS = 300
#: A token that replaces a refused one and is refused too is not renewed: the login was accepted, so it isn't that.
_PROBATION_SECONDS = 60
#: How many tokens are renewed in that time even if calls are answered in between: one kind may always be refused.
_RENEWALS_LIMIT = 3
#: For how long IAM is not asked again with the same credentials, however many hooks wait for it: after it has refused
#: who we are, after it has refused what we asked for, and after it could not be asked.
_REFUSED_LOGIN_SECONDS = 300
_REFUSED_QUESTION_SECONDS = 30
_FAILED_LOGIN_SECONDS = 0.5
#: IAM locks a user, for everybody, at the fifth refused login within 15 minutes. We stay below that.
_REFUSED_LOGINS_LIMIT = 4
_REFUSED_LOGINS_SECONDS = 900

_REFUSED_LOGIN_OUTLOOK = "the login is tried again after 5 minutes, or at once when the credentials change"
_LOCKED_CODE = b"IAM.0061"
_LOCKED_ADVICE = (
    "By default, IAM locks a user for 15 minutes after 5 refused logins within 15 minutes: correct the password "
    "wherever a wrong one is in use."
)
_NO_PROJECTS_ADVICE = (
    "Give project_id in place of project_name, and as_endpoint_override if the catalog can't be read either, or grant "
    "the user the right to list projects."
)
_NO_CATALOG_ADVICE = "Give as_endpoint_override, or grant the user the right to read the catalog."

#: What is put in place of the project's ID in the addresses of a catalog.
_PROJECT_ID_IN_URL = re.compile(r"[$%]\((?:tenant|project)_id\)s")
_REGION = re.compile("[a-z]{2}-[a-z]{2}[0-9]*")
_IAM_HOST = re.compile(rf"iam[a-z-]*\.({_REGION.pattern})\.(?:[a-z]+\.)?otc\.t-systems\.com")
#: The domain that a region's hosts are in, where it is not the usual one.
_DOMAINS = {"eu-ch2": "sc.otc.t-systems.com"}


T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)


def _drop_malformed(model: type[BaseModel]) -> BeforeValidator:
    """Return what drops from a list the entries that are not as documented: they are other services', not ours."""

    def parse_each(values: object) -> list[BaseModel]:
        parsed = []
        for value in values if isinstance(values, list) else ():
            try:
                parsed.append(model.model_validate(value))
            except ValidationError:
                continue
        return parsed

    return BeforeValidator(parse_each)


class _Endpoint(BaseModel):
    interface: str
    region: str | None = None
    url: str


class _Service(BaseModel):
    type: str
    endpoints: Annotated[list[_Endpoint], _drop_malformed(_Endpoint)] = []


_Services = Annotated[list[_Service], _drop_malformed(_Service)]


class _Project(BaseModel):
    id: Annotated[str, AfterValidator(check_name)]
    name: str

    @property
    def region(self) -> str:
        """A project is named after its region: eu-de, or eu-de_something. Empty if it is named otherwise."""
        region = self.name.partition("_")[0]
        return region if _REGION.fullmatch(region) else ""


class _TokenBody(BaseModel):
    expires_at: AwareDatetime
    issued_at: AwareDatetime
    project: _Project
    catalog: _Services = []


class _TokenAnswer(BaseModel):
    token: _TokenBody


class _Projects(BaseModel):
    projects: list[_Project]


class _Catalog(BaseModel):
    catalog: _Services


@dataclass(frozen=True)
class Place:
    """Where the AS API of a project is, without a slash at its end, and what to send with each request."""

    project_id: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


def _find_url(credentials: Credentials, project: _Project, catalog: list[_Service]) -> str:
    """Return where AS is: as configured, else as the catalog says for the region, else by region.

    The region is the one asked for, else the project's, else that of IAM. Raises CredentialsError if nothing tells it,
    or if what is found is no address that can be called.
    """
    region = credentials.region_name or project.region or _find_region(credentials.auth_url)
    base = credentials.as_endpoint or _find_in_catalog(catalog, region)
    if not base:
        if not region:
            raise CredentialsError(
                Reason.CREDENTIALS_INVALID,
                "region_name is missing: neither project_name nor auth_url tells the region",
                operation=OPERATION,
            )
        base = f"https://as.{region}.{_DOMAINS.get(region, 'otc.t-systems.com')}"
    base = _PROJECT_ID_IN_URL.sub(project.id, base.rstrip("/"))
    if f"{_AS_PATH}/" not in base:  # else the project is in it already
        base = f"{base.partition(_AS_ROOT)[0]}{_AS_PATH}/{project.id}"
    try:
        return check_address(base)
    except ValueError as error:
        raise CredentialsError(
            Reason.CREDENTIALS_INVALID,
            f"the address of AS, as found for region {region!r}, {error}",
            operation=OPERATION,
        ) from None


def _find_in_catalog(catalog: list[_Service], region: str) -> str:
    """Return the address of AS in a region, empty if there is none; with no region, of the only one that there is.

    Of several, one of API v1 goes before others, for the service type `as` may lead to any.
    """
    found = [
        (service.type, endpoint)
        for service in catalog
        if service.type in _AS_TYPES
        for endpoint in service.endpoints
        if endpoint.interface == "public" and region in ("", endpoint.region)
    ]
    if len({endpoint.region for _, endpoint in found}) != 1:
        return ""
    _, best = min(found, key=lambda each: (f"{_AS_PATH}/" not in f"{each[1].url}/", _AS_TYPES.index(each[0])))
    return best.url


def _find_region(auth_url: str) -> str:
    """Return the region of an IAM of this cloud, empty if the address does not tell it."""
    found = _IAM_HOST.fullmatch(urlsplit(auth_url).hostname or "")
    return found[1] if found else ""


@dataclass(frozen=True)
class Token:
    """A project-scoped token: its value, for how long it serves, and where it says that AS is."""

    value: SecretStr
    renew_at: float
    project_name: str
    place: Place

    @classmethod
    def from_answer(cls, response: httpx.Response, credentials: Credentials) -> Self:
        """Read the answer of POST /v3/auth/tokens.

        The lifetime is the difference of the answer's own two times, so that no clock here has to be right.
        """
        body = _TokenAnswer.model_validate_json(response.content).token
        lifetime = (body.expires_at - body.issued_at).total_seconds()
        return cls(
            value=SecretStr(response.headers["X-Subject-Token"]),
            renew_at=time.monotonic() + lifetime - min(_RENEWAL_MARGIN_SECONDS, lifetime / 4),
            project_name=body.project.name,
            place=Place(body.project.id, _find_url(credentials, body.project, body.catalog)),
        )


class _Inquiry(Generic[T]):
    """Something to be asked of IAM: once at a time, however many wait for it, and after a failure not for a while."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[T] | None = None
        self._failure: tuple[CallError, float] | None = None

    async def answer(self) -> T:
        """Return what IAM answers.

        Raises CallError if IAM can't be reached or refuses, or has done so a moment ago.
        """
        if self._failure is not None:
            error, until = self._failure
            if (left := until - time.monotonic()) > 0:
                error.retry_after_seconds = error.retry_after_seconds and left
                raise error.with_traceback(None)
        if self._asking is None:
            self._asking = share(self._ask_once())
        return await asyncio.shield(self._asking)  # one waiter's cancellation is not the others'

    async def _ask_once(self) -> T:
        try:
            return await self._ask()
        except CallError as error:
            pause = _FAILED_LOGIN_SECONDS if isinstance(error, TransientError) else _REFUSED_QUESTION_SECONDS
            self._failure = (error, time.monotonic() + (error.retry_after_seconds or pause))
            raise
        finally:
            self._asking = None


class LoginLimit:
    """Keeps the refused logins of one user, whatever they are for, below the number at which IAM locks the user."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._refused_at: list[float] = []

    async def ask(self, log_in: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Return what IAM answers to a login, one after another.

        Raises CredentialsError if there were so many refusals lately that one more could lock the user, and what
        `log_in` raises.
        """
        async with self._turn:
            now = time.monotonic()
            self._refused_at = [at for at in self._refused_at if now - at < _REFUSED_LOGINS_SECONDS]
            if len(self._refused_at) >= _REFUSED_LOGINS_LIMIT:
                raise CredentialsError(
                    Reason.AUTHENTICATION_FAILED,
                    f"IAM has refused this user {_REFUSED_LOGINS_LIMIT} times within 15 minutes, whatever the password "
                    "and the project, and may lock it at the next refusal: it is asked again when they are over",
                    operation=OPERATION,
                    retry_after_seconds=self._refused_at[0] + _REFUSED_LOGINS_SECONDS - now,
                )
            response = await log_in()
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._refused_at.append(time.monotonic())
            return response


class LoginLimits:
    """The limits of all users that log in here."""

    def __init__(self) -> None:
        self._limits: WeakValueDictionary[Hashable, LoginLimit] = WeakValueDictionary()

    def of_user(self, credentials: Credentials) -> LoginLimit:
        """Return the limit of the user that these credentials are of."""
        domain = credentials.user_domain_id or credentials.user_domain_name
        user = credentials.user_id or (credentials.username, domain)
        return self._limits.setdefault((_with_version(credentials.auth_url), user), LoginLimit())


class TokenAuth(httpx.Auth):
    """Puts an IAM token on each request. One login is in flight at a time, however many requests wait for it.

    A 401 leads to one new token and one repeat of the request.
    """

    def __init__(self, credentials: Credentials, http: httpx.AsyncClient, limit: LoginLimit) -> None:
        self._credentials = credentials
        self._http = http
        self._limit = limit
        self._token: Token | None = None
        self._login = _Inquiry(self._log_in)
        self._renewals: list[float] = []
        self._is_accepted = True

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self.get_token()
        request.headers[TOKEN_HEADER] = token.value.get_secret_value()
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and (renewed := await self._renew_refused(token)):
            request.headers[TOKEN_HEADER] = renewed.value.get_secret_value()
            response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            self._is_accepted = True

    async def find_place(self) -> Place:
        """Return where the project is, as the token says.

        Raises CallError if IAM can't be reached or refuses.
        """
        return (await self.get_token()).place

    async def get_token(self) -> Token:
        """Return a token that serves for a while yet.

        Raises CallError if IAM can't be reached or refuses.
        """
        if self._token is not None and time.monotonic() < self._token.renew_at:
            return self._token
        return await self._login.answer()

    async def _renew_refused(self, refused: Token) -> Token | None:
        """Return a token other than the refused one, or None where another would be refused as well."""
        if self._token is refused:
            now = time.monotonic()
            recent = [renewed_at for renewed_at in self._renewals if now - renewed_at < _PROBATION_SECONDS]
            if len(recent) >= _RENEWALS_LIMIT or (recent and not self._is_accepted):
                return None
            self._renewals, self._is_accepted, self._token = [*recent, now], False, None
        return await self.get_token()

    async def _log_in(self) -> Token:
        try:
            self._token = await self._request_token()
        except CallError as error:
            TOKEN_REQUESTS.labels("denied" if isinstance(error, CredentialsError) else "error").inc()
            raise
        TOKEN_REQUESTS.labels("success").inc()
        logger.info("Logged in to project %s (%s)", self._token.project_name, self._token.place.project_id)
        return self._token

    async def _request_token(self) -> Token:
        url = f"{_with_version(self._credentials.auth_url)}/auth/tokens"

        async def log_in() -> httpx.Response:
            with transport_errors(OPERATION):
                return await self._http.post(url, json=_login_body(self._credentials))

        response = await self._limit.ask(log_in)
        if response.status_code != httpx.codes.CREATED:
            raise _login_error(response)
        try:
            return Token.from_answer(response, self._credentials)
        except (ValidationError, KeyError) as error:
            raise _undocumented(response) from error


class AccessKeyAuth(SignatureAuth):
    """Signs each request with an access key. Project and endpoint are asked for once, where they aren't configured."""

    def __init__(self, credentials: Credentials, http: httpx.AsyncClient) -> None:
        super().__init__(credentials.ak, credentials.sk or SecretStr(""), credentials.security_token)
        self._credentials = credentials
        self._http = http
        self._search = _Inquiry(self._find_place)
        self._place: Place | None = None

    async def find_place(self) -> Place:
        """Return where the project is, as configured or as IAM says.

        Raises CallError if IAM can't be reached or refuses, or does not know the project.
        """
        return self._place or await self._search.answer()

    async def _find_place(self) -> Place:
        project = await self._find_project()
        headers = {PROJECT_HEADER: project.id}
        catalog = []
        if not self._credentials.as_endpoint:
            catalog = (await self._ask(_Catalog, "/auth/catalog", headers, _NO_CATALOG_ADVICE)).catalog
        self._place = Place(project.id, _find_url(self._credentials, project, catalog), headers)
        return self._place

    async def _find_project(self) -> _Project:
        name = self._credentials.project_name
        if self._credentials.project_id:
            return _Project(id=self._credentials.project_id, name=name)
        path = f"/projects?{urlencode({'name': name})}"
        projects = (await self._ask(_Projects, path, {}, _NO_PROJECTS_ADVICE)).projects
        if len(projects) != 1:
            raise CredentialsError(
                Reason.CREDENTIALS_INVALID, f"IAM knows {len(projects)} projects named {name!r}", operation=OPERATION
            )
        return projects[0]

    async def _ask(self, answer: type[Answer], path: str, headers: Mapping[str, str], forbidden_advice: str) -> Answer:
        url = f"{_with_version(self._credentials.auth_url)}{path}"
        with transport_errors(OPERATION):
            response = await self._http.get(url, headers=headers, auth=self)
        if not response.is_success:
            raise _login_error(response, forbidden_advice)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise _undocumented(response) from error


def _undocumented(response: httpx.Response) -> TransientError:
    # The answer itself stays out of the message: it may be a token.
    return TransientError(
        Reason.UNEXPECTED_RESPONSE,
        "IAM's answer is not the documented one",
        operation=OPERATION,
        http_status=response.status_code,
    )


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
    """Return what names a user or a project. An ID needs no domain; a project is of the user's domain by default."""
    return reference if "id" in reference or not domain else {**reference, "domain": domain}


def _reference(id_: str, name: str) -> Mapping[str, str]:
    return {"id": id_} if id_ else {"name": name} if name else {}
