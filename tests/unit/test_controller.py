"""What an event asks for, and what comes of it: seen by a controller whose reconciler does what the test says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lifecyclehook_operator.api.v1alpha1 import FINALIZER, LifecycleHook
from lifecyclehook_operator.controller.controller import Controller, asks_for_reconcile
from lifecyclehook_operator.controller.reconciler import ObjectState
from lifecyclehook_operator.controller.timing import NEVER
from lifecyclehook_operator.kube.client import Listed
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError, StaleError
from lifecyclehook_operator.kube.secrets import Secret
from tests.unit.samples import SPEC, make_hook, make_resource
from tests.unit.test_workqueue import Clock, Gate, clock, settle  # noqa: F401  (a fixture)

Step = Callable[[LifecycleHook], Awaitable[tuple[LifecycleHook, float]]]


def make(version: int = 1, uid: str = "a", **fields: Any) -> LifecycleHook:
    return make_resource(f"hook-{uid}", uid=uid, version=version, **fields)


class Reconciler:
    """Keeps what it was given, and does what the test says, else nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.states: dict[str, ObjectState] = {}
        self.steps: dict[str, list[Step]] = {}
        self.cleaned_up: list[str] = []
        #: Of cleaning up: when to try again.
        self.answers: list[float] = []

    def begin(self, obj: LifecycleHook) -> tuple[ObjectState, float]:
        state = self.states[obj.uid] = ObjectState()
        return state, asyncio.get_running_loop().time()

    async def reconcile(self, obj: LifecycleHook, state: ObjectState, due_at: float) -> tuple[LifecycleHook, float]:
        assert state is self.states[obj.uid]
        self.seen.append((obj.uid, obj.resource_version))
        steps = self.steps.get(obj.uid)
        return await steps.pop(0)(obj) if steps else (obj, NEVER)

    async def clean_up(self, obj: LifecycleHook, state: ObjectState) -> float:
        self.cleaned_up.append(obj.uid)
        return self.answers.pop(0) if self.answers else NEVER

    def versions(self, uid: str = "a") -> list[int]:
        return [version for each, version in self.seen if each == uid]


class ApiServer:
    """Has objects, of which no watch shows anything."""

    def __init__(self, *objects: LifecycleHook) -> None:
        self.objects = list(objects)
        #: The names of the objects that were fetched.
        self.fetched: list[str] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        #: The names of the Secrets that were let go.
        self.unprotected: list[str] = []

    async def unprotect_secret(self, namespace: str, name: str) -> None:
        self.unprotected.append(name)

    async def list_hooks(self, namespace: str = "", name: str = "") -> Any:
        self.fetched += [name] if name else []
        objects = [obj for obj in self.objects if name in ("", obj.name)]
        if self.before_answer is not None:
            await self.before_answer()
        for obj in objects:
            yield obj

    async def list_versions(self, namespace: str = "") -> Any:
        for obj in list(self.objects):
            yield Listed(obj.uid, obj.namespace, obj.name, obj.resource_version, obj.is_finalized)

    async def list_secret_versions(self, namespace: str = "") -> Any:
        for listed in ():
            yield listed


@pytest.fixture
def reconciler() -> Reconciler:
    return Reconciler()


def begin_controller(
    server: ApiServer, reconciler: Reconciler, *, cleanup_seconds: float = 1e9, check_seconds: float = 1e9
) -> Controller:
    """Return a controller that has just begun; it tidies and checks never, unless it is told how often."""
    kubernetes: Any = server
    stand_in: Any = reconciler
    controller = Controller(kubernetes, (), cleanup_seconds=cleanup_seconds, check_seconds=check_seconds)
    controller.begin(stand_in)
    return controller


@pytest.fixture
async def controller(reconciler: Reconciler, clock: Clock) -> Any:  # noqa: F811
    running = begin_controller(ApiServer(), reconciler)
    yield running
    await running.close(0)


