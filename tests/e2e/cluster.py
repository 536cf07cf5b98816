"""A cluster that KUBECONFIG names: which one may be used, kubectl on it, and a hand inside it."""

import fnmatch
import json
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Contexts of clusters that are made to be thrown away.
SAFE_CONTEXTS = ("kind-*", "k3d-*", "minikube")
KUBECTL_SECONDS = 180
FORWARD_SECONDS = 30
#: Run in a pod that sees the node's processes: sends a signal to all those of a container.
SIGNAL_SCRIPT = """
import contextlib, os, pathlib, sys
container, number = sys.argv[1], int(sys.argv[2])
found = []
for group in pathlib.Path("/proc").glob("[0-9]*/cgroup"):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if container in group.read_text():
            os.kill(int(group.parent.name), number)
            found.append(group.parent.name)
sys.exit(0 if found else f"no process of {container} here")
"""


class UnsafeContextError(Exception):
    """The current context is not one to install, crash and uninstall an operator in."""


def check_context(current: str, confirmed: str | None = None) -> None:
    """Raise UnsafeContextError unless the context is of a throw-away cluster, or has been confirmed by its name."""
    if confirmed is not None and confirmed != current:
        raise UnsafeContextError(f"The current context is {current!r}, and not {confirmed!r}, which was confirmed.")
    if confirmed is None and not any(fnmatch.fnmatchcase(current, pattern) for pattern in SAFE_CONTEXTS):
        raise UnsafeContextError(
            f"The context {current!r} is none of {', '.join(SAFE_CONTEXTS)}: everything of this operator would be "
            f"installed there, crashed, and uninstalled. If that is what you want, confirm it with CONTEXT={current}."
        )


def current_context() -> str:
    """Return the context that kubectl would use. Raises UnsafeContextError if there is none."""
    command = ["kubectl", "config", "current-context"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False)
    if found.returncode:
        raise UnsafeContextError(found.stderr.strip())
    return found.stdout.strip()


class Cluster:
    """kubectl on one context, whichever is the current one by now; a Ctrl-C at the terminal does not reach it."""

    def __init__(self, context: str) -> None:
        self._command = ["kubectl", "--context", context]

    def kubectl(self, *args: str | Path, input: str | None = None) -> str:  # noqa: A002  # as subprocess.run calls it
        """Run kubectl and return what it prints. Raises subprocess.CalledProcessError with a note of its errors."""
        command = [*self._command, *map(str, args)]
        result = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=KUBECTL_SECONDS,
            start_new_session=True,
            check=False,
        )
        if result.returncode:
            error = subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
            error.add_note(result.stderr.strip())
            raise error
        return result.stdout

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start kubectl, and do not wait for it."""
        command = [*self._command, *args]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def find(self, kind: str, name: str, *args: str) -> Any:
        """Return an object, or None if it does not exist."""
        found = self.kubectl("get", kind, name, *args, "--ignore-not-found", "--output=json")
        return json.loads(found) if found else None

    def list(self, kind: str, *args: str) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` finds."""
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *args, "--output=json"))["items"]
        return items

    def apply(self, *objects: dict[str, Any]) -> str:
        """Apply objects."""
        return self.kubectl(
            "apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Return a port of this machine that leads to one of a pod or a Service, for as long as the block lasts."""
        with self.start("port-forward", "--namespace", namespace, target, f":{port}") as process:
            try:
                assert process.stdout is not None
                is_up = select.select([process.stdout], [], [], FORWARD_SECONDS)[0]
                line = process.stdout.readline() if is_up else "nothing said"
                if not (found := re.search(r"127\.0\.0\.1:(\d+) ->", line)):
                    raise RuntimeError(f"no way to port {port} of {target}: {line.strip()}")
                yield int(found[1])
            finally:
                process.terminate()
