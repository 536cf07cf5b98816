"""The operator goes, in the order that docs/operations.md gives, and nothing of it stays stuck."""

import re
import shlex
import subprocess
from typing import Any

from tests.support.controlplane import ControlPlane
from tests.support.harness import CRD, DEPLOY, DOCS, OPERATOR, OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, ready

SECTION = (DOCS / "operations.md").read_text().split("## Uninstall", 1)[1].split("\n### ", 1)[0]
DELETE_HOOKS, FIND_SECRETS, DELETE_OPERATOR, FORCE_RELEASE, DROP_FINALIZER = (
    shlex.split(command)[1:] for command in re.findall(r"^\$ (kubectl .*)$", SECTION, re.MULTILINE)
)


class Guest(Workspace):
    """A workspace that clears nothing away: its control plane goes as a whole, and may have no CRD any more."""

    def all(self) -> list[dict[str, Any]]:
        return []


def run(
    cluster: ControlPlane, command: list[str], *flags: str, check: bool = True, **replaced: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the page."""
    words = {"deploy/base": str(DEPLOY / "base"), **replaced}
    return cluster.kubectl(*[words.get(word, word) for word in command], *flags, check=check)


def finish_uninstalling(cluster: ControlPlane) -> None:
    """Run the last command, and see that all of deploy/base is gone but for what no controller here finishes."""
    # The namespace waits for a controller; the Deployment was never applied.
    run(cluster, DELETE_OPERATOR, "--wait=false", "--ignore-not-found")
    eventually(
        "the CRD is gone",
        lambda: not cluster.kubectl("get", "crd", CRD, "--ignore-not-found").stdout,
    )
    left = cluster.kubectl(
        "get", "clusterroles,clusterrolebindings", "-l", f"app.kubernetes.io/name={OPERATOR}", "-o", "name"
    )
    assert left.stdout == ""
    left = cluster.kubectl("get", "sa,deploy,pdb,netpol", "-n", OPERATOR, "-o", "name")
    assert left.stdout == ""


def test_the_documented_order_leaves_nothing_behind(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with Guest(own_cluster, cloud) as one, Guest(own_cluster, cloud) as other:
        with OperatorProcess(own_cluster, cloud.credentials_env(), **fast):
            one.put_secret("otc", one.clouds_yaml())
            one.create(credentialsRef={"secretName": "otc"})
            one.create("waiting", notificationTopicUrn=one.topic_urn + "-absent")
            other.create(deletionPolicy="Retain")
            for workspace in (one, other):
                workspace.wait_ready()
            one.wait_reason("TopicNotFound", "waiting")
            assert "otc" in run(own_cluster, FIND_SECRETS).stdout
            run(own_cluster, DELETE_HOOKS, "--timeout=30s")
            eventually("no Secret is held", lambda: not run(own_cluster, FIND_SECRETS).stdout)
            assert not one.secret("otc").metadata.finalizers
            finish_uninstalling(own_cluster)
        assert cloud.hooks(one.group_id) == []
        assert len(cloud.hooks(other.group_id)) == 1


def test_a_hook_that_cannot_be_deleted_is_let_go_as_the_last_resort(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with Guest(own_cluster, cloud) as workspace:
        with OperatorProcess(own_cluster, cloud.credentials_env(), **fast):
            workspace.create()
            workspace.wait_ready()
            cloud.set_busy(workspace.group_id)
            assert "timed out" in run(own_cluster, DELETE_HOOKS, "--timeout=1s", check=False).stderr
            assert "scaling action" in ready(workspace.wait_reason("GroupBusy"))["message"]
            run(own_cluster, FORCE_RELEASE, NAME="hook", NAMESPACE=workspace.namespace)
            run(own_cluster, DELETE_HOOKS, "--timeout=30s")
            finish_uninstalling(own_cluster)
        assert len(cloud.hooks(workspace.group_id)) == 1


def test_the_wrong_order_is_mended_by_the_operators_return(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with Guest(own_cluster, cloud) as workspace:
        with OperatorProcess(own_cluster, cloud.credentials_env(), **fast):
            workspace.create()
            workspace.wait_ready()
        own_cluster.kubectl("delete", "crd", CRD, "--wait=false")
        workspace.wait("it is being deleted", lambda body: "deletionTimestamp" in body["metadata"])
        with OperatorProcess(own_cluster, cloud.credentials_env(), **fast):
            workspace.wait_gone()  # before the next command takes the operator's rights
            finish_uninstalling(own_cluster)
        assert cloud.hooks(workspace.group_id) == []


def test_without_any_operator_the_finalizer_is_taken_off_by_hand(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with Guest(own_cluster, cloud) as workspace:
        with OperatorProcess(own_cluster, cloud.credentials_env(), **fast):
            workspace.create()
            workspace.wait_ready()
        run(own_cluster, DELETE_HOOKS, "--wait=false")
        run(own_cluster, DROP_FINALIZER, NAME="hook", NAMESPACE=workspace.namespace)
        finish_uninstalling(own_cluster)
        assert len(cloud.hooks(workspace.group_id)) == 1
