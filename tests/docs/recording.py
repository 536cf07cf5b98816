"""`python -m tests.docs.recording FILE` records what a user sees of the operator, as an SVG animation.

The commands, their output and how long each took are real: they run on a local control plane against the simulated
cloud. Only the pauses to read are made.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.demo.scene import GROUP_ID, SAMPLES, Scene, set_scene
from tests.support.harness import DEPLOY

COLUMNS, ROWS = 110, 32
TYPE_SECONDS, READ_SECONDS, END_SECONDS = 0.8, 1.8, 8
HOOK, CALLBACK = "drain-before-terminate", SAMPLES / "callbacks" / "continue.yaml"
#: What is shown, line by line: a comment, or a command.
SCRIPT = (
    "# Two hooks, and one whose topic does not exist",
    "kubectl apply -k deploy/samples",
    "kubectl apply -f deploy/samples/refused-by-as.yaml",
    "kubectl wait --for=condition=Ready lifecyclehook/on-launch lifecyclehook/drain-before-terminate -n web",
    "kubectl get lifecyclehooks -n web",
    "# Why is it not Ready?",
    "kubectl get lifecyclehook no-such-topic -n web -o jsonpath='{.status.conditions[0].message}'",
    "# AS suspends an instance that is to be terminated. Show it, and let it go on",
    f'kubectl patch lifecyclehook {HOOK} -n web --type=merge -p \'{{"spec":{{"suspensionPolicy":"Watch"}}}}\'',
    f"kubectl wait --for=jsonpath='{{.status.suspendedInstances.count}}'=1 lifecyclehook/{HOOK} -n web",
    f"kubectl get lifecyclehook {HOOK} -n web -o jsonpath='{{.status.suspendedInstances}}'",
    "kubectl create -f deploy/samples/callbacks/continue.yaml",
    "kubectl wait --for=condition=Complete lifecyclecallbacks --all -n web",
    "kubectl get lifecyclecallbacks -n web",
)


class Cast:
    """A terminal session as asciinema stores it, in version 2."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._lines: list[object] = [{"version": 2, "width": COLUMNS, "height": ROWS}]

    def show(self, text: str) -> None:
        self._lines.append([round(self._seconds, 3), "o", text.replace("\n", "\r\n")])

    def wait(self, seconds: float) -> None:
        self._seconds += seconds

    def write(self, path: Path) -> None:
        path.write_text("".join(json.dumps(line) + "\n" for line in self._lines))


def record(scene: Scene) -> Cast:
    """Run the script. Raises CalledProcessError if a command fails."""
    instance = yaml.safe_load(CALLBACK.read_text())["spec"]["instanceId"]
    cast = Cast()
    for line in SCRIPT:
        if line.startswith("# "):
            cast.show(f"\x1b[36m{line}\x1b[0m\n")
            cast.wait(READ_SECONDS)
            continue
        cast.show(f"\x1b[32m$\x1b[0m {line}\n")
        cast.wait(TYPE_SECONDS)
        if "suspensionPolicy" in line:
            scene.cloud.add_hanging_instance(GROUP_ID, HOOK, instance)
        started = time.monotonic()
        output = scene.control_plane.kubectl(*in_repository(shlex.split(line)[1:])).stdout
        cast.wait(time.monotonic() - started)
        cast.show(output if output.endswith("\n") else f"{output}\n")
        cast.wait(READ_SECONDS)
    cast.wait(END_SECONDS)
    cast.show("")
    return cast


def in_repository(words: list[str]) -> list[str]:
    """Return a command as it is in the repository's folder."""
    return [str(DEPLOY.parent / word) if word.startswith("deploy/") else word for word in words]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.docs.recording", description=__doc__)
    parser.add_argument("file", type=Path, help="the SVG file to write")
    file = parser.parse_args().file
    with tempfile.TemporaryDirectory() as folder, set_scene(print) as scene:
        path = Path(folder) / "demo.cast"
        record(scene).write(path)
        program = Path(sys.executable).with_name("termtosvg")
        subprocess.run([program, "render", path, file, "-t", "window_frame", "-D", "1000"], check=True)


if __name__ == "__main__":
    main()
