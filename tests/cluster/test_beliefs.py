"""What the operator knows of a hook without listing it, and what it does not."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, ready


@pytest.fixture
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator without a resync while a test runs."""
    with OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=864_000, **fast) as process:
        yield process


def put_same_hook(workspace: Workspace) -> dict[str, Any]:
    return workspace.cloud.put_hook(
        workspace.group_id, "hook", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn=workspace.topic_urn
    )


def observe(workspace: Workspace) -> None:
    workspace.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": "now"}}})


def test_a_hook_of_somebody_else_is_not_taken_for_ours_after_a_restart(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    before = put_same_hook(workspace)
    workspace.create(adoptionPolicy="Never")
    workspace.wait_reason("AlreadyExists")
    workspace.cloud.wait_for_request("list", workspace.group_id, count=2)
    writes = workspace.writes()
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1
    operator.kill()
    operator.start()
    (last,) = workspace.cloud.requests(group_id=workspace.group_id)[-1:]
    workspace.cloud.wait_for_request("list", workspace.group_id, count=2, after=last.sequence)
    body = workspace.get() or {}
    assert ready(body)["reason"] == "AlreadyExists"
    assert workspace.writes() == writes
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == [before]


@pytest.mark.usefixtures("operator")
def test_a_hook_that_came_into_being_late_goes_with_its_resource(workspace: Workspace) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, status=504)
    workspace.cloud.fault("create", group_id=workspace.group_id, status=400, json={"error": {"code": "AS.2020"}})
    workspace.create()
    workspace.wait_reason("GroupBusy")
    put_same_hook(workspace)
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


@pytest.mark.usefixtures("operator")
def test_a_hook_that_came_into_being_late_is_known_though_the_spec_was_edited_since(workspace: Workspace) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, status=504)
    busy = {"status": 400, "json": {"error": {"code": "AS.2020"}}}
    for _ in range(2):
        workspace.cloud.fault("create", group_id=workspace.group_id, **busy)
    workspace.create(adoptionPolicy="Never")
    workspace.wait_reason("GroupBusy")
    workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    workspace.wait("the edit is seen", lambda body: body["status"]["observedGeneration"] == 2)
    put_same_hook(workspace)
    workspace.wait_ready()
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert hook["default_timeout"] == 77


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_hook_known_only_by_the_intent_stays_known_when_the_next_call_fails(
    workspace: Workspace, operator: OperatorProcess, *, is_killed: bool
) -> None:
    held = workspace.cloud.fault("create", group_id=workspace.group_id, hold=True, stage="after")
    workspace.create(adoptionPolicy="Never")
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held)
    workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    if is_killed:
        held = workspace.cloud.fault("modify", group_id=workspace.group_id, hold=True, stage="after")
        operator.start()
        workspace.cloud.wait_for_request("modify", workspace.group_id, state="held")
        operator.kill()
        workspace.cloud.release(held)
    else:
        workspace.cloud.fault("modify", group_id=workspace.group_id, status=500)
    operator.start()
    workspace.wait_ready()
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_hook_whose_resource_went_past_the_finalizer_goes_too(workspace: Workspace, policy: str) -> None:
    """The API server itself lets that happen where finalizer and deletion meet."""
    held = workspace.cloud.fault("create", group_id=workspace.group_id, hold=True, stage="after")
    workspace.create(deletionPolicy=policy)
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    workspace.delete()
    workspace.let_go("hook")
    assert workspace.get() is None
    workspace.create("next")
    workspace.cloud.wait_for_request("create", workspace.group_id, hook_name="next", state="answered")
    workspace.wait_ready("next")
    workspace.cloud.release(held)
    workspace.create("later")
    workspace.wait_ready("later")
    if policy == "Delete":
        workspace.cloud.wait_for_request("delete", workspace.group_id, hook_name="hook", state="answered")
    names = {hook["lifecycle_hook_name"] for hook in workspace.cloud.hooks(workspace.group_id)}
    assert names == {"next", "later"} | ({"hook"} if policy == "Retain" else set())


