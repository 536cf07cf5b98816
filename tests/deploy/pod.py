"""A pod without a kubelet: the container of a rendered Deployment, run on this machine as a container runtime would.

It has mount and PID namespaces of its own, the user, arguments, environment and probes of the manifest, the mounted
service account, and a read-only root with nothing in it but the system's libraries and the operator. Two things differ:
the network is the machine's, so that loopback can be reached, and the probes' port is a free one. Needs root.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.deploy.rendering import only
from tests.support.controlplane import ControlPlane, free_ports, start_process
from tests.support.harness import OPERATOR, eventually

REPOSITORY = Path(__file__).parents[2]
SERVICE_ACCOUNT = "run/secrets/kubernetes.io/serviceaccount"
#: What kubelet keeps of a log as the termination message.
MESSAGE_BYTES, MESSAGE_LINES = 2048, 80

_MOUNTS = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 none {root}
for path in {paths}; do
    if [ -L "$path" ]; then ln -s "$(readlink "$path")" {root}"$path"; continue; fi
    [ -d "$path" ] || continue
    mkdir -p {root}"$path"
    mount --bind "$path" {root}"$path"
    mount -o remount,bind,ro {root}"$path"
done
mkdir -p {root}/dev {root}/proc {root}/var {root}/{service_account}
mount --rbind /dev {root}/dev
mount -t proc none {root}/proc
ln -s /run {root}/var/run
mount --bind {account} {root}/{service_account}
[ -z {read_only} ] || mount -o remount,ro {root}
exec chroot {root} setpriv {user} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all env -i {command}
"""


class Pod:
    """One replica of the operator's Deployment."""

    def __init__(
        self,
        cluster: ControlPlane,
        objects: list[dict[str, Any]],
        *,
        name: str,
        secret: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            cluster: the control plane, where the service account of the Deployment exists.
            objects: rendered manifests, among them the Deployment.
            name: of the pod.
            secret: content of the Secret that envFrom names, if that exists.
            environment: what a user adds to the container's environment.
        """
        deployment = only(objects, "Deployment")
        self._namespace: str = deployment["metadata"]["namespace"]
        self._spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
        (self.container,) = self._spec["containers"]
        (self._port,) = free_ports(1)
        self._folder = cluster.work_dir / f"pod-{name}"
        self._folder.mkdir()
        self.log = cluster.work_dir / f"operator-pod-{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._make_service_account(cluster)
        self._environment = {
            **_image_environment(),
            "HOME": "/",
            "HOSTNAME": name,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": cluster.url.rpartition(":")[2],
            **(dict(secret or {}) if self.container.get("envFrom") else {}),
            **{each["name"]: self._read_field(each) for each in self.container.get("env", ())},
            "LIFECYCLEHOOK_OPERATOR_HEALTH_PORT": str(self._port),
            **(environment or {}),
        }

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # which takes what is inside along
            self._process.wait()

    def launch(self) -> None:
        """Start the container, and do not wait for it."""
        context = {**self._spec["securityContext"], **self.container["securityContext"]}
        arguments = [self._expand(each) for each in self.container["args"]]
        environment = [f"{key}={value}" for key, value in self._environment.items()]
        paths = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", sys.base_prefix, sys.prefix]
        root = self._folder / "root"
        root.mkdir(exist_ok=True)
        script = _MOUNTS.format(
            root=shlex.quote(str(root)),
            paths=shlex.join([*paths, str(REPOSITORY / "operator")]),
            service_account=SERVICE_ACCOUNT,
            account=shlex.quote(str(self._folder / "serviceaccount")),
            read_only="yes" if context["readOnlyRootFilesystem"] else "''",
            user=f"--reuid={context['runAsUser']} --regid={context['runAsGroup']}",
            command=shlex.join([*environment, OPERATOR, *arguments]),
        )
        command = ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
        self._process = start_process(command, log=self.log, env={"PATH": os.environ.get("PATH", os.defpath)})

    def probe(self, kind: str) -> bool:
        """Ask one of startupProbe, readinessProbe and livenessProbe, once, as kubelet does."""
        probe = self.container[kind]
        url = f"http://127.0.0.1:{self._port}{probe['httpGet']['path']}"
        assert any(port["name"] == probe["httpGet"]["port"] for port in self.container["ports"])
        try:
            response = httpx.get(url, timeout=probe["timeoutSeconds"], trust_env=False)
        except httpx.HTTPError:
            return False
        return 200 <= response.status_code < 400

    def wait_started(self) -> None:
        """Wait as long as kubelet would for the startup probe, then for the readiness probe."""
        for kind in ("startupProbe", "readinessProbe"):
            probe = self.container[kind]
            eventually(f"the {kind} succeeds", lambda kind=kind: self._probe_running(kind), _bound(probe))

    def terminate(self) -> int:
        """Send SIGTERM, and return the exit status; TimeoutExpired where kubelet would send SIGKILL."""
        os.kill(self._find_pid(), signal.SIGTERM)
        return self._running().wait(self._spec["terminationGracePeriodSeconds"])

    def crash(self) -> None:
        """Kill the process from outside, as the kernel does where memory runs out."""
        os.kill(self._find_pid(), signal.SIGKILL)
        self._running().wait()

    def wait(self, seconds: float = 60) -> int:
        """Wait until the process ends by itself, and return its exit status."""
        return self._running().wait(seconds)

    def termination_message(self) -> str:
        """Return what `kubectl describe pod` shows of a container that failed."""
        assert self.container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        end = self.log.read_bytes()[-MESSAGE_BYTES:].decode(errors="replace")
        return "\n".join(end.splitlines()[-MESSAGE_LINES:])

    def _probe_running(self, kind: str) -> bool:
        if (status := self._running().poll()) is not None:
            message = f"the container ended with exit status {status}:\n{self.termination_message()}"
            raise RuntimeError(message)
        return self.probe(kind)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the pod was not launched")
        return self._process

    def _find_pid(self) -> int:
        """Return the PID, on this machine, of the container's PID 1."""
        parent = self._running().pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())

    def _make_service_account(self, cluster: ControlPlane) -> None:
        token = cluster.kubectl("create", "token", self._spec["serviceAccountName"], "-n", self._namespace).stdout
        folder = self._folder / "serviceaccount"
        folder.mkdir(mode=0o755)
        for name, content in {
            "token": token.strip(),
            "namespace": self._namespace,
            "ca.crt": cluster.ca_file.read_text(),
        }.items():
            (folder / name).write_text(content)
            (folder / name).chmod(0o644)

    def _read_field(self, variable: Mapping[str, Any]) -> str:
        if "value" in variable:
            return str(variable["value"])
        assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
        return self._namespace

    def _expand(self, argument: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda found: self._environment[found[1]], argument)


def _bound(probe: Mapping[str, Any]) -> float:
    return float(probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"])


def _image_environment() -> dict[str, str]:
    """Return what the Dockerfile sets, with this interpreter's folder in place of the image's."""
    final = (REPOSITORY / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", final, re.MULTILINE)
    variables = dict(word.split("=", 1) for word in line.split())
    return {**variables, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C.UTF-8"}
