"""Several operators run, and one works."""

import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.support.controlplane import ControlPlane, free_ports
from tests.support.harness import DEPLOY, OPERATOR, OperatorProcess, eventually, install
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace


@pytest.fixture(scope="module")
def metrics_ports() -> list[int]:
    return free_ports(2)


@pytest.fixture(scope="module")
def replicas(
    cluster: ControlPlane, cloud: Simulator, fast: dict[str, float], metrics_ports: list[int]
) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """Two operators, the first of which leads."""
    install(cluster, DEPLOY / "overlays" / "high-availability")
    options = {**fast, "resync_interval_seconds": 864_000, "leader_elect": True, "lease_namespace": OPERATOR}
    with (
        OperatorProcess(cluster, cloud.credentials_env(), metrics_port=metrics_ports[0], **options) as first,
        OperatorProcess(cluster, cloud.credentials_env(), metrics_port=metrics_ports[1], **options) as second,
    ):
        eventually("the first leads", lambda: "Acquired lease" in first.log.read_text())
        yield first, second


def leads(operator: OperatorProcess) -> bool:
    return operator.log.read_text().count("Acquired lease") > 0


def test_one_works_and_the_others_stand_by_healthy(
    workspace: Workspace, replicas: tuple[OperatorProcess, OperatorProcess], metrics_ports: list[int]
) -> None:
    first, second = replicas
    workspace.create()
    workspace.wait_ready()
    assert leads(first)
    assert not leads(second)
    assert (first.health()["resources"], second.health()["resources"]) == (1, 0)
    assert [each.probe("/readyz").json() for each in replicas] == [
        {"status": "ready"},
        {"status": "waiting for the lease"},
    ]
    assert second.probe("/readyz").is_success
    assert len(workspace.cloud.requests(group_id=workspace.group_id)) == 1
    for port, is_leading in zip(metrics_ports, ("1.0", "0.0"), strict=True):
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert f"\nlifecyclehook_leader {is_leading}\n" in metrics
    assert second.stop() == 0  # asked by SIGTERM; the first process of a container gets only what it has a handler for
    second.start()


def test_a_leader_that_hangs_is_replaced_and_ends_when_it_wakes(
    workspace: Workspace, replicas: tuple[OperatorProcess, OperatorProcess]
) -> None:
    first, second = replicas
    workspace.create()
    workspace.wait_ready()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        eventually("the second leads", lambda: leads(second))
        workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
        workspace.wait_ready()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 1
    assert first.last_line.startswith("CRITICAL lifecyclehook_operator.manager: Lost lease")


def test_a_leader_that_is_killed_is_replaced(
    workspace: Workspace, replicas: tuple[OperatorProcess, OperatorProcess]
) -> None:
    first, second = replicas
    if not first.is_running:
        first.start()
    held = workspace.cloud.fault("create", group_id=workspace.group_id, hold=True, stage="after")
    workspace.create()
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    second.kill()
    workspace.cloud.release(held)
    workspace.wait_ready()
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1


def test_a_leader_that_is_asked_to_end_releases_the_lease(
    workspace: Workspace, replicas: tuple[OperatorProcess, OperatorProcess]
) -> None:
    for replica in replicas:
        replica.stop()
    leader = replicas[0]
    with leader:
        workspace.create()
        workspace.wait_ready()
        assert _lease_holder(workspace)
    assert _lease_holder(workspace) == ""


def _lease_holder(workspace: Workspace) -> str:
    command = ["get", "lease", OPERATOR, "-n", OPERATOR, "-o", "jsonpath={.spec.holderIdentity}"]
    return workspace.cluster.kubectl(*command).stdout
