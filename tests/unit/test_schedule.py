"""Passes: one at a time for each resource, on its newest version, again when asked for, and none after the end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from lifecyclehook_operator import schedule as module
from lifecyclehook_operator.errors import KubernetesError, StaleError
from lifecyclehook_operator.reconcile import FOREVER, Memory
from lifecyclehook_operator.resource import LifecycleHook
from lifecyclehook_operator.schedule import Schedule
from tests.unit.samples import make_resource

TICK_SECONDS = 0.005
DEADLINE_SECONDS = 5

Step = Callable[[LifecycleHook], Awaitable[tuple[LifecycleHook, float]]]


def make(version: int, uid: str = "a") -> LifecycleHook:
    return make_resource(f"hook-{uid}", uid=uid, version=version)


class Passes:
    """Stands in for the reconciler: keeps what it was given, and does what the test says, else nothing, forever."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.steps: dict[str, list[Step]] = {}
        self.memories: dict[str, Memory] = {}
        self.at_work: list[str] = []
        self._changed = asyncio.Event()

    async def __call__(self, resource: LifecycleHook, memory: Memory) -> tuple[LifecycleHook, float]:
        assert resource.uid not in self.at_work, "two passes at a time for one resource"
        assert self.memories.setdefault(resource.uid, memory) is memory
        self.seen.append((resource.uid, resource.resource_version))
        self.at_work.append(resource.uid)
        self._changed.set()
        try:
            steps = self.steps.get(resource.uid)
            return await steps.pop(0)(resource) if steps else (resource, FOREVER)
        finally:
            self.at_work.remove(resource.uid)
            self._changed.set()

    def then(self, *steps: Step, uid: str = "a") -> None:
        self.steps.setdefault(uid, []).extend(steps)

    def versions(self, uid: str = "a") -> list[int]:
        return [version for each, version in self.seen if each == uid]

    async def until(self, *versions: int, uid: str = "a") -> None:
        """Wait until there have been just these passes, and the last has begun."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.versions(uid) != [*versions]:
                self._changed.clear()
                await self._changed.wait()

    async def until_idle(self) -> None:
        """Wait until no pass is at work and none is about to be."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await settle()
            while self.at_work:
                self._changed.clear()
                await self._changed.wait()
                await settle()


class Gate:
    """A step that stays at work until the test opens it."""

    def __init__(self, delay: float = FOREVER) -> None:
        self._delay = delay
        self._open = asyncio.Event()
        self.was_cancelled = False

    def open(self) -> None:
        self._open.set()

    async def __call__(self, resource: LifecycleHook) -> tuple[LifecycleHook, float]:
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return resource, self._delay


