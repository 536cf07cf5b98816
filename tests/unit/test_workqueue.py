"""Items: one worker at a time for each key, again when asked for, later when that is due, and none after the end."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import ContextVar

import pytest

from lifecyclehook_operator.controller import workqueue as module
from lifecyclehook_operator.controller.timing import NEVER
from lifecyclehook_operator.controller.workqueue import WorkQueue

DEADLINE_SECONDS = 5


class Work:
    """Keeps what was processed, and does what the test says, else nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.steps: dict[str, list[Callable[[], Awaitable[object]]]] = {}
        self.active: list[str] = []

    async def __call__(self, key: str, due_at: float) -> None:
        assert key not in self.active, "two workers at a time for one key"
        self.seen.append((key, due_at))
        self.active.append(key)
        try:
            if steps := self.steps.get(key):
                await steps.pop(0)()
        finally:
            self.active.remove(key)

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.seen]


class Gate:
    """Work that lasts until the test opens it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.was_cancelled = False

    def open(self) -> None:
        self._open.set()

    async def __call__(self) -> None:
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


class Clock:
    """A clock that advances only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The event loop's, which no stall moves on. Where it stands still, only `settle` ends."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock.monotonic)
    monkeypatch.setattr(module, "jitter", lambda seconds: seconds)
    return clock


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def queue(work: Work) -> WorkQueue:
    made = WorkQueue(work, lambda _: nullcontext())
    made.start()
    return made


async def test_nothing_is_processed_before_the_start(work: Work, clock: Clock) -> None:
    queue = WorkQueue(work, lambda _: nullcontext())
    queue.add("a")
    queue.add("b")
    queue.add_at("c", clock.now + 1)
    queue.cancel("b")
    clock.now += 2
    await settle()
    assert work.keys == []
    queue.start()
    await settle()
    assert work.keys == ["a", "c"]


async def test_a_key_is_processed_at_once_and_once(queue: WorkQueue, work: Work, clock: Clock) -> None:
    for _ in range(3):
        queue.add("a")
    await settle()
    assert work.seen == [("a", clock.now)]
    assert not queue.is_active("a")


async def test_what_is_added_while_its_worker_runs_is_processed_exactly_once_more(
    queue: WorkQueue, work: Work, clock: Clock
) -> None:
    work.steps["a"] = [gate := Gate()]
    queue.add("a")
    await settle()
    assert queue.is_active("a")
    clock.now += 1
    for _ in range(3):
        queue.add("a")
    await settle()
    assert work.keys == ["a"]
    gate.open()
    await settle()
    assert work.seen == [("a", 1000), ("a", 1001)]


async def test_keys_do_not_wait_for_each_other(queue: WorkQueue, work: Work, clock: Clock) -> None:
    work.steps["a"] = [gate := Gate()]
    queue.add("a")
    queue.add("b")
    await settle()
    assert (work.keys, work.active) == (["a", "b"], ["a"])
    gate.open()
    await settle()


async def test_a_key_is_processed_when_it_is_due_and_told_when_that_was(
    queue: WorkQueue, work: Work, clock: Clock
) -> None:
    queue.add_at("a", 1060)
    clock.now = 1059
    await settle()
    assert work.seen == []
    clock.now = 1061
    await settle()
    assert work.seen == [("a", 1060)]


def test_uvloop_does_not_tell_when_a_timer_that_is_due_is_due(work: Work) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def add_twice() -> None:
        queue = WorkQueue(work, lambda _: nullcontext())
        queue.start()
        queue.add_at("a", asyncio.get_running_loop().time())
        queue.add_at("a", asyncio.get_running_loop().time() + 60)
        await settle()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(add_twice())
    assert work.keys == ["a"]


