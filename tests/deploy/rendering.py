"""What kustomize makes of deploy/."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.values import Image
from tests.support.harness import DEPLOY

INSTALL = DEPLOY / "install.yaml"
_HEADER = "# deploy/base as `make generate` renders it: kubectl apply -f deploy/install.yaml\n"


def render_text(kubectl: Path, folder: Path) -> str:
    """Return what `kubectl kustomize` prints."""
    command = [kubectl, "kustomize", folder]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def render(kubectl: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a folder of deploy/."""
    return list(yaml.safe_load_all(render_text(kubectl, folder)))


def render_install(kubectl: Path) -> str:
    """Return what deploy/install.yaml is to be."""
    return _HEADER + render_text(kubectl, DEPLOY / "base")


def render_release(kubectl: Path, image: Image) -> str:
    """Return the install.yaml of a release: deploy/base with its image."""
    text = render_text(kubectl, DEPLOY / "base")
    (container,) = only(list(yaml.safe_load_all(text)), "Deployment")["spec"]["template"]["spec"]["containers"]
    version = container["image"].rpartition(":")[2]
    return text.replace(f" image: {container['image']}\n", f" image: {image.reference(version)}\n")


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """Return the one object of a kind, or the one of them that has a name."""
    (found,) = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def make_overlay(folder: Path, namespace: str, **parts: list[Path]) -> Path:
    """Write an overlay as users do, for a namespace, and return its folder."""
    # kustomize takes no absolute paths.
    lists = {key: [os.path.relpath(path, folder) for path in paths] for key, paths in parts.items()}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": namespace, **lists}))
    return folder
