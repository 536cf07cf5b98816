"""Programs that tests use and PyPI does not have, built from the Go modules that the go.mod beside this file pins."""

import hashlib
import os
import shutil
from pathlib import Path

from tests.support.controlplane.binaries import (
    BinariesNotFoundError,
    Say,
    cache_root,
    exclusive,
    go_platform,
    print_line,
    run_build,
)

MODULE_DIR = Path(__file__).parent
PACKAGES = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
    "helm": "helm.sh/helm/v4/cmd/helm",
    "kind": "sigs.k8s.io/kind",
    "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
    "promtool": "github.com/prometheus/prometheus/cmd/promtool",
}
#: Prometheus without its clients of clouds, which take half of its build.
TAGS = "remove_all_sd"


def find_or_make_tool(name: str, say: Say = print_line) -> Path:
    """Return a program of PACKAGES, built and cached first if need be; `say` gets one line for each thing that happens.

    Raises BinariesNotFoundError, with what to install, if it cannot be built.
    """
    program = _cache() / name
    if os.access(program, os.X_OK):
        return program
    with exclusive(program, say):
        # Another process may have made it while we waited for the lock.
        if not os.access(program, os.X_OK):
            _build(name, program, say)
    return program


def _cache() -> Path:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE_DIR / name).read_bytes())
    return cache_root().with_name("gotools") / "-".join((*go_platform(), digest.hexdigest()[:16]))


def _build(name: str, program: Path, say: Say) -> None:
    go = shutil.which("go")
    if go is None:
        raise BinariesNotFoundError(f"{name} can't be built, there is no Go here: install Go 1.26 or later.")
    say(f"Building {name} (some minutes at most, and the download of its modules the first time)")
    # Whole or absent: a build that is killed leaves a file that nobody takes for the program.
    partial = program.with_name(f"{name}.partial")
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", f"-tags={TAGS}"]
    run_build([go, "build", "-C", str(MODULE_DIR), *flags, "-o", str(partial), PACKAGES[name]], f"building {name}", say)
    partial.replace(program)
    say(f"{name} is {program}")