async def test_a_timer_that_is_early_makes_nobody_early(
    queue: WorkQueue, work: Work, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, due_at = asyncio.get_running_loop(), clock.now + 1
    with monkeypatch.context() as patched:
        patched.setattr(loop, "call_at", lambda _, *call, **how: loop.call_soon(*call, **how))
        queue.add_at("a", due_at)
    await settle()
    assert work.seen == []
    clock.now = due_at
    await settle()
    assert work.seen == [("a", due_at)]


async def test_what_the_context_of_a_caller_refers_to_is_not_kept_until_the_key_is_due(
    queue: WorkQueue, work: Work, clock: Clock
) -> None:
    class Event:
        """Stands for what kopf puts into the context of a handler."""

    variable: ContextVar[Event] = ContextVar("event")
    seen: list[Event | None] = []

    async def look() -> None:
        seen.append(variable.get(None))
        queue.add_at("a", clock.now + 60)

    work.steps["a"] = [look]
    event = Event()
    reference = weakref.ref(event)
    context = contextvars.copy_context()
    context.run(variable.set, event)
    context.run(queue.add_at, "b", clock.now + 60)
    context.run(queue.add, "a")
    del event, context
    await settle()
    assert seen == [None]
    gc.collect()
    assert reference() is None


async def test_the_earlier_of_two_times_counts(queue: WorkQueue, work: Work, clock: Clock) -> None:
    for due_at in (1060, 1030, 1090, NEVER):
        queue.add_at("a", due_at)
    clock.now = 1200
    await settle()
    assert work.seen == [("a", 1030)]


async def test_what_is_processed_at_once_is_not_processed_again_when_it_was_due(
    queue: WorkQueue, work: Work, clock: Clock
) -> None:
    queue.add_at("a", 1060)
    queue.add("a")
    clock.now = 1200
    await settle()
    assert work.keys == ["a"]


async def test_a_key_that_comes_due_while_its_worker_runs_is_processed_after_that(
    queue: WorkQueue, work: Work, clock: Clock
) -> None:
    work.steps["a"] = [gate := Gate()]
    queue.add("a")
    await settle()
    queue.add_at("a", 1060)
    clock.now = 1100
    await settle()
    gate.open()
    await settle()
    assert work.seen == [("a", 1000), ("a", 1060)]


async def test_failures_in_a_row_are_retried_ever_later_until_one_goes_well(
    queue: WorkQueue, work: Work, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", (1, 2, 3))
    for retries, seconds in ((1, 1), (2, 2), (3, 3), (4, 3)):
        began = clock.now
        assert queue.add_rate_limited("a") == retries
        clock.now += seconds
        await settle()
        assert work.seen[-1] == ("a", began + seconds)
    queue.done("a")
    assert queue.add_rate_limited("a") == 1


async def test_a_key_that_is_added_does_not_wait_for_its_retry(queue: WorkQueue, work: Work, clock: Clock) -> None:
    queue.add_rate_limited("a")
    queue.add("a")
    await settle()
    assert work.keys == ["a"]


async def test_a_key_that_is_cancelled_is_not_processed_any_more(queue: WorkQueue, work: Work, clock: Clock) -> None:
    work.steps["a"] = [gate := Gate()]
    queue.add("a")
    await settle()
    queue.add("a")
    queue.add_at("a", 1060)
    queue.add_at("b", 1060)
    queue.cancel("a")
    queue.cancel("b")
    queue.cancel("unknown")
    gate.open()
    clock.now = 1200
    await settle()
    assert work.keys == ["a"]
    assert not gate.was_cancelled


async def test_the_end_waits_for_the_workers_and_starts_no_other(queue: WorkQueue, work: Work, clock: Clock) -> None:
    work.steps["a"] = [gate := Gate()]
    queue.add("a")
    queue.add_at("b", 1060)
    await settle()
    queue.add("a")
    closing = asyncio.create_task(queue.close(DEADLINE_SECONDS))
    await settle()
    assert not closing.done()
    gate.open()
    await closing
    queue.add("c")
    queue.add_at("d", 1060)
    clock.now = 1200
    await settle()
    assert work.keys == ["a"]
    assert not gate.was_cancelled


async def test_the_end_cancels_what_does_not_end_in_time(queue: WorkQueue, work: Work) -> None:
    gates = {key: Gate() for key in "abc"}
    for key, gate in gates.items():
        work.steps[key] = [gate]
        queue.add(key)
    await settle()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await queue.close(0.005)
    assert all(gate.was_cancelled for gate in gates.values())
    assert work.active == []


async def test_to_end_twice_or_with_nothing_to_do_is_at_once(queue: WorkQueue) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await queue.close(60)
        await queue.close(60)
