"""Which instances a hook suspends: in the status, as Events, and at what cost."""

import itertools
from datetime import datetime
from typing import Any

import pytest

from tests.support.workspace import Workspace, condition, is_ready

pytestmark = pytest.mark.usefixtures("operator")

_looks = itertools.count(1)


def poke(workspace: Workspace, name: str = "hook") -> None:
    """Have the operator look at once, and wait until it has."""
    seen = len(workspace.cloud.requests("list_hanging", workspace.group_id))
    workspace.patch(name, {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": str(next(_looks))}}})
    workspace.cloud.wait_for_request("list_hanging", workspace.group_id, count=seen + 1, state="answered")


def known(body: dict[str, Any]) -> tuple[str | None, str | None]:
    found = condition(body, "SuspensionsKnown")
    return found.get("status"), found.get("reason")


def wait_count(workspace: Workspace, count: int, name: str = "hook") -> dict[str, Any]:
    def is_shown(body: dict[str, Any]) -> bool:
        return bool(body.get("status", {}).get("suspendedInstances", {}).get("count") == count)

    return workspace.wait(f"{count} are shown", is_shown, name)


@pytest.fixture
def watched(workspace: Workspace) -> Workspace:
    """A workspace with a watched hook that suspends nothing."""
    workspace.create(suspensionPolicy="Watch")
    workspace.wait_ready()
    wait_count(workspace, 0)
    return workspace


def test_what_appears_and_goes_is_shown_with_one_write_each(watched: Workspace) -> None:
    body = watched.get()
    assert body is not None
    assert known(body) == ("True", "Listed")
    assert body["status"]["suspendedInstances"] == {"count": 0, "truncated": False, "items": []}
    writes = watched.writes()
    key = watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    poke(watched)
    body = wait_count(watched, 1)
    (item,) = body["status"]["suspendedInstances"]["items"]
    (listed,) = watched.cloud.hanging_instances(watched.group_id)
    assert item == {"instanceId": "i-1", "timeout": listed["timeout"], "defaultResult": "ABANDON"}
    assert key not in str(body)
    assert is_ready(body)
    heading, row = watched.cluster.kubectl("get", "lch", "-n", watched.namespace, "-o", "wide").stdout.splitlines()
    assert dict(zip(heading.split(), row.split(), strict=True))["SUSPENDED"] == "1"
    watched.cloud.update_hanging_instance(watched.group_id, key, lifecycle_hook_status="CONTINUE")
    poke(watched)
    wait_count(watched, 0)
    assert watched.writes() == [*writes, "lifecyclehooks/status", "lifecyclehooks/status"]
    watched.wait_events([("Normal", "Created"), ("Normal", "InstanceSuspended"), ("Normal", "InstanceReleased")])


def test_a_quiet_round_writes_nothing(watched: Workspace) -> None:
    watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    poke(watched)
    wait_count(watched, 1)
    writes = watched.writes()
    for _ in range(3):
        poke(watched)
    assert watched.writes() == writes


def test_one_call_serves_all_hooks_of_a_group(workspace: Workspace) -> None:
    names = [f"hook-{number}" for number in range(5)]
    for name in names:
        workspace.create(name, suspensionPolicy="Watch")
    for name in names:
        wait_count(workspace, 0, name)
    for name in names:
        workspace.cloud.add_hanging_instance(workspace.group_id, name, f"i-of-{name}")
    before = len(workspace.cloud.requests("list_hanging", workspace.group_id))
    poke(workspace, "hook-0")
    for name in names:
        (item,) = wait_count(workspace, 1, name)["status"]["suspendedInstances"]["items"]
        assert item["instanceId"] == f"i-of-{name}"
    assert len(workspace.cloud.requests("list_hanging", workspace.group_id)) == before + 1


def test_twenty_are_listed_and_all_are_counted(watched: Workspace) -> None:
    for number in range(300):
        watched.cloud.add_hanging_instance(
            watched.group_id, "hook", f"i-{number}", timeout_seconds=3600 + (number * 7 % 300) * 60
        )
    poke(watched)
    shown = wait_count(watched, 300)["status"]["suspendedInstances"]
    timeouts = [item["timeout"] for item in shown["items"]]
    assert (shown["truncated"], len(timeouts)) == (True, 20)
    listed = sorted(each["timeout"] for each in watched.cloud.hanging_instances(watched.group_id))
    assert timeouts == listed[:20]
    watched.wait_events([("Normal", "Created"), ("Normal", "InstanceSuspended")])


def test_one_that_times_out_is_told_with_what_as_does(watched: Workspace) -> None:
    key = watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    poke(watched)
    wait_count(watched, 1)
    watched.cloud.update_hanging_instance(watched.group_id, key, timeout_seconds=-1)
    poke(watched)
    wait_count(watched, 0)
    watched.wait_events([("Normal", "Created"), ("Normal", "InstanceSuspended"), ("Warning", "InstanceTimedOut")])
    (event,) = [
        each
        for each in watched.core.list_namespaced_event(watched.namespace).items
        if each.reason == "InstanceTimedOut"
    ]
    assert event.message.endswith("AS acted by ABANDON: it deletes the instance and creates another")


def test_a_callback_of_ours_is_seen_at_once_and_told_once(watched: Workspace) -> None:
    key = watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    poke(watched)
    before = wait_count(watched, 1)
    watched.call_back("EXTEND", "i-1", name="extend")
    watched.wait_complete("extend")
    later = watched.wait(
        "the timeout is later",
        lambda body: body["status"]["suspendedInstances"] != before["status"]["suspendedInstances"],
    )
    first, second = (
        datetime.fromisoformat(body["status"]["suspendedInstances"]["items"][0]["timeout"]) for body in (before, later)
    )
    assert (second - first).total_seconds() == 3600
    watched.call_back("ABANDON", "i-1")
    watched.wait_complete()
    wait_count(watched, 0)
    watched.wait_events([("Normal", "Created"), ("Normal", "InstanceSuspended"), ("Normal", "InstanceReleased")])
    assert watched.cloud.hanging_instances(watched.group_id)[0]["lifecycle_action_key"] == key


def test_under_ignore_nothing_is_asked_and_nothing_shown(watched: Workspace) -> None:
    watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    poke(watched)
    wait_count(watched, 1)
    watched.patch("hook", {"spec": {"suspensionPolicy": "Ignore"}})
    watched.wait("it is gone", lambda body: "suspendedInstances" not in body["status"] and known(body) == (None, None))
    asked = len(watched.cloud.requests("list_hanging", watched.group_id))
    watched.create("ignoring")
    watched.wait("it is refused", lambda body: "error" in body.get("status", {}), "ignoring")
    assert len(watched.cloud.requests("list_hanging", watched.group_id)) == asked


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"code": "AS.0031"}, "Forbidden"),
        ({"code": "AS.0001"}, "CloudUnavailable"),
        ({"status": 200, "text": "no JSON"}, "UnexpectedResponse"),
    ],
    ids=["AS.0031", "AS.0001", "no JSON"],
)
def test_what_cannot_be_listed_leaves_the_hook_ready(watched: Workspace, fault: dict[str, Any], reason: str) -> None:
    watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    poke(watched)
    wait_count(watched, 1)
    writes = watched.writes()
    armed = watched.cloud.fault("list_hanging", group_id=watched.group_id, count=None, **fault)
    poke(watched)
    body = watched.wait("it is told", lambda body: known(body) == ("False", reason))
    assert is_ready(body)
    assert body["status"]["suspendedInstances"]["count"] == 1
    watched.cloud.wait_for_request("list_hanging", watched.group_id, count=3, fault=armed)
    assert watched.writes() == [*writes, "lifecyclehooks/status"]
    watched.cloud.clear_faults()
    watched.wait("it is known again", lambda body: known(body) == ("True", "Listed"))


def test_what_is_known_stays_while_the_hook_is_changed(watched: Workspace) -> None:
    watched.patch("hook", {"spec": {"defaultTimeout": 60}})
    body = watched.wait_ready()
    assert known(body) == ("True", "Listed")
    assert body["status"]["suspendedInstances"]["count"] == 0


def test_a_busy_group_is_told_with_who_keeps_it_busy(watched: Workspace) -> None:
    watched.cloud.add_hanging_instance(watched.group_id, "hook", "i-1")
    watched.patch("hook", {"spec": {"defaultTimeout": 60}})
    body = watched.wait_reason("GroupBusy")
    message = condition(body, "Ready")["message"]
    assert "Instance i-1 is suspended by hook hook until 2" in message
    watched.call_back("CONTINUE", "i-1")
    watched.wait_ready()
