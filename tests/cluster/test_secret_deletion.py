"""A Secret that is being deleted while hooks need it: they go on working, and say what holds it up and the way out."""

from typing import Any

import pytest

from tests.support.harness import OperatorProcess, eventually
from tests.support.workspace import Workspace, ready

NOTE = "is being deleted, but stays until no LifecycleHook needs it"
#: As docs/troubleshooting.md has it.
TAKE_OFF = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')

pytestmark = pytest.mark.usefixtures("operator")


def delete_secret(workspace: Workspace) -> None:
    """Delete the Secret as a user does who does not wait, or as Argo CD does."""
    workspace.cluster.kubectl("delete", "secret", "otc", "-n", workspace.namespace, "--wait=false")


def has_note(body: dict[str, Any]) -> bool:
    return NOTE in ready(body).get("message", "")


def wait_note(workspace: Workspace, name: str = "hook") -> dict[str, Any]:
    return workspace.wait("it is reported", has_note, name)


def without_message(body: dict[str, Any]) -> dict[str, Any]:
    return {**body["status"], "conditions": [{**each, "message": ""} for each in body["status"]["conditions"]]}


def test_hooks_work_on_and_say_so_until_the_secret_is_let_go_by_hand(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    names = ("one", "other")
    before = {}
    for name in names:
        workspace.create(name, credentialsRef={"secretName": "otc"})
        before[name] = workspace.wait_ready(name)
    delete_secret(workspace)
    for name in names:
        noted = wait_note(workspace, name)
        assert f"Secret {workspace.namespace}/otc {NOTE}" in ready(noted)["message"]
        assert without_message(noted) == without_message(before[name])
        workspace.wait_events([("Normal", "Created"), ("Warning", "SecretInUse")], name)
        assert workspace.writes(name) == ["lifecyclehooks", "lifecyclehooks/status", "lifecyclehooks/status"]
    operations = {request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)}
    assert operations == {"create", "list"}

    workspace.patch("one", {"spec": {"defaultTimeout": 61}})
    assert has_note(workspace.wait_ready("one"))
    assert workspace.secret("otc").metadata.deletion_timestamp

    workspace.cluster.kubectl("patch", "secret", "otc", "-n", workspace.namespace, *TAKE_OFF)
    assert workspace.secret("otc") is None
    for name in names:
        assert not has_note(workspace.wait_reason("CredentialsNotFound", name))
    workspace.put_secret("otc", workspace.clouds_yaml())
    for name in names:
        assert not has_note(workspace.wait_ready(name))
    eventually("the new one is held", lambda: workspace.secret("otc").metadata.finalizers)
    edits = ["lifecyclehooks/status"] * 3
    assert workspace.writes("other") == ["lifecyclehooks", "lifecyclehooks/status", *edits]


def test_hooks_that_need_it_no_more_let_it_go(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    for name in ("one", "other"):
        workspace.create(name, credentialsRef={"secretName": "otc"})
        workspace.wait_ready(name)
    delete_secret(workspace)
    for name in ("one", "other"):
        wait_note(workspace, name)
    workspace.patch("one", {"spec": {"credentialsRef": None}})
    assert not has_note(workspace.wait_ready("one"))
    workspace.delete("other")
    workspace.wait_gone("other")
    eventually("the Secret is gone", lambda: workspace.secret("otc") is None)
    assert [hook["lifecycle_hook_name"] for hook in workspace.cloud.hooks(workspace.group_id)] == ["one"]


def test_a_hook_that_fails_says_both_and_is_written_once(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(notificationTopicUrn=workspace.topic_urn + "-absent", credentialsRef={"secretName": "otc"})
    before = workspace.wait_reason("TopicNotFound")
    delete_secret(workspace)
    noted = wait_note(workspace)
    assert ready(noted)["message"].startswith(ready(before)["message"])
    assert without_message(noted) == without_message(before)
    (last,) = workspace.cloud.requests(group_id=workspace.group_id)[-1:]
    workspace.cloud.wait_for_request("create", workspace.group_id, count=2, after=last.sequence)
    assert workspace.get() == noted


def test_a_restart_changes_nothing_of_it(workspace: Workspace, operator: OperatorProcess) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    delete_secret(workspace)
    noted = wait_note(workspace)
    operator.stop()
    operator.start()
    workspace.create("later", credentialsRef={"secretName": "otc"})
    wait_note(workspace, "later")
    assert workspace.get() == noted
    for name in ("hook", "later"):
        workspace.delete(name)
        workspace.wait_gone(name)
    eventually("the Secret is gone", lambda: workspace.secret("otc") is None)
