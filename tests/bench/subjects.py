"""What is measured: the operator, and the floor to compare it with."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from tests.support.controlplane import ControlPlane, start_process, stop_process
from tests.support.harness import OPERATOR, OperatorProcess
from tests.support.simulator import Simulator

FLOOR = Path(__file__).with_name("floor.py")


class Subject(Protocol):
    """A process that can be started again."""

    log: Path

    @property
    def pid(self) -> int: ...

    def launch(self) -> None: ...

    def stop(self) -> object: ...


class FloorProcess:
    """The bare client, with the operator's rights."""

    def __init__(self, control_plane: ControlPlane, cloud: Simulator) -> None:
        self.log = control_plane.work_dir / "floor.log"
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "KUBECONFIG": str(control_plane.service_account_kubeconfig(OPERATOR, OPERATOR)),
            **cloud.credentials_env(),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the floor is not running")
        return self._process.pid

    def launch(self) -> None:
        self._process = start_process([sys.executable, str(FLOOR)], log=self.log, env=self._environment)

    def stop(self) -> None:
        if self._process is not None:
            stop_process(self._process)
            self._process = None


def make_operator(
    control_plane: ControlPlane, cloud: Simulator, resync_seconds: float, program: Path
) -> OperatorProcess:
    """Return the operator as users run it."""
    options = {"log_level": "info", "resync_interval_seconds": resync_seconds}
    return OperatorProcess(control_plane, cloud.credentials_env(), program=program, **options)
