"""A work queue: one worker per key, deduplicated, with delays."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context

from lifecyclehook_operator.controller.timing import NEVER, jitter, now
from lifecyclehook_operator.metrics import WORKQUEUE_DEPTH, WORKQUEUE_DURATION, WORKQUEUE_RETRIES

#: How long an item waits after its first failure, its second, and so on.
_RETRY_SECONDS = (1, 2, 5, 10, 30, 60)


class WorkQueue:
    """Has each key processed when it is due, by one worker at a time."""

    def __init__(
        self,
        process: Callable[[str, float], Awaitable[None]],
        turn: Callable[[str], AbstractAsyncContextManager[None]],
        name: str = "lifecyclehooks",
    ) -> None:
        """
        Args:
            process: processes a key; takes the key and when it was due, by the clock of the event loop.
            turn: returns what to wait for, and to hold, while a key is processed.
            name: what the metrics call the queue.
        """
        self._process = process
        self._turn = turn
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._active: set[str] = set()
        #: Keys that are due, and since when.
        self._dirty: dict[str, float] = {}
        #: When a key is due, and what starts its worker then. Not every event loop's handle tells when.
        self._timers: dict[str, tuple[float, asyncio.Handle]] = {}
        self._retries: dict[str, int] = {}
        self._is_closed = False
        self.is_started = False
        WORKQUEUE_DEPTH.labels(name).set_function(self._dirty.__len__)
        self._duration, self._retry_count = WORKQUEUE_DURATION.labels(name), WORKQUEUE_RETRIES.labels(name)

    def start(self) -> None:
        """Begin to process what has been added and is due; until then, it waits."""
        self.is_started = True
        for key, due_at in list(self._dirty.items()):
            self._start(key, due_at)

    def add(self, key: str) -> None:
        """Have a key processed at once, or again if that is being done; what was planned for later is done by that."""
        self._start(key, now())

    def add_at(self, key: str, due_at: float) -> None:
        """Have a key processed at a time, unless it is planned for an earlier one.

        The time is absolute, so that what is due together has the very same time.
        """
        planned_at, _ = self._timers.get(key, (NEVER, None))
        if self._is_closed or planned_at <= due_at:
            return
        self._cancel_timer(key)
        self._set_timer(key, due_at)

    def add_rate_limited(self, key: str) -> int:
        """Have a key processed again after a failure, ever later until `done`; return how many there have been."""
        self._retry_count.inc()
        retries = self._retries[key] = self._retries.get(key, 0) + 1
        self.add_at(key, now() + jitter(_RETRY_SECONDS[min(retries, len(_RETRY_SECONDS)) - 1]))
        return retries

    def done(self, key: str) -> None:
        """Take note that a key has been processed with no failure."""
        self._retries.pop(key, None)

    def cancel(self, key: str) -> None:
        """Have a key not processed any more, but for what is being done."""
        self._dirty.pop(key, None)
        self._retries.pop(key, None)
        self._cancel_timer(key)

    def is_active(self, key: str) -> bool:
        """Return whether a key is being processed."""
        return key in self._active

    async def close(self, grace_seconds: float) -> None:
        """Start no further worker, and give those that run so long to end before they are cancelled."""
        self._is_closed = True
        self._dirty.clear()
        for key in list(self._timers):
            self._cancel_timer(key)
        if not self._workers:
            return
        _, unfinished = await asyncio.wait(self._workers.values(), timeout=grace_seconds)
        for worker in unfinished:
            worker.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def _set_timer(self, key: str, due_at: float) -> None:
        # Each timer and worker has a context of its own: in that of a handler is the watch event, which it would keep.
        timer = asyncio.get_running_loop().call_at(due_at, self._on_timer, key, due_at, context=Context())
        self._timers[key] = due_at, timer

    def _on_timer(self, key: str, due_at: float) -> None:
        if now() < due_at:  # uvloop rounds to milliseconds, and who is early would not count as having seen what is due
            self._set_timer(key, due_at)
        else:
            self._start(key, due_at)

    def _start(self, key: str, due_at: float) -> None:
        self._cancel_timer(key)
        if self._is_closed:
            return
        self._dirty[key] = due_at
        if self.is_started and key not in self._workers:
            work = self._work(key)
            self._workers[key] = asyncio.create_task(work, name=f"worker of {key}", context=Context())

    async def _work(self, key: str) -> None:
        try:
            while key in self._dirty:
                async with self._turn(key):
                    await self._work_once(key)
        finally:
            del self._workers[key]

    async def _work_once(self, key: str) -> None:
        if (due_at := self._dirty.pop(key, None)) is None:
            return  # cancelled while it waited for its turn
        self._duration.observe(now() - due_at)
        self._active.add(key)
        try:
            await self._process(key, due_at)
        finally:
            self._active.discard(key)

    def _cancel_timer(self, key: str) -> None:
        if key in self._timers:
            _, timer = self._timers.pop(key)
            timer.cancel()