class Clock:
    """Tells the time, which goes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def returning(version: int, delay: float = FOREVER) -> Step:
    """Return a step that writes, and so has a newer version in the end."""

    async def step(resource: LifecycleHook) -> tuple[LifecycleHook, float]:
        return make(version, resource.uid), delay

    return step


def again_after(delay: float) -> Step:
    async def step(resource: LifecycleHook) -> tuple[LifecycleHook, float]:
        return resource, delay

    return step


def raising(error: Exception) -> Step:
    async def step(_: LifecycleHook) -> tuple[LifecycleHook, float]:
        raise error

    return step


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STALE_RETRY_SECONDS", TICK_SECONDS)
    monkeypatch.setattr(module, "_FAULT_RETRY_SECONDS", (TICK_SECONDS,))


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The event loop's, which no stall moves on. Where it stands still, only `settle` ends."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock.monotonic)
    return clock


@pytest.fixture
def passes() -> Passes:
    return Passes()


@pytest.fixture
def schedule(passes: Passes) -> Schedule:
    return Schedule(passes)


async def test_a_notice_makes_a_pass_at_once_and_no_other(schedule: Schedule, passes: Passes) -> None:
    schedule.notice(make(1))
    await passes.until_idle()
    assert passes.seen == [("a", 1)]
    assert len(schedule) == 1


async def test_notices_before_the_pass_begins_are_one_pass_on_the_newest(schedule: Schedule, passes: Passes) -> None:
    for version in (1, 3, 2):
        schedule.notice(make(version))
    await passes.until_idle()
    assert passes.versions() == [3]


async def test_notices_during_a_pass_lead_to_exactly_one_more_on_the_newest(schedule: Schedule, passes: Passes) -> None:
    gate = Gate()
    passes.then(gate)
    schedule.notice(make(1))
    await passes.until(1)
    for version in (2, 4, 3):
        schedule.notice(make(version))
    await settle()
    assert passes.versions() == [1]
    gate.open()
    await passes.until_idle()
    assert passes.versions() == [1, 4]


async def test_resources_do_not_wait_for_each_other(schedule: Schedule, passes: Passes) -> None:
    gate = Gate()
    passes.then(gate, uid="a")
    schedule.notice(make(1, "a"))
    schedule.notice(make(1, "b"))
    await passes.until(1, uid="b")
    assert passes.at_work == ["a"]
    gate.open()
    await passes.until_idle()


async def test_an_older_version_never_replaces_a_newer(schedule: Schedule, passes: Passes) -> None:
    schedule.notice(make(10))
    await passes.until_idle()
    schedule.notice(make(9))
    await passes.until_idle()
    assert passes.versions() == [10, 10]


async def test_versions_are_compared_as_numbers(schedule: Schedule, passes: Passes) -> None:
    schedule.notice(make(9))
    schedule.notice(make(10))
    await passes.until_idle()
    assert passes.versions() == [10]


async def test_what_a_pass_has_written_is_newer_than_a_watch_that_lags(schedule: Schedule, passes: Passes) -> None:
    passes.then(returning(5))
    schedule.notice(make(1))
    await passes.until_idle()
    schedule.notice(make(4))
    await passes.until_idle()
    assert passes.versions() == [1, 5]
    newest = schedule.newest("a")
    assert newest is not None
    assert newest.resource_version == 5


async def test_what_was_noticed_during_a_pass_is_newer_than_what_the_pass_returns(
    schedule: Schedule, passes: Passes
) -> None:
    gate = Gate()
    passes.then(gate)
    schedule.notice(make(1))
    await passes.until(1)
    schedule.notice(make(2))
    gate.open()
    await passes.until_idle()
    assert passes.versions() == [1, 2]


async def test_the_next_look_comes_after_the_wait_that_was_asked_for(
    schedule: Schedule, passes: Passes, clock: Clock
) -> None:
    passes.then(again_after(60))
    schedule.notice(make(1))
    await settle()
    clock.now += 59
    await settle()
    assert passes.versions() == [1]
    clock.now += 1
    await settle()
    assert passes.versions() == [1, 1]


async def test_a_notice_comes_before_the_wait_is_over_and_replaces_it(schedule: Schedule, passes: Passes) -> None:
    passes.then(again_after(60))
    schedule.notice(make(1))
    await passes.until_idle()
    schedule.notice(make(2))
    await passes.until_idle()
    assert passes.versions() == [1, 2]


async def test_a_pass_that_is_woken_does_not_leave_its_old_wait_behind(
    schedule: Schedule, passes: Passes, clock: Clock
) -> None:
    passes.then(again_after(60))
    schedule.notice(make(1))
    await settle()
    schedule.notice(make(2))
    await settle()
    clock.now += 200
    await settle()
    assert passes.versions() == [1, 2]


async def test_a_resource_that_is_gone_gets_no_further_look(schedule: Schedule, passes: Passes, clock: Clock) -> None:
    passes.then(again_after(60))
    schedule.notice(make(1))
    await settle()
    schedule.forget("a")
    assert len(schedule) == 0
    assert schedule.newest("a") is None
    clock.now += 200
    await settle()
    assert passes.versions() == [1]


async def test_a_resource_that_goes_during_a_pass_gets_no_further_one(
    schedule: Schedule, passes: Passes, clock: Clock
) -> None:
    gate = Gate(delay=60)
    passes.then(gate)
    schedule.notice(make(1))
    await settle()
    schedule.notice(make(2))
    schedule.forget("a")
    gate.open()
    await settle()
    clock.now += 200
    await settle()
    assert passes.versions() == [1]


async def test_to_forget_what_is_not_known_is_fine(schedule: Schedule) -> None:
    schedule.forget("a")
    assert schedule.newest("a") is None


async def test_a_stale_version_is_tried_again_soon_and_quietly(
    schedule: Schedule, passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    passes.then(raising(StaleError("the object has changed")))
    schedule.notice(make(1))
    await passes.until(1, 1)
    assert not caplog.records


async def test_an_api_server_out_of_order_is_told_in_a_line_and_tried_again(
    schedule: Schedule, passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    passes.then(raising(KubernetesError("cannot reach the API server")))
    schedule.notice(make(1))
    await passes.until(1, 1)
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    group_id = make(1).claimed_hook[0]
    assert record.getMessage() == f"web/hook-a (AS group {group_id}): cannot reach the API server"
    assert record.exc_info is None


async def test_a_fault_of_ours_is_told_with_its_traceback_tried_again_and_stops_no_other(
    schedule: Schedule, passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    passes.then(*[raising(ZeroDivisionError("ours"))] * 3, uid="a")
    schedule.notice(make(1, "a"))
    schedule.notice(make(1, "b"))
    await passes.until(1, 1, 1, 1, uid="a")
    assert passes.versions("b") == [1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert "ZeroDivisionError" in caplog.text


async def test_faults_in_a_row_are_tried_again_ever_later_until_one_goes_well(
    schedule: Schedule, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def note(seconds: float) -> float:
        waits.append(seconds)
        return 0

    monkeypatch.setattr(module, "_FAULT_RETRY_SECONDS", (1, 2, 3))
    monkeypatch.setattr(module, "jitter", note)
    fault = raising(KubernetesError("out of order"))
    passes.then(*[fault] * 5, again_after(0), fault)
    schedule.notice(make(1))
    await passes.until(*[1] * 8)
    assert waits == [1, 2, 3, 3, 3, 1]


async def test_a_notice_does_not_wait_for_the_retry_of_a_fault(
    schedule: Schedule, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FAULT_RETRY_SECONDS", (60,))
    passes.then(raising(KubernetesError("out of order")))
    schedule.notice(make(1))
    await passes.until_idle()
    schedule.notice(make(2))
    await passes.until_idle()
    assert passes.versions() == [1, 2]


async def test_a_retry_wakes_only_those_that_wait_after_a_failure(schedule: Schedule, passes: Passes) -> None:
    async def fail(resource: LifecycleHook) -> tuple[LifecycleHook, float]:
        passes.memories[resource.uid].failures += 1
        return resource, 60

    passes.then(fail, uid="a")
    passes.then(again_after(60), uid="b")
    for uid in ("a", "b"):
        schedule.notice(make(1, uid))
    await passes.until_idle()
    schedule.retry(["a", "b", "unknown"])
    await passes.until_idle()
    assert passes.versions("a") == [1, 1]
    assert passes.versions("b") == [1]


async def test_whoever_is_woken_makes_a_pass(schedule: Schedule, passes: Passes) -> None:
    for uid in ("a", "b"):
        schedule.notice(make(1, uid))
        await passes.until(1, uid=uid)
    schedule.wake(["a", "not known"])
    await passes.until(1, 1)
    await passes.until_idle()
    assert passes.versions("b") == [1]


async def test_a_retry_asked_for_while_a_pass_is_failing_is_not_lost(schedule: Schedule, passes: Passes) -> None:
    gate = Gate(delay=60)
    passes.then(gate)
    schedule.notice(make(1))
    await passes.until(1)
    schedule.retry(["a"])
    gate.open()
    await passes.until(1, 1)
    assert passes.memories["a"].is_retry_asked


async def test_the_end_waits_for_the_passes_at_work_and_begins_no_other(
    schedule: Schedule, passes: Passes, clock: Clock
) -> None:
    gate = Gate(delay=60)
    passes.then(gate, uid="a")
    passes.then(again_after(60), uid="b")
    for uid in ("a", "b"):
        schedule.notice(make(1, uid))
    await settle()
    schedule.notice(make(2, "a"))
    closing = asyncio.create_task(schedule.close(DEADLINE_SECONDS))
    await settle()
    assert not closing.done()
    gate.open()
    await closing
    clock.now += 200
    await settle()
    assert (passes.versions("a"), passes.versions("b")) == ([1], [1])
    assert not gate.was_cancelled


async def test_the_end_cancels_what_does_not_end_in_time(schedule: Schedule, passes: Passes) -> None:
    gates = {uid: Gate() for uid in ("a", "b", "c")}
    for uid, gate in gates.items():
        passes.then(gate, uid=uid)
        schedule.notice(make(1, uid))
    await settle()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await schedule.close(TICK_SECONDS)
    assert all(gate.was_cancelled for gate in gates.values())
    assert passes.at_work == []


async def test_a_notice_after_the_end_makes_no_pass(schedule: Schedule, passes: Passes) -> None:
    await schedule.close(0)
    schedule.notice(make(1))
    await settle()
    assert passes.seen == []


async def test_the_end_of_nothing_is_at_once(schedule: Schedule) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await schedule.close(60)


async def test_to_end_twice_is_fine(schedule: Schedule) -> None:
    schedule.notice(make(1))
    await schedule.close(1)
    await schedule.close(1)


async def test_a_write_that_the_watch_does_not_tell_of_is_known_for_how_long(
    schedule: Schedule, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    passes.then(returning(2))
    schedule.notice(make(1))
    await passes.until_idle()
    clock.now += 60
    assert schedule.unseen_write_seconds() == 60
    schedule.notice(make(2))
    assert schedule.unseen_write_seconds() == 0


async def test_a_write_to_what_is_gone_is_not_waited_for(schedule: Schedule, passes: Passes) -> None:
    passes.then(returning(2))
    schedule.notice(make(1))
    await passes.until_idle()
    schedule.forget("a")
    assert schedule.unseen_write_seconds() == 0


async def test_a_version_that_never_comes_is_not_waited_for_in_haste_for_ever(
    schedule: Schedule, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FAULT_RETRY_SECONDS", (60,))
    monkeypatch.setattr(module, "_STALE_RETRIES", 2)
    passes.then(*[raising(StaleError("409 Conflict"))] * 20)
    schedule.notice(make(1))
    await passes.until(1, 1, 1)
    await passes.until_idle()
    assert passes.versions() == [1, 1, 1]
    await schedule.close(0)
