"""Errors of calls to the cloud: when the operator retries, and the reason for the Ready condition.

CallError                 a call to the cloud failed
├── InvalidError          the spec breaks a rule of AS: not retried until the spec changes
├── WaitingError          the group, topic, quota or permission is missing, or the group is busy: retried slowly
├── CredentialsError      the credentials are missing or not accepted: retried slowly, and when they change
├── TransientError        the cloud or the network failed: retried with exponential backoff
└── UnexpectedError       an undocumented error response: retried slowly

Class and reason come from the two tables below: the AS error code decides first (as_07_0102), then the HTTP status (the
abnormal codes of the create page, and 429).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal

import httpx

#: The calls about suspended instances, as the metrics and a status name them.
LIST_SUSPENSIONS, CALLBACK = "list_suspensions", "callback"


class Reason(StrEnum):
    """The closed list of reasons of the Ready condition; the comments are for docs/reference.md."""

    #: The hook in AS matches the spec.
    AVAILABLE = "Available"
    #: The spec breaks a rule of the operator or of AS. The message names the field.
    INVALID_SPEC = "InvalidSpec"
    #: Another LifecycleHook owns this hook. The message names it; once it is gone, this one takes over.
    CONFLICT = "Conflict"
    #: The group has a hook of this name that this resource did not create, and adoptionPolicy forbids adopting it.
    ALREADY_EXISTS = "AlreadyExists"
    #: The hook was changed or deleted outside Kubernetes, and driftPolicy is Report.
    DRIFTED = "Drifted"
    #: The annotation as.otc.t-systems.com/paused is set: no calls and no repairs until it is removed.
    PAUSED = "Paused"
    #: The Secret does not exist; or there is no credentialsRef, and the operator has no credentials for this
    #: namespace.
    CREDENTIALS_NOT_FOUND = "CredentialsNotFound"
    #: The credentials are malformed, name an unknown domain or project, refer to a host that is not allowed, or are
    #: for another project.
    CREDENTIALS_INVALID = "CredentialsInvalid"
    #: The cloud does not accept the user or the token, even after a new login.
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    #: The user lacks permissions in this project. If a single one is missing (AS.0031), the message names it.
    FORBIDDEN = "Forbidden"
    #: The AS group does not exist in this project and region.
    GROUP_NOT_FOUND = "GroupNotFound"
    #: AS rejects changes while the group performs a scaling action.
    GROUP_BUSY = "GroupBusy"
    #: The SMN topic does not exist.
    TOPIC_NOT_FOUND = "TopicNotFound"
    #: The group has the maximum of five hooks.
    QUOTA_EXCEEDED = "QuotaExceeded"
    #: The cloud limits the request rate.
    THROTTLED = "Throttled"
    #: The cloud does not work or cannot be reached.
    CLOUD_UNAVAILABLE = "CloudUnavailable"
    #: The API does not document this response. The message has the beginning of it.
    UNEXPECTED_RESPONSE = "UnexpectedResponse"


class CallError(Exception):
    """A call to the cloud that failed, or that could not be made."""

    retry: ClassVar[Literal["Never", "Slow", "Backoff"]]

    def __init__(  # noqa: PLR0913  (all of it is shown to the user)
        self,
        reason: Reason,
        message: str,
        *,
        operation: str,
        http_status: int | None = None,
        code: str = "",
        request_id: str = "",
        retry_after_seconds: float | None = None,
        outcome_unknown: bool = False,
        advice: str = "",
    ) -> None:
        """
        Args:
            reason: why, for the Ready condition.
            message: what the cloud responded, or why there was no response.
            operation: validate, authenticate, claim, list, create, adopt, modify, delete, list_suspensions or callback.
            http_status: of the response, if there was one.
            code: of the response, such as AS.7038, if there was one.
            request_id: of the response, if there was one.
            retry_after_seconds: how long the cloud asked to wait.
            outcome_unknown: the call was sent, and whether it took effect is not known.
            advice: what the user can do about it, if that is not what the reason says.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.operation = operation
        self.http_status = http_status
        self.code = code
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds
        self.outcome_unknown = outcome_unknown
        self._advice = advice

    def add_advice(self, text: str) -> None:
        """Append to the advice; an empty text changes nothing."""
        self._advice = f"{self.advice} {text}".rstrip()

    @property
    def is_terminal(self) -> bool:
        """Whether somebody has to change something, for the Stalled condition."""
        return self.reason not in _HEALS_BY_ITSELF

    @property
    def advice(self) -> str:
        """What the user can do about it; empty if only waiting helps."""
        if right := find_missing_right(self.operation, self.code, self.message):
            return f"Grant the user the right {right} in this project."
        if self.reason is Reason.FORBIDDEN and self.operation in (LIST_SUSPENSIONS, CALLBACK):
            return "Grant the user the as:instanceHooks permissions in this project."
        return self._advice or _ADVICE[self.reason]


