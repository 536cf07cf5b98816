"""From what AS lists to what the status shows and which Events are published."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook, SuspendedInstance
from lifecyclehook_operator.cloud.errors import InvalidError, Reason
from lifecyclehook_operator.cloud.instances import Suspension, Suspensions
from lifecyclehook_operator.controller.cache import Cache
from lifecyclehook_operator.controller.suspensions import (
    Before,
    SuspensionWatch,
    describe_holder,
    find_changes,
    find_suspended,
)
from lifecyclehook_operator.controller.timing import Timing, now
from tests.unit.samples import SPEC, make_resource

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOOK = {
    "lifecycleHookName": "drain",
    "lifecycleHookType": "INSTANCE_LAUNCHING",
    "defaultResult": "ABANDON",
    "defaultTimeout": 60,
    "notificationTopicUrn": "urn:smn:r:p:t",
}


def entry(instance: str, status: str = "HANGING", minutes: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "instance_id": instance,
        "lifecycle_hook_name": "drain",
        "lifecycle_action_key": f"key of {instance}",
        "default_result": "ABANDON",
        "timeout": (NOON + timedelta(minutes=minutes)).isoformat(),
        "lifecycle_hook_status": status,
        **fields,
    }


def read(*entries: dict[str, Any]) -> list[Suspension]:
    return [Suspension.model_validate(each) for each in entries]


def known(*instances: str, is_complete: bool = True) -> Before:
    items = {
        name: SuspendedInstance(instance_id=name, timeout="2026-03-01T12:00:00Z", default_result="ABANDON")
        for name in instances
    }
    return Before(items, is_complete=is_complete)


def changes(
    before: Before,
    *entries: dict[str, Any],
    minutes: int = -5,
    released: str = "",
    type_: str = "INSTANCE_LAUNCHING",
) -> list[tuple[str, str]]:
    obj = make_resource(status={"lifecycleHook": HOOK | {"lifecycleHookType": type_}})
    listed_at = NOON + timedelta(minutes=minutes)
    events = find_changes(obj, before, read(*entries), listed_at, lambda instance: instance == released)
    return [(event.reason, event.message) for event in events]


def test_what_hangs_is_shown_the_next_to_time_out_first() -> None:
    found = find_suspended(read(entry("c", minutes=1), entry("b"), entry("a"), entry("gone", "CONTINUE")))
    assert [*found] == ["a", "b", "c"]
    assert found["c"].timeout == "2026-03-01T12:01:00Z"


def test_a_status_that_is_not_known_is_not_taken_for_an_end() -> None:
    assert [*find_suspended(read(entry("a", "PAUSED")))] == ["a"]
    assert changes(known("a"), entry("a", "PAUSED"), minutes=5) == []


def test_nothing_new_is_no_event() -> None:
    assert changes(known("a"), entry("a")) == []
    assert changes(known("a"), entry("a", minutes=60)) == []
    assert changes(known(), entry("a", "CONTINUE")) == []


def test_what_appears_is_told_once_for_all() -> None:
    message = "instance a is suspended; at 2026-03-01T12:00:00Z AS acts by ABANDON"
    assert changes(known(), entry("a")) == [("InstanceSuspended", message)]
    ((_, message),) = changes(known(), *(entry(f"i-{number}") for number in range(300)))
    assert message.startswith("instances i-0, i-1, i-10, i-100, i-101 and 295 more are suspended")


def test_a_status_that_does_not_list_all_does_not_tell_what_is_new() -> None:
    assert changes(known("a", is_complete=False), entry("a"), entry("b")) == []


@pytest.mark.parametrize(
    ("listed", "minutes", "released", "expected"),
    [
        ([entry("a", "CONTINUE")], -5, "", ("InstanceReleased", "instance a released with CONTINUE")),
        ([entry("a", "ABANDON")], -5, "", ("InstanceReleased", "instance a released with ABANDON")),
        ([entry("a", "CONTINUE")], 5, "", ("InstanceReleased", "instance a released with CONTINUE")),
        ([entry("a", "ABANDON")], 5, "a", ("InstanceReleased", "instance a released with ABANDON")),
        ([entry("a", "ABANDON", minutes=60)], 5, "", ("InstanceReleased", "instance a released with ABANDON")),
        ([], -5, "", ("InstanceReleased", "instance a released, and AS does not say how")),
    ],
)
def test_what_is_let_go_before_its_timeout_is_released(
    listed: list[dict[str, Any]], minutes: int, released: str, expected: tuple[str, str]
) -> None:
    assert changes(known("a"), *listed, minutes=minutes, released=released) == [expected]


@pytest.mark.parametrize("listed", [[entry("a", "ABANDON")], []])
@pytest.mark.parametrize(
    ("type_", "effect"),
    [
        ("INSTANCE_LAUNCHING", "it deletes the instance and creates another"),
        ("INSTANCE_TERMINATING", "it terminates the instance"),
    ],
)
def test_what_nobody_called_back_for_has_timed_out(listed: list[dict[str, Any]], type_: str, effect: str) -> None:
    message = f"instance a timed out, and AS acted by ABANDON: {effect}"
    assert changes(known("a"), *listed, minutes=0, type_=type_) == [("InstanceTimedOut", message)]


def test_an_instance_that_timed_out_with_continue_is_put_to_use() -> None:
    before = Before(
        {"a": SuspendedInstance(instance_id="a", timeout="2026-03-01T12:00:00Z", default_result="CONTINUE")},
        is_complete=True,
    )
    ((reason, message),) = changes(before, entry("a", "CONTINUE", default_result="CONTINUE"), minutes=1)
    assert (reason, message.partition(": ")[2]) == ("InstanceTimedOut", "it puts the instance to use")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], ""),
        ([entry("a", "CONTINUE")], ""),
        (
            [entry("a")],
            "Instance a is suspended by hook drain until 2026-03-01T12:00:00Z, unless a callback comes first.",
        ),
        (
            [entry("a"), entry("b", minutes=5, lifecycle_hook_name="other"), {"odd": True}],
            (
                "2 instances are suspended; instance b is suspended by hook other until 2026-03-01T12:05:00Z, "
                "unless a callback comes first."
            ),
        ),
    ],
)
def test_who_keeps_a_group_busy_is_named(listed: list[dict[str, Any]], expected: str) -> None:
    assert describe_holder(Suspensions(listed, httpx.Response(200))) == expected


@pytest.mark.anyio
async def test_a_list_that_as_calls_invalid_is_asked_for_again_in_the_next_round() -> None:
    class Refusing:
        """A resolver, its client, and what is written to."""

        async def resolve(self, *_: object) -> "Refusing":
            return self

        async def list_suspensions(self, *_: object, **__: object) -> None:
            raise InvalidError(Reason.INVALID_SPEC, "no", operation="list_hanging")

        async def patch_status(self, obj: LifecycleHook, _: object) -> LifecycleHook:
            return obj

    cache, refusing, timing = Cache(), Refusing(), Timing(1, 1, 1, 1, 1, 1)
    shown = {"scalingGroupId": SPEC["scalingGroupId"], "lifecycleHook": {**HOOK, "lifecycleHookName": "test-hook1"}}
    obj = cache.update(make_resource(spec={**SPEC, "suspensionPolicy": "Watch"}, status=shown))
    unused: Any = None
    api: Any = refusing
    watch = SuspensionWatch(api, api, cache, timing, unused, interval_seconds=30, was_released=unused, on_idle=unused)
    watch.update(obj)
    next_at = await watch._look(f"{obj.namespace}/{obj.hook_key[0]}", now())  # noqa: SLF001
    assert now() < next_at <= now() + 30
    await watch.close(0)
