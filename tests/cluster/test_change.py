"""A spec is edited, and AS follows."""

import pytest

from tests.support.workspace import Workspace, ready

pytestmark = pytest.mark.usefixtures("operator")


def test_an_edit_sends_just_what_differs(workspace: Workspace) -> None:
    workspace.create(defaultTimeout=120, notificationMetadata="one")
    workspace.wait_ready()
    workspace.patch("hook", {"spec": {"defaultTimeout": 240}})
    body = workspace.wait_ready()
    (modify,) = workspace.cloud.requests("modify", workspace.group_id)
    assert modify.body == {"default_timeout": 240}
    assert body["status"]["lifecycleHook"]["defaultTimeout"] == 240
    assert body["status"]["observedGeneration"] == body["status"]["appliedGeneration"] == 2
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == [
        "create",
        "modify",
    ]
    workspace.wait_events([("Normal", "Created"), ("Normal", "Updated")])
    assert workspace.writes() == ["lifecyclehooks", "lifecyclehooks/status", "lifecyclehooks/status"]


@pytest.mark.parametrize(
    ("field", "value", "sent"),
    [
        ("notificationMetadata", "text", {"notification_metadata": ""}),
        ("defaultTimeout", 60, {"default_timeout": 3600}),
        ("defaultResult", "CONTINUE", {"default_result": "ABANDON"}),
    ],
)
def test_a_removed_optional_field_goes_back_to_its_default(
    workspace: Workspace, field: str, value: object, sent: dict[str, object]
) -> None:
    workspace.create(**{field: value})
    workspace.wait_ready()
    workspace.patch("hook", {"spec": {field: None}})
    workspace.wait_ready()
    (modify,) = workspace.cloud.requests("modify", workspace.group_id)
    assert modify.body == sent


def test_quick_edits_end_in_the_last(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    held = workspace.cloud.fault("modify", group_id=workspace.group_id, hold=True)
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    workspace.cloud.wait_for_request("modify", workspace.group_id, state="held")
    workspace.patch("hook", {"spec": {"defaultTimeout": 62}})
    workspace.patch("hook", {"spec": {"defaultTimeout": 63, "defaultResult": "CONTINUE"}})
    workspace.cloud.release(held)
    body = workspace.wait_ready()
    assert body["metadata"]["generation"] == 4
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert (hook["default_timeout"], hook["default_result"]) == (63, "CONTINUE")
    bodies = [request.body for request in workspace.cloud.requests("modify", workspace.group_id)]
    assert bodies == [{"default_timeout": 61}, {"default_timeout": 63, "default_result": "CONTINUE"}]


def test_an_edit_in_the_way_of_the_finalizer_is_not_lost(workspace: Workspace) -> None:
    for number in range(5):
        workspace.create(f"hook-{number}")
        workspace.patch(f"hook-{number}", {"spec": {"defaultTimeout": 100 + number}})
    for number in range(5):
        workspace.wait_ready(f"hook-{number}")
    timeouts = {
        hook["lifecycle_hook_name"]: hook["default_timeout"] for hook in workspace.cloud.hooks(workspace.group_id)
    }
    assert timeouts == {f"hook-{number}": 100 + number for number in range(5)}


def test_a_failed_edit_is_shown_and_tried_again(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.set_busy(workspace.group_id)
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    body = workspace.wait_reason("GroupBusy")
    assert body["status"]["error"]["operation"] == "modify"
    assert body["status"]["lifecycleHook"]["defaultTimeout"] == 3600
    workspace.cloud.set_busy(workspace.group_id, busy=False)
    assert workspace.wait_ready()["status"]["lifecycleHook"]["defaultTimeout"] == 61


def test_a_moved_hook_that_got_past_an_older_crd_is_refused(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    elsewhere = {"scalingGroupId": "another-group"}
    workspace.objects.patch_namespaced_custom_object_status(
        *workspace.address, "hook", {"status": elsewhere}, _content_type="application/merge-patch+json"
    )
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    body = workspace.wait_reason("InvalidSpec")
    assert "spec.scalingGroupId cannot be changed: it was 'another-group'" in ready(body)["message"]
    assert workspace.cloud.requests("modify", workspace.group_id) == []


def test_a_ready_hook_is_unknown_while_a_change_meets_a_transient_error(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.fault("modify", group_id=workspace.group_id, status=503, count=None)
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    body = workspace.wait_reason("CloudUnavailable")
    assert ready(body)["status"] == "Unknown"
    workspace.cloud.clear_faults()
    workspace.wait_ready()
