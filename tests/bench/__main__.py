"""Measure the operator on this machine: from create to Ready, writes and calls per resource, CPU, memory, restart.

Speed is printed and never judged. The exit status is 1 if a resource cost more writes or calls than it should.
"""

import argparse
import asyncio
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.controlplane import BinariesNotFoundError, ControlPlane, ControlPlaneError
from tests.support.harness import OPERATOR, OperatorProcess, eventually, install, log_tail
from tests.support.simulator import Simulator, run_simulator
from tests.support.workspace import PLURAL

from .load import Load
from .usage import Usage, wait_until_quiet

NAMESPACE = "bench"
MAX_GROUP_SIZE = 5
OPERATOR_USER = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
WRITES = {PLURAL: 1, f"{PLURAL}/status": 1}
AUDIT_SECONDS = 30
#: Regular looks at what AS has would blur the counts: there are none while this runs.
RESYNC_SECONDS = 1_000_000
#: How a step fails: the harness's own errors, kubectl's, and the API server's.
FAILURES = (RuntimeError, TimeoutError, subprocess.CalledProcessError, aiohttp.ClientError)


class Bench:
    """One run: prints what it measures, and keeps the mistakes, which are counts that should not be so."""

    def __init__(self, control_plane: ControlPlane, cloud: Simulator, options: argparse.Namespace) -> None:
        self._control_plane = control_plane
        self._cloud = cloud
        self._options = options
        self._topic_urn = cloud.add_topic("bench")
        self._timeout = 60 + options.resources / 5
        self.mistakes: list[str] = []

    def run(self) -> None:
        """Measure everything."""
        environment = self._cloud.credentials_env()
        options = {"log_level": "info", "resync_interval_seconds": RESYNC_SECONDS}
        with OperatorProcess(self._control_plane, environment, **options) as operator:
            try:
                asyncio.run(self._measure_creation(operator))
                self._count_cost()
                self._measure_restart(operator)
            except FAILURES as error:
                error.add_note(f"The end of the operator's log:\n{log_tail(operator.log)}")
                raise

    async def _measure_creation(self, operator: OperatorProcess) -> None:
        async with Load.start(self._control_plane, NAMESPACE) as load:
            singles = [
                (await load.create(dict(self._specs(f"single-{number}", 1)), self._timeout)).seconds[0]
                for number in range(self._options.repeats)
            ]
            say(
                f"create to Ready, one alone (median of {len(singles)})",
                f"{milliseconds(statistics.median(singles))} ({milliseconds(min(singles))} to "
                f"{milliseconds(max(singles))})",
            )
            before = Usage.read(operator.pid)
            count, size = self._options.resources, self._options.group_size
            timeline = await load.create(dict(self._specs("many", count)), self._timeout)
            say(f"{count} at once, groups of {size}: all Ready", f"{timeline.total_seconds:.2f} s")
            p50, p99 = (percentile(timeline.seconds, share) for share in (0.5, 0.99))
            say(f"{count} at once: create to Ready", f"p50 {p50:.2f} s, p99 {p99:.2f} s")
        wait_until_quiet(operator.pid, self._timeout)
        after = Usage.read(operator.pid)
        say("the operator's CPU time for these", f"{after.cpu_seconds - before.cpu_seconds:.2f} s")
        say("the operator's peak memory", f"{after.peak_megabytes:.0f} MB")

    def _count_cost(self) -> None:
        """Count writes and calls since the start, and compare them with what they should be."""
        total = self._options.repeats + self._options.resources

        def read_writes() -> dict[str, Counter[str]] | None:
            writes = self._read_writes()
            return writes if sum(map(Counter.total, writes.values())) >= total * sum(WRITES.values()) else None

        try:
            writes = eventually("all writes are in the audit log", read_writes, AUDIT_SECONDS)
        except TimeoutError:
            writes = self._read_writes()
        calls = Counter(request.operation for request in self._cloud.requests())
        made = sum(writes.values(), Counter[str]())
        say("Kubernetes writes per resource", per_resource(made, total))
        say("AS calls per resource", per_resource(calls - Counter(token=calls["token"]), total))
        say("tokens in all", str(calls["token"]))
        wrong = sum(each != WRITES for each in writes.values()) + total - len(writes)
        self._expect(wrong == 0, f"{wrong} of {total} resources were not written just twice (finalizer, status)")
        self._expect(
            calls == {"create": total, "token": 1},
            f"{total} resources should take {total} create calls and one token, and took {dict(calls)}",
        )

    def _measure_restart(self, operator: OperatorProcess) -> None:
        total, written = self._options.repeats + self._options.resources, self._count_writes()
        operator.stop()
        self._cloud.clear_requests()
        begun = time.monotonic()
        operator.start()
        healthy = time.monotonic() - begun
        quiet = wait_until_quiet(operator.pid, self._timeout) - begun
        usage = Usage.read(operator.pid)
        calls = Counter(request.operation for request in self._cloud.requests())
        writes = self._count_writes() - written
        say(f"restart with {total} in sync", f"healthy after {healthy:.2f} s, quiet after {quiet:.2f} s")
        say("the restart's CPU time and peak memory", f"{usage.cpu_seconds:.2f} s, {usage.peak_megabytes:.0f} MB")
        say("the restart's Kubernetes writes", str(writes))
        say("the restart's calls", ", ".join(f"{count} {name}" for name, count in calls.items()) or "none")
        self._expect(writes == 0, f"a restart in sync should write nothing, and wrote {writes} times")
        self._expect(not calls, f"a restart in sync should make no calls, and made {dict(calls)}")

    def _specs(self, prefix: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(count):
            if number % self._options.group_size == 0:
                group_id = self._cloud.add_group()
            yield (
                f"{prefix}-{number}",
                {
                    "scalingGroupId": group_id,
                    "lifecycleHookType": "INSTANCE_TERMINATING",
                    "notificationTopicUrn": self._topic_urn,
                },
            )

    def _read_writes(self) -> dict[str, Counter[str]]:
        """Return the operator's writes by resource, as the audit log has them."""
        writes: dict[str, Counter[str]] = {}
        verbs = ("create", "update", "patch", "delete")
        for event in self._control_plane.audit_events(user=OPERATOR_USER, namespace=NAMESPACE, verbs=verbs):
            reference = event["objectRef"]
            if reference["resource"] == PLURAL:
                path = "/".join(filter(None, (PLURAL, reference.get("subresource"))))
                writes.setdefault(reference["name"], Counter())[path] += 1
        return writes

    def _count_writes(self) -> int:
        return sum(map(Counter.total, self._read_writes().values()))

    def _expect(self, is_so: bool, mistake: str) -> None:
        if not is_so:
            self.mistakes.append(mistake)


def say(what: str, figure: str) -> None:
    print(f"  {what:<48} {figure}", flush=True)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(len(values) * share) - 1]


