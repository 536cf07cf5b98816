"""The operator is killed while a callback is in progress, and after its restart the action has been taken once."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR, OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, condition

INSTANCE = "b25c1589-c96c-465b-9fef-d06540d1945c"
CLOUD_TIMEOUT_SECONDS = 4
RESULTS = ["CONTINUE", "ABANDON", "EXTEND"]


@pytest.fixture
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator to be killed."""
    options = {**fast, "cloud_timeout_seconds": CLOUD_TIMEOUT_SECONDS}
    with OperatorProcess(cluster, cloud.credentials_env(), **options) as process:
        yield process


@pytest.fixture
def timeout(workspace: Workspace, operator: OperatorProcess) -> datetime:
    """Return when a suspended instance times out."""
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.add_hanging_instance(workspace.group_id, "hook", INSTANCE)
    return show(workspace)[1]


def show(workspace: Workspace) -> tuple[str, datetime]:
    (listed,) = workspace.cloud.hanging_instances(workspace.group_id)
    return listed["lifecycle_hook_status"], datetime.fromisoformat(listed["timeout"])


def assert_done_once(workspace: Workspace, result: str, before: datetime, reason: str) -> None:
    body = workspace.wait_complete()
    assert condition(body, "Complete")["reason"] == reason
    extended = before + timedelta(hours=1)
    assert show(workspace) == (("HANGING", extended) if result == "EXTEND" else (result, before))
    if result == "EXTEND":
        assert datetime.fromisoformat(body["status"]["timeout"]) == extended


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("stage", ["before", "after"])
def test_killed_in_the_call(
    workspace: Workspace, operator: OperatorProcess, timeout: datetime, result: str, stage: str
) -> None:
    """Before the call is processed is after the target has been written."""
    held = workspace.cloud.fault("callback", group_id=workspace.group_id, hold=True, stage=stage)
    workspace.call_back(result, INSTANCE)
    workspace.cloud.wait_for_request("callback", workspace.group_id, state="held")
    operator.kill()
    workspace.cloud.release(held, drop=True)
    assert "target" in (workspace.get_callback() or {})["status"]
    operator.start()
    assert_done_once(workspace, result, timeout, "Accepted" if stage == "before" else "Confirmed")
    sent = workspace.cloud.requests("callback", workspace.group_id)
    assert len(sent) == (2 if stage == "before" else 1)


def test_killed_in_a_call_that_as_acts_on_after_the_restart(
    workspace: Workspace, operator: OperatorProcess, timeout: datetime
) -> None:
    """The list after the restart shows the old timeout, and yet there is nothing to send again."""
    held = workspace.cloud.fault("callback", group_id=workspace.group_id, hold=True)
    workspace.call_back("EXTEND", INSTANCE)
    workspace.cloud.wait_for_request("callback", workspace.group_id, state="held")
    operator.kill()
    operator.start()
    workspace.wait_callback(
        "its outcome is unknown", lambda body: condition(body, "Complete").get("reason") == "OutcomeUnknown"
    )
    workspace.cloud.release(held)
    assert_done_once(workspace, "EXTEND", timeout, "Confirmed")
    assert len(workspace.cloud.requests("callback", workspace.group_id)) == 1


def test_an_extension_that_was_lost_is_sent_again_when_as_has_had_time_to_act_on_it(
    workspace: Workspace, operator: OperatorProcess, timeout: datetime
) -> None:
    workspace.cloud.fault("callback", group_id=workspace.group_id, drop=True)
    workspace.call_back("EXTEND", INSTANCE)
    assert_done_once(workspace, "EXTEND", timeout, "Accepted")
    first, second = workspace.cloud.requests("callback", workspace.group_id)
    assert second.received_at - first.received_at >= 2 * CLOUD_TIMEOUT_SECONDS
    assert len(workspace.writes("callback")) == 4  # target, error, reason to wait, result


@pytest.mark.parametrize("result", RESULTS)
def test_killed_before_the_outcome_is_written(
    workspace: Workspace, operator: OperatorProcess, timeout: datetime, result: str
) -> None:
    """The right to write the status is taken away, so that the answer is there and cannot be noted down."""
    held = workspace.cloud.fault("callback", group_id=workspace.group_id, hold=True, stage="after")
    workspace.call_back(result, INSTANCE)
    workspace.cloud.wait_for_request("callback", workspace.group_id, state="held")
    refuse = workspace.cluster.kubectl
    role = refuse("get", "clusterrole", "lifecyclehook-operator", "-o", "json").stdout
    removal = '[{"op": "remove", "path": "/rules/3"}]'
    refuse("patch", "clusterrole", "lifecyclehook-operator", "--type=json", "-p", removal)
    try:
        wait_until_refused(workspace)
        workspace.cloud.release(held)
        workspace.cloud.wait_for_request("callback", workspace.group_id, state="answered")
        operator.kill()
    finally:
        refuse("replace", "--force", "-f", "-", input=role)
    assert "completionTime" not in (workspace.get_callback() or {})["status"]
    operator.start()
    assert_done_once(workspace, result, timeout, "Confirmed")
    assert len(workspace.cloud.requests("callback", workspace.group_id)) == 1


def wait_until_refused(workspace: Workspace) -> None:
    """Wait until the operator may not write the status of callbacks any more."""
    user = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
    asked = ("auth", "can-i", "patch", "lifecyclecallbacks", "--subresource=status", f"--as={user}")
    eventually("the right is gone", lambda: workspace.cluster.kubectl(*asked, check=False).stdout.startswith("no"))


def test_what_was_requested_while_it_was_down_is_done(
    workspace: Workspace, operator: OperatorProcess, timeout: datetime
) -> None:
    operator.kill()
    workspace.call_back("CONTINUE", INSTANCE)
    operator.start()
    assert_done_once(workspace, "CONTINUE", timeout, "Accepted")


def test_finished_callbacks_cost_nothing_at_a_restart_and_still_go_in_time(
    workspace: Workspace, operator: OperatorProcess, timeout: datetime
) -> None:
    workspace.call_back("CONTINUE", INSTANCE, ttlSecondsAfterFinished=3)
    assert_done_once(workspace, "CONTINUE", timeout, "Accepted")
    operator.kill()
    writes = workspace.writes("callback")
    requests = len(workspace.cloud.requests(group_id=workspace.group_id))
    operator.start()
    workspace.wait_callback_gone()
    assert workspace.writes("callback") == writes
    assert len(workspace.cloud.requests("list_hanging", workspace.group_id)) == 1
    assert len(workspace.cloud.requests(group_id=workspace.group_id)) <= requests + 1
