"""`make bench`, with few resources: speed is not judged, but counts are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.support.controlplane import ControlPlane


def test_it_measures_operator_and_floor_and_finds_the_counts_right(control_plane: ControlPlane, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    options = ("--resources=10", "--rounds=1", "--repeats=1", "--resync-seconds=1", "--json", f"--plot={plot}")
    environment = os.environ | {"KUBEBUILDER_ASSETS": str(control_plane.binaries.folder)}
    command = [sys.executable, "-m", "tests.bench", *options]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    measured = json.loads(ran.stdout)
    (size,) = measured["sizes"]
    assert measured["mistakes"] == []
    assert {"operator", "floor", "ratio"} < set(size["medians"]["create_all"])
    assert size["rounds"][0]["operator"]["resync_calls"] > 0
    assert len(list(ET.parse(plot).iter("{http://www.w3.org/2000/svg}polyline"))) == 8  # noqa: S314  # our own