class InvalidError(CallError):
    """The spec breaks a rule of AS."""

    retry = "Never"


class WaitingError(CallError):
    """Something that the hook needs is missing or busy."""

    retry = "Slow"


class CredentialsError(CallError):
    """The credentials are missing, malformed or not accepted."""

    retry = "Slow"


class TransientError(CallError):
    """The cloud or the network failed."""

    retry = "Backoff"


class UnexpectedError(CallError):
    """An undocumented error response."""

    retry = "Slow"


#: Codes of a rejected create call after which the hook may exist all the same: its name is taken, or the group is full,
#: perhaps because of this very hook.
HOOK_MAY_EXIST_CODES = frozenset({"AS.7041", "AS.7038"})
#: Codes by which AS says that a hook, or its whole group, does not exist.
ABSENT_CODES = frozenset({"AS.0007", "AS.2007"})

Rule = tuple[type[CallError], Reason]

AS_CODES: Mapping[str, Rule] = {
    "AS.0001": (TransientError, Reason.CLOUD_UNAVAILABLE),
    "AS.0005": (CredentialsError, Reason.AUTHENTICATION_FAILED),
    "AS.0006": (CredentialsError, Reason.AUTHENTICATION_FAILED),
    "AS.0007": (WaitingError, Reason.GROUP_NOT_FOUND),
    "AS.0008": (CredentialsError, Reason.CREDENTIALS_INVALID),
    "AS.0011": (WaitingError, Reason.FORBIDDEN),
    "AS.0022": (InvalidError, Reason.INVALID_SPEC),
    "AS.0031": (WaitingError, Reason.FORBIDDEN),
    "AS.0049": (TransientError, Reason.CLOUD_UNAVAILABLE),
    "AS.2007": (WaitingError, Reason.GROUP_NOT_FOUND),
    "AS.2020": (WaitingError, Reason.GROUP_BUSY),
    "AS.7030": (InvalidError, Reason.INVALID_SPEC),
    "AS.7031": (InvalidError, Reason.INVALID_SPEC),
    "AS.7032": (InvalidError, Reason.INVALID_SPEC),
    "AS.7033": (InvalidError, Reason.INVALID_SPEC),
    "AS.7034": (InvalidError, Reason.INVALID_SPEC),
    "AS.7035": (InvalidError, Reason.INVALID_SPEC),
    "AS.7036": (InvalidError, Reason.INVALID_SPEC),
    "AS.7037": (InvalidError, Reason.INVALID_SPEC),
    "AS.7038": (WaitingError, Reason.QUOTA_EXCEEDED),
    "AS.7041": (WaitingError, Reason.ALREADY_EXISTS),
    "AS.7043": (WaitingError, Reason.TOPIC_NOT_FOUND),
    "AS.7055": (InvalidError, Reason.INVALID_SPEC),
}

HTTP_STATUSES: Mapping[int, Rule] = {
    401: (CredentialsError, Reason.AUTHENTICATION_FAILED),
    403: (WaitingError, Reason.FORBIDDEN),
    407: (CredentialsError, Reason.AUTHENTICATION_FAILED),
    408: (TransientError, Reason.CLOUD_UNAVAILABLE),
    409: (TransientError, Reason.CLOUD_UNAVAILABLE),
    429: (TransientError, Reason.THROTTLED),
    500: (TransientError, Reason.CLOUD_UNAVAILABLE),
    502: (TransientError, Reason.CLOUD_UNAVAILABLE),
    503: (TransientError, Reason.CLOUD_UNAVAILABLE),
    504: (TransientError, Reason.CLOUD_UNAVAILABLE),
}

#: What ends by itself. deploy/argocd/argocd-cm.yaml has the same list.
_HEALS_BY_ITSELF = frozenset({Reason.GROUP_BUSY, Reason.THROTTLED, Reason.CLOUD_UNAVAILABLE})


