"""Plays a life in memory: an operator, an API server, AS, and whoever else has a hand in it."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lifecyclehook_operator.api.v1alpha1 import (
    CREATE_INTENT_ANNOTATION,
    PAUSED_ANNOTATION,
    LifecycleHook,
    LifecycleHookSpec,
)
from lifecyclehook_operator.cloud.errors import CallError
from lifecyclehook_operator.controller.controller import Controller
from lifecyclehook_operator.controller.reconciler import Reconciler
from lifecyclehook_operator.controller.timing import Timing
from lifecyclehook_operator.kube.events import EventRecorder

from .apiserver import ApiClient, ApiServer, Body
from .clock import run
from .cloud import TOPIC_URN, Cloud, CloudClient, Judge, Listings, Record
from .network import Fault, Network
from .scenario import Step
from .verdict import Key, describe, find_wrongs, hook_key, reason, summarize

GROUPS = ("group-0", "group-1")
RESYNC_SECONDS = 100
#: Only a resync heals what these bring about; in lives without them there is none, so that no event may be missed.
DRIFTING_KINDS = {"change_hook", "delete_hook", "put_hook"}
TIDY_SECONDS = 60
#: After this long with nothing going wrong, all is as it is to be.
SETTLE_SECONDS = 300
#: For so long nothing may be written then, and AS is asked for lists only, but for a group that is full.
QUIET_SECONDS = 150
#: What no life needs more of, in calls of AS: whoever calls more is running in circles.
MOST_CALLS_PER_STEP = 40
FOREIGN = {
    "lifecycle_hook_type": "INSTANCE_LAUNCHING",
    "default_result": "ABANDON",
    "notification_topic_urn": TOPIC_URN,
}


def play(steps: Sequence[Step], seed: int, say: Callable[[str], object] | None = None) -> list[str]:
    """Play a life to its end, and return what was or is wrong; `say` reports what happens."""
    needs_resync = any(
        step.kind in DRIFTING_KINDS or "late_seconds" in step.details.get("effect", {}) for step in steps
    )
    with _log(say) as faults:
        return run(_World(seed, RESYNC_SECONDS if needs_resync else 1e7, say).play(steps)) + faults


def play_calmly(steps: Sequence[Step], seed: int) -> list[dict[str, Any]]:
    """Play a life in which all settles after each step, and return how it stands each time."""
    return run(_World(seed, RESYNC_SECONDS).play_calmly(steps))


@contextmanager
def _log(say: Callable[[str], object] | None) -> Iterator[list[str]]:
    """Collect the tracebacks that the operator logs: a fault of its own is wrong even if the next try goes well."""
    faults: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                faults.append(self.format(record))
            if say is not None:
                say(f"          {self.format(record)}")

    logger = logging.getLogger("lifecyclehook_operator")
    handler, before = Handler(), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.ERROR if say is None else logging.DEBUG)
    try:
        yield faults
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class _World(Judge):
    def __init__(self, seed: int, resync_seconds: float, say: Callable[[str], object] | None = None) -> None:
        random.seed(seed)  # the operator's jitter
        draw = random.Random(seed + 1)  # noqa: S311  (no secret)
        self.say = say
        self.timing = Timing(
            resync=resync_seconds, backoff_min=1, backoff_max=20, slow_min=10, slow_max=60, settling=60
        )
        self.network = Network(draw, self.crash)
        self.server = ApiServer(draw, self.tell)
        self.cloud = Cloud()
        self.wrongs: list[str] = []
        self.lag_seconds = 0.0
        self.draw = draw
        self._process: _Process | None = None
        self._in_doubt: dict[str, float] = {}
        #: Resources whose hook nobody can know for theirs any more, by what a user or somebody else has done.
        self._unprovable: set[str] = set()
        self._tampered: set[str] = set()
        self._retained: set[Key] = set()
        self._adopters: set[str] = set()
        #: Resources of which the operator has said that they are paused, and which still are.
        self._paused: set[str] = set()
        self._reasons: dict[str, str] = {}

    async def play(self, steps: Sequence[Step]) -> list[str]:
        self.start()
        for step in steps:
            await asyncio.sleep(step.after_seconds)
            self._log(str(step))
            getattr(self, step.kind)(**step.details)
        calls_of_chaos = len(self.cloud.calls)
        self._log("+ the world is in order again")
        self.put_in_order()
        await asyncio.sleep(SETTLE_SECONDS)
        self.wrongs += [*self._judge_end(), *self.network.wrongs]
        writes, calls = self.server.writes, len(self.cloud.calls)
        await asyncio.sleep(QUIET_SECONDS)
        if self.server.writes != writes:
            self.wrongs.append(f"{self.server.writes - writes} writes although nothing happens")
        self.wrongs += self._judge_rest(self.cloud.calls[calls:])
        if calls_of_chaos > MOST_CALLS_PER_STEP * len(steps) + 40:
            self.wrongs.append(f"{calls_of_chaos} calls of AS in {len(steps)} steps")
        self.crash()
        return self.wrongs

    async def play_calmly(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        self.start()
        ends = []
        for step in steps:
            getattr(self, step.kind)(**step.details)
            await asyncio.sleep(SETTLE_SECONDS)
            ends.append(self.summarize())
        self.crash()
        return ends

    def summarize(self) -> dict[str, Any]:
        return summarize(self.server.objects.values(), {key: each.fields for key, each in self.cloud.hooks.items()})

    def put_in_order(self) -> None:
        self.network.faults.clear()
        self.cloud.busy.clear()
        self.lag_seconds = 0
        for name in [*self.server.objects]:
            self.resume(name)
        if self._process is None:
            self.start()

    # What can happen, by the names of the steps

    def create(self, name: str, group: int, spec: Body) -> None:
        fixed = {
            "scalingGroupId": GROUPS[group],
            "lifecycleHookType": "INSTANCE_LAUNCHING",
            "notificationTopicUrn": TOPIC_URN,
        }
        self.server.create(name, {**fixed, **spec}, asyncio.get_running_loop().time())

    def edit(self, name: str, spec: Body) -> None:
        self.server.edit(name, spec)

    def delete(self, name: str) -> None:
        body = self.server.objects.get(name)
        if body is not None and not body["metadata"].get("finalizers"):
            self._unprovable |= {body["metadata"]["uid"]} & self._tampered
        self.server.delete(name)

    def put_hook(self, group: int, hook: str, timeout: int) -> None:
        key = (GROUPS[group], hook)
        if key not in self.cloud.hooks and sum(each[0] == key[0] for each in self.cloud.hooks) < 5:
            self.cloud.put(key, {**FOREIGN, "default_timeout": timeout})

    def change_hook(self, group: int, hook: str, timeout: int) -> None:
        key = (GROUPS[group], hook)
        if key in self.cloud.hooks:
            self.cloud.change(key, {"default_timeout": timeout})
            self.cloud.hooks[key].is_changed = True
            body = self.server.find(self.cloud.hooks[key].maker or "")
            if body is not None and "lifecycleHook" not in body.get("status", {}):
                self._unprovable.add(body["metadata"]["uid"])  # a limit that docs/how-it-works.md names
        self._note_unprovable()

    def delete_hook(self, group: int, hook: str, timeout: int) -> None:
        self.cloud.hooks.pop((GROUPS[group], hook), None)

    def cloud_fault(self, operation: str, group: int, effect: dict[str, Any], count: int) -> None:
        self.network.faults.append(Fault(operation, GROUPS[group], effect, count))

    def write_fault(self, operation: str, effect: dict[str, Any], count: int) -> None:
        self.network.faults.append(Fault(operation, None, effect, count))

    def scale(self, group: int, is_busy: bool) -> None:
        (self.cloud.busy.add if is_busy else self.cloud.busy.discard)(GROUPS[group])

    def wipe_status(self, name: str) -> None:
        if body := self.server.objects.get(name):
            self._tampered.add(body["metadata"]["uid"])
            record = self.cloud.hooks.get(hook_key(body))
            if record is not None and record.is_changed:  # so that no fingerprint tells whose it is
                self._unprovable.add(body["metadata"]["uid"])
        self.server.wipe_status(name)
        self._note_unprovable()

    def replace(self, name: str, spec: Body) -> None:
        """Replace by a manifest, as kubectl replace does: what it does not have, be it ours, goes."""
        if body := self.server.objects.get(name):
            self._tampered.add(body["metadata"]["uid"])
            is_kept = "deletionTimestamp" in body["metadata"]
            self.server.edit(name, spec, **({} if is_kept else {"finalizers": None, "annotations": None}))
        self._note_unprovable()

    def look(self, name: str) -> None:
        annotation = {"as.otc.t-systems.com/reconcile-at": str(asyncio.get_running_loop().time())}
        self.server.edit(name, {}, annotations=annotation)

    def pause(self, name: str) -> None:
        self.server.edit(name, {}, annotations={PAUSED_ANNOTATION: "true"})

    def resume(self, name: str) -> None:
        self.server.edit(name, {}, annotations={PAUSED_ANNOTATION: None})

    def relist(self) -> None:
        """The watch breaks off and starts anew: what it has not shown yet, it never shows, deletions least of all."""
        if self._process is not None:
            self._process.relist()

    def lag(self, seconds: float) -> None:
        self.lag_seconds = seconds

    def crash(self, down_seconds: float = 10) -> None:
        if self._process is None:
            return
        self._log("! the operator dies")
        process, self._process = self._process, None
        self.network.process += 1
        self._note_unprovable()
        process.end()
        asyncio.get_running_loop().call_later(down_seconds, self.start)

    def start(self) -> None:
        if self._process is None:
            self._process = _Process(self)

    def tell(self, event_type: str, body: Body) -> None:
        """Pass a change on to who watches."""
        spec, uid = body["spec"], body["metadata"]["uid"]
        self._log(f"  object {event_type} {describe(body)}")
        if PAUSED_ANNOTATION not in body["metadata"].get("annotations", {}):
            self._paused.discard(uid)
        elif reason(body) == "Paused" != self._reasons.get(uid):
            self._paused.add(uid)
        self._reasons[uid] = reason(body)
        if spec.get("adoptionPolicy") != "Never":
            self._adopters.add(uid)
        if spec.get("deletionPolicy") == "Retain" and "deletionTimestamp" in body["metadata"]:
            self._retained.add(hook_key(body))
        if event_type == "DELETED" and spec.get("deletionPolicy") == "Retain":
            self._retained.add(hook_key(body))
        if self._process is not None:
            self._process.tell(event_type, body)

    # What each call is held against

    def is_there(self, uid: str) -> bool:
        return self.server.find(uid) is not None

    def may_call(self, uid: str, operation: str) -> None:
        if uid in self._paused:
            self.wrongs.append(f"{operation} for {uid}, which is paused")

    def may_create(self, uid: str, key: Key, fields: Mapping[str, Any]) -> None:
        body = self.server.find(uid)
        self._log(f"  create {key} for {uid}")
        if uid in self._in_doubt and uid not in self._tampered:
            self.wrongs.append(f"{uid} is created blindly although a call before may have had its effect")
        if body is not None and not body["metadata"].get("finalizers") and uid not in self._tampered:
            self.wrongs.append(f"{uid} is created without a finalizer")
        self._in_doubt[uid] = asyncio.get_running_loop().time()

    def may_modify(self, uid: str, key: Key) -> None:
        self._log(f"  modify {key} for {uid}")
        record = self.cloud.hooks.get(key)
        if record is not None:
            record.is_modified = True
            if not self._may_touch(uid, record):
                self.wrongs.append(f"{uid} modifies somebody else's hook")

    def may_delete(self, uid: str, key: Key) -> None:
        self._log(f"  delete {key} for {uid}")
        record = self.cloud.hooks.get(key)
        if record is not None and not self._may_touch(uid, record):
            self.wrongs.append(f"{uid} deletes somebody else's hook")

    def is_in_doubt(self, uid: str) -> None:
        self._in_doubt[uid] = asyncio.get_running_loop().time()

    def is_known(self, uid: str, since: float) -> None:
        if since >= self._in_doubt.get(uid, 0):
            self._in_doubt.pop(uid, None)

    def _may_touch(self, uid: str, record: Record) -> bool:
        """Whether a hook is a resource's, or may be taken for it."""
        body = self.server.find(uid)
        is_named = body is None or "lifecycleHook" in body.get("status", {})
        return is_named or record.maker == uid or uid in self._adopters or self._is_fingerprinted(uid, record.fields)

    def _is_fingerprinted(self, uid: str, fields: Mapping[str, Any]) -> bool:
        if (body := self.server.find(uid)) is None:
            return False
        names = ("lifecycle_hook_type", "default_result", "default_timeout", "notification_topic_urn")
        content = {name: fields[name] for name in (*names, "notification_metadata")}
        known = body["metadata"].get("annotations", {}).get(CREATE_INTENT_ANNOTATION, "")
        return LifecycleHook(body).fingerprint(content) in known

    def _note_unprovable(self) -> None:
        """Note whose hook is nobody's as soon as no process remembers, since status or annotation are lost."""
        if self._process is not None and self._process.has_begun:
            return
        for record in self.cloud.hooks.values():
            body = self.server.find(record.maker or "")
            if body is None or record.maker not in self._tampered or "lifecycleHook" in body.get("status", {}):
                continue
            if record.is_modified or not self._is_fingerprinted(body["metadata"]["uid"], record.fields):
                self._unprovable.add(body["metadata"]["uid"])
        # A call in progress may still take effect, and has lost its fingerprint.
        for body in self.server.objects.values():
            uid = body["metadata"]["uid"]
            if uid in self._tampered and uid in self._in_doubt and "lifecycleHook" not in body.get("status", {}):
                self._unprovable.add(uid)

    def _judge_end(self) -> list[str]:
        hooks = {key: record.fields for key, record in self.cloud.hooks.items()}
        left_behind = {
            key for key, record in self.cloud.hooks.items() if record.maker is None or record.maker in self._unprovable
        }
        bodies = self.server.objects.values()
        wrongs = find_wrongs(bodies, hooks, left_behind | self._retained)
        for body in bodies:
            record = self.cloud.hooks.get(hook_key(body))
            uid = body["metadata"]["uid"]
            if reason(body) == "AlreadyExists" and record and record.maker == uid and uid not in self._unprovable:
                wrongs.append(f"{uid} does not know its own hook")
        return wrongs

    def _judge_rest(self, calls: Sequence[tuple[str, str, str]]) -> list[str]:
        stuck = {
            body["metadata"]["uid"]
            for body in self.server.objects.values()
            if reason(body) in ("QuotaExceeded", "AlreadyExists")
        }
        wrongs = [f"{call} although nothing happens" for call in calls if call[0] != "list" and call[2] not in stuck]
        most = (QUIET_SECONDS / RESYNC_SECONDS + 1) * len(GROUPS) + 12 * len(stuck)
        return wrongs + ([f"{len(calls)} calls although nothing happens"] if len(calls) > most else [])

    def _log(self, line: str) -> None:
        if self.say is not None:
            self.say(f"{asyncio.get_running_loop().time() - 1_000_000:9.3f} {line}")


