"""`make demo`, as its user runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane


@pytest.fixture
def environment(control_plane: ControlPlane, tmp_path: Path) -> dict[str, str]:
    """One with the session's binaries and a temporary folder of its own."""
    assets = str(control_plane.binaries.folder)
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    return kept | {"KUBEBUILDER_ASSETS": assets, "TMPDIR": str(tmp_path)}


@contextmanager
def demo(environment: dict[str, str], *args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.demo", *args]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.parametrize(("args", "ci"), [(["--once"], {}), ([], {"CI": "true"})])
def test_once_mode_ends_by_itself(
    environment: dict[str, str], tmp_path: Path, args: list[str], ci: dict[str, str]
) -> None:
    with demo(environment | ci, *args) as process:
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Everything works as expected" in output
    for shown in ("notificationTopicName: gsh", "spec.defaultTimeout: Invalid value: 30", "AS.7043"):
        assert shown in output
    assert list(tmp_path.iterdir()) == []


def test_otherwise_it_stays_up_until_ctrl_c(environment: dict[str, str], tmp_path: Path) -> None:
    with demo(environment) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        kubeconfig = next(line for line in lines if line.startswith("export KUBECONFIG=")).strip().partition("=")[2]
        assert Path(kubeconfig).is_file()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(240) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_fails_if_something_is_not_as_expected(environment: dict[str, str], tmp_path: Path) -> None:
    # Without kubectl of its own, the first view cannot be had.
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (assets / name).symlink_to(Path(environment["KUBEBUILDER_ASSETS"]) / name)
    (assets / "kubectl").write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    (assets / "kubectl").chmod(0o755)
    with demo(environment | {"KUBEBUILDER_ASSETS": str(assets)}, "--once") as process:
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "out of order" in output
    assert list(tmp_path.iterdir()) == [assets]
