"""The probes of a running operator."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import CRD, OPERATOR, OperatorProcess, eventually, install
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace


def await_status(operator: OperatorProcess, status: str) -> None:
    """Wait until /readyz says so; /healthz is not concerned."""
    code = httpx.codes.OK if status == "ready" else httpx.codes.SERVICE_UNAVAILABLE

    def is_said() -> bool:
        answer = operator.probe("/readyz")
        return (answer.status_code, answer.json()) == (code, {"status": status})

    eventually(f"/readyz says: {status}", is_said)
    assert operator.probe("/healthz").status_code == httpx.codes.OK


def test_what_keeps_the_operator_from_working_makes_it_not_ready_and_is_told(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    with OperatorProcess(own_cluster, cloud.credentials_env(), **fast) as operator:
        await_status(operator, "ready")
        for process in ("kube-apiserver", "etcd"):
            os.kill(own_cluster.pids[process], signal.SIGSTOP)
            try:
                await_status(operator, "the API server does not answer")
            finally:
                os.kill(own_cluster.pids[process], signal.SIGCONT)
            await_status(operator, "ready")
        own_cluster.kubectl("delete", "clusterrolebinding", OPERATOR)
        await_status(operator, "not permitted to list lifecyclehooks")
        install(own_cluster)
        await_status(operator, "ready")


def take_account(cluster: ControlPlane) -> None:
    """Delete the operator's service account; a watch that goes on is not asked again whose it is."""
    cluster.kubectl("delete", "serviceaccount", OPERATOR, "-n", OPERATOR)
    cluster.crash_api_server()


@pytest.mark.parametrize(
    ("break_off", "cause"),
    [
        (take_account, "not permitted to list lifecyclehooks (APIUnauthorizedError: Unauthorized)"),
        (
            lambda cluster: cluster.kubectl("delete", "crd", CRD),
            "the CRD is not installed (APINotFoundError: 404 page not found)",
        ),
    ],
    ids=["service account", "CRD"],
)
def test_what_ends_a_watch_for_good_ends_the_operator_which_says_why(
    own_cluster: ControlPlane,
    cloud: Simulator,
    fast: dict[str, float],
    break_off: Callable[[ControlPlane], object],
    cause: str,
) -> None:
    with OperatorProcess(own_cluster, cloud.credentials_env(), **fast) as operator:
        break_off(own_cluster)
        assert operator.wait(60) == 1
    assert operator.last_line == f"CRITICAL lifecyclehook_operator.manager: The operator cannot run: {cause}"


@pytest.mark.usefixtures("workspace")
def test_probes_do_not_load_the_api_server(cluster: ControlPlane, operator: OperatorProcess) -> None:
    began_at = datetime.now(UTC)
    for _ in range(300):
        assert operator.probe("/readyz").is_success
    asked = [
        event
        for event in cluster.audit_events(since=began_at, resource="lifecyclehooks", verbs=("list",))
        if parse_qs(urlsplit(event["requestURI"]).query).get("limit") == ["1"]
    ]
    seconds = (datetime.now(UTC) - began_at).total_seconds()
    assert len(asked) <= seconds / 5 + 1


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
