"""One round: a subject is started, creates, edits, is started again, and deletes."""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR
from tests.support.simulator import Simulator
from tests.support.workspace import PLURAL

from .load import Load, Timeline
from .subjects import Subject
from .usage import Usage, wait_until_quiet

NAMESPACE = "bench"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
WRITES = {PLURAL: 1, f"{PLURAL}/status": 1}
OTHER_TIMEOUT = 600


class Round:
    """Measures one subject once. All that it has made is gone at the end."""

    def __init__(
        self, control_plane: ControlPlane, cloud: Simulator, subject: Subject, count: int, options: argparse.Namespace
    ) -> None:
        self._control_plane = control_plane
        self._cloud = cloud
        self._subject = subject
        self._count = count
        self._options = options
        self._topic_urn = cloud.add_topic("bench")
        self._timeout = 60 + count / 5
        self._figures: dict[str, float] = {}
        self.mistakes: list[str] = []

    async def run(self, resyncing: Subject | None) -> dict[str, float]:
        """Return what was measured: times in seconds, memory in megabytes.

        `resyncing` is the subject once more, with a resync interval that is worth waiting for.
        """
        self._cloud.clear_requests()
        writes_before = self._read_writes()
        try:
            async with Load.start(self._control_plane, NAMESPACE, self._timeout) as load:
                await self._measure_creation(load)
                if resyncing is not None:
                    self._check_creation(writes_before)
                await self._measure_edits(load)
                self._measure_restart(is_checked=resyncing is not None)
                if resyncing is not None:
                    self._subject.stop()
                    await self._measure_resync(resyncing)
                    self._subject.launch()
                await self._measure_deletion(load)
        finally:
            self._subject.stop()
        return self._figures

    async def _measure_creation(self, load: Load) -> None:
        started = await load.create(dict(self._specs("start", 1)), meanwhile=self._subject.launch)
        self._figures["start_to_ready"] = started.seconds[0]
        singles = [
            (await load.create(dict(self._specs(f"single-{number}", 1)))).seconds[0]
            for number in range(self._options.repeats)
        ]
        self._figures["one_alone"] = statistics.median(singles)
        specs = dict(self._specs("many", self._count))
        self._names = list(specs)
        self._take("create", await self._timed("create", load.create(specs)))
        self._figures["memory"] = Usage.read(self._subject.pid).peak_megabytes

    async def _measure_edits(self, load: Load) -> None:
        self._take("edit", await self._timed("edit", load.edit(self._names, "defaultTimeout", OTHER_TIMEOUT)))

    async def _measure_deletion(self, load: Load) -> None:
        self._take("delete", await self._timed("delete", load.delete(self._names)))
        await load.delete([name for name in self._all_names() if name not in self._names])

    async def _timed(self, what: str, batch: Any) -> Timeline:
        """Have a batch of changes made, and take what it costs: the API server until all is done, the subject until
        it is quiet again.
        """
        api_server = self._control_plane.pids["kube-apiserver"]
        api_before, before = Usage.read(api_server), Usage.read(self._subject.pid)
        timeline: Timeline = await batch
        self._figures[f"{what}_api_server_cpu"] = Usage.read(api_server).cpu_seconds - api_before.cpu_seconds
        await asyncio.to_thread(wait_until_quiet, self._subject.pid, self._timeout)
        self._figures[f"{what}_cpu"] = Usage.read(self._subject.pid).cpu_seconds - before.cpu_seconds
        return timeline

    def _take(self, what: str, timeline: Timeline) -> None:
        self._figures[f"{what}_all"] = timeline.total_seconds
        self._figures[f"{what}_p50"] = timeline.percentile(0.5)
        self._figures[f"{what}_p99"] = timeline.percentile(0.99)

    def _measure_restart(self, *, is_checked: bool) -> None:
        self._subject.stop()
        written = self._count_writes()
        self._cloud.clear_requests()
        begun = time.monotonic()
        self._subject.launch()
        self._figures["restart_quiet"] = wait_until_quiet(self._subject.pid, self._timeout) - begun
        usage = Usage.read(self._subject.pid)
        self._figures["restart_cpu"], self._figures["restart_memory"] = usage.cpu_seconds, usage.peak_megabytes
        if is_checked:
            calls, writes = Counter(request.operation for request in self._cloud.requests()), self._count_writes()
            self._expect(writes == written, f"a restart in sync should write nothing, wrote {writes - written} times")
            self._expect(not calls, f"a restart in sync should make no calls, and made {dict(calls)}")

    def _check_creation(self, before: Counter[tuple[str, str]]) -> None:
        """Compare the writes and calls since the start with what they should be."""
        total = 1 + self._options.repeats + self._count
        wanted = Counter({(name, path): 1 for name in self._all_names() for path in WRITES})
        made = self._read_writes() - before
        wrong = {name for name, _ in ((made - wanted) + (wanted - made))}
        self._expect(not wrong, f"{len(wrong)} of {total} resources were not written just twice (finalizer, status)")
        calls = Counter(request.operation for request in self._cloud.requests())
        self._expect(
            calls == {"create": total, "token": 1},
            f"{total} resources should take {total} create calls and one token, and took {dict(calls)}",
        )

    async def _measure_resync(self, resyncing: Subject) -> None:
        """Take what it costs to compare every hook with AS once."""
        seconds = self._options.resync_seconds
        written = self._count_writes()
        resyncing.launch()
        try:
            await asyncio.sleep(self._figures["restart_quiet"] + seconds)  # each group has been listed since
            before, self._figures["resync_calls"] = Usage.read(resyncing.pid), -len(self._cloud.requests("list"))
            await asyncio.sleep(seconds)
            self._figures["resync_cpu"] = Usage.read(resyncing.pid).cpu_seconds - before.cpu_seconds
            self._figures["resync_calls"] += len(self._cloud.requests("list"))
        finally:
            resyncing.stop()
        writes = self._count_writes() - written
        self._expect(writes == 0, f"resyncs of what is in sync should write nothing, and wrote {writes} times")

    def _all_names(self) -> list[str]:
        return ["start-0", *(f"single-{number}-0" for number in range(self._options.repeats)), *self._names]

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

    def _read_writes(self) -> Counter[tuple[str, str]]:
        """Return how often the subject has written each resource, by name and path, as the audit log has it."""
        writes: Counter[tuple[str, str]] = Counter()
        verbs = ("create", "update", "patch", "delete")
        for event in self._control_plane.audit_events(user=OPERATOR_USER, namespace=NAMESPACE, verbs=verbs):
            reference = event["objectRef"]
            if reference["resource"] == PLURAL:
                path = "/".join(filter(None, (PLURAL, reference.get("subresource"))))
                writes[reference["name"], path] += 1
        return writes

    def _count_writes(self) -> int:
        return self._read_writes().total()

    def _expect(self, is_so: bool, mistake: str) -> None:
        if not is_so:
            self.mistakes.append(mistake)
