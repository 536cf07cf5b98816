"""Shows in the status of hooks with suspensionPolicy Watch which instances they suspend.

One call per AS group and round, however many of its hooks are watched. A round in which nothing changes writes nothing.
Each namespace has rounds of its own, so that none waits for what another's credentials lead to.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lifecyclehook_operator.api.v1alpha1 import (
    Condition,
    InvalidResourceError,
    LifecycleHook,
    LifecycleHookStatus,
    SuspendedInstance,
    SuspendedInstances,
    format_time,
)
from lifecyclehook_operator.cloud.errors import CallError, sanitize
from lifecyclehook_operator.cloud.instances import Suspension, Suspensions
from lifecyclehook_operator.controller.cache import Cache
from lifecyclehook_operator.controller.clients import ClientResolver
from lifecyclehook_operator.controller.status import SUSPENSIONS_KNOWN, status_patch
from lifecyclehook_operator.controller.timing import NEVER, Timing, next_round, now
from lifecyclehook_operator.controller.workqueue import WorkQueue
from lifecyclehook_operator.fairness import FairLimit
from lifecyclehook_operator.kube.client import KubeClient
from lifecyclehook_operator.kube.errors import KubernetesError, StaleError
from lifecyclehook_operator.kube.events import Event, EventRecorder

logger = logging.getLogger(__name__)

#: How many instances a status lists at most.
_MAX_ITEMS = 20
#: How many instances an Event names at most.
_MAX_NAMED = 5
#: How often to look while an instance is suspended, in seconds.
_BUSY_SECONDS = 10
#: How many groups are looked at at a time.
_MAX_ACTIVE = 128

Instances = Mapping[str, SuspendedInstance]
"""Suspended instances of a hook, by their ID."""


@dataclass(frozen=True)
class Before:
    """What was known of a hook's suspended instances before a round."""

    instances: Instances
    #: Whether there were no others: a status does not list them all.
    is_complete: bool

    @classmethod
    def from_status(cls, status: LifecycleHookStatus) -> "Before":
        """Return what a status tells, after a restart."""
        shown = status.suspended_instances
        if shown is None:
            return cls({}, is_complete=True)
        return cls({each.instance_id: each for each in shown.items}, is_complete=not shown.truncated)


