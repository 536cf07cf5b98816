"""Measure the operator on this machine, and beside it the floor: a bare client that makes the same requests.

Both take turns on one control plane, so that only their ratio counts: a machine's speed drifts. Speed is printed and
never judged. The exit status is 1 if a resource cost more writes or calls than it should.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.controlplane import BinariesNotFoundError, ControlPlane, ControlPlaneError
from tests.support.harness import PROGRAM, install, log_tail
from tests.support.simulator import run_simulator
from tests.support.workspace import PLURAL

from .plot import draw
from .report import find_medians, print_table
from .round import NAMESPACE, Round
from .subjects import FloorProcess, Subject, make_operator

MAX_GROUP_SIZE = 5
#: Regular looks at what AS has would blur the counts: there are none but where they are measured.
RESYNC_SECONDS = 1_000_000_000
#: How a step fails: the harness's own errors, kubectl's, and the API server's.
FAILURES = (RuntimeError, TimeoutError, subprocess.CalledProcessError, aiohttp.ClientError)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure each number of resources in some rounds, and return all figures, and what is not as it should be."""
    mistakes: list[str] = []
    sizes = []
    with ControlPlane() as control_plane, run_simulator() as cloud:
        install(control_plane)
        control_plane.kubectl("create", "namespace", NAMESPACE)
        # A new resource is answered with 429 for a moment, which kubectl waits out.
        control_plane.kubectl("get", PLURAL, "--namespace", NAMESPACE)
        cloud.set_latency(options.as_latency_ms / 1000)
        subjects: dict[str, Subject] = {
            "floor": FloorProcess(control_plane, cloud),
            "operator": make_operator(control_plane, cloud, RESYNC_SECONDS, options.operator),
        }
        resyncing = make_operator(control_plane, cloud, options.resync_seconds, options.operator)
        for count in options.resources:
            rounds = []
            for number in range(options.rounds):
                figures = {}
                for name, subject in subjects.items():
                    print(f"{count} resources, round {number + 1} of {options.rounds}: {name}", file=sys.stderr)
                    round_ = Round(control_plane, cloud, subject, count, options)
                    try:
                        figures[name] = asyncio.run(round_.run(resyncing if name == "operator" else None))
                    except FAILURES as error:
                        error.add_note(f"The end of the log of {name}:\n{log_tail(subject.log)}")
                        raise
                    mistakes += round_.mistakes
                rounds.append(figures)
            sizes.append({"resources": count, "rounds": rounds, "medians": find_medians(rounds)})
    machine = f"{describe_machine()}, {describe_operator(options.operator)}"
    return {"machine": machine, "as_latency_ms": options.as_latency_ms, "sizes": sizes, "mistakes": mistakes}


def describe_machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")]
    return (
        f"{len(os.sched_getaffinity(0))} cores ({models[0] if models else platform.machine()}), "
        f"Linux {platform.release()}"
    )


def describe_operator(program: Path) -> str:
    return subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout.strip()


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--resources", type=read_numbers, default=[1000], metavar="N,...", help="how many at once (default: 1000)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often (default: 3)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="how often one alone (default: 5)")
    parser.add_argument(
        "--group-size",
        type=int,
        default=MAX_GROUP_SIZE,
        choices=range(1, MAX_GROUP_SIZE + 1),
        help="how many of them share an AS group (default: 5, as many as AS allows)",
    )
    parser.add_argument(
        "--as-latency-ms", type=float, default=0, metavar="MS", help="how long each AS call takes (default: 0)"
    )
    parser.add_argument(
        "--resync-seconds", type=int, default=10, metavar="S", help="the resync interval measured (default: 10)"
    )
    parser.add_argument(
        "--operator",
        type=lambda path: Path(path).absolute(),
        default=PROGRAM,
        metavar="FILE",
        help="what to measure (default: this environment's)",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how cost grows with N, as SVG")
    options = parser.parse_args(arguments)
    if min(*options.resources, options.rounds, options.repeats) < 1:
        parser.error("--resources, --rounds and --repeats are at least 1")
    return options


def read_numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def main() -> None:
    options = parse_arguments()
    if sys.platform != "linux":
        sys.exit("The bench reads CPU time and memory from /proc, which only Linux has.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        measured = measure(options)
    except (BinariesNotFoundError, ControlPlaneError, *FAILURES) as error:
        sys.exit("\n".join([str(error), *getattr(error, "__notes__", [])]))
    except KeyboardInterrupt:
        sys.exit(130)
    if options.plot:
        options.plot.write_text(draw(measured))
    if options.json:
        json.dump(measured, sys.stdout, indent=1)
        print()
    else:
        print_table(measured)
    for mistake in measured["mistakes"]:
        print(f"Not as it should be: {mistake}.", file=sys.stderr)
    if measured["mistakes"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
