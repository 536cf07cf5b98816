"""An annotation pauses the work on a resource: no calls, no repairs, no deletion, until it is removed."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, condition, ready

PAUSED = "as.otc.t-systems.com/paused"
RECONCILE_AT = "as.otc.t-systems.com/reconcile-at"
RESYNC_SECONDS = 2
MESSAGE = (
    f"Paused by the annotation {PAUSED}: the operator neither calls AS nor repairs the hook. To resume, remove it, or "
    'set it to "false".'
)


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator with a short resync interval."""
    with OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=RESYNC_SECONDS, **fast) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")


def annotate(workspace: Workspace, value: str | None, key: str = PAUSED) -> None:
    workspace.patch("hook", {"metadata": {"annotations": {key: value}}})


def pause(workspace: Workspace, value: str = "true") -> dict[str, Any]:
    annotate(workspace, value)
    return workspace.wait_reason("Paused")


def create_paused(workspace: Workspace, **fields: Any) -> dict[str, Any]:
    workspace.apply(
        {
            "apiVersion": "as.otc.t-systems.com/v1alpha1",
            "kind": "LifecycleHook",
            "metadata": {"name": "hook", "annotations": {PAUSED: "true"}},
            "spec": workspace.spec(**fields),
        }
    )
    return workspace.wait_reason("Paused")


def calls(workspace: Workspace) -> list[str]:
    return [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)]


def let_rounds_pass(workspace: Workspace) -> None:
    """Wait until the operator has compared another group several times, as it would have this one."""
    group_id = workspace.cloud.add_group()
    workspace.create("witness", scalingGroupId=group_id)
    eventually("other hooks are compared", lambda: len(workspace.cloud.requests("list", group_id)) > 3)


def test_a_paused_hook_is_left_alone_until_the_annotation_is_removed(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    body = pause(workspace)
    assert {**ready(body), "lastTransitionTime": ""} == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "Paused",
        "message": MESSAGE,
        "observedGeneration": 1,
        "lastTransitionTime": "",
    }
    assert body["status"]["lifecycleHook"]["lifecycleHookName"] == "hook"
    writes, before = workspace.writes(), calls(workspace)
    assert writes == ["lifecyclehooks", "lifecyclehooks/status", "lifecyclehooks/status"]
    workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=99)
    annotate(workspace, "now", RECONCILE_AT)
    let_rounds_pass(workspace)
    assert calls(workspace) == before
    assert workspace.writes() == writes
    annotate(workspace, None)
    workspace.wait_ready()
    assert workspace.cloud.hooks(workspace.group_id)[0]["default_timeout"] == 3600
    workspace.wait_events(
        [("Normal", "Created"), ("Normal", "Paused"), ("Normal", "Resumed"), ("Normal", "DriftCorrected")]
    )
    eventually("one write has resumed it", lambda: workspace.writes() == [*writes, "lifecyclehooks/status"])


@pytest.mark.parametrize("value", ["true", "yes", ""])
def test_whoever_writes_anything_but_false_wants_no_calls(workspace: Workspace, value: str) -> None:
    workspace.create()
    workspace.wait_ready()
    assert ready(pause(workspace, value))["message"] == MESSAGE
    annotate(workspace, "False")
    workspace.wait_ready()


def test_a_resource_that_is_created_paused_is_left_alone(workspace: Workspace) -> None:
    body = create_paused(workspace)
    assert "finalizers" not in body["metadata"]
    let_rounds_pass(workspace)
    assert calls(workspace) == []
    assert workspace.writes() == ["lifecyclehooks/status"]
    annotate(workspace, None)
    workspace.wait_ready()
    assert calls(workspace)[0] == "create"


def test_a_resource_that_is_created_paused_goes_without_a_call(workspace: Workspace) -> None:
    create_paused(workspace)
    workspace.delete()
    workspace.wait_gone()
    let_rounds_pass(workspace)
    assert calls(workspace) == []


