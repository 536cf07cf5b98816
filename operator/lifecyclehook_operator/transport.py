"""From httpx to our own errors: the only place where a failed request or an answer becomes a CallError."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from lifecyclehook_operator.errors import CallError, CredentialsError, Reason, TransientError, classify, clean_text

T = TypeVar("T")

#: The longest wait that a Retry-After is granted: a gateway that is out of order must not stop a hook for years.
_RETRY_AFTER_LIMIT_SECONDS = 3600.0
_REQUEST_ID_HEADERS = ("X-Request-Id", "X-Openstack-Request-Id")
#: A request that failed in one of these ways was never sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


def share(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a call that several wait for, each by asyncio.shield; that nobody waits any more is no fault."""
    task = asyncio.create_task(call)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


@contextmanager
def transport_errors(operation: str) -> Iterator[None]:
    """Turn what httpx raises inside into a CallError that says whether the request may have taken effect."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise CredentialsError(
            Reason.CREDENTIALS_INVALID, f"the configured address is none: {error}", operation=operation
        ) from error
    except UnicodeError as error:  # no HTTPError: a header that is not ASCII, a host that is no IDNA
        raise TransientError(
            Reason.UNEXPECTED_RESPONSE,
            "an answer of the cloud's leads to a request that can't be sent",
            operation=operation,
            may_have_been_done=True,
        ) from error
    except httpx.HTTPError as error:
        raise TransientError(
            Reason.CLOUD_UNAVAILABLE,
            _describe(error),
            operation=operation,
            may_have_been_done=not isinstance(error, _NOT_SENT),
        ) from error


def _describe(error: httpx.HTTPError) -> str:
    host = error.request.url.host
    if isinstance(error, httpx.TimeoutException):
        return f"no answer from {host} in time"
    if isinstance(error, _NOT_SENT):
        return f"cannot connect to {host}: {clean_text(str(error))}"
    return f"the connection to {host} was lost before the answer was complete"


def error_from_response(response: httpx.Response, operation: str) -> CallError:
    """Return the error that an answer means, by its AS code, then by its HTTP status.

    The body may be that of AS, of IAM or of a gateway (`error_code`, `error_msg`), HTML, or empty.
    """
    code, message, request_id = _read_error_body(response)
    class_, reason = classify(response.status_code, code, operation)
    return class_(
        reason,
        message or response.reason_phrase or "an empty answer",
        operation=operation,
        http_status=response.status_code,
        code=code,
        request_id=next(
            (response.headers[name] for name in _REQUEST_ID_HEADERS if name in response.headers), request_id
        ),
        retry_after_seconds=_read_retry_after(response),
        may_have_been_done=class_ is TransientError and response.status_code != httpx.codes.TOO_MANY_REQUESTS,
    )


def _read_error_body(response: httpx.Response) -> tuple[str, str, str]:
    """Return code, message and request ID, each empty if the body has none."""
    text = response.content.decode(errors="replace")  # `text` of httpx raises at some charsets that an answer may claim
    try:
        body: Any = response.json()
    except (ValueError, RecursionError):
        return "", clean_text(text), ""
    if not isinstance(body, dict):
        return "", clean_text(text), ""
    if isinstance(inner := body.get("error"), dict):
        code, message = inner.get("code"), inner.get("message")
    else:
        code, message = body.get("error_code"), body.get("error_msg")
    return (
        clean_text(code, 64) if isinstance(code, str) else "",  # IAM's code is but the HTTP status again
        clean_text(str(message or text)),
        clean_text(str(body.get("request_id") or ""), 64),
    )


def _read_retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that Retry-After asks for, given as a number or as a date (RFC 9110), an hour at the most."""
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
