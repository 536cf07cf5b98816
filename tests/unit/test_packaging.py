"""What the project says of itself, and that its locked requirements are hashed and name no place to get them from."""

import json
import re
import subprocess
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements.txt", "requirements-dev.txt"]

REQUIREMENT = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)(\[[a-z,-]+\])?==(?P<version>[A-Za-z0-9.+!]+)(?: ; [^\\]+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def read_lock(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes by project; a line of any other form is a mistake."""
    locked: dict[str, tuple[str, list[str]]] = {}
    text = (ROOT / name).read_text()
    for logical_line in text.replace("\\\n", "").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--)", logical_line.strip())
        found = REQUIREMENT.fullmatch(requirement)
        assert found, requirement
        assert all(HASH.fullmatch(each) for each in hashes), hashes
        locked[found["name"]] = (found["version"], hashes)
    return locked


def normalized(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ \[;]", requirement)[0]).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_has_hashes_and_nothing_else_is_in_the_file(name: str) -> None:
    locked = read_lock(name)
    assert len(locked) > 10
    assert not [project for project, (_, hashes) in locked.items() if not hashes]


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("sign", ["://", "--index", "--extra", "--find", "--trusted", "@", "file:", "git+", "#"])
def test_a_lock_names_no_place(name: str, sign: str) -> None:
    assert sign not in (ROOT / name).read_text()


def test_what_the_project_depends_on_is_locked() -> None:
    assert {normalized(each) for each in PROJECT["project"]["dependencies"]} <= read_lock("requirements.txt").keys()
    assert {normalized(each) for each in PROJECT["dependency-groups"]["dev"]} <= read_lock(
        "requirements-dev.txt"
    ).keys()


def test_what_is_tested_is_what_is_shipped() -> None:
    shipped, tested = map(read_lock, LOCKS)
    assert shipped == {name: tested.get(name) for name in shipped}


def test_the_licence_is_given_by_its_spdx_name() -> None:
    assert PROJECT["project"]["license"] == metadata("lifecyclehook-operator")["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_package_is_typed_and_has_a_command() -> None:
    assert (ROOT / "operator" / "lifecyclehook_operator" / "py.typed").exists()
    assert PROJECT["project"]["scripts"] == {"lifecyclehook-operator": "lifecyclehook_operator.__main__:main"}


def test_no_package_hides_the_standard_librarys_operator() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_image_is_labelled_with_the_version_of_the_package() -> None:
    assert f"ARG VERSION={PROJECT['project']['version']}\n" in (ROOT / "Dockerfile").read_text()


def test_the_bill_of_materials_has_what_is_locked(tmp_path: Path) -> None:
    # Whoever runs this has the requirements installed, and make is not to install them again.
    command = ["make", "--no-print-directory", "--old-file=.venv/.installed", "sbom", f"DIST={tmp_path}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (made.returncode, made.stdout + made.stderr) == (0, "")
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    product = bill["metadata"]["component"]
    assert (product["name"], product["version"]) == (PROJECT["project"]["name"], PROJECT["project"]["version"])
    locked = read_lock("requirements.txt")
    assert {part["name"]: part["version"] for part in bill["components"]} == {
        name: version for name, (version, _) in locked.items()
    }
    hashes = {each["content"] for part in bill["components"] for each in part["externalReferences"][0]["hashes"]}
    assert hashes == {each.removeprefix("--hash=sha256:") for _, found in locked.values() for each in found}