def test_a_deletion_waits_and_says_so(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    pause(workspace)
    before = calls(workspace)
    workspace.delete()
    body = workspace.wait("it says so", lambda body: ready(body)["message"].startswith("Being deleted, but paused by"))
    assert f"annotation {PAUSED}: this resource and its hook stay. To resume, remove it" in ready(body)["message"]
    let_rounds_pass(workspace)
    assert calls(workspace) == before
    annotate(workspace, None)
    workspace.wait_gone()
    assert calls(workspace) == [*before, "delete"]
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_deletion_can_be_forced_without_a_call(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    pause(workspace)
    before = calls(workspace)
    workspace.delete()
    annotate(workspace, "true", "as.otc.t-systems.com/force-release")
    workspace.wait_gone()
    assert calls(workspace) == before


def test_a_paused_hook_whose_resource_is_let_go_stays_in_as(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    pause(workspace)
    before = calls(workspace)
    workspace.patch("hook", {"metadata": {"finalizers": None}})
    workspace.delete()
    workspace.let_go("hook")
    workspace.wait_gone()
    let_rounds_pass(workspace)
    assert calls(workspace) == before


def test_a_failure_is_not_retried_while_paused(workspace: Workspace) -> None:
    workspace.create(notificationTopicUrn=workspace.topic_urn + "-absent", credentialsRef={"secretName": "absent"})
    body = workspace.wait_reason("CredentialsNotFound")
    assert condition(body, "Stalled")["status"] == "True"
    body = pause(workspace)
    assert condition(body, "Stalled") == {}
    assert "error" not in body["status"]
    writes = workspace.writes()
    workspace.put_secret("absent", workspace.clouds_yaml())
    let_rounds_pass(workspace)
    assert calls(workspace) == []
    assert workspace.writes() == writes
    annotate(workspace, None)
    body = workspace.wait_reason("TopicNotFound")
    assert ready(body)["status"] == "False"
    eventually("it has been told", lambda: ("Normal", "Resumed") in workspace.events())


def test_an_edit_waits_until_the_end_of_the_pause(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    pause(workspace)
    before = calls(workspace)
    workspace.patch("hook", {"spec": {"defaultTimeout": 600}})
    body = workspace.wait("the edit has been seen", lambda body: body["status"]["observedGeneration"] == 2)
    assert ready(body)["reason"] == "Paused"
    assert body["status"]["appliedGeneration"] == 1
    let_rounds_pass(workspace)
    assert calls(workspace) == before
    workspace.cloud.update_hook(workspace.group_id, "hook", default_result="CONTINUE")
    annotate(workspace, None)
    workspace.wait_ready()
    (modify,) = workspace.cloud.requests("modify", workspace.group_id)
    assert modify.body == {"default_timeout": 600, "default_result": "ABANDON"}


def test_a_pause_survives_a_restart(workspace: Workspace, operator: OperatorProcess) -> None:
    workspace.create()
    workspace.wait_ready()
    pause(workspace)
    writes, before = workspace.writes(), calls(workspace)
    operator.kill()
    operator.start()
    let_rounds_pass(workspace)
    assert calls(workspace) == before
    assert workspace.writes() == writes
    annotate(workspace, None)
    workspace.wait_ready()


def test_suspensions_are_not_watched_while_paused(workspace: Workspace) -> None:
    workspace.create(suspensionPolicy="Watch")
    workspace.wait("they are watched", lambda body: body.get("status", {}).get("suspendedInstances"))
    writes = workspace.writes()
    body = pause(workspace)
    workspace.cloud.add_hanging_instance(workspace.group_id, "hook", "i-1")
    assert "suspendedInstances" not in body["status"]
    assert condition(body, "SuspensionsKnown") == {}
    before = calls(workspace)
    annotate(workspace, "now", RECONCILE_AT)
    let_rounds_pass(workspace)
    assert calls(workspace) == before
    assert workspace.writes() == [*writes, "lifecyclehooks/status"]
    annotate(workspace, None)
    workspace.wait(
        "they are watched again", lambda body: body["status"].get("suspendedInstances", {}).get("count") == 1
    )


def test_a_callback_waits_for_the_end_of_the_pause(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.add_hanging_instance(workspace.group_id, "hook", "i-1")
    pause(workspace)
    before = calls(workspace)
    workspace.call_back("CONTINUE", "i-1")
    body = workspace.wait_callback("it waits", lambda body: condition(body, "Complete").get("reason") == "HookPaused")
    message = f"LifecycleHook {workspace.namespace}/hook is paused by the annotation {PAUSED}; remove it to go on."
    assert condition(body, "Complete")["message"] == message
    workspace.call_back("CONTINUE", "i-1", name="hurried", activeDeadlineSeconds=1)
    body = workspace.wait_failed("DeadlineExceeded", "hurried")
    assert message in condition(body, "Failed")["message"]
    assert calls(workspace) == before
    annotate(workspace, None)
    workspace.wait_complete()
