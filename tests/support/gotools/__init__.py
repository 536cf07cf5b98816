"""Programs that tests use and PyPI does not have, built from Go modules.

Each folder beside this file has a go.mod that pins one of them: together they would ask for versions of libraries that
not all of them can be built with.
"""

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

MODULES_DIR = Path(__file__).parent
#: The folder of the module, and the package, of each program.
PACKAGES = {
    "actionlint": ("actionlint", "github.com/rhysd/actionlint/cmd/actionlint"),
    "helm": ("helm", "helm.sh/helm/v4/cmd/helm"),
    "kind": ("kind", "sigs.k8s.io/kind"),
    "prometheus": ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
    "promtool": ("prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
}
#: Prometheus without its clients of clouds, which take half of its build.
TAGS = "remove_all_sd"


def find_or_make_tool(name: str, say: Say = print_line) -> Path:
    """Return a program of PACKAGES, built and cached first if need be; `say` gets one line for each thing that happens.

    Raises BinariesNotFoundError, with what to install, if it cannot be built.
    """
    module, package = PACKAGES[name]
    program = _cache(MODULES_DIR / module) / name
    if os.access(program, os.X_OK):
        return program
    with exclusive(program, say):
        # Another process may have made it while we waited for the lock.
        if not os.access(program, os.X_OK):
            _build(MODULES_DIR / module, package, program, say)
    return program


def _cache(module: Path) -> Path:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((module / name).read_bytes())
    return cache_root().with_name("gotools") / "-".join((*go_platform(), digest.hexdigest()[:16]))


def _build(module: Path, package: str, program: Path, say: Say) -> None:
    name = program.name
    go = shutil.which("go")
    if go is None:
        raise BinariesNotFoundError(f"{name} can't be built, there is no Go here: install Go 1.26 or later.")
    say(f"Building {name} (some minutes at most, and the download of its modules the first time)")
    # Whole or absent: a build that is killed leaves a file that nobody takes for the program.
    partial = program.with_name(f"{name}.partial")
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", f"-tags={TAGS}"]
    run_build([go, "build", "-C", str(module), *flags, "-o", str(partial), package], f"building {name}", say)
    partial.replace(program)
    say(f"{name} is {program}")
