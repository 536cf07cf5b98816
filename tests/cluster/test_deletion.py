"""A resource is deleted, and nothing is orphaned."""

import pytest

from tests.harness import eventually
from tests.workspace import Workspace, ready

pytestmark = pytest.mark.usefixtures("operator")


def test_the_hook_goes_with_its_resource(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []
    eventually("the Event is there", lambda: ("Normal", "Deleted") in workspace.events())
    operations = [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)]
    assert operations == ["create", "delete"]


def test_a_retained_hook_stays_without_a_call(workspace: Workspace) -> None:
    workspace.create(deletionPolicy="Retain")
    workspace.wait_ready()
    workspace.delete()
    workspace.wait_gone()
    assert len(workspace.cloud.hooks(workspace.group_id)) == 1
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == ["create"]


def test_a_hook_that_is_gone_already_counts_as_deleted(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.delete_hook(workspace.group_id, "hook")
    workspace.delete()
    workspace.wait_gone()


def test_a_hook_whose_group_is_gone_counts_as_deleted(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.delete_group(workspace.group_id)
    workspace.delete()
    workspace.wait_gone()


def test_a_failed_deletion_says_why_and_is_tried_again(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.set_busy(workspace.group_id)
    workspace.delete()
    body = workspace.wait_reason("GroupBusy")
    assert ready(body)["status"] == "False"
    assert body["status"]["error"]["operation"] == "delete"
    workspace.cloud.set_busy(workspace.group_id, busy=False)
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_hook_whose_create_answer_was_lost_goes_with_its_resource(workspace: Workspace) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, stage="after", drop=True, count=None)
    workspace.cloud.fault("list", group_id=workspace.group_id, status=503, count=None)
    workspace.create()
    workspace.wait_reason("CloudUnavailable")
    workspace.delete()
    assert len(workspace.cloud.hooks(workspace.group_id)) == 1
    workspace.cloud.clear_faults()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_resource_that_never_got_as_far_as_a_call_goes_at_once(workspace: Workspace) -> None:
    workspace.create(credentialsRef={"secretName": "absent"})
    workspace.wait_reason("CredentialsNotFound")
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.requests(group_id=workspace.group_id) == []
