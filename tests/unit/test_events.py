"""Events go out in order, and so few of each object that a hook that fails in ever new ways floods nobody."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.kube import events
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError
from lifecyclehook_operator.kube.events import Event, EventRecorder
from lifecyclehook_operator.metrics import EVENTS_DROPPED

pytestmark = pytest.mark.anyio

CREATED = Event("Normal", "Created", "created hook drain")


class Api:
    """Keeps the Events by name."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.writes = 0
        self.failures: list[KubernetesError] = []

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.writes += 1
        if self.failures:
            raise self.failures.pop()
        assert body["metadata"]["name"] not in self.events
        self.events[body["metadata"]["name"]] = dict(body)

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        self.writes += 1
        if name not in self.events:
            raise GoneError("404")
        self.events[name] |= patch

    def notes(self) -> list[str]:
        return [each["note"] for each in self.events.values()]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def hook(uid: str = "1", namespace: str = "web") -> LifecycleHook:
    metadata = {"name": f"hook-{uid}", "namespace": namespace, "uid": uid, "resourceVersion": "7", "generation": 1}
    return LifecycleHook({"metadata": metadata, "spec": {"scalingGroupId": "group"}})


def failure(number: int) -> Event:
    return Event("Warning", "CloudUnavailable", f"failure {number}")


async def publish(recorder: EventRecorder, *recorded: Event, uid: str = "1") -> None:
    recorder.start()
    for event in recorded:
        recorder.record(hook(uid), event)
    await recorder.close(5)


async def test_events_go_out_in_the_order_in_which_they_happened() -> None:
    api = Api()
    await publish(EventRecorder(api), CREATED, failure(1), failure(2))
    assert api.notes() == ["created hook drain", "failure 1", "failure 2"]
    assert all("series" not in each for each in api.events.values())


async def test_the_same_again_is_counted_where_it_was_told() -> None:
    api = Api()
    await publish(EventRecorder(api), failure(1), CREATED, failure(1), failure(1))
    assert api.notes() == ["failure 1", "created hook drain"]
    first, _ = api.events.values()
    assert first["series"]["count"] == 3


async def test_the_same_much_later_is_another_event() -> None:
    api, clock = Api(), Clock()
    recorder = EventRecorder(api, clock=clock)
    await publish(recorder, failure(1))
    clock.seconds = 601
    await publish(recorder, failure(1))
    assert api.notes() == ["failure 1"] * 2


async def test_an_event_that_somebody_deleted_is_told_anew() -> None:
    api = Api()
    recorder = EventRecorder(api)
    await publish(recorder, failure(1))
    api.events.clear()
    await publish(recorder, failure(1))
    assert api.notes() == ["failure 1"]


async def test_many_that_differ_in_their_text_become_one() -> None:
    api = Api()
    await publish(EventRecorder(api), *map(failure, range(15)), CREATED)
    combined = "(combined from similar events) failure 10"
    assert api.notes() == [*(f"failure {number}" for number in range(10)), combined, "created hook drain"]
    assert next(each for each in api.events.values() if each["note"] == combined)["series"]["count"] == 5


async def test_an_object_gets_25_at_once_and_then_one_each_five_minutes_whatever_others_get() -> None:
    api, clock = Api(), Clock()
    recorder, before = EventRecorder(api, clock=clock), EVENTS_DROPPED.labels("rate_limited")._value.get()  # noqa: SLF001
    await publish(recorder, *map(failure, range(100)))
    assert api.writes == 25
    assert EVENTS_DROPPED.labels("rate_limited")._value.get() - before == 75  # noqa: SLF001
    await publish(recorder, CREATED, uid="2")
    assert api.writes == 26
    clock.seconds = 299
    await publish(recorder, CREATED)
    assert api.writes == 26
    clock.seconds = 300
    await publish(recorder, CREATED)
    assert api.writes == 27
    assert list(api.events.values())[-1]["series"]["count"] == 2  # the one that was held back counts


async def test_what_a_full_queue_cannot_take_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_QUEUE_LENGTH", 2)
    api = Api()
    before = EVENTS_DROPPED.labels("queue_full")._value.get()  # noqa: SLF001
    await publish(EventRecorder(api), failure(1), failure(2), failure(3))
    assert api.notes() == ["failure 1", "failure 2"]
    assert EVENTS_DROPPED.labels("queue_full")._value.get() - before == 1  # noqa: SLF001


async def test_namespaces_take_turns() -> None:
    api = Api()
    recorder = EventRecorder(api)
    for number in range(9):
        recorder.record(hook(), failure(number))
    recorder.record(hook("2", "shop"), failure(10))
    recorder.record(hook("3", "blog"), failure(20))
    await publish(recorder)
    assert {"failure 10", "failure 20"} < set(api.notes()[:5])
    assert len(api.notes()) == 11


async def test_a_full_queue_drops_what_the_busiest_namespace_added_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_QUEUE_LENGTH", 3)
    api = Api()
    recorder = EventRecorder(api)
    for number in range(4):
        recorder.record(hook(), failure(number))
    recorder.record(hook("2", "shop"), failure(10))
    recorder.record(hook("3", "blog"), failure(20))
    recorder.record(hook("4", "mail"), failure(30))  # nobody has more now
    await publish(recorder)
    assert api.notes() == ["failure 0", "failure 10", "failure 20"]


async def test_what_is_not_published_in_time_is_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class HangingApi(Api):
        async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
            await asyncio.Event().wait()

    recorder = EventRecorder(HangingApi())
    recorder.start()
    for number in range(3):
        recorder.record(hook(), failure(number))
    await recorder.close(0.01)
    assert caplog.messages[-1] == "2 Events were not published before the shutdown"


async def test_one_that_is_refused_stops_no_other() -> None:
    api = Api()
    api.failures = [KubernetesError("403")]
    await publish(EventRecorder(api), failure(1), failure(2))
    assert api.notes() == ["failure 2"]


async def test_no_more_is_remembered_than_of_so_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_OBJECTS", 3)
    api = Api()
    recorder = EventRecorder(api)
    for number in range(5):
        await publish(recorder, CREATED, uid=str(number))
    await publish(recorder, CREATED, uid="4")
    await publish(recorder, CREATED, uid="0")
    counts = [each.get("series", {}).get("count", 1) for each in api.events.values()]
    assert counts == [1, 1, 1, 1, 2, 1]
