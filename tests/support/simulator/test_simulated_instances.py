"""Instances that a hook suspends, and the callback that lets them go."""

from datetime import UTC, datetime
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


def test_a_callback_needs_a_body(caller: Caller) -> None:
    response = caller.call("PUT", f"scaling_instance_hook/{caller.group}/callback", content=b"")
    assert error_of(response) == (400, "AS.0002")
