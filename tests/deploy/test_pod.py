"""The operator as its Deployment runs it."""

import os
import pwd
import socket
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.deploy.pod import Pod
from tests.deploy.rendering import render
from tests.support.controlplane import ControlPlane
from tests.support.harness import DEPLOY, OPERATOR, eventually, install
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a container's namespaces and user need root")

OVERLAYS = DEPLOY / "overlays"
HIGH_AVAILABILITY = OVERLAYS / "high-availability"
#: Longer than a handover takes on a busy machine, shorter than a Lease that nobody has released.
HANDOVER_SECONDS = 10


@pytest.fixture
def own_workspace(own_cluster: ControlPlane, cloud: Simulator) -> Iterator[Workspace]:
    with Workspace(own_cluster, cloud) as own:
        yield own


def make_pod(workspace: Workspace, folder: Path, name: str, **environment: str) -> Pod:
    """Return a pod whose Secret otc-credentials has the credentials of the simulated cloud."""
    objects = render(workspace.cluster.kubectl_path, folder)
    secret = workspace.cloud.credentials_env()
    return Pod(workspace.cluster, objects, name=name, secret=secret, environment=environment)


def create_and_time(workspace: Workspace, name: str) -> float:
    """Create a hook, and return the seconds until it is Ready."""
    began_at = time.monotonic()
    workspace.create(name)
    workspace.wait_ready(name)
    return time.monotonic() - began_at


def test_the_pod_of_base_starts_works_and_ends(own_workspace: Workspace) -> None:
    with make_pod(own_workspace, DEPLOY / "base", "base") as pod:
        with pytest.raises(KeyError):
            pwd.getpwuid(65532)
        pod.wait_started()
        own_workspace.create()
        own_workspace.wait_ready()
        assert pod.probe("livenessProbe")
        assert pod.terminate() == 0
    log = pod.log.read_text()
    assert f"Starting lifecyclehook-operator {version(OPERATOR)} (Python 3." in log.splitlines()[0]
    assert "Traceback" not in log
    own_workspace.wait_ready()


def test_the_pod_for_a_single_namespace_starts_and_works(own_cluster: ControlPlane, cloud: Simulator) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}}
    own_cluster.kubectl("apply", "-f", "-", input=str(namespace))
    install(own_cluster, OVERLAYS / "single-namespace")
    own_cluster.kubectl("delete", "clusterrolebinding", OPERATOR)  # that of base
    with (
        Workspace(own_cluster, cloud, namespace="web") as workspace,
        make_pod(workspace, OVERLAYS / "single-namespace", "single") as pod,
    ):
        pod.wait_started()
        workspace.create()
        workspace.wait_ready()
        assert pod.terminate() == 0


def test_without_the_secret_the_pod_starts_and_hooks_say_what_is_missing(own_workspace: Workspace) -> None:
    objects = render(own_workspace.cluster.kubectl_path, DEPLOY / "base")
    with Pod(own_workspace.cluster, objects, name="bare") as pod:
        pod.wait_started()
        own_workspace.create()
        own_workspace.wait_reason("CredentialsNotFound")
        assert pod.terminate() == 0


def test_what_ends_the_pod_is_the_last_line_of_its_termination_message(own_workspace: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104  (as the operator does)
        taken.listen()
        port = str(taken.getsockname()[1])
        with make_pod(own_workspace, DEPLOY / "base", "ends", LIFECYCLEHOOK_OPERATOR_METRICS_PORT=port) as pod:
            assert pod.wait() == 1
    assert "The operator cannot run: cannot listen" in pod.termination_message().splitlines()[-1]


def test_two_pods_hand_over_at_once_when_asked_to_end_and_within_the_lease_after_a_crash(
    own_workspace: Workspace,
) -> None:
    install(own_workspace.cluster, HIGH_AVAILABILITY)
    first, second, third = (make_pod(own_workspace, HIGH_AVAILABILITY, f"replica-{number}") for number in range(3))

    def leads(pod: Pod) -> bool:
        return "Acquired lease" in pod.log.read_text()

    with first, second:
        first.wait_started()
        second.wait_started()
        eventually("one leads", lambda: leads(first) or leads(second))
        leader, standby = (first, second) if leads(first) else (second, first)
        assert not leads(standby)
        create_and_time(own_workspace, "before")

        began_at = time.monotonic()
        assert leader.terminate() == 0
        assert "Released lease" in leader.log.read_text()
        create_and_time(own_workspace, "after-a-handover")
        assert time.monotonic() - began_at < HANDOVER_SECONDS

        with third:
            third.wait_started()
            standby.crash()
            create_and_time(own_workspace, "after-a-crash")
            assert leads(third)
            assert third.terminate() == 0
