"""The Helm chart installs what kustomize does, and its values do what they say."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TIMING
from tests.deploy.chart import CHART, generated_files, package_chart, render_chart
from tests.deploy.rendering import make_overlay, only, render, render_release
from tests.deploy.values import Image
from tests.support.controlplane import ControlPlane
from tests.support.harness import CRD, DEPLOY, OPERATOR, OperatorProcess
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

Objects = list[dict[str, Any]]
ROLES_FOR_USERS = {"lifecyclehook-viewer", "lifecyclehook-editor", "lifecyclecallback-caller"}


class Helm:
    """helm, without the settings of whoever runs the tests."""

    def __init__(self, program: Path, home: Path) -> None:
        self.program = program
        self._environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}

    def run(self, *args: str | Path, values: dict[str, Any] | None = None, check: bool = True) -> str:
        """Return what helm prints, errors included."""
        arguments = [*args, "--values=-"] if values is not None else args
        command = [self.program, *arguments]
        ran = subprocess.run(
            command,
            input=yaml.safe_dump(values),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert (ran.returncode == 0) == check, ran.stdout
        return ran.stdout

    def template(self, values: dict[str, Any], *flags: str, namespace: str = OPERATOR, chart: Path = CHART) -> Objects:
        """Return the objects of a release with these values."""
        text = self.run("template", "any-name", chart, "--namespace", namespace, *flags, values=values)
        return [each for each in yaml.safe_load_all(text) if each]


@pytest.fixture
def chart(helm: Path, tmp_path: Path) -> Helm:
    return Helm(helm, tmp_path)


def by_identity(objects: Objects) -> dict[tuple[str, str, str], dict[str, Any]]:
    named = {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in objects}
    assert len(named) == len(objects)
    return named


def container_of(objects: Objects) -> dict[str, Any]:
    container: dict[str, Any]
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def test_the_chart_is_what_is_generated(control_plane: ControlPlane) -> None:
    files = render_chart(control_plane.kubectl_path)
    assert generated_files() == files.keys(), "run `make generate`"
    for path, content in files.items():
        assert (CHART / path).read_text() == content, f"{path}: run `make generate`"


def test_helm_finds_nothing_to_complain_about(chart: Helm) -> None:
    found = chart.run("lint", "--strict", CHART)
    assert [line for line in found.splitlines() if line.startswith("[")] == ["[INFO] Chart.yaml: icon is recommended"]


#: Values, and what of deploy/ is to be the same.
METRICS = {"metrics": {"enabled": True}}
CA = {"ca": {"configMapName": "otc-ca"}}
SEVERAL = {"replicas": 2}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ["base"]),
        (CA, ["base", "components/ca"]),
        (METRICS, ["overlays/metrics"]),
        (METRICS | CA, ["base", "components/metrics", "components/ca"]),
        (SEVERAL, ["overlays/high-availability"]),
        (SEVERAL | CA, ["overlays/high-availability", "components/ca"]),
        (SEVERAL | METRICS, ["overlays/high-availability", "components/metrics"]),
        (SEVERAL | METRICS | CA, ["overlays/high-availability", "components/metrics", "components/ca"]),
    ],
    ids=lambda value: "-".join(value) or "default",
)
def test_it_installs_what_kustomize_does_but_for_the_namespace(
    control_plane: ControlPlane,
    chart: Helm,
    tmp_path: Path,
    values: dict[str, Any],
    parts: list[str],
) -> None:
    folder, *components = [DEPLOY / part for part in parts]
    overlay = make_overlay(tmp_path, OPERATOR, resources=[folder], components=components)
    expected = by_identity(render(control_plane.kubectl_path, overlay))
    del expected["Namespace", "", OPERATOR]  # that of a release is there before it, and Helm does not own it
    assert by_identity(chart.template(values, "--include-crds")) == expected


@pytest.mark.parametrize(
    ("values", "components"),
    [({}, []), (CA, ["ca"]), (METRICS, ["metrics"]), (METRICS | CA, ["metrics", "ca"])],
    ids=lambda value: "-".join(value) or "default",
)
def test_in_and_for_one_namespace_it_installs_what_kustomize_does(
    control_plane: ControlPlane, chart: Helm, tmp_path: Path, values: dict[str, Any], components: list[str]
) -> None:
    overlay = make_overlay(
        tmp_path,
        "team",
        resources=[DEPLOY / "overlays" / "single-namespace"],
        components=[DEPLOY / "components" / name for name in components],
    )
    expected = render(control_plane.kubectl_path, overlay)
    # kustomize cannot put the name of the namespace into an argument.
    container = container_of(expected)
    container["args"] = [argument.replace("$(NAMESPACE)", "team") for argument in container["args"]]
    if others := [each for each in container["env"] if each["name"] != "NAMESPACE"]:
        container["env"] = others
    else:
        del container["env"]
    own = {"namespaces": ["team"], "userRoles": False}
    assert by_identity(chart.template(values | own, namespace="team")) == by_identity(expected)


class TestValues:
    """Each does what values.yaml says of it."""

    @pytest.mark.parametrize(
        ("image", "expected"),
        [
            ({"repository": "example.com/operator"}, "example.com/operator:{version}"),
            ({"tag": "edge"}, "lifecyclehook-operator:edge"),
            ({"digest": f"sha256:{'0' * 64}"}, f"lifecyclehook-operator:{{version}}@sha256:{'0' * 64}"),
        ],
    )
    def test_image(self, chart: Helm, image: dict[str, str], expected: str) -> None:
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        assert container_of(chart.template({"image": image}))["image"] == expected.format(version=version)

    def test_image_pull_secrets(self, chart: Helm) -> None:
        pod = only(chart.template({"imagePullSecrets": [{"name": "registry"}]}), "Deployment")["spec"]["template"][
            "spec"
        ]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]

    @pytest.mark.parametrize(("replicas", "is_elected"), [(0, False), (1, False), (2, True), (3, True)])
    def test_replicas(self, chart: Helm, replicas: int, is_elected: bool) -> None:
        objects = chart.template({"replicas": replicas})
        assert only(objects, "Deployment")["spec"]["replicas"] == replicas
        assert ("--leader-elect" in container_of(objects)["args"]) == is_elected
        assert ("Role" in {each["kind"] for each in objects}) == is_elected

    def test_namespaces(self, chart: Helm) -> None:
        objects = chart.template({"namespaces": ["a", "b"], "replicas": 2}, namespace="operators")
        assert container_of(objects)["args"] == ["run", "--namespace=a", "--namespace=b", "--leader-elect"]
        assert not [each for each in objects if each["kind"] == "ClusterRoleBinding"]
        where = {"a": OPERATOR, "b": OPERATOR, "operators": f"{OPERATOR}-lease"}
        for kind in ("Role", "RoleBinding"):
            found = {
                each["metadata"]["namespace"]: each["metadata"]["name"] for each in objects if each["kind"] == kind
            }
            assert found == where
        for each in objects:
            if each["kind"] == "RoleBinding":
                assert each["subjects"] == [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": "operators"}]

    def test_user_roles(self, chart: Helm) -> None:
        for is_wanted, expected in ((True, ROLES_FOR_USERS), (False, set())):
            objects = chart.template({"userRoles": is_wanted})
            roles = {each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"}
            assert roles - {OPERATOR} == expected

    def test_credentials(self, chart: Helm) -> None:
        container = container_of(chart.template({"credentials": {"secretName": "cloud"}}))
        assert container["envFrom"] == [{"secretRef": {"name": "cloud", "optional": True}}]

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("serviceMonitor", "ServiceMonitor"), ("prometheusRule", "PrometheusRule"), ("dashboard", "ConfigMap")],
    )
    def test_parts_of_metrics(self, chart: Helm, name: str, kind: str) -> None:
        whole = {each["kind"] for each in chart.template({"metrics": {"enabled": True}})}
        part = {each["kind"] for each in chart.template({"metrics": {"enabled": True, name: False}})}
        assert whole - part == {kind}

    def test_labels_of_metrics(self, chart: Helm) -> None:
        objects = chart.template({"metrics": {"enabled": True, "labels": {"release": "prometheus"}}})
        labelled = {each["kind"] for each in objects if each["metadata"]["labels"].get("release") == "prometheus"}
        assert labelled == {"ServiceMonitor", "PrometheusRule"}

    def test_resources(self, chart: Helm) -> None:
        resources = container_of(chart.template({"resources": {"limits": {"memory": "1Gi"}}}))["resources"]
        assert resources["limits"] == {"cpu": "1", "memory": "1Gi"}

    def test_extra_arguments(self, chart: Helm) -> None:
        options = ["--log-format=json", "--default-credentials-namespaces=team-*"]
        assert container_of(chart.template({"extraArgs": options}))["args"] == ["run", "--all-namespaces", *options]

    def test_certificate_authority(self, chart: Helm) -> None:
        pod = only(chart.template({"ca": {"configMapName": "own"}}), "Deployment")["spec"]["template"]["spec"]
        assert [volume["configMap"]["name"] for volume in pod["volumes"]] == ["own"]

    def test_as_a_part_of_another_chart(self, chart: Helm) -> None:
        assert chart.template({"global": {"anything": 1}}) == chart.template({})

    @pytest.mark.parametrize(
        ("values", "place"),
        [
            ({"replica": 2}, "replica"),
            ({"replicas": -1}, "/replicas"),
            ({"replicas": "two"}, "/replicas"),
            ({"namespaces": "web"}, "/namespaces"),
            ({"namespaces": ["Not a name"]}, "/namespaces/0"),
            ({"image": {"digest": "0123"}}, "/image/digest"),
            ({"image": {"repository": ""}}, "/image/repository"),
            ({"credentials": {"password": "secret"}}, "password"),
            ({"extraArgs": [True]}, "/extraArgs/0"),
            ({"ca": {"configMapName": "No"}}, "/ca/configMapName"),
        ],
    )
    def test_a_mistake_is_refused_and_named(self, chart: Helm, values: dict[str, Any], place: str) -> None:
        refused = chart.run("template", "any-name", CHART, values=values, check=False)
        assert "values don't meet the specifications of the schema" in refused
        assert place in refused


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("example.com:5000/team/operator", "example.com:5000/team/operator:{version}"),
        ("operator:edge", "operator:edge"),
        (f"example.com/operator@sha256:{'0' * 64}", f"example.com/operator:{{version}}@sha256:{'0' * 64}"),
    ],
)
def test_what_is_released_has_its_image_and_else_what_is_in_the_repository(
    control_plane: ControlPlane, chart: Helm, tmp_path: Path, reference: str, expected: str
) -> None:
    image, kubectl = Image.parse(reference), control_plane.kubectl_path
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    objects = render(kubectl, DEPLOY / "base")
    container_of(objects)["image"] = expected.format(version=version)
    assert list(yaml.safe_load_all(render_release(kubectl, image))) == objects
    package_chart(chart.program, image, tmp_path)
    released = chart.template({}, "--include-crds", chart=tmp_path / f"{OPERATOR}-{version}.tgz")
    assert by_identity(released) == {key: each for key, each in by_identity(objects).items() if key[0] != "Namespace"}


class TestRelease:
    """On an API server of its own."""

    @pytest.fixture
    def bare(self) -> Iterator[ControlPlane]:
        with ControlPlane() as own:
            yield own

    def test_it_serves_the_namespaces_that_it_is_for(
        self, bare: ControlPlane, chart: Helm, running_simulator: Simulator
    ) -> None:
        simulator = running_simulator
        for namespace in ("one", "two", "other"):
            bare.kubectl("create", "namespace", namespace)
        release = (OPERATOR, CHART, f"--namespace={OPERATOR}", f"--kubeconfig={bare.kubeconfig}")
        notes = chart.run("install", *release, "--create-namespace", values={"namespaces": ["one", "two"]})
        assert "The operator serves one, two." in notes
        assert "set image.repository" in notes
        environment = simulator.credentials_env() | {"LIFECYCLEHOOK_OPERATOR_NAMESPACE": "one,two"}
        with OperatorProcess(bare, environment, **TIMING):
            for namespace in ("one", "two"):
                with Workspace(bare, simulator, namespace=namespace) as served:
                    served.create()
                    served.wait_ready()
                    served.delete()
                    served.wait_gone()
        assert (
            bare.kubectl(
                "auth",
                "can-i",
                "list",
                "lifecyclehooks.as.otc.t-systems.com",
                "--namespace=other",
                f"--as=system:serviceaccount:{OPERATOR}:{OPERATOR}",
                check=False,
            ).stdout
            == "no\n"
        )

    def test_its_crds_are_upgraded_as_its_notes_say_and_outlive_it(
        self, bare: ControlPlane, chart: Helm, tmp_path: Path
    ) -> None:
        def columns() -> str:
            crd = json.loads(bare.kubectl("get", "crd", CRD, "--output=json").stdout)
            return json.dumps(crd["spec"]["versions"][0]["additionalPrinterColumns"])

        older = tmp_path / "older"
        shutil.copytree(CHART, older)
        file = older / "crds" / "lifecyclehooks.yaml"
        crd = yaml.safe_load(file.read_text())
        current = crd["spec"]["versions"][0]["additionalPrinterColumns"]
        crd["spec"]["versions"][0]["additionalPrinterColumns"] = [{**current[0], "description": "As it was."}]
        file.write_text(yaml.safe_dump(crd))
        where = (f"--namespace={OPERATOR}", f"--kubeconfig={bare.kubeconfig}")
        notes = chart.run("install", OPERATOR, older, *where, "--create-namespace")
        (rule,) = (line for line in notes.splitlines() if "helm show crds" in line)
        assert rule.strip() == (
            "helm show crds CHART --version VERSION | kubectl apply --server-side --force-conflicts -f -"
        )
        chart.run("upgrade", OPERATOR, CHART, *where)
        assert "As it was." in columns()
        bare.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=chart.run("show", "crds", CHART))
        assert "As it was." not in columns()
        assert len(json.loads(columns())) == len(current)
        chart.run("uninstall", OPERATOR, *where)
        assert (
            bare.kubectl("get", "deployments,serviceaccounts", "--namespace", OPERATOR, "--output=name").stdout.count(
                OPERATOR
            )
            == 0
        )
        assert columns()
