"""The manifests of deploy/, on a real API server."""

import copy
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecyclehook_operator.settings import Settings
from tests.deploy.rendering import INSTALL, make_overlay, only, render, render_install
from tests.support.controlplane import ControlPlane
from tests.support.harness import CRD, DEPLOY, DOCS, OPERATOR

BASE = DEPLOY / "base"
SINGLE_NAMESPACE = DEPLOY / "overlays" / "single-namespace"
METRICS = DEPLOY / "overlays" / "metrics"
HIGH_AVAILABILITY = DEPLOY / "overlays" / "high-availability"
ARGOCD = DEPLOY / "argocd"
ARGOCD_PATHS = [ARGOCD / "all-in-one", ARGOCD / "operator", ARGOCD / "hooks"]


def pod_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return the pod that a Deployment asks for."""
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "pod"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def admit(cluster: ControlPlane, pod: dict[str, Any]) -> str:
    """Return what the API server says of a pod in the namespace of deploy/, without keeping it."""
    pod = {**pod, "metadata": {**pod["metadata"], "namespace": OPERATOR}}
    result = cluster.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(pod), check=False)
    return result.stdout + result.stderr


def test_install_yaml_is_what_base_renders(cluster: ControlPlane) -> None:
    assert INSTALL.read_text() == render_install(cluster.kubectl_path), "run `make generate`"


@pytest.mark.parametrize("folder", [BASE, SINGLE_NAMESPACE, METRICS], ids=lambda folder: folder.name)
def test_the_pod_meets_the_restricted_standard(cluster: ControlPlane, folder: Path) -> None:
    pod = pod_of(only(render(cluster.kubectl_path, folder), "Deployment"))
    assert admit(cluster, pod) == "pod/pod created (server dry run)\n"
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    lax = copy.deepcopy(pod)
    del lax["spec"]["containers"][0]["securityContext"]["capabilities"]
    assert 'violates PodSecurity "restricted' in admit(cluster, lax)


def test_what_was_applied_shows_no_difference(cluster: ControlPlane) -> None:
    for how in ([], ["--server-side", "--field-manager=argocd-controller", "--force-conflicts"]):
        cluster.kubectl("apply", *how, "-f", INSTALL)
        diff = cluster.kubectl("diff", *how, "-f", INSTALL, check=False)
        assert (diff.returncode, diff.stdout) == (0, "")


def test_the_image_has_the_version_of_the_package(cluster: ControlPlane) -> None:
    (container,) = only(render(cluster.kubectl_path, BASE), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{OPERATOR}:{version(OPERATOR)}"


def test_the_pod_may_take_longer_to_end_than_the_calls_at_work(cluster: ControlPlane) -> None:
    spec = only(render(cluster.kubectl_path, BASE), "Deployment")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= Settings.model_fields["shutdown_grace_seconds"].default + 5


@pytest.mark.parametrize(("folder", "names"), [(BASE, {"health"}), (METRICS, {"health", "metrics"})])
def test_probes_and_network_policy_name_ports_that_the_operator_opens(
    cluster: ControlPlane, folder: Path, names: set[str]
) -> None:
    objects = render(cluster.kubectl_path, folder)
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.keys() == names
    assert ports["health"] == Settings.model_fields["health_port"].default
    if "metrics" in names:
        assert f"--metrics-port={ports['metrics']}" in container["args"]
        assert only(objects, "Service")["spec"]["ports"][0]["targetPort"] == "metrics"
    assert {container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")} == {"health"}
    rules = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == names


def test_the_arguments_are_options_of_the_operator(cluster: ControlPlane) -> None:
    known = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    for folder in (BASE, SINGLE_NAMESPACE, METRICS, HIGH_AVAILABILITY):
        (container,) = only(render(cluster.kubectl_path, folder), "Deployment")["spec"]["template"]["spec"][
            "containers"
        ]
        command, *options = container["args"]
        assert command == "run"
        assert {option.partition("=")[0] for option in options} <= known


def test_several_replicas_elect_a_leader_and_a_single_one_is_never_two(cluster: ControlPlane) -> None:
    several = only(render(cluster.kubectl_path, HIGH_AVAILABILITY), "Deployment")["spec"]
    assert (several["replicas"], several["strategy"]["type"]) == (2, "RollingUpdate")
    assert "--leader-elect" in several["template"]["spec"]["containers"][0]["args"]
    single = only(render(cluster.kubectl_path, BASE), "Deployment")["spec"]
    assert (single["replicas"], single["strategy"]["type"]) == (1, "Recreate")


def test_the_documented_overlay_puts_the_component_into_a_single_namespace(
    cluster: ControlPlane, tmp_path: Path
) -> None:
    page = (DOCS / "operations.md").read_text()
    (text,) = re.findall(r"^```yaml\n(namespace: [^`]*components:[^`]*)```$", page, re.MULTILINE)
    overlay = yaml.safe_load(text)
    folders = {key: [DEPLOY.parent / path for path in overlay[key]] for key in ("resources", "components")}
    objects = render(cluster.kubectl_path, make_overlay(tmp_path, overlay["namespace"], **folders))
    assert {each["metadata"]["namespace"] for each in objects} == {"web"}
    assert "ClusterRole" not in {each["kind"] for each in objects}
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run", "--namespace=$(NAMESPACE)", "--metrics-port=9090"]


@pytest.mark.parametrize("folder", [BASE, SINGLE_NAMESPACE, METRICS, HIGH_AVAILABILITY], ids=lambda folder: folder.name)
def test_authorities_of_ones_own_are_where_the_operator_looks_for_them(
    cluster: ControlPlane, tmp_path: Path, folder: Path
) -> None:
    overlay = make_overlay(tmp_path, OPERATOR, resources=[folder], components=[DEPLOY / "components" / "ca"])
    deployment = only(render(cluster.kubectl_path, overlay), "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (path,) = (Path(each["value"]) for each in container["env"] if each["name"] == "OS_CACERT")
    (mount,) = container["volumeMounts"]
    (volume,) = spec["volumes"]
    assert (mount["name"], Path(mount["mountPath"])) == (volume["name"], path.parent)
    assert volume["configMap"]["name"] == "otc-ca"
    assert (
        f"kubectl create configmap otc-ca -n {OPERATOR} --from-file={path.name}" in (DOCS / "operations.md").read_text()
    )
    unchanged = only(render(cluster.kubectl_path, folder), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {**container, "env": None, "volumeMounts": None} == {**unchanged, "env": None, "volumeMounts": None}
    assert [each for each in container["env"] if each["name"] != "OS_CACERT"] == unchanged.get("env", [])
    assert admit(cluster, pod_of(deployment)) == "pod/pod created (server dry run)\n"


def test_every_application_points_to_what_renders(cluster: ControlPlane) -> None:
    applications = [yaml.safe_load(path.read_text()) for path in sorted(ARGOCD.glob("application*.yaml"))]
    paths = {DEPLOY.parent / each["spec"]["source"]["path"] for each in applications}
    assert paths == set(ARGOCD_PATHS)
    for each in applications:
        assert each["kind"] == "Application"
        assert "ServerSideApply=true" in each["spec"]["syncPolicy"]["syncOptions"]


def test_argo_cd_syncs_hooks_after_the_operator_and_leaves_what_others_need(cluster: ControlPlane) -> None:
    for each in render(cluster.kubectl_path, ARGOCD / "all-in-one"):
        kind, annotations = each["kind"], each["metadata"].get("annotations", {})
        options = annotations.get("argocd.argoproj.io/sync-options", "").split(",")
        assert int(annotations.get("argocd.argoproj.io/sync-wave", 0)) == (1 if kind == "LifecycleHook" else 0)
        assert ("SkipDryRunOnMissingResource=true" in options) == (kind == "LifecycleHook")
        is_kept = kind == "CustomResourceDefinition" or each["metadata"]["name"] == "web"
        assert ({"Prune=false", "Delete=false"} <= set(options)) == is_kept


@pytest.mark.parametrize("folder", [*ARGOCD_PATHS, DEPLOY / "samples"], ids=lambda folder: folder.name)
def test_the_api_server_takes_what_the_examples_say(cluster: ControlPlane, folder: Path) -> None:
    objects = render(cluster.kubectl_path, folder)
    for each in objects:
        if each["kind"] == "LifecycleHook":
            each["metadata"]["namespace"] = "default"  # its own is not made by a dry run
    text = yaml.safe_dump_all(objects)
    applied = cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", input=text)
    assert applied.stdout.count("\n") == len(objects)


def test_the_crd_is_not_left_to_one_namespace(cluster: ControlPlane) -> None:
    kinds = {each["kind"] for each in render(cluster.kubectl_path, SINGLE_NAMESPACE)}
    assert {"Role", "RoleBinding", "Deployment"} <= kinds
    assert not {"CustomResourceDefinition", "Namespace", "ClusterRole", "ClusterRoleBinding"} & kinds
    assert CRD in {each["metadata"]["name"] for each in render(cluster.kubectl_path, BASE)}
