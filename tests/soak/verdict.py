"""What is to be true when chaos is over: as soon as all has settled, while nothing happens, and when all is deleted."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.bench.usage import Usage
from tests.lives.verdict import describe, find_wrongs, hook_key, reason
from tests.support.harness import OPERATOR, eventually
from tests.support.workspace import PLURAL, condition

from . import schedule
from .chaos import World

#: Within this all is as wanted: more than the longest wait after errors of the API server, and two resyncs.
SETTLE_SECONDS = 180
GONE_SECONDS = 120
RESYNC_SECONDS = 3
#: deploy/base limits the pod to this.
MEMORY_MEGABYTES = 512
OPERATOR_USER = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
WRITES = ("create", "update", "patch", "delete")
#: Reasons for which a resource rightly goes on trying.
STUCK = ("QuotaExceeded", "AlreadyExists")

Body = dict[str, Any]


class Judge:
    """Finds what is wrong, and keeps it in `world.wrongs`; says how long things took."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.settle_seconds = self.gone_seconds = 0.0

    def judge(self) -> None:
        """Wait for what is to come true, and look for what may not be."""
        world = self._world
        self.settle_seconds = self._await(lambda: self._find_unsettled() or self._find_restlessness(), SETTLE_SECONDS)
        self._search_secrets()
        for workspace in world.workspaces:
            for body in workspace.all():
                workspace.delete(body["metadata"]["name"])
            workspace.delete_callbacks()
        self.gone_seconds = self._await(self._find_remains, GONE_SECONDS)
        self._judge_process()

    def _await(self, find: Callable[[], list[str]], seconds: float) -> float:
        """Return after how many seconds nothing is wrong any more; keep what is when the time is over."""
        began_at = time.monotonic()
        wrongs: list[str] = []

        def is_right() -> bool:
            before, wrongs[:] = wrongs.copy(), find()
            for wrong in wrongs:
                if wrong not in before:
                    self._world.log(f"not yet: {wrong}")
            return not wrongs

        try:
            eventually("nothing is wrong", is_right, seconds)
        except TimeoutError:
            self._world.wrongs += [f"after {seconds} s: {wrong}" for wrong in wrongs]
        return time.monotonic() - began_at

    def _bodies(self) -> Iterator[Body]:
        for workspace in self._world.workspaces:
            yield from workspace.all()

    def _callbacks(self) -> Iterator[Body]:
        for workspace in self._world.workspaces:
            yield from workspace.callbacks()

    def _hooks(self) -> dict[tuple[str, str], Body]:
        cloud = self._world.cloud
        return {
            (group, hook["lifecycle_hook_name"]): hook for group in self._world.groups for hook in cloud.hooks(group)
        }

    def _find_unsettled(self) -> list[str]:
        bodies = list(self._bodies())
        self._ask_again(bodies)
        foreign = (self._world.groups[-1], schedule.FOREIGN)
        hooks = self._hooks()
        wrongs = find_wrongs(bodies, hooks, [foreign])
        wrongs += [f"{describe(body)} does not know its suspensions" for body in bodies if not _knows_suspensions(body)]
        wrongs += [
            f"{callback['metadata']['name']} has not finished"
            for callback in self._callbacks()
            if not _has_finished(callback)
        ]
        if hooks.get(foreign) != self._world.foreign:
            wrongs.append(f"somebody else's hook is {hooks.get(foreign)} instead of {self._world.foreign}")
        return wrongs

    def _ask_again(self, bodies: list[Body]) -> None:
        """Ask for a retry where the cloud's last answer was that the spec is bad, as a user has to."""
        for workspace in self._world.workspaces:
            for body in bodies:
                name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
                error = body.get("status", {}).get("error", {})
                if namespace == workspace.namespace and error.get("retry") == "Never":
                    annotations = {
                        "as.otc.t-systems.com/reconcile-at": error["time"] + body["metadata"]["resourceVersion"]
                    }
                    workspace.patch(name, {"metadata": {"annotations": annotations}})

    def _find_restlessness(self) -> list[str]:
        """Watch each group for two resyncs and a look at its suspensions, in which nothing may change."""
        world, bodies = self._world, list(self._bodies())
        since, last = datetime.now(UTC), max((each.sequence for each in world.cloud.requests()), default=0)
        for body in bodies:
            if reason(body) in ("Available", "Drifted"):
                world.cloud.wait_for_request("list", hook_key(body)[0], count=2, after=last)
                if _is_watching(body):
                    world.cloud.wait_for_request("list_hanging", hook_key(body)[0], after=last)
        wrongs = [f"not as wanted any more: {wrong}" for wrong in self._find_unsettled()]
        stuck = {hook_key(body) for body in bodies if reason(body) in STUCK}
        wrongs += [
            f"although nothing happens: {each.operation} {each.group_id} {each.hook_name}"
            for each in world.cloud.requests(after=last)
            if each.operation in ("create", "modify", "delete", "callback")
            and (each.group_id, each.hook_name) not in stuck
        ]
        writes = world.cluster.audit_events(since=since, user=OPERATOR_USER, verbs=WRITES)
        return wrongs + [f"although nothing happens: {each['verb']} {each['requestURI']}" for each in writes]

    def _find_remains(self) -> list[str]:
        world = self._world
        left = [*self._bodies(), *self._callbacks()]
        wrongs = [f"{body['metadata']['name']} is still there: {json.dumps(body)}" for body in left]
        wrongs += [f"{key} is left" for key, hook in self._hooks().items() if hook != world.foreign]
        for secret in schedule.SECRETS:
            metadata = world.workspaces[1].secret(secret).metadata
            if metadata.finalizers or metadata.labels:
                wrongs.append(f"Secret {secret} still has {metadata.finalizers} and {metadata.labels}")
        return wrongs

    def _search_secrets(self) -> None:
        """Look for secrets wherever others may read, and for what must not be in the log."""
        world = self._world
        readable = {log.name: log.read_text(errors="replace") for log in world.cluster.work_dir.glob("*.log")}
        for kind in (PLURAL, "events.v1.events.k8s.io"):
            readable[kind] = world.cluster.kubectl("get", kind, "--all-namespaces", "-o", "json").stdout
        for where, text in readable.items():
            if kinds := world.cloud.find_secrets(text):
                world.wrongs.append(f"{where} holds secrets: {', '.join(kinds)}")

    def _judge_process(self) -> None:
        world = self._world
        log = world.operator.log.read_text(errors="replace")
        if count := log.count("Traceback"):
            excerpt = log[max(0, log.index("Traceback") - 500) :][:4000]
            world.wrongs.append(f"{count} tracebacks in the operator's log, first:\n{excerpt}")
        if not world.operator.is_running:
            world.wrongs.append("the operator ended by itself")
            return
        health = world.operator.probe("/healthz")
        if not health.is_success:
            world.wrongs.append(f"/healthz says {health.text}")
        world.tally.usages.append(Usage.read(world.operator.pid))
        peak = max(usage.peak_megabytes for usage in world.tally.usages)
        if peak > MEMORY_MEGABYTES:
            world.wrongs.append(f"the operator took {peak:.0f} MB")

    def count_writes(self) -> Counter[str]:
        """Return the operator's writes, by what was written."""
        events = self._world.cluster.audit_events(user=OPERATOR_USER, verbs=WRITES)
        references = [event["objectRef"] for event in events]
        return Counter("/".join(filter(None, (each["resource"], each.get("subresource")))) for each in references)


def _is_watching(body: Body) -> bool:
    return bool(body["spec"]["suspensionPolicy"] == "Watch")


def _knows_suspensions(body: Body) -> bool:
    """Whether the status shows, where it is to, that no instance is suspended any more."""
    if reason(body) not in ("Available", "Drifted"):
        return True
    shown = body["status"].get("suspendedInstances", {}).get("count")
    is_known = condition(body, "SuspensionsKnown").get("status")
    return (shown, is_known) == ((0, "True") if _is_watching(body) else (None, None))


def _has_finished(callback: Body) -> bool:
    return any(condition(callback, each).get("status") == "True" for each in ("Complete", "Failed"))