class SuspensionWatch:
    """Looks at the groups that have a watched hook, and writes what has changed."""

    def __init__(  # noqa: PLR0913
        self,
        kubernetes: KubeClient,
        resolver: ClientResolver,
        cache: Cache,
        timing: Timing,
        events: EventRecorder,
        *,
        interval_seconds: float,
        was_released: Callable[[str, str, str], bool],
        on_idle: Callable[[str], None],
    ) -> None:
        """
        Args:
            kubernetes: whom to write to.
            resolver: finds the client of a hook.
            cache: the hooks.
            timing: how long to wait after a failure.
            events: publishes Events.
            interval_seconds: how often to look at a group in which nothing is suspended.
            was_released: returns whether a LifecycleCallback has released an instance, by namespace and name of its
                hook and its own ID.
            on_idle: is called with a group in which nothing is suspended any more.
        """
        self._kubernetes = kubernetes
        self._resolver = resolver
        self._cache = cache
        self._timing = timing
        self._events = events
        self._interval_seconds = interval_seconds
        self._was_released = was_released
        self._on_idle = on_idle
        self._triggers: dict[str, tuple[object, ...]] = {}
        self._before: dict[str, Before] = {}
        self._failures: dict[str, int] = {}
        self._busy: set[str] = set()
        self._limit = FairLimit(_MAX_ACTIVE)
        self._queue = WorkQueue(self._process, lambda key: self._limit.turn(_namespace(key)), "suspensions")

    def start(self) -> None:
        """Begin to look: all hooks are known."""
        self._queue.start()

    async def close(self, grace_seconds: float) -> None:
        """Start no further round, and give those in progress so long to end."""
        await self._queue.close(grace_seconds)

    def look_at(self, obj: LifecycleHook) -> None:
        """Look at the group of a hook at once, if any of its hooks is watched."""
        for each in self._cache.in_group(obj.hook_key[0]):
            if each.is_watching_suspensions:
                self._queue.add(_key(each))

    def update(self, obj: LifecycleHook) -> None:
        """Take the newest version of a hook; what asks for a reconcile asks for a look."""
        if obj.is_paused:
            self._triggers.pop(obj.uid, None)
            return
        if not (obj.is_watching_suspensions or _shows_suspensions(obj)):
            self.drop(obj.uid)
            return
        trigger = (obj.trigger, obj.is_watching_suspensions)
        before = self._triggers.get(obj.uid)
        self._triggers[obj.uid] = trigger
        if before is None and obj.is_watching_suspensions and _shows_suspensions(obj):  # after a restart
            self._queue.add_at(_key(obj), next_round(obj.hook_key[0], self._interval_seconds))
        elif trigger != before:
            self._queue.add(_key(obj))

    def drop(self, uid: str) -> None:
        """Forget a hook."""
        self._triggers.pop(uid, None)
        self._before.pop(uid, None)

    async def _process(self, key: str, due_at: float) -> None:
        """Look at a group once, for a namespace: the work queue's worker."""
        try:
            next_at = await self._look(key, due_at)
        except KubernetesError as error:
            self._queue.add_rate_limited(key)
            level = logging.DEBUG if isinstance(error, StaleError) else logging.WARNING
            logger.log(level, "Suspended instances of %s: %s", key, error)
        except Exception:  # a fault of ours: one group's must not stop the others
            self._queue.add_rate_limited(key)
            logger.exception("Failed to watch the suspended instances of %s", key)
        else:
            self._queue.done(key)
            self._queue.add_at(key, next_at)

    async def _look(self, key: str, due_at: float) -> float:
        """Write what has changed of a group's hooks, and return when to look again. Raises KubernetesError."""
        namespace, _, group_id = key.partition("/")
        next_at, is_busy = NEVER, False
        for obj in self._cache.in_group(group_id):
            if obj.namespace != namespace or obj.uid not in self._triggers:
                continue
            if not obj.is_watching_suspensions:
                if _shows_suspensions(obj) and not obj.is_paused:
                    await self._write(obj, _without_suspensions(obj.status))
                continue
            try:
                listed = await self._list(obj, due_at)
                ours = listed.of_hook(obj.hook_key[1])
            except InvalidResourceError:
                continue  # the Ready condition tells
            except CallError as error:
                self._failures[key] = self._failures.get(key, 0) + 1
                retry_at = self._timing.next_retry(error, self._failures[key])
                if retry_at == NEVER:  # it takes no change of the spec to list
                    retry_at = next_round(group_id, self._interval_seconds)
                next_at = min(next_at, retry_at)
                await self._write(obj, _with_failure(obj.status, error))
                continue
            self._failures.pop(key, None)
            await self._show(obj, ours, listed.listed_at)
            is_busy |= any(listed.hanging())
            next_at = min(next_at, next_round(group_id, self._interval_seconds))
        if is_busy:
            self._busy.add(key)
            return min(next_at, now() + _BUSY_SECONDS)
        if key in self._busy and not self._failures.get(key):
            self._busy.discard(key)
            self._on_idle(group_id)
        return next_at

    async def _list(self, obj: LifecycleHook, due_at: float) -> Suspensions:
        spec = obj.validated_spec()
        client = await self._resolver.resolve(obj, spec)
        return await client.list_suspensions(spec.scaling_group_id, not_before=due_at)

    async def _show(self, obj: LifecycleHook, suspensions: Sequence[Suspension], listed_at: datetime) -> None:
        before = self._before.get(obj.uid) or Before.from_status(obj.status)
        after = find_suspended(suspensions)

        def was_released(instance_id: str) -> bool:
            return self._was_released(obj.namespace, obj.name, instance_id)

        events = find_changes(obj, before, suspensions, listed_at, was_released)
        written = await self._write(obj, _with_suspensions(obj.status, after))
        self._before[obj.uid] = Before(after, is_complete=True)
        for event in events:
            self._events.record(written, event)

    async def _write(self, obj: LifecycleHook, status: LifecycleHookStatus) -> LifecycleHook:
        """Write a status if it changes, unless somebody else has written the object meanwhile."""
        patch = status_patch(obj.body.get("status"), status)
        if not patch:
            return obj
        is_as_read = {"op": "test", "path": "/metadata/resourceVersion", "value": str(obj.resource_version)}
        written = await self._kubernetes.patch_status(obj, [is_as_read, *patch])
        newest = self._cache.update(written, is_shown=False)
        self.update(newest)
        return newest


def find_suspended(suspensions: Iterable[Suspension]) -> Instances:
    """Return the instances that are suspended, the next to time out first."""
    there = [each for each in suspensions if not each.has_ended]
    return {
        each.instance_id: SuspendedInstance(
            instance_id=each.instance_id, timeout=format_time(each.timeout), default_result=each.default_result
        )
        for each in sorted(there, key=lambda each: (each.timeout, each.instance_id))
    }


