"""Somebody takes from the object what the operator has written there, and the hook stays known for what it is."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.support.harness import OperatorProcess, eventually
from tests.support.workspace import Workspace, ready


def edit(workspace: Workspace) -> None:
    workspace.patch("hook", {"spec": {"defaultTimeout": 77}})


@pytest.mark.parametrize("first", [None, edit], ids=["as created", "edited before"])
@pytest.mark.parametrize("policy", ["Identical", "Never"])
def test_a_status_that_was_wiped_is_written_again_at_once(
    workspace: Workspace, operator: OperatorProcess, policy: str, first: Callable[[Workspace], None] | None
) -> None:
    workspace.create(adoptionPolicy=policy)
    before = workspace.wait_ready()
    if first is not None:
        first(workspace)
        before = workspace.wait_ready()
    creates = len(workspace.cloud.requests("create", workspace.group_id))
    workspace.wipe_status()
    body = workspace.wait_ready()
    assert body["status"]["lifecycleHook"] == before["status"]["lifecycleHook"]
    assert len(workspace.cloud.requests("create", workspace.group_id)) == creates


@pytest.mark.parametrize("is_down", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("policy", ["Identical", "Always", "Never"])
def test_a_hook_whose_status_was_wiped_is_edited_as_our_own(
    workspace: Workspace, operator: OperatorProcess, policy: str, *, is_down: bool
) -> None:
    workspace.create(adoptionPolicy=policy)
    workspace.wait_ready()
    if is_down:
        operator.kill()
    workspace.wipe_status()
    edit(workspace)
    if is_down:
        operator.start()
    workspace.wait_ready()
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert hook["default_timeout"] == 77
    assert ("Warning", "AlreadyExists") not in workspace.events()
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


@pytest.mark.parametrize("is_down", [False, True], ids=["running", "restarted"])
def test_a_hook_whose_status_was_wiped_goes_with_its_resource(
    workspace: Workspace, operator: OperatorProcess, *, is_down: bool
) -> None:
    workspace.create(adoptionPolicy="Never")
    workspace.wait_ready()
    if is_down:
        operator.kill()
    workspace.wipe_status()
    workspace.delete()
    if is_down:
        operator.start()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("drift_policy", ["Repair", "Report"])
def test_a_live_resource_gets_its_finalizer_back_at_once(workspace: Workspace, drift_policy: str) -> None:
    workspace.create(driftPolicy=drift_policy)
    before = workspace.wait_ready()["metadata"]["finalizers"]
    if drift_policy == "Report":
        workspace.cloud.delete_hook(workspace.group_id, "hook")
        workspace.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": "now"}}})
        workspace.wait_reason("Drifted")
    workspace.patch("hook", {"metadata": {"finalizers": None}})
    eventually("it is back", lambda: (workspace.get() or {})["metadata"].get("finalizers") == before)
    assert ready(workspace.get() or {})["reason"] == ("Drifted" if drift_policy == "Report" else "Available")
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_resource_that_is_deleted_right_after_it_lost_its_finalizer_leaves_no_orphan(
    workspace: Workspace, operator: OperatorProcess, policy: str
) -> None:
    workspace.create(deletionPolicy=policy)
    workspace.wait_ready()
    workspace.create("witness", lifecycleHookName="witness")
    workspace.wait_ready("witness")
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        workspace.patch("hook", {"metadata": {"finalizers": None}})
        workspace.delete()
        assert workspace.get() is None
    finally:
        os.kill(operator.pid, signal.SIGCONT)
    left = ["hook", "witness"] if policy == "Retain" else ["witness"]

    def hooks() -> list[str]:
        return sorted(hook["lifecycle_hook_name"] for hook in workspace.cloud.hooks(workspace.group_id))

    eventually("its hook is as its policy has it", lambda: hooks() == left)
    workspace.patch("witness", {"spec": {"defaultTimeout": 61}})
    workspace.wait_ready("witness")
    assert hooks() == left