def raising(error: Exception) -> Step:
    async def step(_: LifecycleHook) -> tuple[LifecycleHook, float]:
        raise error

    return step


def returning(obj: LifecycleHook, requeue_at: float = NEVER) -> Step:
    async def step(_: LifecycleHook) -> tuple[LifecycleHook, float]:
        return obj, requeue_at

    return step


def waiting(gate: Gate) -> Step:
    async def step(obj: LifecycleHook) -> tuple[LifecycleHook, float]:
        await gate()
        return obj, NEVER

    return step


OURS = {"finalizers": [FINALIZER], "status": {"observedGeneration": 1}}


@pytest.mark.parametrize(
    ("before", "after", "asks"),
    [
        ({}, {}, False),
        ({}, OURS, False),
        (OURS, {**OURS, "labels": {"a": "b"}}, False),
        (OURS, {**OURS, "generation": 2}, True),
        (OURS, {**OURS, "deletionTimestamp": "2026-03-01T12:00:00Z"}, True),
        (OURS, {**OURS, "finalizers": []}, True),
        ({}, {"status": {"lifecycleHook": make_hook().model_dump(by_alias=True)}}, True),
        (OURS, {**OURS, "finalizers": ["somebody/else", FINALIZER]}, False),
        (OURS, {**OURS, "status": None}, True),
        (OURS, {**OURS, "status": {}}, True),
    ],
)
def test_only_what_is_ours_to_answer_asks_for_a_reconcile(before: Any, after: Any, asks: bool) -> None:
    assert asks_for_reconcile(make(**before), make(2, **after)) is asks


async def test_an_object_is_reconciled_when_it_is_first_shown_and_when_an_event_asks_for_it(
    controller: Controller, reconciler: Reconciler
) -> None:
    for obj in (make(1), make(2, labels={"a": "b"}), make(3, generation=2), make(3, generation=2), make(2)):
        await controller.on_hook(obj, "MODIFIED")
        await settle()
    assert reconciler.versions() == [1, 3]
    assert len(controller) == 1


async def test_an_edit_that_comes_with_the_answer_to_our_own_write_is_not_lost(
    controller: Controller, reconciler: Reconciler
) -> None:
    reconciler.steps["a"] = [returning(make(3, generation=2))]
    await controller.on_hook(make(1), "ADDED")
    await settle()
    await controller.on_hook(make(3, generation=2), "MODIFIED")
    await settle()
    assert reconciler.versions() == [1, 3]


async def test_an_edit_starts_the_backoff_anew(controller: Controller, reconciler: Reconciler) -> None:
    await controller.on_hook(make(1), "ADDED")
    await settle()
    reconciler.states["a"].failures = 7
    await controller.on_hook(make(2, generation=2), "MODIFIED")
    assert reconciler.states["a"].failures == 0


