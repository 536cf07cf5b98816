"""A hook is changed or deleted outside Kubernetes."""

from collections.abc import Iterator

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually, rounds
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, is_ready, ready

RESYNC_SECONDS = 2


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator with a short resync interval."""
    with OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=RESYNC_SECONDS, **fast) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")


def test_an_external_change_is_reverted_and_reported(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=99)
    body = workspace.wait("the correction is reported", lambda body: "99" in ready(body).get("message", ""))
    assert is_ready(body)
    message = "The lifecycle hook is up to date. Reverted external change: defaultTimeout 99 -> 3600."
    assert ready(body)["message"] == message
    (modify,) = workspace.cloud.requests("modify", workspace.group_id)
    assert modify.body == {"default_timeout": 3600}
    workspace.wait_events([("Normal", "Created"), ("Normal", "DriftCorrected")])


def test_an_event_holds_what_differed_however_long_it_is(workspace: Workspace) -> None:
    workspace.create(notificationMetadata="語" * 256)
    workspace.wait_ready()
    workspace.cloud.update_hook(workspace.group_id, "hook", notification_metadata="話" * 256)
    workspace.wait_events([("Normal", "Created"), ("Normal", "DriftCorrected")])


def test_a_deleted_hook_is_created_again(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.delete_hook(workspace.group_id, "hook")
    eventually("the hook is there again", lambda: workspace.cloud.hooks(workspace.group_id))
    workspace.wait("the correction is reported", lambda body: "Recreated" in ready(body).get("message", ""))
    workspace.wait_events([("Normal", "Created"), ("Normal", "DriftCorrected")])


def test_drift_can_be_only_reported(workspace: Workspace) -> None:
    workspace.create(driftPolicy="Report")
    workspace.wait_ready()
    workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=99)
    body = workspace.wait_reason("Drifted")
    assert "Changed outside Kubernetes: defaultTimeout 3600 -> 99." in ready(body)["message"]
    assert body["status"]["lifecycleHook"]["defaultTimeout"] == 99
    assert workspace.cloud.requests("modify", workspace.group_id) == []
    workspace.wait_events([("Normal", "Created"), ("Warning", "Drifted")])  # published after the write
    writes = len(workspace.writes())
    workspace.cloud.wait_for_request("list", workspace.group_id, count=3)
    assert len(workspace.writes()) == writes
    workspace.patch("hook", {"spec": {"driftPolicy": "Repair"}})
    workspace.wait_ready()
    assert workspace.cloud.hooks(workspace.group_id)[0]["default_timeout"] == 3600


def test_a_deleted_hook_can_be_only_reported(workspace: Workspace) -> None:
    workspace.create(driftPolicy="Report")
    workspace.wait_ready()
    workspace.cloud.delete_hook(workspace.group_id, "hook")
    body = workspace.wait_reason("Drifted")
    assert "Deleted outside Kubernetes" in ready(body)["message"]
    assert workspace.cloud.hooks(workspace.group_id) == []
    workspace.delete()
    workspace.wait_gone()


def test_an_edit_is_no_drift(workspace: Workspace) -> None:
    workspace.create(driftPolicy="Report")
    workspace.wait_ready()
    workspace.cloud.set_busy(workspace.group_id)
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    workspace.wait_reason("GroupBusy")
    workspace.cloud.set_busy(workspace.group_id, busy=False)
    workspace.wait_ready()
    assert workspace.cloud.hooks(workspace.group_id)[0]["default_timeout"] == 61


def test_a_look_costs_one_list_call_for_a_whole_group_and_no_write(workspace: Workspace) -> None:
    names = [f"hook-{number}" for number in range(5)]
    for name in names:
        workspace.create(name)
    for name in names:
        workspace.wait_ready(name)
    (last, *_) = reversed(workspace.cloud.requests(group_id=workspace.group_id))
    listings = workspace.cloud.wait_for_request("list", workspace.group_id, count=4, after=last.sequence)
    assert len(set(rounds(listings, RESYNC_SECONDS))) == len(listings)
    assert {request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)} == {
        "create",
        "list",
    }
    for name in names:
        assert workspace.writes(name) == ["lifecyclehooks", "lifecyclehooks/status"]


def test_a_ready_hook_is_unknown_while_it_cannot_be_observed_and_its_recovery_is_an_event(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.cloud.fault("list", group_id=workspace.group_id, status=503, count=None)
    body = workspace.wait_reason("CloudUnavailable")
    assert ready(body)["status"] == "Unknown"
    workspace.cloud.clear_faults()
    workspace.wait_ready()
    workspace.wait_events([("Normal", "Created"), ("Warning", "CloudUnavailable"), ("Normal", "Recovered")])


def test_trouble_with_iam_does_not_touch_a_ready_hook(workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    workspace.wait_events([("Normal", "Created")])  # published after the write
    writes = workspace.writes()
    last = workspace.cloud.requests()[-1].sequence
    workspace.cloud.fault("token", status=503, count=2)
    workspace.cloud.revoke_tokens()
    tokens = workspace.cloud.wait_for_request("token", count=3, after=last)
    workspace.cloud.wait_for_request("list", workspace.group_id, after=tokens[-1].sequence, state="answered")
    assert workspace.writes() == writes
    assert is_ready(workspace.get() or {})


def test_an_annotation_makes_the_operator_look_at_once(
    cluster: ControlPlane, cloud: Simulator, fast: dict[str, float], operator: OperatorProcess
) -> None:
    operator.stop()
    try:
        with (
            OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=3600, **fast),
            Workspace(cluster, cloud) as own,
        ):
            own.create()
            own.wait_ready()
            own.cloud.update_hook(own.group_id, "hook", default_timeout=99)
            own.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": "now"}}})
            eventually("it is reverted", lambda: own.cloud.hooks(own.group_id)[0]["default_timeout"] == 3600)
    finally:
        operator.start()
