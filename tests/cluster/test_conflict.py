"""Two resources claim one hook: one owns it, the other says who does."""

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, condition, ready

pytestmark = pytest.mark.usefixtures("operator")


def claim_twice(workspace: Workspace, **fields: object) -> None:
    workspace.create("older", lifecycleHookName="shared", defaultTimeout=100)
    workspace.wait_ready("older")
    workspace.create("younger", lifecycleHookName="shared", defaultTimeout=200, **fields)


def test_the_older_owns_the_hook_and_the_other_says_so(workspace: Workspace) -> None:
    claim_twice(workspace)
    body = workspace.wait_reason("Conflict", "younger")
    assert f"{workspace.namespace}/older" in ready(body)["message"]
    assert condition(body, "Stalled")["status"] == "True"
    assert "lifecycleHook" not in body["status"]
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == ["create"]
    workspace.delete("younger")
    workspace.wait_gone("younger")
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert hook["default_timeout"] == 100


def test_the_owners_deletion_hands_the_hook_over(workspace: Workspace) -> None:
    claim_twice(workspace)
    workspace.wait_reason("Conflict", "younger")
    workspace.delete("older")
    workspace.wait_ready("younger")
    assert workspace.get("older") is None
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert hook["default_timeout"] == 200
    operations = [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)]
    assert operations == ["create", "delete", "create"]


def test_it_works_across_namespaces(cluster: ControlPlane, cloud: Simulator, workspace: Workspace) -> None:
    with Workspace(cluster, cloud) as other:
        workspace.create("hook")
        workspace.wait_ready()
        other.create("hook", scalingGroupId=workspace.group_id)
        body = other.wait_reason("Conflict")
        assert f"{workspace.namespace}/hook" in ready(body)["message"]
        workspace.delete()
        other.wait_ready()


def test_of_two_at_once_one_wins_and_as_sees_one_create_call(workspace: Workspace) -> None:
    for name in ("one", "other"):
        workspace.create(name, lifecycleHookName="shared")
    reasons = eventually(
        "both are reconciled",
        lambda: (
            reasons
            if (reasons := sorted(ready(body).get("reason", "") for body in workspace.all()))
            == ["Available", "Conflict"]
            else None
        ),
    )
    assert reasons == ["Available", "Conflict"]
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1


def test_it_holds_after_a_restart(workspace: Workspace, operator: OperatorProcess) -> None:
    claim_twice(workspace)
    workspace.wait_reason("Conflict", "younger")
    before = workspace.all()
    operator.kill()
    operator.start()
    workspace.create("marker")
    workspace.wait_ready("marker")
    assert [body for body in workspace.all() if body["metadata"]["name"] != "marker"] == before
    workspace.delete("older")
    workspace.wait_ready("younger")


def test_who_has_no_access_to_the_project_bars_nobody(workspace: Workspace) -> None:
    workspace.cloud.add_project("eu-de_other")
    workspace.put_secret("other", workspace.clouds_yaml(project_name="eu-de_other"))
    workspace.create("squatter", lifecycleHookName="hook", credentialsRef={"secretName": "other"})
    workspace.wait_reason("GroupNotFound", "squatter")
    workspace.create("hook")
    workspace.wait_ready("hook")
