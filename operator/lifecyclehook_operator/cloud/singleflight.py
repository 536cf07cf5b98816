"""Calls that are made once for all who wait for them."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from lifecyclehook_operator.cloud.errors import CallError, CredentialsError, TransientError

T = TypeVar("T")

#: How long a response is kept for others who ask for the same at about the same time.
_KEPT_SECONDS = 10
#: How long IAM is not called again, in seconds: least, and most, between which Retry-After is honoured. New resources
#: and changed specs must not wait for long because of one response; but IAM locks users after refused logins.
_AFTER_FAILURE_SECONDS = (0.5, 5)
_AFTER_REFUSED_LOGIN_SECONDS = (30, 900)
_AFTER_REFUSAL_SECONDS = (30, 30)


def share(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a call that several wait for, each by asyncio.shield. It may fail when nobody waits any more."""
    task = asyncio.create_task(call)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


class Shared(Generic[T]):
    """Calls of AS by key, each for all who ask for the same key at about the same time."""

    def __init__(self, ask: Callable[[str], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._answers: dict[str, tuple[float, asyncio.Task[T]]] = {}

    async def get(self, key: str, *, not_before: float) -> T:
        """Return the result of a call made at `not_before` (of time.monotonic) or later. Raises CallError."""
        started_at, answer = self._answers.get(key, (0.0, None))
        if answer is None or started_at < not_before:
            answer = share(self._ask_once(key))
            self._answers[key] = (time.monotonic(), answer)
        return await asyncio.shield(answer)  # one waiter's cancellation is not the others'

    def forget(self, key: str) -> None:
        """Make a new call for whoever asks from now on."""
        self._answers.pop(key, None)

    async def _ask_once(self, key: str) -> T:
        try:
            return await self._ask(key)
        finally:
            asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._expire, key, self._answers.get(key))

    def _expire(self, key: str, answer: object) -> None:
        if answer is not None and self._answers.get(key) is answer:
            del self._answers[key]


class SingleFlight(Generic[T]):
    """A call of IAM: one at a time, however many wait for it, and after a failure none for a while."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[T] | None = None
        self._failure: tuple[CallError, float] | None = None

    async def answer(self) -> T:
        """Return the result of the call.

        Raises CallError if IAM can't be reached or refuses, or did so a moment ago.
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
            self._failure = (error, time.monotonic() + _pause_seconds(error))
            raise
        finally:
            self._asking = None


def _pause_seconds(error: CallError) -> float:
    if isinstance(error, TransientError):
        least, most = _AFTER_FAILURE_SECONDS
    else:
        least, most = _AFTER_REFUSED_LOGIN_SECONDS if isinstance(error, CredentialsError) else _AFTER_REFUSAL_SECONDS
    return min(max(least, error.retry_after_seconds or 0), most)