_ADVICE: Mapping[Reason, str] = {
    Reason.INVALID_SPEC: "Correct the spec.",
    Reason.CONFLICT: "Delete one of the two resources, or give them different hook names.",
    Reason.ALREADY_EXISTS: "Choose another name, delete that hook, or set spec.adoptionPolicy to Always.",
    Reason.CREDENTIALS_NOT_FOUND: "Create the Secret, or refer to an existing one in spec.credentialsRef.",
    Reason.CREDENTIALS_INVALID: "Correct the credentials.",
    Reason.AUTHENTICATION_FAILED: "Check the user, the password and the domain, or the access key.",
    Reason.FORBIDDEN: "Grant the user the as:lifecycleHooks permissions in this project.",
    Reason.GROUP_NOT_FOUND: "Check spec.scalingGroupId, the project and the region.",
    Reason.GROUP_BUSY: "AS rejects changes during a scaling action.",
    Reason.TOPIC_NOT_FOUND: "Check spec.notificationTopicUrn, or create the topic.",
    Reason.QUOTA_EXCEEDED: "An AS group can have at most five hooks: delete one.",
    Reason.THROTTLED: "The cloud limits the request rate.",
    Reason.CLOUD_UNAVAILABLE: "",
    Reason.UNEXPECTED_RESPONSE: "Check the configured endpoint; if it is correct, report this as a bug.",
}


def classify(http_status: int, code: str, operation: str) -> Rule:
    """Return class and reason of an error response.

    What is unknown is retried slowly, because a 400 need not be a bad spec: groups get less busy, and topics are
    created. Only calls that send a spec, create and modify, can fail because of it.
    """
    rule = AS_CODES.get(code) or HTTP_STATUSES.get(http_status)
    if rule is None or (rule[0] is InvalidError and operation not in ("create", "modify")):
        return UnexpectedError, Reason.UNEXPECTED_RESPONSE
    return rule


#: The rights that the calls need (as_07_0210), by operation.
_RIGHTS: Mapping[str, str] = {
    "create": "as:lifecycleHooks:create",
    "list": "as:lifecycleHooks:list",
    "modify": "as:lifecycleHooks:update",
    "delete": "as:lifecycleHooks:delete",
    LIST_SUSPENSIONS: "as:instanceHooks:list",
    CALLBACK: "as:instanceHooks:action",
}
#: Not as a part of a longer word, such as a URN.
_RIGHT = re.compile(r"(?<![\w:-])[a-z]{1,16}:[A-Za-z]{1,64}:[A-Za-z]{1,64}(?![\w:-])")


def find_missing_right(operation: str, code: str, message: str) -> str:
    """Return the right that AS misses for a call, as AS names it, else by the operation; empty if it misses none."""
    if code != "AS.0031":
        return ""
    named = _RIGHT.search(message)
    return named[0] if named else _RIGHTS.get(operation, "")


#: How much of a foreign text is read: it may be long, and crafted to be slow to match.
_CLEANED_CHARACTERS = 2048
#: What is printable to Python but shows nothing (Default_Ignorable_Code_Point of Unicode).
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | {
    *map(chr, range(0xFE00, 0xFE10)),
    *map(chr, range(0xE0100, 0xE01F0)),
}

#: What most texts are: visible ASCII without tags, in words with a space between.
_PLAIN = re.compile(r"(?:[!-;=-~]+(?: [!-;=-~]+)*)?")


