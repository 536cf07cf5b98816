"""What the play is set in: namespaces, the simulated cloud inside the cluster, and overlays of deploy/."""

import json
import os
import secrets
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.harness import CRD, DEPLOY, LOG_TAIL_LINES, OPERATOR, eventually
from tests.support.simulator import Simulator

from .cluster import SIGNAL_SCRIPT, Cluster

#: On everything of ours that is not below a namespace of ours.
LABEL = "lifecyclehook-e2e"
STAGE, WEB, ONE = "lifecyclehook-e2e", "lifecyclehook-e2e-web", "lifecyclehook-e2e-one"
RESYNC_SECONDS = 15
WAIT_SECONDS = 120

#: As in the samples.
PROJECT_ID = "b53e5554fad0494d96206fb84296510b"
GROUP_ID = "e5d27f5c-dd76-4a61-b4bc-a67c5686719a"
TOPIC_URN = f"urn:smn:eu-de:{PROJECT_ID}:gsh"

_CLOUD_PORT = 6443
#: Files beside the simulator that only its tests need.
_TEST_FILES = ("test_*", "conftest.py", "caller.py")
_CERTIFICATE = """
[req]
distinguished_name = name
prompt = no
x509_extensions = extensions
[name]
CN = The simulated cloud
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = {names}
"""


class OccupiedError(Exception):
    """The operator is installed there already, and not by us."""