class _Process:
    """One operator, from its start to its death, with what kopf does for it."""

    def __init__(self, world: _World) -> None:
        self._world = world
        self._number = world.network.process
        client: Any = ApiClient(world.server, world.network, self._number)
        self._controller = Controller(client, (), cleanup_seconds=TIDY_SECONDS, check_seconds=60)
        access: Any = _Access(world, self._number)
        events = EventRecorder(client)  # never started: nothing depends on Events
        self._reconciler = Reconciler(client, access, world.timing, self._controller.find_claims, events)
        self._events: deque[tuple[float, str | None, Body]] = deque()
        self._is_told = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        self._controller.begin(self._reconciler)
        self.relist()
        while True:
            await self._is_told.wait()
            if not self._events:
                self._is_told.clear()
                continue
            told_at = self._events[0][0]
            if (wait := told_at - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(wait)
                continue
            _, event_type, body = self._events.popleft()
            if self._controller.is_news(body["metadata"], event_type):
                await self._controller.on_hook(LifecycleHook(body), event_type)

    @property
    def has_begun(self) -> bool:
        """Whether it has read what there is, and so remembers what is lost after that."""
        return self._controller.is_complete

    def tell(self, event_type: str | None, body: Body) -> None:
        draw = self._world.draw
        told_at = asyncio.get_running_loop().time() + self._world.lag_seconds + draw.choice((0.001, 0.01, 0.2))
        if self._events:
            told_at = max(told_at, self._events[-1][0])
        for _ in range(draw.choice((1, 1, 1, 2))):  # some are delivered twice
            self._events.append((told_at, event_type, body))
        self._is_told.set()

    def relist(self) -> None:
        self._events.clear()
        for body in self._world.server.objects.values():
            self.tell(None, body)

    def end(self) -> None:
        self._task.cancel()
        asyncio.get_running_loop().create_task(self._controller.close(0))


class _Access:
    def __init__(self, world: _World, process: int) -> None:
        self._world = world
        self._process = process
        self._listings = Listings()

    async def resolve(self, resource: LifecycleHook, spec: LifecycleHookSpec) -> CloudClient:
        world = self._world
        return CloudClient(world.cloud, world.network, self._process, resource.uid, self._listings, world)

    def describe(self, _: LifecycleHook, __: CallError) -> str:
        return ""

    def is_secret_being_deleted(self, _: LifecycleHook) -> bool:
        return False