def sanitize(text: str, limit: int = 256) -> str:
    """Return foreign text fit for a status, an Event or a log line: one line of at most `limit` visible characters.

    Tags are removed, and � is put in place of control, bidirectional, zero-width and other invisible characters.
    """
    if len(text) <= limit and _PLAIN.fullmatch(text):
        return text
    without_tags = re.sub(
        r"<(style|script|head)\b.*?</\1>|<[^>]*>", " ", text[:_CLEANED_CHARACTERS], flags=re.DOTALL | re.IGNORECASE
    )
    words = " ".join(re.sub("�+", "�", "".join(map(_show, without_tags))).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def _show(character: str) -> str:
    if character.isspace():
        return " "
    return character if character.isprintable() and character not in _INVISIBLE else "�"


#: The longest Retry-After that is honoured: a broken gateway must not stop a hook for long.
_RETRY_AFTER_LIMIT_SECONDS = 600.0
_REQUEST_ID_HEADERS = ("X-Request-Id", "X-Openstack-Request-Id")
#: A request that failed in one of these ways was never sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


class UnreadableError(httpx.RequestError):
    """A successful response whose body is not read, and why."""

    def __init__(self, problem: str, response: httpx.Response) -> None:
        super().__init__(problem, request=response.request)
        self.response = response


@contextmanager
def transport_errors(operation: str) -> Iterator[None]:
    """Turn the errors of httpx into a CallError that says whether the request may have taken effect."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise CredentialsError(
            Reason.CREDENTIALS_INVALID,
            f"the configured endpoint is not a valid URL: {sanitize(str(error))}",
            operation=operation,
        ) from error
    except UnicodeError as error:  # not an HTTPError: a header that is not ASCII, a host that is not IDNA
        raise TransientError(
            Reason.UNEXPECTED_RESPONSE,
            "the response contains values that cannot be sent back",
            operation=operation,
            outcome_unknown=True,
        ) from error
    except UnreadableError as error:
        raise undocumented(operation, error.response, str(error)) from error
    except httpx.HTTPError as error:
        raise TransientError(
            Reason.CLOUD_UNAVAILABLE,
            _describe(error),
            operation=operation,
            outcome_unknown=not isinstance(error, _NOT_SENT),
        ) from error


def _describe(error: httpx.HTTPError) -> str:
    host = error.request.url.host
    if isinstance(error, httpx.TimeoutException):
        return f"no response from {host} in time"
    if isinstance(error, _NOT_SENT):
        return f"cannot connect to {host}: {sanitize(str(error))}"
    return f"the connection to {host} was lost before the response was complete"


def error_from_response(response: httpx.Response, operation: str) -> CallError:
    """Return the error for an error response, by its AS code, then by its HTTP status.

    The body may be that of AS, of IAM or of a gateway (`error_code`, `error_msg`), HTML, or empty.
    """
    code, message, request_id = _read_error_body(response)
    class_, reason = classify(response.status_code, code, operation)
    return class_(
        reason,
        message or sanitize(response.reason_phrase) or "empty response",
        operation=operation,
        http_status=response.status_code,
        code=code,
        request_id=_read_request_id(response) or request_id,
        retry_after_seconds=_read_retry_after(response),
        outcome_unknown=class_ is TransientError and response.status_code != httpx.codes.TOO_MANY_REQUESTS,
    )


def undocumented(operation: str, response: httpx.Response, problem: str) -> TransientError:
    """Return the error for a successful response that is not as documented: the call may have taken effect."""
    return TransientError(
        Reason.UNEXPECTED_RESPONSE,
        f"unexpected response: {sanitize(problem)}",
        operation=operation,
        http_status=response.status_code,
        request_id=_read_request_id(response),
        outcome_unknown=True,
    )


def _read_request_id(response: httpx.Response) -> str:
    found = next((response.headers[name] for name in _REQUEST_ID_HEADERS if name in response.headers), "")
    return sanitize(found, 64)


def read_json(operation: str, response: httpx.Response) -> Any:  # noqa: ANN401
    """Return the JSON body of a successful response. Raises TransientError if it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise undocumented(operation, response, "the body is not JSON") from error


def _read_error_body(response: httpx.Response) -> tuple[str, str, str]:
    """Return code, message and request ID, each empty if the body has none."""
    # httpx's own `text` raises for some charsets that a response may declare.
    text = response.content.decode(errors="replace")
    try:
        body: Any = response.json()
    except (ValueError, RecursionError):
        return "", sanitize(text), ""
    if not isinstance(body, dict):
        return "", sanitize(text), ""
    if isinstance(inner := body.get("error"), dict):
        code, message = inner.get("code"), inner.get("message")
    else:
        code, message = body.get("error_code"), body.get("error_msg")
    return (  # IAM's code is a number, the HTTP status
        _read_text(code, 64),
        _read_text(message) or sanitize(text),
        _read_text(body.get("request_id"), 64),
    )


def _read_text(value: object, limit: int = 256) -> str:
    return sanitize(value, limit) if isinstance(value, str) else ""


def _read_retry_after(response: httpx.Response) -> float | None:
    """Return how many seconds Retry-After asks for, as a number or as a date (RFC 9110), ten minutes at the most."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return min(float(value), _RETRY_AFTER_LIMIT_SECONDS)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:  # a date without a zone, or one with -0000, is in UTC
        until = until.replace(tzinfo=UTC)
    return min(max(0.0, (until - datetime.now(UTC)).total_seconds()), _RETRY_AFTER_LIMIT_SECONDS)
