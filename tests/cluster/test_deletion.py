"""A resource is deleted, and nothing is orphaned."""

from collections.abc import Callable

import pytest

from tests.support.harness import OperatorProcess, eventually
from tests.support.workspace import Workspace, ready

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


def test_a_404_without_a_code_is_looked_into_before_the_resource_goes(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    for stage in ("before", "after"):
        workspace.cloud.fault("delete", group_id=workspace.group_id, stage=stage, status=404, text="")
    workspace.delete()
    workspace.wait_gone()
    workspace.wait_events([("Normal", "Created"), ("Warning", "UnexpectedResponse"), ("Normal", "Deleted")])
    assert workspace.cloud.hooks(workspace.group_id) == []
    requests = workspace.cloud.requests(group_id=workspace.group_id)
    assert [request.operation for request in requests] == ["create", "delete", "list", "delete", "list"]
    assert [request.processed for request in requests if request.operation == "delete"] == [False, True]


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


def test_wrong_credentials_keep_the_resource_until_an_admin_lets_it_go(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    workspace.replace_secret("otc", workspace.clouds_yaml(password="no longer"))
    workspace.cloud.revoke_tokens()
    workspace.delete()
    body = workspace.wait_reason("AuthenticationFailed")
    assert body["metadata"]["deletionTimestamp"]
    workspace.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/force-release": "true"}}})
    workspace.wait_gone()
    assert len(workspace.cloud.hooks(workspace.group_id)) == 1
    eventually("the Event is there", lambda: ("Warning", "ForceFinalized") in workspace.events())


def test_a_secret_in_use_stays_until_the_last_hook_is_gone(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    for name in ("one", "other"):
        workspace.create(name, credentialsRef={"secretName": "otc"})
        workspace.wait_ready(name)
    workspace.core.delete_namespaced_secret("otc", workspace.namespace)
    workspace.delete("one")
    workspace.wait_gone("one")
    assert workspace.secret("otc") is not None
    workspace.delete("other")
    workspace.wait_gone("other")
    eventually("the Secret is gone", lambda: workspace.secret("otc") is None)
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_secret_that_is_being_deleted_serves_for_as_long_as_it_is_there(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    hold = {"metadata": {"finalizers": ["example.com/backup"]}}
    workspace.core.patch_namespaced_secret("otc", workspace.namespace, hold)
    workspace.core.delete_namespaced_secret("otc", workspace.namespace)
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    assert workspace.secret("otc").metadata.finalizers == ["example.com/backup"]
    workspace.core.patch_namespaced_secret("otc", workspace.namespace, {"metadata": {"finalizers": None}})


def test_a_secret_that_is_no_longer_needed_is_left_as_it_was(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    held = workspace.secret("otc")
    assert held is not None
    assert held.metadata.finalizers == ["as.otc.t-systems.com/lifecyclehook"]
    workspace.patch("hook", {"spec": {"credentialsRef": None}})
    workspace.wait_ready()

    def is_as_it_was() -> bool:
        secret = workspace.secret("otc")
        return secret is not None and not secret.metadata.finalizers and not secret.metadata.labels

    eventually("the Secret is released", is_as_it_was)


def test_a_secret_let_go_while_the_operator_was_down_is_noticed(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    operator.kill()
    workspace.patch("hook", {"metadata": {"finalizers": None}})
    workspace.delete()
    workspace.core.delete_namespaced_secret("otc", workspace.namespace)
    operator.start()
    eventually("the Secret is gone", lambda: workspace.secret("otc") is None)
    workspace.cloud.delete_hook(workspace.group_id, "hook")


def test_a_secret_that_loses_its_label_gets_it_back_and_is_let_go_in_the_end(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    take_off = {"metadata": {"labels": {"as.otc.t-systems.com/in-use": None}}}
    without = workspace.core.patch_namespaced_secret("otc", workspace.namespace, take_off)
    assert not without.metadata.labels
    eventually("the label is back", lambda: workspace.secret("otc").metadata.labels)
    workspace.delete()
    workspace.wait_gone()
    eventually("the Secret is released", lambda: not workspace.secret("otc").metadata.finalizers)


def test_a_secret_that_cannot_be_let_go_is_let_go_later(
    workspace: Workspace,
    operator: OperatorProcess,
    refuse_changes: Callable[[str, str, list[str]], Callable[[], None]],
) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    lift = refuse_changes("", "secrets", ["annotate", "secret", "otc", "x=y"])
    workspace.delete()
    workspace.wait_gone()
    eventually("it is said", lambda: f"from unused Secret {workspace.namespace}/otc" in operator.log.read_text())
    lift()
    eventually("the Secret is released", lambda: not workspace.secret("otc").metadata.finalizers)


@pytest.mark.parametrize("is_secret_first", [True, False])
def test_a_namespace_with_fifty_hooks_and_their_secret_ends_clean(workspace: Workspace, is_secret_first: bool) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    groups = [workspace.cloud.add_group() for _ in range(10)]
    names = [f"hook-{number}" for number in range(50)]
    for number, name in enumerate(names):
        workspace.create(name, scalingGroupId=groups[number % 10], credentialsRef={"secretName": "otc"})
    for name in names:
        workspace.wait_ready(name)
    tokens = len(workspace.cloud.requests("token"))
    if is_secret_first:
        workspace.core.delete_namespaced_secret("otc", workspace.namespace)
    workspace.objects.delete_collection_namespaced_custom_object(*workspace.address)
    if not is_secret_first:
        workspace.core.delete_namespaced_secret("otc", workspace.namespace)
    eventually("all hooks are gone", lambda: not workspace.all())
    eventually("the Secret is gone", lambda: workspace.secret("otc") is None)
    assert [hook for group in groups for hook in workspace.cloud.hooks(group)] == []
    assert len(workspace.cloud.requests("token")) == tokens


def test_a_namespace_that_takes_no_events_any_more_is_nothing_to_warn_of(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    workspace.create()
    workspace.wait_events([("Normal", "Created")])
    workspace.core.delete_namespace(workspace.namespace)
    phase = workspace.core.read_namespace(workspace.namespace).status.phase
    assert phase == "Terminating"
    workspace.delete()
    workspace.wait_gone()
    lines = eventually(
        "the Event was refused", lambda: log_lines(operator, f"No Event in namespace {workspace.namespace}")
    )
    assert len(lines) == 1
    assert log_lines(operator, workspace.namespace, "WARNING") == []
    assert workspace.cloud.hooks(workspace.group_id) == []


def log_lines(operator: OperatorProcess, *words: str) -> list[str]:
    return [line for line in operator.log.read_text().splitlines() if all(word in line for word in words)]
