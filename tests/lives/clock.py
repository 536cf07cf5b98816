"""An event loop whose time jumps to the next timer as soon as nothing else is left to do."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoFiles:
    """A selector of nothing: to wait is to move the clock on."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is due any more")
        self._loop.now += timeout
        return []


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """Runs coroutines that wait for timers and each other only. Equal timers go off in the order they were set."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self._selector = _NoFiles(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now

    def _process_events(self, _: list[object]) -> None:
        """There are no files."""

    def _write_to_self(self) -> None:
        """Nobody else wakes this loop."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a clock of its own, and leave nothing of it behind."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
