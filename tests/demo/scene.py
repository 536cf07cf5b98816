"""What the demo runs: control plane, simulated cloud, and the operator with the permissions in deploy/ and no more."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.controlplane import ControlPlane
from tests.support.harness import DEPLOY, OperatorProcess, install, log_tail
from tests.support.simulator import Simulator, run_simulator

SAMPLES = DEPLOY / "samples"

#: As in the samples.
PROJECT_ID = "b53e5554fad0494d96206fb84296510b"
GROUP_ID = "e5d27f5c-dd76-4a61-b4bc-a67c5686719a"
TOPIC_URN = f"urn:smn:eu-de:{PROJECT_ID}:gsh"
ABSENT_TOPIC_URN = f"urn:smn:eu-de:{PROJECT_ID}:absent"


class UnexpectedError(Exception):
    """The demo shows something else than expected."""


#: The failures of a step: errors of the harness, of kubectl, and our own.
FAILURES = (RuntimeError, TimeoutError, subprocess.CalledProcessError, UnexpectedError)


@dataclass(frozen=True)
class Scene:
    control_plane: ControlPlane
    cloud: Simulator
    operator: OperatorProcess


@contextmanager
def set_scene(say: Callable[[str], None]) -> Iterator[Scene]:
    """Install and start everything, and stop it when the block ends."""
    say("Starting etcd and kube-apiserver")
    with ControlPlane() as control_plane:
        say("Starting the simulated cloud, with one AS group and one topic")
        project = f"--project=eu-de_demo={PROJECT_ID}"
        with run_simulator(project, groups=[GROUP_ID], topics=[TOPIC_URN]) as cloud:
            say("Installing deploy/base: CRD, namespace, service account, RBAC (no Deployment: nothing here runs pods)")
            print(install(control_plane), end="")
            say("Starting the operator as a process, with the permissions of its service account")
            with OperatorProcess(control_plane, cloud.credentials_env(), log_level="info") as operator:
                try:
                    yield Scene(control_plane, cloud, operator)
                except FAILURES as error:
                    error.add_note(f"End of the operator's log:\n{log_tail(operator.log)}")
                    raise
