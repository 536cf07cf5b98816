"""Go programs are built once, and are in the cache whole or not at all. A script plays Go."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import gotools
from tests.support.controlplane import BinariesNotFoundError
from tests.support.gotools import find_or_make_tool

#: The last two arguments of `go build` are the file to write and the package.
BUILD = 'for last; do out=$before; before=$last; done; echo "$last" > "$out"; chmod +x "$out"'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lifecyclehook-operator" / "gotools"


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(build: str) -> None:
        script = tmp_path / "go"
        script.write_text(f"#!/bin/sh\necho call >> {tmp_path}/calls\n{build}\n")
        script.chmod(0o755)
        monkeypatch.setattr(shutil, "which", lambda _: str(script))

    return install


def test_it_is_built_once(go: Callable[[str], None], tmp_path: Path, cache: Path) -> None:
    go(BUILD)
    lines: list[str] = []
    found = find_or_make_tool("helm", lines.append)
    assert found.is_relative_to(cache)
    assert found.read_text() == f"{gotools.PACKAGES['helm'][1]}\n"
    assert lines[0].startswith("Building helm (")
    assert find_or_make_tool("helm", lines.append) == found
    assert (tmp_path / "calls").read_text() == "call\n"


def test_a_failed_build_leaves_no_program_and_is_tried_again(go: Callable[[str], None]) -> None:
    go(f"{BUILD}; echo no space left >&2; exit 1")
    with pytest.raises(BinariesNotFoundError, match=r"building helm failed:\nno space left"):
        find_or_make_tool("helm", print)
    go(BUILD)
    assert find_or_make_tool("helm", print).exists()


def test_another_version_is_another_program(
    go: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(BUILD)
    first = find_or_make_tool("helm", print)
    shutil.copytree(gotools.MODULES_DIR / "helm", tmp_path / "helm")
    (tmp_path / "helm" / "go.mod").write_text("changed")
    monkeypatch.setattr(gotools, "MODULES_DIR", tmp_path)
    assert find_or_make_tool("helm", print) != first


def test_without_go_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BinariesNotFoundError, match="helm can't be built, there is no Go here: install Go"):
        find_or_make_tool("helm", print)


def test_each_is_pinned() -> None:
    for module, package in gotools.PACKAGES.values():
        lines = (gotools.MODULES_DIR / module / "go.mod").read_text().split("\n")
        assert {f"tool {package}", f"\t{package}"} & {*lines}
