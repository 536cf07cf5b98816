"""Events that the watch does not show, or shows late."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR, OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.watchproxy import WatchProxy
from tests.support.workspace import Workspace, ready

NEVER_AGAIN = {"slow_retry_min_seconds": 600, "slow_retry_max_seconds": 600}


@pytest.fixture
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator for one test, for others here start their own, and two would do each other's work."""
    with OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=864_000, **fast) as process:
        yield process


@pytest.mark.parametrize("is_limited", [False, True], ids=["all namespaces", "one namespace"])
def test_a_secret_that_appears_is_noticed_at_once(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float], *, is_limited: bool
) -> None:
    options = {**fast, **NEVER_AGAIN, **({"namespace": workspace.namespace} if is_limited else {})}
    with OperatorProcess(cluster, cloud.credentials_env(), **options):
        for name in ("one", "other"):
            workspace.create(name, credentialsRef={"secretName": name})
            workspace.wait_reason("CredentialsNotFound", name)
        for name in ("one", "other"):
            workspace.put_secret(name, workspace.clouds_yaml())
            workspace.wait_ready(name)


def test_the_first_secret_of_a_namespace_is_noticed_at_once(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    options = {**fast, **NEVER_AGAIN, "namespace": workspace.namespace}
    with OperatorProcess(cluster, {}, **options) as operator:
        workspace.create(credentialsRef={"secretName": "otc"})
        workspace.wait_reason("CredentialsNotFound")
        wait_until_secrets_are_listed(workspace)
        workspace.put_secret("otc", workspace.clouds_yaml())
        workspace.wait_ready()
        log = operator.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


def wait_until_secrets_are_listed(workspace: Workspace) -> None:
    """Wait until the operator has found out from where to watch for the Secrets that are missing."""

    def is_listed() -> bool:
        events = workspace.cluster.audit_events(resource="secrets", namespace=workspace.namespace, verbs=("list",))
        return any("limit=1" in event["requestURI"] for event in events)

    eventually("Secrets are listed", is_listed)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("part", ["finalizers", "labels"])
def test_a_secret_that_somebody_takes_from_us_is_held_again(workspace: Workspace, part: str) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()

    def hold(secret: Any) -> tuple[list[str], dict[str, str]]:
        return secret.metadata.finalizers or [], secret.metadata.labels or {}

    before = hold(workspace.secret("otc"))
    assert all(before)
    operations = {
        "finalizers": [{"op": "remove", "path": "/metadata/finalizers"}],
        "labels": [{"op": "remove", "path": "/metadata/labels"}],
    }
    assert hold(workspace.core.patch_namespaced_secret("otc", workspace.namespace, operations[part])) != before
    eventually("it is held again", lambda: hold(workspace.secret("otc")) == before)
    workspace.delete()
    workspace.wait_gone()
    eventually("it is released", lambda: not any(hold(workspace.secret("otc"))))


@pytest.mark.parametrize("way", ["deleted", "edited"])
def test_a_secret_that_lost_its_label_unnoticed_is_let_go_with_its_last_user(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float], way: str
) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    operator = OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=864_000, **fast)
    with operator:
        workspace.create(credentialsRef={"secretName": "otc"}, deletionPolicy="Retain")
        workspace.wait_ready()
    take_label = [{"op": "remove", "path": "/metadata/labels"}]
    workspace.core.patch_namespaced_secret("otc", workspace.namespace, take_label)
    with operator:
        if way == "deleted":
            workspace.delete()
            workspace.wait_gone()
        else:
            workspace.patch("hook", {"spec": {"credentialsRef": None}})
            workspace.wait_ready()
        eventually("it is released", lambda: not workspace.secret("otc").metadata.finalizers)


@pytest.mark.parametrize("is_followed", [True, False], ids=["and there is another", "and there is none left"])
def test_a_resource_that_went_while_the_watch_was_broken_off_is_forgotten(
    own_cluster: ControlPlane, cloud: Simulator, fast: dict[str, float], *, is_followed: bool
) -> None:
    with (
        Workspace(own_cluster, cloud) as workspace,
        OperatorProcess(own_cluster, cloud.credentials_env(), resync_interval_seconds=10, **fast) as operator,
    ):
        workspace.put_secret("otc", workspace.clouds_yaml())
        workspace.create(credentialsRef={"secretName": "otc"})
        workspace.wait_ready()
        os.kill(operator.pid, signal.SIGSTOP)
        try:
            own_cluster.crash_api_server()  # else the watch's connection holds what follows
            workspace.patch("hook", {"metadata": {"finalizers": None}})
            workspace.delete()
            if is_followed:
                workspace.create("hook", adoptionPolicy="Never")
            own_cluster.crash_api_server()
        finally:
            os.kill(operator.pid, signal.SIGCONT)
        if is_followed:
            workspace.wait_reason("AlreadyExists")
        eventually("the Secret is released", lambda: not workspace.secret("otc").metadata.finalizers)
        assert operator.is_running


def test_what_silent_watches_do_not_show_is_found(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    with WatchProxy(cluster) as proxy:
        kubeconfig = proxy.kubeconfig(cluster.service_account_kubeconfig(OPERATOR, OPERATOR))
        environment = {**cloud.credentials_env(), "KUBECONFIG": str(kubeconfig)}
        with OperatorProcess(cluster, environment, resync_interval_seconds=5, **fast) as operator:
            workspace.put_secret("otc", workspace.clouds_yaml())
            for name in ("edited", "deleted"):
                workspace.create(name)
                workspace.wait_ready(name)
            workspace.create("rotated", credentialsRef={"secretName": "otc"})
            workspace.wait_ready("rotated")
            proxy.is_silent = True
            workspace.create("created")
            workspace.patch("edited", {"spec": {"defaultTimeout": 61}})
            workspace.delete("deleted")
            workspace.put_secret("otc", workspace.clouds_yaml(project_name="none"))
            for name in ("created", "edited"):
                workspace.wait_ready(name)
            workspace.wait_gone("deleted")
            workspace.wait("the new credentials are in use", lambda body: ready(body)["status"] != "True", "rotated")
            workspace.cloud.add_hanging_instance(workspace.group_id, "created", "i-1")
            workspace.call_back("CONTINUE", "i-1", hook="created")
            workspace.wait_complete()
            eventually("all are counted", lambda: operator.health()["resources"] == 3)
            assert "The watch has not shown" in operator.log.read_text()
