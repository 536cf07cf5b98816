"""The operator has the rights that it needs, and no more: the audit log knows."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.rendering import make_overlay, only, render
from tests.support.controlplane import ControlPlane
from tests.support.harness import DEPLOY, OPERATOR, OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

Right = tuple[str, str, str]
"""API group, resource, verb."""


class TenantsOperator(OperatorProcess):
    """An operator that runs in the namespace it serves, as the service account there."""

    def __init__(self, cluster: ControlPlane, cloud: Simulator, namespace: str, **options: Any) -> None:
        super().__init__(cluster, cloud.credentials_env(), namespace=namespace, **options)
        self._environment["KUBECONFIG"] = str(cluster.service_account_kubeconfig(namespace, OPERATOR))


def rights_in(role: dict[str, Any]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_used(events: list[dict[str, Any]]) -> Iterator[Right]:
    for event in events:
        if reference := event.get("objectRef"):
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
            yield reference.get("apiGroup", ""), resource, event["verb"]


def lead_a_life(operator: OperatorProcess, workspace: Workspace) -> None:
    """Have the operator do all that it ever does."""
    workspace.put_secret("otc", workspace.clouds_yaml())
    with operator:
        for name, fields in {"own": {}, "secret": {"credentialsRef": {"secretName": "otc"}}}.items():
            workspace.create(name, **fields)
            workspace.wait_ready(name)
            for seconds in (600, 3600, 600):  # the same Event twice, so that one is written again
                workspace.patch(name, {"spec": {"defaultTimeout": seconds}})
                workspace.wait_ready(name)
        workspace.cloud.add_hanging_instance(workspace.group_id, "own", "i-1")
        workspace.call_back("CONTINUE", "i-1", hook="own", ttlSecondsAfterFinished=0)
        workspace.wait_callback_gone()
    with operator:
        for name in ("own", "secret"):
            workspace.delete(name)
            workspace.wait_gone(name)


def check(cluster: ControlPlane, since: datetime, namespace: str, role: dict[str, Any]) -> None:
    """Look whether nothing was refused, and everything used; that the operator watched is logged after its end."""
    user = f"system:serviceaccount:{namespace}:{OPERATOR}"
    unused: set[Right] = rights_in(role)
    try:
        eventually(
            "every right is used",
            lambda: (
                not unused.difference_update(rights_used(cluster.audit_events(since=since, user=user))) and not unused
            ),
        )
    except TimeoutError:
        assert unused == set()
    refused = [
        event["requestURI"]
        for event in cluster.audit_events(since=since, user=user)
        if event["responseStatus"]["code"] == httpx.codes.FORBIDDEN
    ]
    assert refused == []


def test_each_right_of_base_is_enough_and_used(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    since = datetime.now(UTC)
    lead_a_life(OperatorProcess(cluster, cloud.credentials_env(), **fast), workspace)
    check(cluster, since, OPERATOR, only(render(cluster.kubectl_path, DEPLOY / "base"), "ClusterRole", OPERATOR))


def test_each_right_of_a_single_namespace_is_enough_and_used(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float], tmp_path: Path
) -> None:
    overlay = make_overlay(tmp_path, workspace.namespace, resources=[DEPLOY / "overlays" / "single-namespace"])
    objects = render(cluster.kubectl_path, overlay)
    cluster.kubectl("apply", "-k", overlay)
    since = datetime.now(UTC)
    lead_a_life(TenantsOperator(cluster, cloud, workspace.namespace, **fast), workspace)
    check(cluster, since, workspace.namespace, only(objects, "Role"))


def test_a_single_namespace_gives_no_right_elsewhere(
    cluster: ControlPlane, workspace: Workspace, tmp_path: Path
) -> None:
    overlay = make_overlay(tmp_path, workspace.namespace, resources=[DEPLOY / "overlays" / "single-namespace"])
    cluster.kubectl("apply", "-k", overlay)
    kubeconfig = cluster.service_account_kubeconfig(workspace.namespace, OPERATOR)
    asked = ("auth", "can-i", "list", "secrets")
    for namespace, answer in ((workspace.namespace, "yes"), ("default", "no")):
        said = cluster.kubectl(*asked, "-n", namespace, check=False, kubeconfig=kubeconfig).stdout.strip()
        assert said == answer


def test_who_is_made_an_editor_in_a_namespace_may_keep_hooks_there(cluster: ControlPlane, workspace: Workspace) -> None:
    namespace = workspace.namespace
    for user, role in (("ann", "lifecyclehook-editor"), ("vic", "lifecyclehook-viewer")):
        cluster.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", namespace)

    def may(user: str, verb: str, *flags: str, where: str = namespace) -> bool:
        asked = ("auth", "can-i", verb, "lifecyclehooks", "-n", where, f"--as={user}", *flags)
        return cluster.kubectl(*asked, check=False).stdout.strip() == "yes"

    eventually("both bindings are known", lambda: may("ann", "create") and may("vic", "list"))
    assert all(may("ann", verb) for verb in ("get", "list", "watch", "patch", "delete"))
    assert not may("ann", "patch", "--subresource=status")
    assert not may("ann", "create", where="default")
    assert not may("vic", "create")
