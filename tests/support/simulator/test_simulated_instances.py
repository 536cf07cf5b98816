"""Instances that a hook suspends, and the callback that lets them go."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.simulator.caller import Caller, error_of


@pytest.fixture
def key(caller: Caller) -> str:
    caller.create(default_timeout=600, default_result="CONTINUE")
    return caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-1")


def show(caller: Caller, **query: str) -> dict[str, Any]:
    (info,) = caller.list_hanging(**query).json()["instance_hanging_info"]
    return dict(info)


def parse(moment: str) -> datetime:
    return datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def test_suspended_instances_are_listed_and_filtered(caller: Caller, key: str) -> None:
    caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-2")
    assert len(caller.list_hanging().json()["instance_hanging_info"]) == 2
    info = show(caller, instance_id="instance-1")
    left = parse(info.pop("timeout")) - datetime.now(UTC)
    assert 590 <= left.total_seconds() <= 600
    assert info == {
        "instance_id": "instance-1",
        "scaling_group_id": caller.group,
        "lifecycle_hook_name": "test-hook1",
        "lifecycle_action_key": key,
        "default_result": "CONTINUE",
        "lifecycle_hook_status": "HANGING",
    }
    assert caller.list_hanging(instance_id="instance-3").json() == {"instance_hanging_info": []}


@pytest.mark.parametrize("result", ["CONTINUE", "ABANDON"])
@pytest.mark.parametrize("by_key", [True, False])
def test_a_callback_ends_the_waiting_once(caller: Caller, key: str, result: str, by_key: bool) -> None:
    whom = {"lifecycle_action_key": key}
    if not by_key:
        whom = {"instance_id": "instance-1", "lifecycle_hook_name": "test-hook1"}
    response = caller.call_back(lifecycle_action_result=result, **whom)
    assert (response.status_code, response.content) == (204, b"")
    assert show(caller)["lifecycle_hook_status"] == result
    assert error_of(caller.call_back(lifecycle_action_result=result, **whom)) == (400, "AS.7042")


def test_extend_adds_an_hour_and_goes_on_waiting(caller: Caller, key: str) -> None:
    before = show(caller)
    for _ in range(2):
        assert caller.call_back(lifecycle_action_result="EXTEND", lifecycle_action_key=key).status_code == 204
    after = show(caller)
    assert (parse(after.pop("timeout")) - parse(before.pop("timeout"))).total_seconds() == 7200
    assert after == before


def test_the_key_wins_over_instance_and_hook(caller: Caller, key: str) -> None:
    caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-2")
    caller.call_back(
        lifecycle_action_result="CONTINUE",
        lifecycle_action_key=key,
        instance_id="instance-2",
        lifecycle_hook_name="test-hook1",
    )
    assert show(caller, instance_id="instance-1")["lifecycle_hook_status"] == "CONTINUE"
    assert show(caller, instance_id="instance-2")["lifecycle_hook_status"] == "HANGING"


def test_the_default_result_stands_when_the_time_is_over(caller: Caller, key: str) -> None:
    caller.simulator.set_clock_skew(601)
    assert show(caller)["lifecycle_hook_status"] == "CONTINUE"
    assert error_of(caller.call_back(lifecycle_action_result="EXTEND", lifecycle_action_key=key)) == (400, "AS.7042")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"lifecycle_action_key": "key"}, "AS.7039"),
        ({"lifecycle_action_key": "key", "lifecycle_action_result": ""}, "AS.7039"),
        ({"lifecycle_action_key": "key", "lifecycle_action_result": "STOP"}, "AS.7034"),
        ({"lifecycle_action_key": "key", "lifecycle_action_result": 0}, "AS.7034"),
        ({"lifecycle_action_result": "CONTINUE"}, "AS.7040"),
        ({"lifecycle_action_result": "CONTINUE", "instance_id": "instance-1"}, "AS.7040"),
        ({"lifecycle_action_result": "CONTINUE", "lifecycle_hook_name": "test-hook1"}, "AS.7040"),
        ({"lifecycle_action_result": "CONTINUE", "lifecycle_action_key": "unknown"}, "AS.7042"),
        ({"lifecycle_action_result": "CONTINUE", "instance_id": "i", "lifecycle_hook_name": "test-hook1"}, "AS.7042"),
        ({"lifecycle_action_result": "CONTINUE", "key": "unknown"}, "AS.0022"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("key")
def test_a_callback_that_breaks_a_rule_is_refused(caller: Caller, body: dict[str, str], code: str) -> None:
    assert error_of(caller.call_back(**body)) == (400, code)
    assert show(caller)["lifecycle_hook_status"] == "HANGING"


def test_a_group_is_busy_while_it_has_a_suspended_instance(caller: Caller, key: str) -> None:
    def change() -> list[tuple[int, str]]:
        calls = caller.create(lifecycle_hook_name="new"), caller.modify(default_timeout=60), caller.delete("new")
        return [error_of(answer) if answer.is_error else (answer.status_code, "") for answer in calls]

    assert change() == [(400, "AS.2020")] * 3
    assert caller.get().json()["default_timeout"] == 600
    caller.call_back(lifecycle_action_result="CONTINUE", lifecycle_action_key=key)
    assert change() == [(200, ""), (200, ""), (204, "")]


def test_a_group_is_busy_until_the_last_timeout(caller: Caller, key: str) -> None:
    caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-2", timeout_seconds=900)
    caller.simulator.set_clock_skew(700)
    assert error_of(caller.delete()) == (400, "AS.2020")
    caller.simulator.set_clock_skew(901)
    assert caller.delete().status_code == 204


@pytest.mark.parametrize(("result", "other"), [("ABANDON", "ABANDON"), ("CONTINUE", "HANGING")])
def test_an_instance_that_is_abandoned_waits_for_no_other_hook(
    caller: Caller, key: str, result: str, other: str
) -> None:
    caller.simulator.put_hook(
        caller.group, "second", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn=caller.topic
    )
    caller.simulator.add_hanging_instance(caller.group, "second", "instance-1")
    caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-2")
    caller.call_back(lifecycle_action_result=result, lifecycle_action_key=key)
    statuses = [each["lifecycle_hook_status"] for each in caller.simulator.hanging_instances(caller.group)]
    assert statuses == [result, other, "HANGING"]


def test_an_instance_can_be_suspended_again_under_another_key(caller: Caller, key: str) -> None:
    whom = {"instance_id": "instance-1", "lifecycle_hook_name": "test-hook1"}
    caller.call_back(lifecycle_action_result="CONTINUE", **whom)
    again = caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-1")
    assert again != key
    assert caller.call_back(lifecycle_action_result="ABANDON", **whom).status_code == 204
    statuses = [each["lifecycle_hook_status"] for each in caller.simulator.hanging_instances(caller.group)]
    assert statuses == ["CONTINUE", "ABANDON"]


def test_suspensions_are_changed_and_deleted_out_of_band(caller: Caller, key: str) -> None:
    changed = caller.simulator.update_hanging_instance(
        caller.group, key, lifecycle_hook_status="WAITING", timeout_seconds=60
    )
    assert show(caller) == changed
    assert changed["lifecycle_hook_status"] == "WAITING"
    assert parse(changed["timeout"]) < datetime.now(UTC) + timedelta(seconds=61)
    caller.simulator.delete_hanging_instance(caller.group, key)
    assert caller.list_hanging().json() == {"instance_hanging_info": []}


def test_a_callback_needs_a_body(caller: Caller) -> None:
    response = caller.call("PUT", f"scaling_instance_hook/{caller.group}/callback", content=b"")
    assert error_of(response) == (400, "AS.0002")
