"""The workflows of GitHub are well formed, and fit what the rest of the repository says."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane.binaries import OTHER_VERSIONS, minor_of, pinned_version
from tests.support.harness import DEPLOY

ROOT = DEPLOY.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yaml"))
CI = yaml.safe_load((GITHUB / "workflows" / "ci.yaml").read_text())
RELEASE = yaml.safe_load((GITHUB / "workflows" / "release.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


JOBS = [
    pytest.param(job, id=f"{path.stem}-{name}")
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
]


def check(actionlint: Path, *workflows: Path) -> str:
    """Return what actionlint says, and shellcheck of the scripts in the workflows, which is beside Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [actionlint, "-no-color", *workflows]
    environment = {"PATH": path}
    checked = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert checked.stderr == ""
    return checked.stdout


def test_actionlint_finds_no_mistake(actionlint: Path) -> None:
    assert check(actionlint, *WORKFLOWS) == ""


def test_actionlint_would_find_one_even_in_a_script(actionlint: Path, tmp_path: Path) -> None:
    workflow = tmp_path / "mistake.yaml"
    workflow.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo $UNQUOTED'}]}}\n")
    assert "SC2086" in check(actionlint, workflow)


@pytest.mark.parametrize("path", [*WORKFLOWS, GITHUB / "actions" / "setup" / "action.yaml"], ids=lambda path: path.stem)
def test_actions_of_others_are_pinned_by_commit_and_named_by_version(path: Path) -> None:
    uses = [line.partition("uses:")[2].strip() for line in path.read_text().splitlines() if "uses:" in line]
    foreign = [each for each in uses if not each.startswith("./")]
    assert foreign
    assert [each for each in foreign if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []


@pytest.mark.parametrize("job", JOBS)
def test_each_job_has_its_permissions_and_an_end(job: dict[str, Any]) -> None:
    assert job["permissions"]["contents"] in ("read", "write")
    assert "timeout-minutes" in job or "uses" in job


def test_only_a_release_may_write() -> None:
    assert {right for job in CI["jobs"].values() for right in job["permissions"].values()} == {"read"}
    assert CI["permissions"] == RELEASE["permissions"] == {}


def test_it_is_tested_on_every_python_that_the_project_names() -> None:
    tested = CI["jobs"]["unit"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    named = {f"3.{line.removeprefix(prefix)}" for line in PROJECT["classifiers"] if line.startswith(prefix)}
    assert named <= set(tested)
    assert f">={tested[0]}" == PROJECT["requires-python"]


def test_it_is_tested_on_three_versions_of_kubernetes_that_can_be_had() -> None:
    tested = CI["jobs"]["cluster"]["strategy"]["matrix"]["kubernetes"]
    assert len(tested) == 3
    assert set(tested) <= {minor_of(version) for version in (*OTHER_VERSIONS, pinned_version())}
    assert minor_of(pinned_version()) in tested


@pytest.mark.parametrize("job", JOBS)
def test_each_command_of_the_makefile_exists(job: dict[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {".venv/.installed"}
    for step in job.get("steps", []):
        for words in re.findall(r"^make (.*)$", step.get("run", ""), re.MULTILINE):
            assert {word for word in words.split() if "=" not in word} <= targets


def test_what_is_released_passes_all_the_tests_first() -> None:
    assert RELEASE["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yaml"
    assert RELEASE["jobs"]["image"]["needs"] == "ci"
    assert RELEASE["jobs"]["publish"]["needs"] == "image"


def test_dependabot_looks_wherever_there_is_something() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    named = {
        (each["package-ecosystem"], folder)
        for each in updates
        for folder in each.get("directories", [each.get("directory")])
    }
    modules = {("gomod", f"/{path.parent.relative_to(ROOT)}") for path in (ROOT / "tests").rglob("go.mod")}
    actions = {("github-actions", f"/{path.parent.relative_to(ROOT)}") for path in GITHUB.glob("actions/*/action.yaml")}
    assert named == {("pip", "/"), ("docker", "/"), ("github-actions", "/"), *modules, *actions}
