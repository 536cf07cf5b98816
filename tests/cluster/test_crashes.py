"""The operator is killed at the worst moments, and after its restart there is one hook, Ready, and no error."""

from collections.abc import Iterator

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR, OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, ready

USER = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"


@pytest.fixture
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator to be killed."""
    with OperatorProcess(cluster, cloud.credentials_env(), **fast) as process:
        yield process


def assert_one_hook_and_no_error(workspace: Workspace, **expected: object) -> None:
    body = workspace.wait_ready()
    assert "error" not in body["status"]
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert {name: hook[name] for name in expected} == expected
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def status_answers(workspace: Workspace) -> list[int]:
    """Return what the API server has answered to writes of the status."""
    events = workspace.cluster.audit_events(
        user=USER, resource="lifecyclehooks/status", namespace=workspace.namespace, name="hook"
    )
    return [event["responseStatus"]["code"] for event in events]


@pytest.mark.parametrize("is_edited", [False, True], ids=["same-spec", "edited-while-down"])
@pytest.mark.parametrize("stage", ["before", "after"])
def test_killed_in_a_create_call(workspace: Workspace, operator: OperatorProcess, stage: str, is_edited: bool) -> None:
    held = workspace.cloud.fault("create", group_id=workspace.group_id, hold=True, stage=stage)
    workspace.create(adoptionPolicy="Never")
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held, drop=stage == "before")
    if is_edited:
        workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    operator.start()
    assert_one_hook_and_no_error(workspace, default_timeout=77 if is_edited else 3600)
    assert len(workspace.cloud.requests("create", workspace.group_id)) == (1 if stage == "after" else 2)


def test_killed_after_the_answer_and_before_the_status_is_written(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    """The right to write the status is taken away, so that the answer is there and cannot be noted down."""
    role = workspace.cluster.kubectl("get", "clusterrole", "lifecyclehook-operator", "-o", "yaml").stdout
    removal = '[{"op": "remove", "path": "/rules/1"}]'
    workspace.cluster.kubectl("patch", "clusterrole", "lifecyclehook-operator", "--type=json", "-p", removal)
    try:
        may_write = ("auth", "can-i", "patch", "lifecyclehooks", "--subresource=status", f"--as={USER}")
        eventually(
            "the right is gone", lambda: workspace.cluster.kubectl(*may_write, check=False).stdout.startswith("no")
        )
        workspace.create(adoptionPolicy="Never")
        eventually("the status is refused", lambda: 403 in status_answers(workspace))
        assert ready(workspace.get() or {}) == {}
        operator.kill()
        workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    finally:
        workspace.cluster.kubectl("replace", "--force", "-f", "-", input=role)
    operator.start()
    assert_one_hook_and_no_error(workspace, default_timeout=77)
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1


@pytest.mark.parametrize("stage", ["before", "after"])
def test_killed_in_a_modify_call(workspace: Workspace, operator: OperatorProcess, stage: str) -> None:
    workspace.create()
    workspace.wait_ready()
    held = workspace.cloud.fault("modify", group_id=workspace.group_id, hold=True, stage=stage)
    workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    workspace.cloud.wait_for_request("modify", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held, drop=stage == "before")
    operator.start()
    assert_one_hook_and_no_error(workspace, default_timeout=77)


@pytest.mark.parametrize("stage", ["before", "after"])
def test_killed_in_a_delete_call(workspace: Workspace, operator: OperatorProcess, stage: str) -> None:
    workspace.create()
    workspace.wait_ready()
    held = workspace.cloud.fault("delete", group_id=workspace.group_id, hold=True, stage=stage)
    workspace.delete()
    workspace.cloud.wait_for_request("delete", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held, drop=stage == "before")
    operator.start()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_deleted_while_down_with_a_create_call_in_doubt(workspace: Workspace, operator: OperatorProcess) -> None:
    held = workspace.cloud.fault("create", group_id=workspace.group_id, hold=True, stage="after")
    workspace.create()
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held)
    workspace.delete()
    operator.start()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_changes_made_while_it_was_down_are_taken_up(workspace: Workspace, operator: OperatorProcess) -> None:
    workspace.create("edited")
    workspace.create("deleted")
    for name in ("edited", "deleted"):
        workspace.wait_ready(name)
    operator.kill()
    workspace.patch("edited", {"spec": {"defaultTimeout": 77}})
    workspace.delete("deleted")
    workspace.create("created")
    operator.start()
    workspace.wait_ready("edited")
    workspace.wait_ready("created")
    workspace.wait_gone("deleted")
    names = {hook["lifecycle_hook_name"]: hook["default_timeout"] for hook in workspace.cloud.hooks(workspace.group_id)}
    assert names == {"edited": 77, "created": 3600}
