"""The operator as a process: how it is started, limited to namespaces, watched and stopped."""

import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.controlplane import ControlPlane, free_ports, start_process, stop_process
from tests.support.harness import DEPLOY, OPERATOR, OperatorProcess, eventually, install
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

BIN = Path(sys.executable).parent


def test_only_the_given_namespaces_are_served(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    with Workspace(cluster, cloud) as second, Workspace(cluster, cloud) as other:
        namespaces = f"{workspace.namespace},{second.namespace}"
        operator = OperatorProcess(
            cluster, {**cloud.credentials_env(), "LIFECYCLEHOOK_OPERATOR_NAMESPACE": namespaces}, **fast
        )
        with operator:
            other.create()
            for served in (workspace, second):
                served.create()
                served.wait_ready()
            body = other.get()
            assert body is not None
            assert body["status"] == {"observedGeneration": -1}


def test_kopf_run_serves_as_well(cluster: ControlPlane, cloud: Simulator, workspace: Workspace) -> None:
    (port,) = free_ports(1)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cluster.work_dir),
        "KUBECONFIG": str(cluster.service_account_kubeconfig(OPERATOR, OPERATOR)),
        **cloud.credentials_env(),
    }
    command = [str(BIN / "kopf"), "run", "-m", "lifecyclehook_operator.handlers", "--standalone"]
    command += ["--namespace", workspace.namespace, "--liveness", f"http://127.0.0.1:{port}/healthz"]
    process = start_process(command, log=cluster.work_dir / "kopf-run.log", env=environment)
    try:
        workspace.create()
        workspace.wait_ready()
        health = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        assert health.json() == {"resources": 1}
    finally:
        stop_process(process)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_call_at_work_end_and_its_answer_reach_the_status(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float], signal_number: int
) -> None:
    operator = OperatorProcess(cluster, cloud.credentials_env(), namespace=workspace.namespace, **fast)
    with operator:
        held = cloud.fault("create", group_id=workspace.group_id, hold=True)
        workspace.create()
        cloud.wait_for_request("create", workspace.group_id, state="held")
        os.kill(operator.pid, signal_number)
        eventually("the operator is stopping", lambda: "Signal" in operator.log.read_text())
        cloud.release(held)
        assert operator.wait() == 0
    assert operator.last_line == "INFO     lifecyclehook_operator.manager: Stopped by a signal"
    workspace.wait_ready(seconds=1)
    assert len(cloud.requests(group_id=workspace.group_id)) == 1


def test_without_a_cluster_it_says_so_and_waits_for_one(tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    (port,) = free_ports(1)
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(tmp_path / "absent")}
    process = start_process([str(BIN / OPERATOR), "run", f"--health-port={port}"], log=log, env=environment)
    try:
        eventually("it says so", lambda: "no cluster to connect to" in log.read_text())

        def is_told() -> bool:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
            return answer.status_code == 503 and answer.json()["status"].startswith("no cluster to connect to")

        eventually("/readyz says so", is_told)
        assert process.poll() is None
    finally:
        stop_process(process)
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()
    assert log.read_text().endswith("Stopped by a signal\n")


def test_a_crd_that_comes_later_is_waited_for(cloud: Simulator, fast: dict[str, float]) -> None:
    with ControlPlane() as fresh:
        base = DEPLOY / "base"
        fresh.kubectl("apply", "-f", base / "namespace.yaml", "-f", base / "rbac.yaml")
        operator = OperatorProcess(fresh, cloud.credentials_env(), **fast)
        operator.launch()
        try:
            eventually("the operator says so", lambda: "not installed yet" in operator.log.read_text())
            answer = operator.probe("/readyz")
            assert (answer.status_code, answer.json()) == (503, {"status": "the CRD is not installed"})
            install(fresh)
            with Workspace(fresh, cloud) as own:
                own.create()
                own.wait_ready()
        finally:
            operator.stop()


@pytest.mark.parametrize("option", ["health_port", "metrics_port"])
def test_a_port_that_is_taken_fails_the_start(cluster: ControlPlane, cloud: Simulator, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104  (as the operator does)
        taken.listen()
        port = taken.getsockname()[1]
        operator = OperatorProcess(cluster, cloud.credentials_env(), **{option: port})
        operator.launch()
        assert operator.wait(60) == 1
    assert operator.last_line.startswith("CRITICAL lifecyclehook_operator.manager: The operator cannot run: ")
    assert operator.last_line.endswith(f"cannot listen on port {port}: Address already in use")
