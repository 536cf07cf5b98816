"""The operator as users run it: a process, with the rights of deploy/ and no more. Shared by tests, demo and bench."""

import math
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import yaml

from tests.support.controlplane import ControlPlane, free_ports, start_process, stop_process
from tests.support.simulator import LoggedRequest

OPERATOR = "lifecyclehook-operator"
PROGRAM = Path(sys.executable).with_name(OPERATOR)
CRD = "lifecyclehooks.as.otc.t-systems.com"
DEPLOY = Path(__file__).parents[2] / "deploy"
DOCS = DEPLOY.parent / "docs"
#: Table 3 of the API page, as the resource names them.
RESPONSE_FIELDS = {
    "lifecycleHookName",
    "lifecycleHookType",
    "defaultResult",
    "defaultTimeout",
    "notificationTopicUrn",
    "notificationTopicName",
    "notificationMetadata",
    "createTime",
}
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 25

T = TypeVar("T")


def eventually(what: str, probe: Callable[[], T | None], seconds: float = 60) -> T:
    """Look again and again until there is something to see, and return it.

    Raises TimeoutError, with `what` was awaited, if there is nothing before the deadline.
    """
    deadline = time.monotonic() + seconds
    while True:
        if seen := probe():
            return seen
        if time.monotonic() > deadline:
            message = f"waited {seconds} s in vain: {what}"
            raise TimeoutError(message)
        time.sleep(POLL_SECONDS)


def log_tail(log: Path) -> str:
    """Return the end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def install(control_plane: ControlPlane, base: Path = DEPLOY / "base") -> str:
    """Apply deploy/ but for the Deployment, for nothing here runs pods, and return what kubectl says."""
    rendered = yaml.safe_load_all(control_plane.kubectl("kustomize", base).stdout)
    objects = [each for each in rendered if each["kind"] != "Deployment"]
    applied = control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects)).stdout
    crds = [f"crd/{plural}.as.otc.t-systems.com" for plural in ("lifecyclehooks", "lifecyclecallbacks")]
    control_plane.kubectl("wait", "--for=condition=Established", *crds, "--timeout=30s")
    # For up to a second more the API server answers 429; kubectl waits it out, other clients may not.
    control_plane.kubectl("get", "lifecyclehooks", "--all-namespaces")
    return applied


def rounds(listings: Iterable[LoggedRequest], resync_seconds: float) -> list[tuple[str | None, int]]:
    """Return the number of each listing of a group by the clock: one that is late does not delay the next."""

    def number(listing: LoggedRequest) -> int:
        phase = zlib.crc32(str(listing.group_id).encode()) / 2**32
        return math.floor(listing.received_at / resync_seconds - phase)

    return [(listing.group_id, number(listing)) for listing in listings]


class OperatorProcess:
    """An operator that can be started, stopped, killed and started again; its log goes on in one file."""

    def __init__(
        self,
        control_plane: ControlPlane,
        cloud_environment: Mapping[str, str],
        *,
        program: Path = PROGRAM,
        **options: Any,
    ) -> None:
        """Take the OS_* variables of the operator's own credentials, and options as the command line names them."""
        self._program = program
        self._options = {"log_level": "debug", "allowed_endpoints": "127.0.0.1:*", **options}
        self._process: subprocess.Popen[bytes] | None = None
        (self._health_port,) = free_ports(1)
        self.log = control_plane.work_dir / f"operator-{self._health_port}.log"
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(control_plane.work_dir),
            "KUBECONFIG": str(control_plane.service_account_kubeconfig(OPERATOR, OPERATOR)),
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE")},
            **cloud_environment,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def last_line(self) -> str:
        """Return the last line of the log, without the time."""
        return self.log.read_text().splitlines()[-1].split(maxsplit=2)[2]

    def start(self) -> None:
        """Launch the process, and return when /readyz says that it works, or stands by."""
        self.launch()
        try:
            eventually("the operator is ready", self._is_ready)
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Launch the process, and do not wait for it."""
        flags = [
            f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
            for name, value in self._options.items()
        ]
        command = [str(self._program), "run", f"--health-port={self._health_port}", *flags]
        self._process = start_process(command, log=self.log, env=self._environment)

    def stop(self) -> int | None:
        """Stop the process by SIGTERM, and return its exit status, or None if there was none."""
        if self._process is None:
            return None
        if self.is_running:
            stop_process(self._process)
        status, self._process = self._process.returncode, None
        return status

    def wait(self, seconds: float = 30) -> int:
        """Wait until the process ends by itself, and return its exit status."""
        return self._running().wait(seconds)

    def kill(self) -> None:
        """End the process as a crash would."""
        process = self._running()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._process = None

    def health(self) -> dict[str, Any]:
        """Return what /healthz answers."""
        health: dict[str, Any] = self.probe("/healthz").raise_for_status().json()
        return health

    def probe(self, path: str) -> httpx.Response:
        """Return the answer of a probe, whatever it is."""
        return httpx.get(f"http://127.0.0.1:{self._health_port}{path}", trust_env=False, timeout=30)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the operator is not running")
        return self._process

    def _is_ready(self) -> bool:
        process = self._running()
        if process.poll() is not None:
            message = f"the operator ended with exit status {process.returncode}:\n{log_tail(self.log)}"
            raise RuntimeError(message)
        try:
            return self.probe("/readyz").is_success
        except httpx.HTTPError:
            return False