def test_an_edit_taken_back_after_a_crash_in_its_call_is_taken_back_in_as(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    workspace.create()
    workspace.wait_ready()
    held = workspace.cloud.fault("modify", group_id=workspace.group_id, hold=True, stage="after")
    workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    workspace.cloud.wait_for_request("modify", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held)
    workspace.patch("hook", {"spec": {"defaultTimeout": 3600}})
    operator.start()
    workspace.wait_ready()
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert hook["default_timeout"] == 3600


@pytest.mark.usefixtures("operator")
def test_a_hook_whose_loss_was_reported_is_there_when_the_resource_is_ready_again(workspace: Workspace) -> None:
    workspace.create(driftPolicy="Report")
    workspace.wait_ready()
    workspace.cloud.delete_hook(workspace.group_id, "hook")
    observe(workspace)
    workspace.wait_reason("Drifted")
    workspace.patch("hook", {"spec": {"driftPolicy": "Repair"}})
    workspace.wait_ready()
    assert len(workspace.cloud.hooks(workspace.group_id)) == 1


@pytest.mark.usefixtures("operator")
def test_an_edit_does_not_make_a_hook_ready_whose_group_is_gone(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.delete_group(workspace.group_id)
    observe(workspace)
    workspace.wait_reason("GroupNotFound")
    workspace.patch("hook", {"spec": {"deletionPolicy": "Retain"}})
    body = workspace.wait("it is seen", lambda body: body["status"]["observedGeneration"] == 2)
    assert ready(body)["reason"] == "GroupNotFound"


@pytest.mark.usefixtures("operator")
def test_the_status_of_a_corrected_spec_tells_of_that_and_not_of_the_one_before(workspace: Workspace) -> None:
    workspace.create(notificationTopicUrn=workspace.topic_urn + "-absent")
    first = workspace.wait_reason("TopicNotFound")["status"]["error"]
    workspace.patch("hook", {"spec": {"notificationTopicUrn": workspace.topic_urn + "-gone"}})
    body = workspace.wait("it is seen", lambda body: body["status"]["observedGeneration"] == 2)
    assert "-gone" in ready(body)["message"]
    assert "-gone" in body["status"]["error"]["message"]
    assert body["status"]["error"]["requestId"] != first["requestId"]


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(("code", "reason"), [("AS.0031", "Forbidden"), ("AS.7030", "UnexpectedResponse")])
def test_a_deletion_is_tried_again_whatever_as_says(workspace: Workspace, code: str, reason: str) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.fault("delete", group_id=workspace.group_id, status=400, json={"error": {"code": code}})
    workspace.delete()
    assert workspace.wait_reason(reason)["status"]["error"]["code"] == code
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


@pytest.mark.usefixtures("operator")
def test_an_owner_that_only_others_keep_does_not_keep_the_hook(workspace: Workspace) -> None:
    workspace.create("older", lifecycleHookName="shared")
    workspace.wait_ready("older")
    workspace.create("younger", lifecycleHookName="shared")
    workspace.wait_reason("Conflict", "younger")
    ours = (workspace.get("older") or {})["metadata"]["finalizers"]
    workspace.patch("older", {"metadata": {"finalizers": [*ours, "example.com/backup"]}})
    workspace.delete("older")
    workspace.wait_ready("younger")
    assert (workspace.get("older") or {})["metadata"]["finalizers"] == ["example.com/backup"]
    workspace.let_go("older")


@pytest.mark.usefixtures("operator")
def test_a_cloud_that_asks_for_patience_gets_it_though_the_status_cannot_be_written(
    workspace: Workspace, refuse_changes: Callable[[str, str, list[str]], Callable[[], None]]
) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, status=429, headers={"Retry-After": "600"}, hold=True)
    lift = create_while_the_status_is_refused(workspace, refuse_changes)
    refused = 2
    eventually("the status is refused", lambda: len(writes_refused(workspace)) >= refused)
    lift()
    workspace.wait_reason("Throttled")
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1


def create_while_the_status_is_refused(
    workspace: Workspace, refuse_changes: Callable[[str, str, list[str]], Callable[[], None]]
) -> Callable[[], None]:
    """Create a resource whose create call is held until its status can't be written; return what ends the refusal."""
    (fault,) = workspace.cloud.faults()
    workspace.create()
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    status = '{"status": {"projectId": "x"}}'
    lift = refuse_changes(
        "as.otc.t-systems.com",
        "lifecyclehooks/status",
        ["patch", "lifecyclehook", "hook", "--subresource=status", "--type=merge", "-p", status],
    )
    workspace.cloud.release(fault["id"])
    return lift


def writes_refused(workspace: Workspace) -> list[dict[str, Any]]:
    events = workspace.cluster.audit_events(
        resource="lifecyclehooks/status", namespace=workspace.namespace, name="hook", verbs=("patch",)
    )
    return [
        event
        for event in events
        if event["responseStatus"]["code"] == 422 and "lifecyclehook-operator" in event["user"]["username"]
    ]


@pytest.mark.usefixtures("operator")
def test_a_hook_known_by_its_fingerprint_stays_named_when_its_first_change_fails(
    workspace: Workspace, refuse_changes: Callable[[str, str, list[str]], Callable[[], None]]
) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, hold=True)
    lift = create_while_the_status_is_refused(workspace, refuse_changes)
    eventually("the status is refused", lambda: writes_refused(workspace))
    workspace.cloud.fault("modify", group_id=workspace.group_id, stage="before", status=503, count=None)
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    lift()
    body = workspace.wait_reason("CloudUnavailable")
    assert body["status"]["lifecycleHook"]["lifecycleHookName"] == "hook"
    workspace.cloud.clear_faults()
    workspace.wait_ready()
