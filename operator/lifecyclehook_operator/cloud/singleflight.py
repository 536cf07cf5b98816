"""Calls that several wait for and that are made once."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from lifecyclehook_operator.cloud.errors import (
    CallError,
    TransientError,
)

T = TypeVar("T")

#: For how long IAM is not asked again, in seconds: after a refusal, and after it could not be asked.
_REFUSED_SECONDS = 30
_FAILED_SECONDS = 0.5


def share(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a call that several wait for, each by asyncio.shield; that nobody waits any more is no fault."""
    task = asyncio.create_task(call)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


class SingleFlight(Generic[T]):
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
            pause = _FAILED_SECONDS if isinstance(error, TransientError) else _REFUSED_SECONDS
            self._failure = (error, time.monotonic() + (error.retry_after_seconds or pause))
            raise
        finally:
            self._asking = None
