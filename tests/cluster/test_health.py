"""The probes of a running operator."""

import os
import signal

import httpx

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace


def test_while_the_api_server_hangs_the_operator_lives_but_is_not_ready(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with OperatorProcess(own_cluster, cloud.credentials_env(), **fast) as operator:
        assert operator.probe("/readyz").status_code == httpx.codes.OK
        os.kill(own_cluster.pids["kube-apiserver"], signal.SIGSTOP)
        try:
            eventually("it is not ready", lambda: operator.probe("/readyz").status_code == 503)
            assert operator.probe("/healthz").status_code == httpx.codes.OK
        finally:
            os.kill(own_cluster.pids["kube-apiserver"], signal.SIGCONT)
        eventually("it is ready again", lambda: operator.probe("/readyz").status_code == httpx.codes.OK)


def test_an_outage_of_the_api_server_leaves_no_error_in_the_log(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with (
        Workspace(own_cluster, cloud) as workspace,
        OperatorProcess(own_cluster, cloud.credentials_env(), **fast) as operator,
    ):
        workspace.create("before")
        workspace.wait_ready("before")
        own_cluster.stop_api_server()
        eventually("the watch is tried again", lambda: operator.log.read_text().count("will retry") > 3)
        own_cluster.start_api_server()
        workspace.create("after")
        workspace.wait_ready("after")
        log = operator.log.read_text()
    for word in ("Traceback", "ERROR", "CRITICAL"):
        assert word not in log
