"""The probes of a running operator."""

import os
import signal

import httpx

from tests.controlplane import ControlPlane
from tests.harness import OperatorProcess, eventually
from tests.simulator import Simulator


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
