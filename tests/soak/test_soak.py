"""`make soak`, in short: each kind of outage once."""

import os
import subprocess
import sys
from itertools import islice

import pytest

from tests.support.controlplane import ControlPlane

from . import schedule


def test_the_seed_decides_what_happens() -> None:
    def draw(seed: int) -> list[object]:
        return [*map(list, (islice(actor(seed), 200) for actor in (schedule.users, schedule.cloud, schedule.machines)))]

    assert draw(1) == draw(1) != draw(2)
    assert schedule.faults(1, 0.3) == schedule.faults(1, 0.3) != schedule.faults(2, 0.3)


@pytest.mark.timeout(600)
def test_whatever_breaks_all_is_as_wanted_in_the_end(control_plane: ControlPlane) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes=0.1", "--seed=1"]
    environment = os.environ | {"KUBEBUILDER_ASSETS": str(control_plane.binaries.folder)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "8 machines" in ran.stdout
    assert "All was as it should be." in ran.stdout