class Stage:
    """The cluster with the simulated cloud in it, and what the play does to the operator's pods."""

    def __init__(self, cluster: Cluster, folder: Path, image: str) -> None:
        self.cluster = cluster
        self._folder = folder
        self._image = image
        self._environment: dict[str, str] = {}

    # --- setting and clearing -------------------------------------------------------------------------------------

    def check_vacant(self) -> None:
        """Raise OccupiedError where the operator has been installed by somebody else: its hooks would be lost."""
        for kind, name in (("crd", CRD), ("namespace", OPERATOR)):
            if (found := self.cluster.find(kind, name)) and LABEL not in found["metadata"].get("labels", {}):
                raise OccupiedError(f"There is a {kind} {name} already that is not from here: nothing is touched.")

    @contextmanager
    def set(self) -> Iterator[Simulator]:
        """Set the stage, and clear it when the block ends, along with all that was installed meanwhile."""
        self.check_vacant()
        self.clear()
        try:
            with self._simulated_cloud() as cloud:
                yield cloud
        finally:
            self.clear()

    def clear(self) -> None:
        """Take away what is ours, also what a run that was killed has left; no operator has to run for that."""
        owned = ("--selector", LABEL)
        for namespace in self._names("namespaces", *owned):
            here = ("--namespace", namespace)
            self.cluster.kubectl("delete", "deployments", "--all", "--cascade=foreground", *here)
            for secret in self._names("secrets", *here):
                self._let_go("secret", secret, namespace)
        if self.cluster.find("crd", CRD):
            for hook in self.cluster.list("lifecyclehooks", "--all-namespaces"):
                self._let_go("lifecyclehook", hook["metadata"]["name"], hook["metadata"]["namespace"])
        self.cluster.kubectl("delete", "crd,clusterrole,clusterrolebinding,namespace", *owned)

    def _names(self, kind: str, *args: str) -> list[str]:
        return [each["metadata"]["name"] for each in self.cluster.list(kind, *args)]

    def _let_go(self, kind: str, name: str, namespace: str) -> None:
        patch = json.dumps({"metadata": {"finalizers": None}})
        self.cluster.kubectl("patch", kind, name, "--namespace", namespace, "--type=merge", "--patch", patch)

    @contextmanager
    def _simulated_cloud(self) -> Iterator[Simulator]:
        space, service, cloud_pod, hand = yaml.safe_load_all(Path(__file__).with_name("stage.yaml").read_text())
        for name in (WEB, ONE):
            self._add_namespace({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self._add_namespace(space)
        self.cluster.apply(service)
        # By its address, for not every cluster resolves the names of Services.
        address = self.cluster.find("service", "cloud", "--namespace", STAGE)["spec"]["clusterIP"]
        is_v6 = ":" in address
        certificate, key = self._make_certificate(address)
        here = ("--namespace", STAGE)
        self.cluster.kubectl("create", "secret", "tls", "cloud-tls", f"--cert={certificate}", f"--key={key}", *here)
        code = Path(__file__).parents[1] / "support" / "simulator"
        files = [f"--from-file={file}" for file in code.glob("*.py") if not any(map(file.match, _TEST_FILES))]
        self.cluster.kubectl("create", "configmap", "simulator", *files, *here)
        password = secrets.token_urlsafe(16)
        cloud_pod["spec"]["template"]["spec"]["containers"][0]["args"] = [
            f"--project=eu-de_demo={PROJECT_ID}",
            f"--group={GROUP_ID}",
            f"--topic={TOPIC_URN}",
            f"--password={password}",
            f"--host={'::' if is_v6 else '0.0.0.0'}",  # noqa: S104  # it is called through its Service
            f"--port={_CLOUD_PORT}",
            "--tls-cert=tls/tls.crt",
            "--tls-key=tls/tls.key",
        ]
        for workload in (cloud_pod, hand):
            workload["spec"]["template"]["spec"]["containers"][0]["image"] = self._image
        self.cluster.apply(cloud_pod, hand)
        for target in ("deployment/cloud", "daemonset/hand"):
            self.cluster.kubectl("rollout", "status", target, *here, f"--timeout={WAIT_SECONDS}s")
        self._environment = {
            "OS_AUTH_URL": f"https://{f'[{address}]' if is_v6 else address}/v3",
            "OS_USERNAME": "demo",
            "OS_PASSWORD": password,
            "OS_USER_DOMAIN_NAME": "simulated-domain",
            "OS_PROJECT_NAME": "eu-de_demo",
            "OS_REGION_NAME": "eu-de",
        }
        with (
            self.cluster.forward(STAGE, "deployment/cloud", _CLOUD_PORT) as port,
            Simulator(
                f"https://127.0.0.1:{port}",
                environment=self._environment,
                project_id=PROJECT_ID,
                verify=ssl.create_default_context(cafile=certificate),
            ) as cloud,
        ):
            yield cloud

    def _add_namespace(self, namespace: dict[str, Any]) -> None:
        namespace["metadata"].setdefault("labels", {})[LABEL] = "true"
        self.cluster.apply(namespace)

    def _make_certificate(self, address: str) -> tuple[Path, Path]:
        certificate, key, config = (self._folder / name for name in ("cloud.crt", "cloud.key", "cloud.cnf"))
        config.write_text(_CERTIFICATE.format(names=f"IP:{address}, IP:127.0.0.1"))
        command: list[str | Path] = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-config",
            config,
        ]
        subprocess.run([*command, "-out", certificate, "-keyout", key], capture_output=True, check=True)
        return certificate, key

    # --- overlays -------------------------------------------------------------------------------------------------

    def overlay(self, source: str, *, image: str | None = None, namespace: str = OPERATOR) -> Path:
        """Write an overlay of a folder of deploy/ for this cluster and the simulated cloud, and return its folder."""
        folder = self._folder / "overlays" / source.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_text(self.ca)
        container = {
            "name": "operator",
            "image": image or self._image,
            "env": [{"name": "LIFECYCLEHOOK_OPERATOR_RESYNC_INTERVAL_SECONDS", "value": str(RESYNC_SECONDS)}],
        }
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": OPERATOR},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }
        literals = [f"{name}={value}" for name, value in self._environment.items()]
        content: dict[str, Any] = {
            "resources": [_relative(DEPLOY / source, folder)],
            "components": [_relative(DEPLOY / "components" / "ca", folder)],
            "namespace": namespace,
            "labels": [{"pairs": {LABEL: "true"}}],
            "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(deployment)}],
            "generatorOptions": {"disableNameSuffixHash": True},
            "secretGenerator": [{"name": "otc-credentials", "literals": literals}],
            "configMapGenerator": [{"name": "otc-ca", "files": ["ca.crt"]}],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return folder

    def add_metrics(self, folder: Path) -> None:
        """Add the component for metrics to an overlay, but for what needs CRDs that the cluster has not."""
        path = folder / "kustomization.yaml"
        content = yaml.safe_load(path.read_text())
        content["components"].append(_relative(DEPLOY / "components" / "metrics", folder))
        for kind, crd in (("ServiceMonitor", "servicemonitors"), ("PrometheusRule", "prometheusrules")):
            if not self.cluster.find("crd", f"{crd}.monitoring.coreos.com"):
                removed = {
                    "$patch": "delete",
                    "apiVersion": "monitoring.coreos.com/v1",
                    "kind": kind,
                    "metadata": {"name": OPERATOR},
                }
                content["patches"].append({"target": {"kind": kind}, "patch": yaml.safe_dump(removed)})
        path.write_text(yaml.safe_dump(content))

    def clouds_yaml(self) -> str:
        """Return a clouds.yaml for the simulated cloud."""
        auth = {name.removeprefix("OS_").lower(): value for name, value in self._environment.items()}
        return yaml.safe_dump({"clouds": {"otc": {"region_name": auth.pop("region_name"), "auth": auth}}})

    @property
    def ca(self) -> str:
        """The authority of the simulated cloud's certificate, in PEM form."""
        return (self._folder / "cloud.crt").read_text()

    # --- the operator's pods --------------------------------------------------------------------------------------

    def pods(self, namespace: str = OPERATOR) -> list[dict[str, Any]]:
        """Return the operator's pods that are not being deleted."""
        found = self.cluster.list("pods", "--namespace", namespace, "--selector", f"app.kubernetes.io/name={OPERATOR}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def logs(self) -> str:
        """Return the end of the log of each of the operator's pods."""
        selected = ("--all-namespaces", "--selector", f"app.kubernetes.io/name={OPERATOR}")
        shown = self.cluster.kubectl("get", "pods", "--output=wide", *selected)
        for pod in self.cluster.list("pods", *selected):
            words = (pod["metadata"]["name"], "--namespace", pod["metadata"]["namespace"], f"--tail={LOG_TAIL_LINES}")
            if any("running" in each["state"] for each in pod["status"].get("containerStatuses", [])):
                shown += self.cluster.kubectl("logs", *words)
        return shown

    def leader(self) -> str:
        """Return the name of the pod that holds the Lease; empty if none does."""
        lease = self.cluster.find("lease", OPERATOR, "--namespace", OPERATOR) or {"spec": {}}
        holder: str = lease["spec"].get("holderIdentity") or ""
        return holder.rpartition("_")[0]

    def wait_for_leader(self) -> dict[str, Any]:
        """Wait until one of the pods leads, and return it."""

        def find() -> dict[str, Any] | None:
            leader = self.leader()
            return next((pod for pod in self.pods() if pod["metadata"]["name"] == leader), None)

        return eventually("a pod leads", find, WAIT_SECONDS)

    def signal(self, pod: Mapping[str, Any], number: signal.Signals) -> None:
        """Send a signal to the operator in a pod, as its node could."""
        (status,) = pod["status"]["containerStatuses"]
        container = status["containerID"].rpartition("/")[2]
        node = f"--field-selector=spec.nodeName={pod['spec']['nodeName']}"
        (hand,) = self._names("pods", "--namespace", STAGE, "--selector", "app=hand", node)
        command = ["python", "-c", SIGNAL_SCRIPT, container, str(int(number))]
        self.cluster.kubectl("exec", "--namespace", STAGE, hand, "--", *command)


def _relative(path: Path, folder: Path) -> str:
    """Return the way from a folder to a path: kustomize takes no absolute one."""
    return os.path.relpath(path.resolve(), folder.resolve())
