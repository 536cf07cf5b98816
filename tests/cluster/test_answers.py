"""AS answers oddly, and no hook is taken for another, nor for gone."""

from typing import Any

import pytest

from tests.support.workspace import Workspace, ready

pytestmark = pytest.mark.usefixtures("operator")


def observe(workspace: Workspace) -> None:
    workspace.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": "now"}}})


def put_other(workspace: Workspace) -> dict[str, Any]:
    """Put a hook of somebody else's into the group, and return it as AS answers it."""
    return workspace.cloud.put_hook(
        workspace.group_id,
        "other",
        lifecycle_hook_type="INSTANCE_LAUNCHING",
        notification_topic_urn=workspace.topic_urn,
    )


def operations(workspace: Workspace) -> list[str | None]:
    return [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)]


def test_what_the_resource_does_not_need_may_be_missing(workspace: Workspace) -> None:
    answer = put_other(workspace) | {"lifecycle_hook_name": "hook", "create_time": None, "notification_metadata": None}
    del answer["notification_topic_name"]
    workspace.cloud.fault("create", group_id=workspace.group_id, status=200, stage="after", json=answer)
    workspace.create()
    hook = workspace.wait_ready()["status"]["lifecycleHook"]
    assert (hook["lifecycleHookName"], hook["notificationTopicUrn"]) == ("hook", workspace.topic_urn)
    assert (hook["notificationTopicName"], hook["notificationMetadata"], hook["createTime"]) == ("", "", "")
    assert operations(workspace) == ["create"]


def test_odd_hooks_of_others_do_not_keep_drift_from_being_corrected(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    drifted = workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=60)
    listed = [{"lifecycle_hook_name": "odd", "default_timeout": "soon"}, None, drifted]
    workspace.cloud.fault("list", group_id=workspace.group_id, status=200, json={"lifecycle_hooks": listed})
    observe(workspace)
    workspace.wait("it is reverted", lambda body: "Reverted external change" in ready(body)["message"])
    assert [hook["default_timeout"] for hook in workspace.cloud.hooks(workspace.group_id)] == [3600]
    assert operations(workspace) == ["create", "list", "modify"]


def test_a_hook_that_may_be_a_nameless_one_is_not_created_again(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    answer = {"lifecycle_hooks": [{}]}
    workspace.cloud.fault("list", group_id=workspace.group_id, status=200, json=answer, count=None)
    observe(workspace)
    body = workspace.wait_reason("UnexpectedResponse")
    assert ready(body)["status"] == "Unknown"
    assert body["status"]["lifecycleHook"]["lifecycleHookName"] == "hook"
    workspace.cloud.wait_for_request("list", workspace.group_id, count=2)
    workspace.cloud.clear_faults()
    workspace.wait_ready()
    assert {*operations(workspace)[1:]} == {"list"}


def test_a_resource_whose_hook_may_be_a_nameless_one_is_not_let_go(workspace: Workspace) -> None:
    answer = {"lifecycle_hooks": [None]}
    workspace.cloud.fault("create", group_id=workspace.group_id, stage="after", drop=True, count=None)
    workspace.cloud.fault("list", group_id=workspace.group_id, status=200, json=answer, count=None)
    workspace.create()
    workspace.wait_reason("CloudUnavailable")
    workspace.delete()
    workspace.wait_reason("UnexpectedResponse")
    assert len(workspace.cloud.hooks(workspace.group_id)) == 1
    workspace.cloud.clear_faults()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_create_answer_about_another_hook_is_looked_into(workspace: Workspace) -> None:
    other = put_other(workspace)
    for stage in ("before", "after"):
        workspace.cloud.fault("create", group_id=workspace.group_id, stage=stage, status=200, json=other)
    workspace.create()
    body = workspace.wait_ready()
    assert body["status"]["lifecycleHook"]["lifecycleHookName"] == "hook"
    assert operations(workspace) == ["create", "list", "list", "create", "list"]
    workspace.wait_events([("Warning", "UnexpectedResponse"), ("Normal", "Created")])
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == [other]


def test_a_modify_answer_about_another_hook_is_looked_into(workspace: Workspace) -> None:
    other = put_other(workspace)
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.fault("modify", group_id=workspace.group_id, stage="after", status=200, json=other)
    workspace.patch("hook", {"spec": {"defaultTimeout": 60}})
    hook = workspace.wait_ready()["status"]["lifecycleHook"]
    assert (hook["lifecycleHookName"], hook["defaultTimeout"]) == ("hook", 60)
    assert operations(workspace) == ["create", "modify", "list"]
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == [other]