def per_resource(counts: Counter[Any], total: int) -> str:
    parts = ", ".join(f"{name} {count / total:g}" for name, count in sorted(counts.items()))
    return f"{counts.total() / total:g} ({parts})" if parts else "0"


def describe_machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")]
    return (
        f"{len(os.sched_getaffinity(0))} cores ({models[0] if models else platform.machine()}), "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--resources", type=int, default=200, metavar="N", help="how many at once (default: 200)")
    parser.add_argument(
        "--group-size",
        type=int,
        default=MAX_GROUP_SIZE,
        choices=range(1, MAX_GROUP_SIZE + 1),
        help="how many of them share an AS group (default: 5, as many as AS allows)",
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="how often one alone (default: 5)")
    options = parser.parse_args(arguments)
    if min(options.resources, options.repeats) < 1:
        parser.error("--resources and --repeats are at least 1")
    return options


def main() -> None:
    options = parse_arguments()
    if sys.platform != "linux":
        sys.exit("The bench reads CPU time and memory from /proc, which only Linux has.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(describe_machine())
    try:
        with ControlPlane() as control_plane, run_simulator() as cloud:
            install(control_plane)
            control_plane.kubectl("create", "namespace", NAMESPACE)
            # A new resource is answered with 429 for a moment, which kubectl waits out.
            control_plane.kubectl("get", PLURAL, "--namespace", NAMESPACE)
            bench = Bench(control_plane, cloud, options)
            bench.run()
    except (
        BinariesNotFoundError,
        ControlPlaneError,
        RuntimeError,
        TimeoutError,
        subprocess.CalledProcessError,
    ) as error:
        sys.exit("\n".join([str(error), *getattr(error, "__notes__", [])]))
    except KeyboardInterrupt:
        sys.exit(130)
    for mistake in bench.mistakes:
        print(f"Not as it should be: {mistake}.")
    if bench.mistakes:
        sys.exit(1)
    print("Writes and calls are as they should be.")


if __name__ == "__main__":
    main()
