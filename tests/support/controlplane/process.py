"""etcd and kube-apiserver as two processes of ours, with everything they write in one temporary folder."""

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from .binaries import Binaries, Say, find_or_make_binaries, print_line

GUARD = Path(__file__).with_name("guard.py")
START_SECONDS = 90
STOP_SECONDS = 10
KUBECTL_SECONDS = 120
POLL_SECONDS = 0.05
HEALTH_SECONDS = 2
AUDIT_SECONDS = 5
LOG_TAIL_LINES = 15
PORT_TAKEN = "address already in use"

#: One event for each request when its response is complete, a watch when it ends, and one more for each write when it
#: comes in; nothing of the server's own.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["ResponseStarted"],
    "rules": [
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "None", "nonResourceURLs": ["/readyz*"]},
        {"level": "Metadata", "verbs": ["get", "list", "watch"], "omitStages": ["RequestReceived"]},
        {"level": "Metadata"},
    ],
}


class ControlPlaneError(Exception):
    """The control plane did not start; the message has the end of its logs."""


class PortTakenError(ControlPlaneError):
    """Somebody else got a port between our choice and the server's bind."""


class ControlPlane:
    """A Kubernetes API server with RBAC and an empty etcd, for as long as the `with` block runs.

    There are no controllers: nothing makes pods, collects garbage or empties a namespace that is being deleted.
    On Linux the processes also die with ours, or with the thread that called `start`.
    """

    def __init__(self, binaries: Binaries | None = None, *, say: Say = print_line) -> None:
        self._binaries = binaries
        self._say = say
        self._started: ExitStack | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Return when /readyz says ok."""
        self._binaries = self._binaries or find_or_make_binaries(self._say)
        try:
            self._start_once()
        except PortTakenError:
            self._start_once()
        return self

    def stop(self) -> None:
        """Stop both processes and remove their files; does nothing where nothing runs."""
        if self._started is not None:
            self._started.close()
            self._started = None

    def crash_api_server(self) -> None:
        """Kill the API server and start it again, on the same port; it then knows nothing of watches before."""
        self.stop_api_server()
        self.start_api_server()

    def stop_api_server(self) -> None:
        """Kill the API server; etcd goes on."""
        self._kill("kube-apiserver")
        self._read_audit_log()
        self._pending_writes.clear()  # nobody answers them any more

    def start_api_server(self) -> None:
        """Start the API server again, on the same port."""
        self._start_api_server(self._stack())

    def stop_etcd(self) -> None:
        """Kill etcd; the API server goes on, and fails."""
        self._kill("etcd")

    def start_etcd(self) -> None:
        """Start etcd again, with what it held, and return when the API server can use it."""
        self._start_etcd(self._stack())
        self._wait("kube-apiserver", self._is_ready)

    # --- what is running ------------------------------------------------------------------------------------------

    @property
    def work_dir(self) -> Path:
        """A folder for whoever wants to put files beside ours; it goes away with the control plane."""
        return self._work_dir

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._api_port}"

    @property
    def ca_file(self) -> Path:
        return self.work_dir / "pki" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's (system:masters)."""
        return self.work_dir / "admin.kubeconfig"

    @property
    def kubectl_path(self) -> Path:
        return self.binaries.kubectl

    @property
    def binaries(self) -> Binaries:
        if self._binaries is None:
            raise ControlPlaneError("The control plane has not been started.")
        return self._binaries

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def kubectl(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002  # as subprocess.run calls it
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as the administrator unless `kubeconfig` says otherwise."""
        command = [self.kubectl_path, "--kubeconfig", kubeconfig or self.kubeconfig, *args]
        # Only loopback is called: no proxy of the environment, and no file of the user's home.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.work_dir)}
        result = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env=environment,
            capture_output=True,
            text=True,
            timeout=KUBECTL_SECONDS,
            check=False,
        )
        if check and result.returncode != 0:
            error = subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
            error.add_note(result.stderr)
            raise error
        return result

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a fresh token (one day) of a service account that exists."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration=24h").stdout.strip()
        path = self.work_dir / f"{namespace}.{name}.kubeconfig"
        self._write_kubeconfig(path, token, namespace)
        return path

    def audit_events(  # noqa: PLR0913  # one keyword a filter
        self,
        *,
        since: datetime | None = None,
        user: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        verbs: Collection[str] | None = None,
    ) -> list[dict[str, Any]]:
        """The requests answered so far that match, in order of their answers.

        `since` is an aware datetime, compared with the moment the request came in. `resource` is the plural, with
        the subresource where there is one (`lifecyclehooks/status`). A watch shows a write before its event is in the
        log: writes that have come in are waited for, up to AUDIT_SECONDS. Whoever waits for a read polls. Probes and
        what the API server asks itself are left out.
        """

        def matches(event: dict[str, Any]) -> bool:
            reference = event.get("objectRef", {})
            path = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
            return (
                (since is None or datetime.fromisoformat(event["requestReceivedTimestamp"]) >= since)
                and user in (None, event["user"]["username"])
                and resource in (None, path)
                and namespace in (None, reference.get("namespace"))
                and name in (None, reference.get("name"))
                and (verbs is None or event["verb"] in verbs)
            )

        deadline = time.monotonic() + AUDIT_SECONDS
        self._read_audit_log()
        pending = {audit_id for audit_id, event in self._pending_writes.items() if matches(event)}
        while pending & self._pending_writes.keys() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            self._read_audit_log()
        return [event for event in self._audit_events if matches(event)]

    # --- start and stop -------------------------------------------------------------------------------------------

    def _start_once(self) -> None:
        with ExitStack() as stack:
            self._work_dir = Path(tempfile.mkdtemp(prefix="lifecyclehook-controlplane-"))
            stack.callback(shutil.rmtree, self._work_dir, ignore_errors=True)
            self._processes: dict[str, subprocess.Popen[bytes]] = {}
            self._audit_events: list[dict[str, Any]] = []
            self._pending_writes: dict[str, dict[str, Any]] = {}
            self._audit_offset = 0
            etcd_port, peer_port, self._api_port = free_ports(3)
            self._token = secrets.token_hex(16)
            self._write_files()
            self._etcd = etcd_command(self.binaries.etcd, self.work_dir, etcd_port, peer_port)
            self._etcd_health = f"http://127.0.0.1:{etcd_port}/health"
            # Tried before etcd listens, kube-apiserver waits a second until its next try.
            self._start_etcd(stack)
            self._api_server = api_server_command(self.binaries, self.work_dir, etcd_port, self._api_port)
            self._start_api_server(stack)
            self._write_kubeconfig(self.kubeconfig, self._token)
            self._started = stack.pop_all()

    def _start_etcd(self, stack: ExitStack) -> None:
        self._spawn(stack, "etcd", self._etcd)
        self._wait("etcd", lambda: is_healthy(self._etcd_health))

    def _start_api_server(self, stack: ExitStack) -> None:
        self._spawn(stack, "kube-apiserver", self._api_server)
        self._wait("kube-apiserver", self._is_ready)

    def _write_files(self) -> None:
        for name, content in {
            "tokens.csv": f'{self._token},admin,admin,"system:masters"\n',
            "audit-policy.yaml": yaml.safe_dump(AUDIT_POLICY),
        }.items():
            path = self.work_dir / name
            path.touch(mode=0o600)
            path.write_text(content)

    def _write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> None:
        name = "controlplane"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": name, "user": {"token": token}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))

    def _spawn(self, stack: ExitStack, name: str, command: list[str]) -> None:
        if name not in self._processes:  # one that is started again keeps its place in the order of stopping
            stack.callback(lambda: stop_process(self._processes[name]))
        self._processes[name] = start_process(command, log=self._log(name))

    def _kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def _stack(self) -> ExitStack:
        if self._started is None:
            raise ControlPlaneError("The control plane has not been started.")
        return self._started

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            answered = is_ready()
            # Asked afterwards: another server on the port that ours did not get may have answered.
            for running, process in self._processes.items():
                if process.poll() is not None:
                    raise self._failure(running, f"ended with exit code {process.returncode}")
            if answered:
                return
            if time.monotonic() > deadline:
                raise self._failure(name, f"was not ready within {START_SECONDS} s")
            time.sleep(POLL_SECONDS)

    def _failure(self, name: str, what: str) -> ControlPlaneError:
        lines = self._log(name).read_text(errors="replace").splitlines()
        kind = PortTakenError if any(PORT_TAKEN in line for line in lines) else ControlPlaneError
        return kind("\n".join([f"{name} {what}. The end of its log:", *lines[-LOG_TAIL_LINES:]]))

    def _is_ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (FileNotFoundError, ssl.SSLError):
            # Not written, or not to its end, by the starting server.
            return False
        return is_healthy(f"{self.url}/readyz", context, {"Authorization": f"Bearer {self._token}"})

    def _log(self, name: str) -> Path:
        return self.work_dir / f"{name}.log"

    def _read_audit_log(self) -> None:
        with (self.work_dir / "audit.log").open("rb") as log:
            log.seek(self._audit_offset)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._audit_offset += len(line)
                event = json.loads(line)
                if event["stage"] == "RequestReceived":
                    self._pending_writes[event["auditID"]] = event
                else:
                    self._pending_writes.pop(event["auditID"], None)
                    self._audit_events.append(event)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on right now; they may be taken before they are used."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def is_healthy(url: str, context: ssl.SSLContext | bool = True, headers: dict[str, str] | None = None) -> bool:
    try:
        with httpx.Client(verify=context, trust_env=False, timeout=HEALTH_SECONDS) as client:
            return client.get(url, headers=headers).is_success
    except httpx.TransportError:
        return False


def start_process(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program, given by its path, that writes to `log`; see ControlPlane on what ends it beside us."""
    with log.open("ab") as output:
        # A process group of its own, so that a Ctrl-C at the terminal leaves the order of stopping to us.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *command],
            cwd=log.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and after a while make it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def etcd_command(binary: Path, work_dir: Path, client_port: int, peer_port: int) -> list[str]:
    client_url, peer_url = (f"http://127.0.0.1:{port}" for port in (client_port, peer_port))
    return [
        str(binary),
        f"--data-dir={work_dir / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--log-level=warn",
    ]


def api_server_command(binaries: Binaries, work_dir: Path, etcd_port: int, api_port: int) -> list[str]:
    pki = work_dir / "pki"
    # The server writes its self-signed serving pair into --cert-dir before it reads the keys for service-account
    # tokens, so one key serves for both and nothing else has to make any.
    key = pki / "apiserver.key"
    # Where it is not yet on by default, for tests that have changes refused.
    beta = [
        "--feature-gates=ValidatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
    ]
    return [
        str(binaries.kube_apiserver),
        *(beta if binaries.kubernetes < (1, 30) else []),
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--secure-port={api_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--cert-dir={pki}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={work_dir / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        # Nobody makes the default service accounts that it asks for.
        "--disable-admission-plugins=ServiceAccount",
        # A loopback address can't be an endpoint of the service `kubernetes`.
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={work_dir / 'audit-policy.yaml'}",
        f"--audit-log-path={work_dir / 'audit.log'}",
        # Large enough never to rotate.
        "--audit-log-maxsize=4096",
    ]
