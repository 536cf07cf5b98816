"""What users write who have not cloned the repository: kustomize fetches each folder of deploy/ itself."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rendering import make_overlay, render
from tests.support.controlplane import ControlPlane
from tests.support.harness import DEPLOY, OPERATOR

ROOT = DEPLOY.parent
FOLDERS = [path.parent.relative_to(ROOT) for path in sorted(ROOT.glob("[cd]*/**/kustomization.yaml"))]
BASES = [path for path in FOLDERS if "components" not in path.parts]
COMPONENTS = [path for path in FOLDERS if "components" in path.parts]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository with deploy/ and crds/ of this work tree, tagged v1, as its URL."""
    folder = tmp_path_factory.mktemp("repository")
    for part in ("crds", "deploy"):
        shutil.copytree(ROOT / part, folder / part)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=all"], ["tag", "v1"]):
        subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)
    return f"file://{folder}"


def render_remote(cluster: ControlPlane, folder: Path, **parts: list[str]) -> list[dict[str, Any]]:
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    return render(cluster.kubectl_path, folder)


def test_there_is_something_to_fetch() -> None:
    assert {Path("crds"), Path("deploy/base"), Path("deploy/overlays/metrics")} <= set(BASES)
    assert {path.name for path in COMPONENTS} == {"ca", "metrics"}


@pytest.mark.parametrize("path", BASES, ids=str)
def test_every_folder_is_a_remote_base(
    control_plane: ControlPlane, repository: str, tmp_path: Path, path: Path
) -> None:
    fetched = render_remote(control_plane, tmp_path, resources=[f"{repository}//{path}?ref=v1"])
    assert fetched == render(control_plane.kubectl_path, ROOT / path)


@pytest.mark.parametrize("path", COMPONENTS, ids=str)
def test_every_component_is_a_remote_one(
    control_plane: ControlPlane, repository: str, tmp_path: Path, path: Path
) -> None:
    base = f"{repository}//deploy/base?ref=v1"
    fetched = render_remote(control_plane, tmp_path, resources=[base], components=[f"{repository}//{path}?ref=v1"])
    local = tmp_path / "local"
    local.mkdir()
    make_overlay(local, OPERATOR, resources=[DEPLOY / "base"], components=[ROOT / path])
    assert fetched == render(control_plane.kubectl_path, local)
