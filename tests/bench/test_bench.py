"""`make bench`, with few resources: speed is not judged, but counts are."""

import os
import subprocess
import sys

from tests.support.controlplane import ControlPlane


def test_it_prints_its_figures_and_finds_the_counts_right(control_plane: ControlPlane) -> None:
    command = [sys.executable, "-m", "tests.bench", "--resources=10", "--repeats=1"]
    environment = os.environ | {"KUBEBUILDER_ASSETS": str(control_plane.binaries.folder)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for figure in ("create to Ready, one alone", "10 at once", "peak memory", "restart with 11 in sync"):
        assert figure in ran.stdout
    assert "Writes and calls are as they should be." in ran.stdout
