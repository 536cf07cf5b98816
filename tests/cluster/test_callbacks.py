"""LifecycleCallbacks: an action on a suspended instance, taken once."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.support.workspace import API_VERSION, Workspace, condition

INSTANCE = "b25c1589-c96c-465b-9fef-d06540d1945c"

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def key(workspace: Workspace) -> str:
    """Return the key of a suspension of an instance by a hook."""
    workspace.create()
    workspace.wait_ready()
    return workspace.cloud.add_hanging_instance(workspace.group_id, "hook", INSTANCE)


def status_of(workspace: Workspace, key: str) -> str:
    found = {each["lifecycle_action_key"]: each for each in workspace.cloud.hanging_instances(workspace.group_id)}
    return str(found[key]["lifecycle_hook_status"])


def timeout_of(workspace: Workspace, key: str) -> datetime:
    found = {each["lifecycle_action_key"]: each for each in workspace.cloud.hanging_instances(workspace.group_id)}
    return datetime.fromisoformat(found[key]["timeout"])


def calls(workspace: Workspace) -> list[str | None]:
    """Return the calls about suspended instances that have been made."""
    made = workspace.cloud.requests(group_id=workspace.group_id)
    return [call.operation for call in made if call.operation in ("list_hanging", "callback")]


@pytest.mark.parametrize("result", ["CONTINUE", "ABANDON", "EXTEND"])
def test_an_action_takes_two_calls_and_two_writes(workspace: Workspace, key: str, result: str) -> None:
    before = timeout_of(workspace, key)
    workspace.call_back(result, INSTANCE)
    body = workspace.wait_complete()
    assert calls(workspace) == ["list_hanging", "callback"]
    assert workspace.writes("callback") == ["lifecyclecallbacks/status"] * 2
    status = body["status"]
    assert (condition(body, "Complete")["reason"], condition(body, "Failed")) == ("Accepted", {})
    assert status["target"] == {"lifecycleActionKey": key, "timeout": before.strftime("%Y-%m-%dT%H:%M:%SZ")}
    assert status["startTime"] <= status["completionTime"]
    assert "error" not in status
    if result == "EXTEND":
        assert timeout_of(workspace, key) == datetime.fromisoformat(status["timeout"]) == before + timedelta(hours=1)
        assert status_of(workspace, key) == "HANGING"
    else:
        assert status_of(workspace, key) == result
        assert "timeout" not in status
    workspace.wait_events([("Normal", "Accepted")], "callback")


@pytest.mark.parametrize("seconds", [-7200, 7200])
def test_a_clock_that_differs_from_that_of_as_ends_no_suspension(workspace: Workspace, seconds: float) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.set_clock_skew(seconds)
    try:
        key = workspace.cloud.add_hanging_instance(workspace.group_id, "hook", INSTANCE)
        before = timeout_of(workspace, key)
        workspace.call_back("EXTEND", INSTANCE)
        workspace.wait_complete()
        assert timeout_of(workspace, key) == before + timedelta(hours=1)
    finally:
        workspace.cloud.set_clock_skew(0)


def test_five_lines_and_a_wait_are_enough(workspace: Workspace, key: str) -> None:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "LifecycleCallback",
        "metadata": {"generateName": "continue-"},
        "spec": {"lifecycleHookRef": {"name": "hook"}, "instanceId": INSTANCE, "lifecycleActionResult": "CONTINUE"},
    }
    in_namespace = ("-n", workspace.namespace)
    kubectl = workspace.cluster.kubectl
    created = kubectl("create", *in_namespace, "-o", "name", "-f", "-", input=yaml.safe_dump(manifest)).stdout.strip()
    assert created.startswith("lifecyclecallback.as.otc.t-systems.com/continue-")
    kubectl("wait", "--for=condition=Complete", created, *in_namespace, "--timeout=60s")
    assert status_of(workspace, key) == "CONTINUE"
    heading, row = kubectl("get", "lcb", *in_namespace).stdout.splitlines()
    assert heading.split() == ["NAME", "COMPLETE", "REASON", "HOOK", "RESULT", "AGE"]
    assert row.split()[1:5] == ["True", "Accepted", "hook", "CONTINUE"]


def test_only_the_named_instance_of_the_named_hook_is_let_go(workspace: Workspace, key: str) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.put_hook(
        group_id, "foreign", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn="urn:smn:r:p:t"
    )
    others = [cloud.add_hanging_instance(group_id, *each) for each in (("hook", "other"), ("foreign", INSTANCE))]
    workspace.call_back("CONTINUE", INSTANCE)
    workspace.wait_complete()
    assert [status_of(workspace, each) for each in (key, *others)] == ["CONTINUE", "HANGING", "HANGING"]


def test_callbacks_at_the_same_time_are_taken_one_after_the_other(workspace: Workspace, key: str) -> None:
    before = timeout_of(workspace, key)
    for number in range(3):
        workspace.call_back("EXTEND", INSTANCE, name=f"extend-{number}")
    timeouts = {workspace.wait_complete(f"extend-{number}")["status"]["timeout"] for number in range(3)}
    hours = [before + timedelta(hours=number) for number in (1, 2, 3)]
    assert timeouts == {each.strftime("%Y-%m-%dT%H:%M:%SZ") for each in hours}
    assert timeout_of(workspace, key) == hours[-1]


def test_a_hook_whose_deletion_waits_for_a_busy_group_is_freed(workspace: Workspace, key: str) -> None:
    workspace.patch("hook", {"spec": {"suspensionPolicy": "Watch"}})
    workspace.wait("it is listed", lambda body: body["status"].get("suspendedInstances", {}).get("count") == 1)
    workspace.delete()
    body = workspace.wait_reason("GroupBusy")
    assert f"Instance {INSTANCE} is suspended by hook hook until 2" in condition(body, "Ready")["message"]
    workspace.call_back("CONTINUE", INSTANCE)
    workspace.wait_complete()
    workspace.wait_gone(seconds=5)
    assert workspace.cloud.hooks(workspace.group_id) == []
    assert status_of(workspace, key) == "CONTINUE"


@pytest.mark.parametrize(("result", "stage"), [("CONTINUE", "before"), ("CONTINUE", "after"), ("EXTEND", "after")])
def test_a_lost_answer_is_looked_up_and_never_acted_on_twice(
    workspace: Workspace, key: str, result: str, stage: str
) -> None:
    before = timeout_of(workspace, key)
    workspace.cloud.fault("callback", group_id=workspace.group_id, drop=True, stage=stage)
    workspace.call_back(result, INSTANCE)
    body = workspace.wait_complete()
    again = ["callback"] if stage == "before" else []
    assert calls(workspace) == ["list_hanging", "callback", "list_hanging", *again]
    assert condition(body, "Complete")["reason"] == ("Accepted" if stage == "before" else "Confirmed")
    assert "error" not in body["status"]
    if result == "EXTEND":
        assert timeout_of(workspace, key) == before + timedelta(hours=1)
        assert datetime.fromisoformat(body["status"]["timeout"]) == before + timedelta(hours=1)


@pytest.mark.parametrize("fault", [{"code": "AS.7042"}, {"status": 429, "headers": {"Retry-After": "1"}}], ids=str)
def test_a_refusal_while_the_instance_hangs_is_tried_again(
    workspace: Workspace, key: str, fault: dict[str, Any]
) -> None:
    workspace.cloud.fault("callback", group_id=workspace.group_id, **fault)
    workspace.call_back("EXTEND", INSTANCE)
    before = timeout_of(workspace, key)
    assert condition(workspace.wait_complete(), "Complete")["reason"] == "Accepted"
    assert timeout_of(workspace, key) - before in (timedelta(0), timedelta(hours=1))
    assert calls(workspace).count("callback") == 2


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        (lambda cloud, group, key: cloud.update_hanging_instance(group, key, lifecycle_hook_status="CONTINUE"), ""),
        (
            lambda cloud, group, key: cloud.update_hanging_instance(group, key, lifecycle_hook_status="ABANDON"),
            "SuspensionEnded",
        ),
        (lambda cloud, group, key: cloud.delete_hanging_instance(group, key), "SuspensionEnded"),
        (lambda cloud, group, key: cloud.update_hanging_instance(group, key, timeout_seconds=-1), "SuspensionEnded"),
    ],
    ids=["CONTINUE", "ABANDON", "gone", "timed-out"],
)
def test_what_ends_between_the_look_and_the_call_is_found_out(
    workspace: Workspace, key: str, meanwhile: Callable[..., object], expected: str
) -> None:
    held = workspace.cloud.fault("callback", group_id=workspace.group_id, hold=True)
    workspace.call_back("CONTINUE", INSTANCE)
    workspace.cloud.wait_for_request("callback", workspace.group_id, state="held")
    meanwhile(workspace.cloud, workspace.group_id, key)
    again = workspace.cloud.add_hanging_instance(workspace.group_id, "hook", INSTANCE) if expected else ""
    workspace.cloud.release(held)
    if expected:
        workspace.wait_failed(expected)
        assert status_of(workspace, again) == "HANGING"
    else:
        assert condition(workspace.wait_complete(), "Complete")["reason"] == "AlreadyDone"


def test_what_as_lists_late_is_waited_for(workspace: Workspace) -> None:
    workspace.create()
    workspace.call_back("CONTINUE", INSTANCE)
    workspace.cloud.wait_for_request("list_hanging", workspace.group_id)
    workspace.wait_ready()
    key = workspace.cloud.add_hanging_instance(workspace.group_id, "hook", INSTANCE)
    workspace.wait_complete()
    assert status_of(workspace, key) == "CONTINUE"


@pytest.mark.parametrize("ended", [None, "CONTINUE", "ABANDON"])
def test_what_does_not_hang_has_failed_in_the_end(workspace: Workspace, key: str, ended: str | None) -> None:
    if ended is None:
        workspace.cloud.delete_hanging_instance(workspace.group_id, key)
    else:
        workspace.cloud.update_hanging_instance(workspace.group_id, key, lifecycle_hook_status=ended)
    workspace.call_back("CONTINUE", INSTANCE, activeDeadlineSeconds=2)
    body = workspace.wait_failed("NotSuspended" if ended is None else "SuspensionEnded")
    assert workspace.writes("callback") == ["lifecyclecallbacks/status"]
    assert condition(body, "Complete")["status"] == "False"
    assert "callback" not in calls(workspace)


@pytest.mark.parametrize("is_there", [True, False], ids=["somebody else's", "absent"])
def test_a_hook_that_is_not_ours_is_not_called_back_for(workspace: Workspace, is_there: bool) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.put_hook(group_id, "hook", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn="urn:smn:r:p:t")
    key = cloud.add_hanging_instance(group_id, "hook", INSTANCE)
    if is_there:
        workspace.create(adoptionPolicy="Never")
        workspace.wait("it is refused", lambda body: "error" in body.get("status", {}))
    workspace.call_back("CONTINUE", INSTANCE, activeDeadlineSeconds=2)
    workspace.wait_failed("HookNotOwned")
    assert status_of(workspace, key) == "HANGING"
    assert calls(workspace) == []


def test_a_missing_right_is_named_and_waited_for_until_the_deadline(workspace: Workspace) -> None:
    name = workspace.namespace
    hooks = [f"as:lifecycleHooks:{verb}" for verb in ("create", "list", "get", "update", "delete")]
    workspace.cloud.add_user(name, f"password of {name}", permissions=[*hooks, "as:instanceHooks:list"])
    workspace.put_secret("otc", workspace.clouds_yaml(username=name, password=f"password of {name}"))
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    key = workspace.cloud.add_hanging_instance(workspace.group_id, "hook", INSTANCE)
    workspace.call_back("CONTINUE", INSTANCE)
    body = workspace.wait_callback("it waits", lambda body: "error" in body.get("status", {}))
    waiting = condition(body, "Complete")
    assert (waiting["status"], waiting["reason"]) == ("False", "Forbidden")
    assert "Grant the user the right as:instanceHooks:action in this project." in waiting["message"]
    assert (body["status"]["error"]["operation"], body["status"]["error"]["code"]) == ("callback", "AS.0031")
    workspace.call_back("CONTINUE", INSTANCE, name="hurried", activeDeadlineSeconds=1)
    workspace.cloud.set_permissions(None, name)
    workspace.wait_complete()
    assert status_of(workspace, key) == "CONTINUE"
    assert workspace.wait_callback("it has ended", lambda body: "completionTime" in body.get("status", {}), "hurried")


def test_after_the_deadline_nothing_is_done_any_more(workspace: Workspace, key: str) -> None:
    workspace.cloud.fault("callback", group_id=workspace.group_id, count=None, code="AS.0001")
    workspace.call_back("CONTINUE", INSTANCE, activeDeadlineSeconds=2)
    body = workspace.wait_failed("DeadlineExceeded")
    assert body["status"]["error"]["code"] == "AS.0001"
    workspace.cloud.clear_faults()
    assert status_of(workspace, key) == "HANGING"


def test_a_group_that_is_gone_fails_it(workspace: Workspace, key: str) -> None:
    workspace.cloud.delete_group(workspace.group_id)
    workspace.call_back("CONTINUE", INSTANCE)
    workspace.wait_failed("GroupNotFound")


def test_an_unknown_status_is_waited_for(workspace: Workspace, key: str) -> None:
    workspace.cloud.update_hanging_instance(workspace.group_id, key, lifecycle_hook_status="PAUSED")
    workspace.call_back("CONTINUE", INSTANCE)
    body = workspace.wait_callback("it waits", lambda body: condition(body, "Complete"))
    assert condition(body, "Complete")["reason"] == "SuspensionUnclear"
    workspace.cloud.update_hanging_instance(workspace.group_id, key, lifecycle_hook_status="HANGING")
    workspace.wait_complete()


def test_a_finished_callback_goes_when_its_time_is_over(workspace: Workspace, key: str) -> None:
    workspace.call_back("EXTEND", INSTANCE, name="stays")
    workspace.wait_complete("stays")
    workspace.call_back("EXTEND", INSTANCE, name="goes", ttlSecondsAfterFinished=0)
    workspace.wait_callback_gone("goes")
    workspace.call_back("CONTINUE", INSTANCE, name="goes-soon", ttlSecondsAfterFinished=2)
    workspace.wait_complete("goes-soon")
    workspace.wait_callback_gone("goes-soon")
    assert workspace.get_callback("stays") is not None
    assert status_of(workspace, key) == "CONTINUE"


def test_a_callback_cannot_be_changed(workspace: Workspace) -> None:
    workspace.call_back("CONTINUE", INSTANCE)
    patch = '{"spec": {"lifecycleActionResult": "ABANDON"}}'
    refused = workspace.cluster.kubectl(
        "patch", "lcb", "callback", "-n", workspace.namespace, "--type=merge", "-p", patch, check=False
    )
    assert refused.returncode == 1
    assert "a LifecycleCallback cannot be changed: create another" in refused.stderr


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("instanceId", "", "must be 1 to 64 letters, digits, _ or -"),
        ("instanceId", "a b", "must be 1 to 64 letters, digits, _ or -"),
        ("lifecycleHookRef", {"name": "Not_A_Name"}, "must be 1 to 253 lowercase letters, digits, - or ."),
        ("lifecycleActionResult", "STOP", 'supported values: "ABANDON", "CONTINUE", "EXTEND"'),
        ("activeDeadlineSeconds", 0, "should be greater than or equal to 1"),
        ("ttlSecondsAfterFinished", -1, "should be greater than or equal to 0"),
    ],
)
def test_a_broken_rule_is_refused_by_field_and_rule(workspace: Workspace, field: str, value: Any, rule: str) -> None:
    good = {"lifecycleHookRef": {"name": "hook"}, "instanceId": "i", "lifecycleActionResult": "CONTINUE"}
    body = {
        "apiVersion": API_VERSION,
        "kind": "LifecycleCallback",
        "metadata": {"name": "bad"},
        "spec": {**good, field: value},
    }
    said = workspace.apply(body, check=False).stderr
    assert f"spec.{field}" in said
    assert rule in said