async def test_an_object_that_is_gone_is_not_reconciled_again(
    controller: Controller,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    gate = Gate()
    reconciler.steps["a"] = [waiting(gate)]
    await controller.on_hook(make(1), "ADDED")
    await settle()
    await controller.on_hook(make(2, generation=2), "MODIFIED")
    await controller.on_hook(make(3, generation=2), "DELETED")
    gate.open()
    clock.now += 1000
    await settle()
    assert reconciler.versions() == [1]
    assert (len(controller), len(controller.cache)) == (0, 0)


async def test_who_waits_after_a_failure_is_retried_when_another_of_its_group_goes(
    controller: Controller, reconciler: Reconciler
) -> None:
    gate = Gate()
    reconciler.steps["failing now"] = [waiting(gate)]
    reconciler.steps["well now"] = [waiting(gate)]
    for uid in ("a", "failed", "well", "failing now", "well now"):
        await controller.on_hook(make(1, uid), "ADDED")
    await settle()
    reconciler.states["failed"].failures = 1
    await controller.on_hook(make(2, "a"), "DELETED")
    await settle()
    assert reconciler.versions("failed") == [1, 1]
    assert reconciler.versions("well") == [1]
    reconciler.states["failing now"].failures = 1
    gate.open()
    await settle()
    assert reconciler.versions("failing now") == [1, 1]
    assert reconciler.versions("well now") == [1]


@pytest.mark.parametrize("error", [StaleError("409 Conflict"), KubernetesError("no way"), ZeroDivisionError("ours")])
async def test_a_failure_is_retried_and_stops_no_other(
    controller: Controller,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
    error: Exception,
) -> None:
    reconciler.steps["a"] = [raising(error)] * 3
    await controller.on_hook(make(1, "a"), "ADDED")
    await controller.on_hook(make(1, "b"), "ADDED")
    for _ in range(10):
        clock.now += 100
        await settle()
    assert reconciler.versions("a") == [1] * 4
    assert reconciler.versions("b") == [1]


async def test_only_a_stale_object_is_retried_quietly_and_that_not_for_ever(
    controller: Controller,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    reconciler.steps["a"] = [raising(StaleError("409 Conflict"))] * 4
    await controller.on_hook(make(1), "ADDED")
    lines = []
    for _ in range(4):
        await settle()
        lines.append(len(caplog.records))
        clock.now += 100
    assert lines == [0, 0, 0, 1]
    (record,) = caplog.records
    assert record.getMessage() == f"{make(1).label}: 409 Conflict"
    assert record.exc_info is None


async def test_a_fault_of_ours_is_logged_with_its_traceback(
    controller: Controller, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler.steps["a"] = [raising(ZeroDivisionError("ours"))]
    await controller.on_hook(make(1), "ADDED")
    await settle()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def checking(server: ApiServer, reconciler: Reconciler, clock: Clock) -> Any:  # noqa: F811
    """A controller that looks every minute for what no watch shows."""
    running = begin_controller(server, reconciler, cleanup_seconds=30, check_seconds=60)
    yield running
    await running.close(0)


async def let_pass(clock: Clock, seconds: float) -> None:  # noqa: F811
    for _ in range(int(seconds)):
        clock.now += 1
        await settle()


async def test_what_was_gone_before_the_watch_began_claims_nothing_for_long(
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    server = ApiServer(make(1, "gone"))
    controller = begin_controller(server, reconciler, cleanup_seconds=30)
    await settle()
    assert controller.cache.get("gone") is server.objects.pop()
    await let_pass(clock, 31)
    assert controller.cache.get("gone") is None
    await controller.close(0)


async def test_what_no_watch_shows_is_found_and_counted_against_the_watch(
    checking: Controller,
    server: ApiServer,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    await let_pass(clock, 35)
    server.objects.append(make(1))
    await let_pass(clock, 75)
    assert reconciler.versions() == [1]
    server.objects = [make(2, generation=2)]
    await let_pass(clock, 75)
    assert reconciler.versions() == [1, 2]
    assert caplog.messages == ["The watch has not shown what has become of 1 objects, such as web/hook-a"] * 2
    await let_pass(clock, 75)
    assert 3 * 75 - 75 < checking.cache.lag.seconds() < 3 * 75
    await checking.on_hook(make(2, generation=2), "MODIFIED")
    assert checking.cache.lag.seconds() == 0


async def test_what_was_there_at_the_start_is_reconciled_though_no_watch_begins(
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    controller = begin_controller(ApiServer(make(1)), reconciler, cleanup_seconds=30, check_seconds=60)
    await settle()
    await let_pass(clock, 40)
    assert reconciler.versions() == [1]
    assert controller.cache.lag.seconds() == 40
    await controller.close(0)


@pytest.fixture
async def beginning(server: ApiServer, reconciler: Reconciler, clock: Clock) -> Any:  # noqa: F811
    """A controller whose list of all objects, when it began, has not been answered yet, and what lets it be."""
    server.objects = [make(1), make(1, "b", spec={**SPEC, "credentialsRef": {"secretName": "in-use"}})]
    server.before_answer = gate = Gate()
    running = begin_controller(server, reconciler, cleanup_seconds=30, check_seconds=60)
    await settle()
    yield running, gate
    await running.close(0)


async def test_nothing_is_reconciled_before_all_objects_are_known(
    reconciler: Reconciler, beginning: tuple[Controller, Gate]
) -> None:
    controller, gate = beginning
    started: list[str] = []
    controller.starts.append(lambda: started.append("callbacks"))
    await controller.on_hook(make(1), None)
    await settle()
    assert (reconciler.seen, started, controller.is_complete) == ([], [], False)
    gate.open()
    await settle()
    assert (reconciler.seen, started, controller.is_complete) == ([("a", 1), ("b", 1)], ["callbacks"], True)


async def test_no_secret_is_let_go_before_all_objects_are_known(
    server: ApiServer, beginning: tuple[Controller, Gate]
) -> None:
    controller, gate = beginning
    for name in ("in-use", "unused"):
        await controller.on_secret(("web", name), Secret({}, is_protected=True), None)
    await settle()
    assert server.unprotected == []
    gate.open()
    await settle()
    assert server.unprotected == ["unused"]


async def test_what_is_gone_before_the_list_is_answered_is_not_taken_from_it(
    beginning: tuple[Controller, Gate],
) -> None:
    controller, gate = beginning
    await controller.on_hook(make(2), "DELETED")
    gate.open()
    await settle()
    assert [obj.uid for obj in controller.cache.objects()] == ["b"]


async def test_the_list_of_all_objects_is_tried_until_it_succeeds(
    server: ApiServer,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[Exception] = [KubernetesError("away"), RuntimeError("a bug")]

    async def fail() -> None:
        if errors:
            raise errors.pop(0)

    server.before_answer = fail
    controller = begin_controller(server, reconciler)
    await controller.on_hook(make(1), None)
    await let_pass(clock, 7)
    assert caplog.messages == ["away", "Background task failed"]
    assert reconciler.versions() == [1]
    await controller.close(0)


async def test_what_was_listed_at_the_start_tells_whose_the_hook_is_though_it_has_been_replaced_since(
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    begun: list[int] = []
    begin = reconciler.begin
    reconciler.begin = lambda obj: begun.append(obj.resource_version) or begin(obj)  # type: ignore[func-returns-value,method-assign]
    controller = begin_controller(ApiServer(make(1, finalizers=[FINALIZER])), reconciler)
    await settle()
    await controller.on_hook(make(2, generation=2), None)
    await settle()
    assert begun == [1]
    assert reconciler.versions() == [1, 2]
    await controller.close(0)


async def test_the_watch_tells_nothing_new_of_what_was_listed_at_the_start(
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    controller = begin_controller(ApiServer(make(1), make(3, "b")), reconciler)
    await settle()
    assert reconciler.seen == [("a", 1), ("b", 3)]
    clock.now += 5
    shown = [(make(1), None), (make(2, "b"), None), (make(3, "b"), "MODIFIED")]
    assert [controller.is_news(obj.metadata, event_type) for obj, event_type in shown] == [False] * 3
    assert controller.cache.lag.seconds() == 0
    shown = [(make(2), "MODIFIED"), (make(1), "DELETED"), (make(1, "c"), "ADDED")]
    assert [controller.is_news(obj.metadata, event_type) for obj, event_type in shown] == [True] * 3
    await controller.close(0)


async def test_the_watch_tells_nothing_new_of_what_a_write_of_ours_has_returned(
    controller: Controller, reconciler: Reconciler
) -> None:
    seen: list[int] = []

    class Observer:
        def update(self, obj: LifecycleHook) -> None:
            seen.append(obj.resource_version)

        def drop(self, uid: str) -> None:
            """Forget nothing: there is nothing to forget."""

    controller.observers.append(Observer())
    reconciler.steps["a"] = [returning(make(2))]
    await controller.on_hook(make(1), "ADDED")
    await settle()
    assert seen == [1, 2]
    assert not controller.is_news(make(2).metadata, "MODIFIED")
    assert controller.is_news(make(3).metadata, "MODIFIED")


async def test_a_successor_that_a_clean_up_has_found_is_news(
    checking: Controller, server: ApiServer, reconciler: Reconciler
) -> None:
    await checking.on_hook(make(1), "ADDED")
    await settle()
    successor = make_resource("hook-a", uid="b", version=5)
    server.objects = [successor]
    await checking.on_hook(make(2), "DELETED")
    await settle()
    assert checking.cache.get("b") is successor
    assert reconciler.versions("b") == []
    assert checking.is_news(successor.metadata, "ADDED")


async def test_nothing_is_fetched_of_what_the_watch_shows_a_little_later_or_what_does_not_wait_for_us(
    checking: Controller,
    server: ApiServer,
    clock: Clock,  # noqa: F811
) -> None:
    deleting = make(1, "b", finalizers=["somebody/else"], deletionTimestamp="2026-03-01T12:00:00Z")
    server.objects = [make(1), deleting]
    await let_pass(clock, 31)
    await checking.on_hook(make(1), "ADDED")
    await checking.on_hook(deleting, "ADDED")
    await let_pass(clock, 200)
    assert server.fetched == []
    assert checking.cache.lag.seconds() == 0


async def test_what_goes_while_it_is_fetched_does_not_come_back(
    checking: Controller,
    server: ApiServer,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    deleting = {"finalizers": [FINALIZER], "deletionTimestamp": "2026-03-01T12:00:00Z"}
    await checking.on_hook(make(1, **deleting), "ADDED")
    server.objects = [make(2, **deleting)]

    async def go() -> None:
        server.objects = []
        await checking.on_hook(make(3, **{**deleting, "finalizers": []}), "DELETED")

    server.before_answer = go
    await let_pass(clock, 40)
    assert server.fetched == ["hook-a"]
    assert reconciler.versions() == [1]
    assert (len(checking), len(checking.cache)) == (0, 0)


async def test_what_went_past_our_finalizer_is_cleaned_up_after_until_that_is_done(
    controller: Controller,
    reconciler: Reconciler,
    clock: Clock,  # noqa: F811
) -> None:
    await controller.on_hook(make(1), "ADDED")
    await settle()
    reconciler.answers = [clock.now + 5]
    await controller.on_hook(make(2), "DELETED")
    await controller.on_hook(make(2), "DELETED")
    await settle()
    assert reconciler.cleaned_up == ["a"]
    assert controller.cache.get("a") is not None
    clock.now += 5.1
    await settle()
    assert reconciler.cleaned_up == ["a", "a"]
    assert controller.cache.get("a") is None
    assert len(controller) == 0


async def test_what_was_held_until_we_let_go_is_not_cleaned_up_after(
    controller: Controller, reconciler: Reconciler
) -> None:
    deleting = {"finalizers": [FINALIZER], "deletionTimestamp": "2026-03-01T12:00:00Z"}
    await controller.on_hook(make(1, **deleting), "ADDED")
    await controller.on_hook(make(2, **{**deleting, "finalizers": []}), "DELETED")
    await settle()
    assert reconciler.cleaned_up == []
    assert len(controller) == 0


async def test_what_a_write_shows_to_be_gone_is_cleaned_up_after_without_an_event(
    controller: Controller, reconciler: Reconciler
) -> None:
    reconciler.steps["a"] = [raising(GoneError("not found"))]
    await controller.on_hook(make(1), "ADDED")
    await settle()
    assert reconciler.cleaned_up == ["a"]
    assert len(controller) == 0