def find_changes(
    obj: LifecycleHook,
    before: Before,
    suspensions: Sequence[Suspension],
    listed_at: datetime,
    was_released: Callable[[str], bool],
) -> list[Event]:
    """Return the Events of what has changed, at most one of each kind."""
    after = find_suspended(suspensions)
    events = []
    if before.is_complete and (appeared := [each for name, each in after.items() if name not in before.instances]):
        verb = "is" if len(appeared) == 1 else "are"
        first = f"; at {appeared[0].timeout} AS acts by {appeared[0].default_result}"
        events.append(Event("Normal", "InstanceSuspended", f"{_name(appeared)} {verb} suspended{first}"))
    ended = {each.instance_id: each for each in sorted(suspensions, key=lambda each: each.timeout) if each.has_ended}
    released: dict[str, list[SuspendedInstance]] = {}
    timed_out: dict[str, list[SuspendedInstance]] = {}
    for name, each in before.instances.items():
        if name in after:
            continue
        end = ended.get(name)
        timeout = end.timeout if end else datetime.fromisoformat(each.timeout)
        is_default = end is None or end.lifecycle_hook_status == each.default_result
        if listed_at >= timeout and is_default and not was_released(name):
            timed_out.setdefault(each.default_result, []).append(each)
        else:
            released.setdefault(end.lifecycle_hook_status if end else "", []).append(each)
    for result, instances in released.items():
        how = f" with {result}" if result else ", and AS does not say how"
        events.append(Event("Normal", "InstanceReleased", f"{_name(instances)} released{how}"))
    for result, instances in timed_out.items():
        message = f"{_name(instances)} timed out, and AS acted by {result}: {_effect(obj, result)}"
        events.append(Event("Warning", "InstanceTimedOut", message))
    return events


def _effect(obj: LifecycleHook, result: str) -> str:
    hook = obj.status.lifecycle_hook
    if hook is not None and hook.lifecycle_hook_type == "INSTANCE_LAUNCHING":
        return "it puts the instance to use" if result == "CONTINUE" else "it deletes the instance and creates another"
    return "it terminates the instance"


def _name(instances: Sequence[SuspendedInstance]) -> str:
    names = ", ".join(sanitize(each.instance_id, 64) for each in instances[:_MAX_NAMED])
    more = f" and {len(instances) - _MAX_NAMED} more" if len(instances) > _MAX_NAMED else ""
    return f"{'instance' if len(instances) == 1 else 'instances'} {names}{more}"


def describe_holder(suspensions: Suspensions) -> str:
    """Return who keeps a group busy: the suspended instance that is the last to time out; empty if there is none."""
    hanging = sorted(suspensions.hanging(), key=lambda each: (each.timeout, each.instance_id))
    if not hanging:
        return ""
    last = hanging[-1]
    who = f"nstance {sanitize(last.instance_id, 64)} is suspended by hook {sanitize(last.lifecycle_hook_name, 64)}"
    which = "I" if len(hanging) == 1 else f"{len(hanging)} instances are suspended; i"
    return f"{which}{who} until {format_time(last.timeout)}, unless a callback comes first."


def _key(obj: LifecycleHook) -> str:
    """Return by which an object's group is looked at."""
    return f"{obj.namespace}/{obj.hook_key[0]}"


def _namespace(key: str) -> str:
    return key.partition("/")[0]


def _shows_suspensions(obj: LifecycleHook) -> bool:
    status = obj.body.get("status", {})  # most versions of an object are never parsed
    return "suspendedInstances" in status or any(
        condition["type"] == SUSPENSIONS_KNOWN for condition in status.get("conditions", ())
    )


def _without_suspensions(status: LifecycleHookStatus) -> LifecycleHookStatus:
    conditions = tuple(each for each in status.conditions if each.type != SUSPENSIONS_KNOWN)
    return status.model_copy(update={"conditions": conditions, "suspended_instances": None})


def _with_suspensions(status: LifecycleHookStatus, instances: Instances) -> LifecycleHookStatus:
    shown = SuspendedInstances(
        count=len(instances), truncated=len(instances) > _MAX_ITEMS, items=tuple(instances.values())[:_MAX_ITEMS]
    )
    known = _with_condition(status, "Listed", "The status shows what AS lists.", is_known=True)
    return known.model_copy(update={"suspended_instances": shown})


def _with_failure(status: LifecycleHookStatus, error: CallError) -> LifecycleHookStatus:
    message = f"{error.operation}: {error.message.rstrip('.')}. {error.advice}"
    return _with_condition(status, error.reason, message, is_known=False)


def _with_condition(status: LifecycleHookStatus, reason: str, message: str, *, is_known: bool) -> LifecycleHookStatus:
    """Return the status with the condition; for the same reason as before it stays to the letter."""
    before = status.condition(SUSPENSIONS_KNOWN)
    value = "True" if is_known else "False"
    if before is not None and (before.status, before.reason) == (value, reason):
        return status
    condition = Condition.model_validate(
        {
            "type": SUSPENSIONS_KNOWN,
            "status": value,
            "reason": reason,
            "message": message,
            "last_transition_time": format_time(datetime.now(UTC)),
        }
    ).since(before)
    others = tuple(each for each in status.conditions if each.type != SUSPENSIONS_KNOWN)
    return status.model_copy(update={"conditions": (*others, condition)})
