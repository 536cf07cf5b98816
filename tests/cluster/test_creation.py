"""A resource is created, and its status shows what AS answered."""

import pytest

from tests.support.harness import RESPONSE_FIELDS, eventually
from tests.support.workspace import Workspace, condition, ready

pytestmark = pytest.mark.usefixtures("operator")


def test_a_hook_becomes_ready_with_all_that_as_answered(workspace: Workspace) -> None:
    workspace.create(notificationMetadata="drain first", defaultTimeout=120, defaultResult="CONTINUE")
    body = workspace.wait_ready()
    status = body["status"]
    (in_as,) = workspace.cloud.hooks(workspace.group_id)
    assert status["lifecycleHook"] == {
        "lifecycleHookName": "hook",
        "lifecycleHookType": "INSTANCE_LAUNCHING",
        "defaultResult": "CONTINUE",
        "defaultTimeout": 120,
        "notificationTopicUrn": workspace.topic_urn,
        "notificationTopicName": workspace.namespace,
        "notificationMetadata": "drain first",
        "createTime": in_as["create_time"],
    }
    assert set(status["lifecycleHook"]) == RESPONSE_FIELDS
    assert status["projectId"] == workspace.cloud.project_id
    assert ready(body)["reason"] == "Available"
    assert condition(body, "Stalled") == {}
    assert "error" not in status
    workspace.wait_events([("Normal", "Created")])


def test_all_response_fields_are_shown_even_where_as_answers_null(workspace: Workspace) -> None:
    workspace.create()
    hook = workspace.wait_ready()["status"]["lifecycleHook"]
    assert workspace.cloud.hooks(workspace.group_id)[0]["notification_metadata"] is None
    assert set(hook) == RESPONSE_FIELDS
    assert hook["notificationMetadata"] == ""


def test_the_create_call_has_exactly_the_fields_of_the_api_page(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.create("full", notificationMetadata="text", lifecycleHookName="Full_1")
    workspace.wait_ready("full")
    first, second = workspace.cloud.requests("create", workspace.group_id)
    assert first.body == {
        "lifecycle_hook_name": "hook",
        "lifecycle_hook_type": "INSTANCE_LAUNCHING",
        "default_result": "ABANDON",
        "default_timeout": 3600,
        "notification_topic_urn": workspace.topic_urn,
    }
    assert second.body == {**first.body, "lifecycle_hook_name": "Full_1", "notification_metadata": "text"}


def test_a_creation_costs_one_post_and_two_writes_and_leaves_nothing_of_kopf(workspace: Workspace) -> None:
    workspace.create()
    body = workspace.wait_ready()
    eventually("the Event is there", workspace.events)
    assert workspace.writes() == ["lifecyclehooks", "lifecyclehooks/status"]
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == ["create"]
    assert body["metadata"]["finalizers"] == ["as.otc.t-systems.com/lifecyclehook"]
    assert set(body["metadata"]["annotations"]) == {"as.otc.t-systems.com/create-intent"}


def test_a_relabelled_hook_is_left_alone(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.patch("hook", {"metadata": {"labels": {"team": "web"}}})
    workspace.create("marker")  # noticed after the new label, so once it is Ready the label has been seen
    workspace.wait_ready("marker")
    assert workspace.writes() == ["lifecyclehooks", "lifecyclehooks/status"]
    operations = [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)]
    assert operations == ["create", "create"]


def test_kubectl_wait_and_get_tell_the_story(workspace: Workspace) -> None:
    workspace.create()
    workspace.cluster.kubectl("wait", "-n", workspace.namespace, "--for=condition=Ready", "lch/hook", "--timeout=20s")
    assert (
        "lifecyclehook.as.otc.t-systems.com/hook"
        in workspace.cluster.kubectl("get", "otc", "-n", workspace.namespace).stdout
    )
    for name in ("lifecyclehooks", "lch", "lchook"):
        heading, row = workspace.cluster.kubectl("get", name, "-n", workspace.namespace).stdout.splitlines()
        assert heading.split() == ["NAME", "READY", "REASON", "HOOK", "TYPE", "AGE"]
        assert row.split()[:5] == ["hook", "True", "Available", "hook", "INSTANCE_LAUNCHING"]


def test_an_identical_hook_that_exists_is_adopted_without_a_write_to_as(workspace: Workspace) -> None:
    workspace.cloud.put_hook(
        workspace.group_id, "hook", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn=workspace.topic_urn
    )
    workspace.create()
    workspace.wait_ready()
    workspace.wait_events([("Normal", "Adopted")])
    operations = [
        (request.operation, request.code) for request in workspace.cloud.requests(group_id=workspace.group_id)
    ]
    assert operations == [("create", "AS.7041"), ("list", None)]


def test_a_different_hook_that_exists_is_neither_touched_nor_deleted(workspace: Workspace) -> None:
    before = workspace.cloud.put_hook(
        workspace.group_id,
        "hook",
        lifecycle_hook_type="INSTANCE_TERMINATING",
        notification_topic_urn=workspace.topic_urn,
    )
    workspace.create()
    body = workspace.wait_reason("AlreadyExists")
    assert condition(body, "Stalled")["status"] == "True"
    assert "lifecycleHookType" in ready(body)["message"]
    assert "lifecycleHook" not in body["status"]
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == [before]


def test_a_hook_named_list_becomes_ready(workspace: Workspace) -> None:
    workspace.create("list")
    workspace.wait_ready("list")
    workspace.delete("list")
    workspace.wait_gone("list")
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_different_hook_that_exists_is_adopted_and_modified_where_the_policy_is_always(workspace: Workspace) -> None:
    workspace.cloud.put_hook(
        workspace.group_id,
        "hook",
        lifecycle_hook_type="INSTANCE_LAUNCHING",
        notification_topic_urn=workspace.topic_urn,
        default_timeout=99,
    )
    workspace.create(adoptionPolicy="Always")
    workspace.wait_ready()
    (modify,) = workspace.cloud.requests("modify", workspace.group_id)
    assert modify.body == {"default_timeout": 3600}
    workspace.wait_events([("Normal", "Adopted")])
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_even_an_identical_hook_is_not_adopted_where_the_policy_is_never(workspace: Workspace) -> None:
    before = workspace.cloud.put_hook(
        workspace.group_id, "hook", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn=workspace.topic_urn
    )
    workspace.create(adoptionPolicy="Never")
    workspace.wait_reason("AlreadyExists")
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == [before]
