"""The user lacks a right: the status names it, and all goes on by itself once it is granted."""

import pytest

from tests.support.workspace import Workspace, condition, ready

ALL = {
    "as:lifecycleHooks:create",
    "as:lifecycleHooks:list",
    "as:lifecycleHooks:get",
    "as:lifecycleHooks:update",
    "as:lifecycleHooks:delete",
}

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def user(workspace: Workspace) -> str:
    """Return the name of a user of this workspace's own, as whom the operator is to work there."""
    name = workspace.namespace
    workspace.cloud.add_user(name, f"password of {name}")
    workspace.put_secret("otc", workspace.clouds_yaml(username=name, password=f"password of {name}"))
    return name


def wait_refused(workspace: Workspace, operation: str, right: str) -> None:
    """Wait until the status says that this right is missing, and see that the call is tried again."""
    body = workspace.wait(
        f"{operation} is refused", lambda body: body.get("status", {}).get("error", {}).get("operation") == operation
    )
    error = body["status"]["error"]
    assert (error["httpStatus"], error["code"], error["retry"]) == (400, "AS.0031", "Slow")
    assert ready(body)["reason"] == "Forbidden"
    assert f"Grant the user the right {right} in this project." in ready(body)["message"]
    assert condition(body, "Stalled")["status"] == "True"
    workspace.cloud.wait_for_request(operation, workspace.group_id, count=2)


def test_a_right_that_is_missing_is_named_and_waited_for_by_every_call(workspace: Workspace, user: str) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    create, list_, modify, delete = (f"as:lifecycleHooks:{verb}" for verb in ("create", "list", "update", "delete"))

    cloud.set_permissions([*ALL - {create}], user)
    workspace.create(credentialsRef={"secretName": "otc"})
    wait_refused(workspace, "create", create)
    cloud.set_permissions([*ALL - {modify}], user)
    workspace.wait_ready()

    workspace.patch("hook", {"spec": {"defaultTimeout": 60}})
    wait_refused(workspace, "modify", modify)
    cloud.set_permissions([*ALL - {list_}], user)
    # After a failure the hook is looked at first.
    wait_refused(workspace, "list", list_)
    cloud.set_permissions([*ALL - {delete}], user)
    workspace.wait_ready()
    assert [hook["default_timeout"] for hook in cloud.hooks(group_id)] == [60]

    workspace.delete()
    wait_refused(workspace, "delete", delete)
    cloud.set_permissions(None, user)
    workspace.wait_gone()
    assert cloud.hooks(group_id) == []


def test_for_a_user_without_a_role_the_message_names_all_rights_and_what_was_used(
    workspace: Workspace, user: str
) -> None:
    workspace.cloud.set_permissions([], user)
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait_reason("Forbidden")
    assert (body["status"]["error"]["httpStatus"], body["status"]["error"]["code"]) == (403, "AS.0011")
    message = ready(body)["message"]
    assert "Grant the user the as:lifecycleHooks permissions in this project." in message
    assert f"Used Secret {workspace.namespace}/otc (cloud otc), auth_url {workspace.cloud.auth_url}" in message
    assert f"({workspace.cloud.project_id})" in message
    assert f"password of {user}" not in str(body)
    workspace.cloud.set_permissions(None, user)
    workspace.wait_ready()
