"""Takes the action of each LifecycleCallback, once, and deletes those that have finished, in time.

Two writes and two calls in the good case: list the suspensions, pin one of them in the status, call AS, write what came
of it. What is pinned is never exchanged for another, so whatever happens in between (a crash, a lost answer), the next
reconcile lists first, and `next_action` tells from the pinned key and timeout whether the call has taken effect. An
EXTEND whose answer was lost is not sent again before AS has had some time to act on it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

from lifecyclehook_operator.api.callback import (
    CallbackTarget,
    LifecycleCallback,
    LifecycleCallbackSpec,
    LifecycleCallbackStatus,
)
from lifecyclehook_operator.api.v1alpha1 import (
    PAUSED_ANNOTATION,
    Condition,
    ErrorStatus,
    InvalidResourceError,
    LifecycleHook,
    format_time,
)
from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.errors import (
    ABSENT_CODES,
    CALLBACK,
    CallError,
    InvalidError,
    Reason,
    TransientError,
)
from lifecyclehook_operator.cloud.instances import Suspension
from lifecyclehook_operator.controller.cache import FOUND, WATCH_DELAY_SECONDS, WatchLag
from lifecyclehook_operator.controller.callbackplan import (
    Call,
    CallbackReason,
    Complete,
    Fail,
    Pin,
    Wait,
    next_action,
)
from lifecyclehook_operator.controller.clients import ClientResolver
from lifecyclehook_operator.controller.status import describe_error, error_entry, status_patch
from lifecyclehook_operator.controller.timing import NEVER, Timing, now
from lifecyclehook_operator.controller.workqueue import WorkQueue
from lifecyclehook_operator.fairness import FairLimit
from lifecyclehook_operator.kube.client import KubeClient, Listed
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError
from lifecyclehook_operator.kube.events import Event, EventRecorder

logger = logging.getLogger(__name__)

#: AS refuses a callback by this unless the instance hangs; it may do so for a moment although it lists it as hanging.
_NOTHING_HANGS = "AS.7042"
#: How long what is not listed yet is looked for, after the creation, in seconds.
_PATIENCE = timedelta(seconds=60)
_EXTENSION = timedelta(hours=1)
#: How many callbacks are attempted at a time.
_MAX_ACTIVE = 128

Outcome = Complete | Fail | Wait | CallError


@dataclass
class CallbackState:
    """What is remembered of a callback; a restart takes it that a call may have taken effect."""

    may_have_acted: bool
    #: Until when such a call may take effect, by the clock of the event loop.
    settles_at: float = 0
    #: Failed or idle attempts in a row, for the backoff.
    attempts: int = 0
    #: How it has ended, while the API server has not accepted that.
    end: Complete | Fail | None = None


class Callbacks:
    """The LifecycleCallbacks, and the queue of those that something is to be done for."""

    def __init__(
        self,
        kubernetes: KubeClient,
        resolver: ClientResolver,
        timing: Timing,
        find_hook: Callable[[str, str], LifecycleHook | None],
        events: EventRecorder,
    ) -> None:
        """
        Args:
            kubernetes: whom to write to.
            resolver: finds the client of a hook.
            timing: how long to wait after a failure.
            find_hook: returns the hook of a namespace and a name, as it is at this moment.
            events: publishes Events.
        """
        self._kubernetes = kubernetes
        self.resolver = resolver
        self._timing = timing
        self.find_hook = find_hook
        self._events = events
        self._callbacks: dict[str, LifecycleCallback] = {}
        self._of_subject: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._states: dict[str, CallbackState] = {}
        self._locks: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._limit = FairLimit(_MAX_ACTIVE)
        self._queue = WorkQueue(self._process, self._turn, "lifecyclecallbacks")
        self.lag = WatchLag()
        #: Told of each hook for which a suspension has been ended or put off.
        self.listeners: list[Callable[[LifecycleHook], None]] = []

    def objects(self) -> list[LifecycleCallback]:
        """Return all that are known."""
        return list(self._callbacks.values())

    def start(self) -> None:
        """Begin to attempt: all hooks are known."""
        self._queue.start()

    async def close(self, grace_seconds: float) -> None:
        """Start no further attempt, and give those in progress so long to end."""
        await self._queue.close(grace_seconds)

    def on_callback(self, callback: LifecycleCallback, event_type: str | None) -> None:
        """Take what a watch shows of a callback."""
        if event_type == "DELETED" or callback.is_deleting:
            self._forget(callback)
            return
        is_new = callback.uid not in self._callbacks
        self._keep(callback, is_shown=event_type != FOUND)
        if is_new:
            self._states[callback.uid] = state = CallbackState(may_have_acted=callback.status.target is not None)
            if callback.status.target is not None:
                state.settles_at = self.settles_at(datetime.fromisoformat(callback.status.target.timeout))
            if callback.is_finished:
                self._queue.add_at(callback.uid, _loop_time(callback.expires_at()))
            else:
                self._queue.add(callback.uid)

    def was_released(self, namespace: str, hook_name: str, instance_id: str) -> bool:
        """Return whether a callback of ours has ended a suspension of an instance."""
        return any(
            each.is_complete and each.body["spec"].get("lifecycleActionResult") != "EXTEND"
            for each in self._others((namespace, hook_name, instance_id))
        )

    def settles_at(self, timeout: datetime) -> float:
        """Return until when a call that is lost now may take effect, by the clock of the event loop.

        That leaves half of the time until the timeout of the suspension for another call.
        """
        seconds_left = (timeout - datetime.now(UTC)).total_seconds()
        return now() + min(self._timing.settling, seconds_left / 2)

    async def check(self, namespaces: Sequence[str]) -> None:
        """Compare what is known with what there is in these namespaces: a watch may have a gap, or be silent.

        Raises KubernetesError.
        """
        known = self.objects()
        listings = [self._kubernetes.list_callback_versions(namespace) for namespace in namespaces]
        there = {each.uid: each for listing in listings async for each in listing}
        for callback in known:
            if callback.uid not in there:
                self._forget(callback)
        await asyncio.sleep(WATCH_DELAY_SECONDS)
        unseen = [each for each in there.values() if self._is_unseen(each)]
        if unseen:
            example = f"{unseen[0].namespace}/{unseen[0].name}"
            logger.warning("The watch has not shown %s LifecycleCallbacks, such as %s", len(unseen), example)
        for listed in unseen:
            async for callback in self._kubernetes.list_callbacks(listed.namespace, listed.name):
                self.on_callback(callback, FOUND)

    def _is_unseen(self, listed: Listed) -> bool:
        known = self._callbacks.get(listed.uid)
        if known is None:
            return not listed.is_finalized
        return known.resource_version < listed.resource_version

    def _keep(self, callback: LifecycleCallback, *, is_shown: bool) -> None:
        known = self._callbacks.get(callback.uid)
        is_newer = known is None or known.resource_version < callback.resource_version
        if is_newer:
            self._callbacks[callback.uid] = callback
            self._of_subject[callback.subject].add(callback.uid)
        if is_shown:
            self.lag.on_shown(callback.uid, callback.resource_version)
        elif is_newer:
            self.lag.on_known(callback.uid, callback.resource_version)

    def _forget(self, callback: LifecycleCallback) -> None:
        self._queue.cancel(callback.uid)
        self._states.pop(callback.uid, None)
        self._callbacks.pop(callback.uid, None)
        self.lag.drop(callback.uid)
        uids = self._of_subject[callback.subject]
        uids.discard(callback.uid)
        self._wake(callback)
        if not uids:
            del self._of_subject[callback.subject]

    def _others(self, subject: tuple[str, str, str]) -> list[LifecycleCallback]:
        return [self._callbacks[uid] for uid in self._of_subject.get(subject, ())]

    def _wake(self, callback: LifecycleCallback) -> None:
        """Have those attempted that wait for a callback of the same suspension to finish."""
        for other in self._others(callback.subject):
            if not other.is_finished and other.uid != callback.uid:
                self._queue.add(other.uid)

    def _turn(self, uid: str) -> AbstractAsyncContextManager[None]:
        callback = self._callbacks.get(uid)
        return self._limit.turn(callback.namespace if callback is not None else "")

    async def _process(self, uid: str, due_at: float) -> None:
        """Do what is to be done for a callback: the work queue's worker."""
        callback, state = self._callbacks.get(uid), self._states.get(uid)
        if callback is None or state is None:
            return
        try:
            if callback.is_finished:
                await self._expire(callback)
                return
            requeue_at = await self._attempt(callback, state, due_at)
        except GoneError:
            self._forget(callback)
        except KubernetesError as error:
            self._queue.add_rate_limited(uid)
            logger.warning("%s: %s", callback.label, error)
        except Exception:  # a fault of ours: one object's must not stop the others
            self._queue.add_rate_limited(uid)
            logger.exception("%s: Reconcile failed", callback.label)
        else:
            self._queue.done(uid)
            if uid in self._states:
                self._queue.add_at(uid, requeue_at)

    async def _expire(self, callback: LifecycleCallback) -> None:
        """Delete a finished callback if its time is over. Raises KubernetesError."""
        due_at = _loop_time(callback.expires_at())
        if due_at > now():
            self._queue.add_at(callback.uid, due_at)
        else:
            await self._kubernetes.delete_callback(callback)
            self._forget(callback)

    async def _attempt(self, callback: LifecycleCallback, state: CallbackState, due_at: float) -> float:
        """Try to take the action, write what came of it, and return when to try again. Raises KubernetesError."""
        if state.end is None:
            try:
                spec = callback.spec()
            except InvalidResourceError as error:
                state.end = Fail(CallbackReason.INVALID_SPEC, str(error))
            else:
                outcome = await self._take_turn(callback, spec, state, due_at)
                callback = self._callbacks.get(callback.uid, callback)  # pinned meanwhile
                state.end = _end(callback, spec, outcome, may_have_acted=state.may_have_acted)
                if state.end is None:
                    await self._write(callback, _pending_status(callback, outcome))
                    return self._next_attempt(callback, spec, outcome, state)
        await self._finish(callback, state.end)
        return _loop_time(self._callbacks[callback.uid].expires_at()) if callback.uid in self._callbacks else NEVER

    async def _take_turn(
        self, callback: LifecycleCallback, spec: LifecycleCallbackSpec, state: CallbackState, due_at: float
    ) -> Outcome:
        """Attempt a callback while no other one for the same instance and hook is attempted."""
        lock = self._locks.setdefault(callback.subject, asyncio.Lock())
        was_locked = lock.locked()
        async with lock:
            not_before = now() if was_locked else due_at  # see what the other one has done
            try:
                return await _Attempt(self, callback, spec, state, not_before).run()
            except CallError as error:
                return error

    def _next_attempt(
        self, callback: LifecycleCallback, spec: LifecycleCallbackSpec, outcome: Outcome, state: CallbackState
    ) -> float:
        state.attempts += 1
        if isinstance(outcome, CallError):
            due_at = self._timing.next_retry(outcome, state.attempts)
        else:
            due_at = now() + min(2.0 ** (state.attempts - 1), 10)
            if state.settles_at > now():
                due_at = min(due_at, state.settles_at)
        ends = [callback.deadline(spec), *([_patience(callback, spec)] if isinstance(outcome, Wait) else ())]
        return min([due_at, *(each for each in map(_loop_time, ends) if each > now())])

    async def _finish(self, callback: LifecycleCallback, end: Complete | Fail) -> None:
        written = await self._write(callback, _final_status(callback, end))
        event = Event("Normal" if isinstance(end, Complete) else "Warning", end.reason, end.message)
        self._events.record(written, event)
        self._wake(written)
        hook = self.find_hook(*written.subject[:2])
        if isinstance(end, Complete) and hook is not None:
            for listener in self.listeners:
                listener(hook)

    async def _write(self, callback: LifecycleCallback, status: LifecycleCallbackStatus) -> LifecycleCallback:
        """Write the status if it changes, and return the object as it then is. Raises KubernetesError."""
        if status != callback.status:
            patch = status_patch(callback.body.get("status"), status)
            callback = await self._kubernetes.patch_callback_status(callback, patch)
            if callback.uid in self._callbacks:
                self._keep(callback, is_shown=False)
        return callback

    def is_first_in_line(self, callback: LifecycleCallback, suspension: Suspension) -> bool:
        """Whether no other callback has pinned a suspension and not finished: else two would share one extension."""
        return not any(
            other.uid != callback.uid
            and not other.is_finished
            and other.status.target is not None
            and other.status.target.lifecycle_action_key == suspension.lifecycle_action_key
            for other in self._others(callback.subject)
        )

    async def pin(self, callback: LifecycleCallback, suspension: Suspension) -> LifecycleCallback:
        """Write down which suspension is meant, and return the object as it then is. Raises KubernetesError."""
        target = CallbackTarget(
            lifecycle_action_key=suspension.lifecycle_action_key, timeout=format_time(suspension.timeout)
        )
        status = callback.status.model_copy(
            update={
                "observed_generation": callback.generation,
                "start_time": callback.status.start_time or format_time(datetime.now(UTC)),
                "target": target,
            }
        )
        written = await self._write(callback, status)
        if callback.uid not in self._callbacks:
            raise GoneError("the callback has been deleted")
        if written.status.target != target:
            raise KubernetesError("the API server has not kept the target of the callback")
        return written


@dataclass
class _Attempt:
    """One attempt at one callback."""

    callbacks: Callbacks
    callback: LifecycleCallback
    spec: LifecycleCallbackSpec
    state: CallbackState
    not_before: float

    async def run(self) -> Outcome:
        """Return what came of it. Raises CallError and KubernetesError."""
        hook = self.callbacks.find_hook(*self.callback.subject[:2])
        if hook is not None and hook.is_paused:
            message = f"LifecycleHook {hook} is paused by the annotation {PAUSED_ANNOTATION}; remove it to go on."
            return Wait(CallbackReason.HOOK_PAUSED, message)
        if hook is None or hook.status.lifecycle_hook is None:
            problem = "does not exist" if hook is None else "has no hook in AS"
            message = f"LifecycleHook {self.spec.lifecycle_hook_ref.name} {problem}."
            return Wait(CallbackReason.HOOK_NOT_OWNED, message, is_brief=True)
        try:
            hook_spec = hook.validated_spec()
        except InvalidResourceError as error:
            raise InvalidError(Reason.INVALID_SPEC, f"LifecycleHook {hook}: {error}", operation=CALLBACK) from error
        client = await self.callbacks.resolver.resolve(hook, hook_spec)
        self.group_id, self.hook_name = hook_spec.scaling_group_id, hook_spec.lifecycle_hook_name
        async with client.turn(self.group_id, hook.namespace):
            try:
                return await self._act(client, self.not_before)
            except CallError as error:
                if error.code != _NOTHING_HANGS:
                    raise
                return await self._look_after_refusal(client, error)

    async def _look_after_refusal(self, client: AutoScalingClient, error: CallError) -> Outcome:
        """Find out why AS says that nothing hangs."""
        match action := await self._plan(client, now()):
            case Complete() | Fail() | Wait():
                return action
        message = "AS lists the instance as suspended, and yet refuses the callback"
        raise TransientError(
            Reason.UNEXPECTED_RESPONSE,
            message,
            operation=CALLBACK,
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        ) from error

    async def _plan(self, client: AutoScalingClient, not_before: float) -> Pin | Call | Complete | Fail | Wait:
        listed = await client.list_suspensions(self.group_id, not_before=not_before)
        ours = [each for each in listed.of_hook(self.hook_name) if each.instance_id == self.spec.instance_id]
        target = self.callback.status.target
        return next_action(
            self.spec.lifecycle_action_result,
            target,
            ours,
            may_have_acted=self.state.may_have_acted,
            may_act_yet=not_before < self.state.settles_at,
        )

    async def _act(self, client: AutoScalingClient, not_before: float) -> Outcome:
        action = await self._plan(client, not_before)
        if not isinstance(action, Pin | Call):
            return action
        if datetime.now(UTC) >= self.callback.deadline(self.spec):
            return Wait(CallbackReason.DEADLINE_EXCEEDED, "the deadline is over.")
        if isinstance(action, Pin):
            if not self.callbacks.is_first_in_line(self.callback, action.suspension):
                message = "Another LifecycleCallback for this suspension is in progress."
                return Wait(CallbackReason.SUSPENSION_UNCLEAR, message)
            self.callback = await self.callbacks.pin(self.callback, action.suspension)
        return await self._call(client, action.suspension)

    async def _call(self, client: AutoScalingClient, suspension: Suspension) -> Complete:
        wanted = self.spec.lifecycle_action_result
        had_acted, self.state.may_have_acted = self.state.may_have_acted, True
        try:
            await client.call_back(self.group_id, suspension.lifecycle_action_key, wanted)
        except CallError as error:
            if error.operation != CALLBACK or not error.outcome_unknown:  # it has had no effect for sure
                self.state.may_have_acted = had_acted
            else:
                self.state.settles_at = self.callbacks.settles_at(suspension.timeout)
            raise
        timeout = suspension.timeout + _EXTENSION if wanted == "EXTEND" else None
        until = f" The timeout is now {format_time(timeout)}." if timeout else ""
        return Complete(CallbackReason.ACCEPTED, f"AS has accepted {wanted}.{until}", timeout)


def _end(
    callback: LifecycleCallback, spec: LifecycleCallbackSpec, outcome: Outcome, *, may_have_acted: bool
) -> Complete | Fail | None:
    """Return how a callback ends, None if it is to be tried again."""
    if isinstance(outcome, Complete | Fail):
        return outcome
    if isinstance(outcome, CallError) and outcome.code in ABSENT_CODES:
        return Fail(CallbackReason.GROUP_NOT_FOUND, outcome.message)
    time = datetime.now(UTC)
    if isinstance(outcome, Wait) and outcome.is_brief and time >= _patience(callback, spec):
        return Fail(outcome.reason, outcome.message)
    if time >= callback.deadline(spec):
        message = f"Not done within {spec.active_deadline_seconds} s: {outcome.message}"
        note = " A call may have taken effect." if may_have_acted else ""
        return Fail(CallbackReason.DEADLINE_EXCEEDED, message + note)
    return None


def _pending_status(
    callback: LifecycleCallback, outcome: Wait | CallError | Complete | Fail
) -> LifecycleCallbackStatus:
    """Return the status of a callback that is to be tried again; if only AS may not list it yet, it stays as it is."""
    status, timestamp = callback.status, format_time(datetime.now(UTC))
    if not isinstance(outcome, CallError):
        if isinstance(outcome, Wait) and outcome.is_brief and not status.conditions:
            return status
        conditions, error = (_condition(callback, "Complete", outcome.reason, outcome.message, timestamp),), None
    else:
        error = error_entry(outcome, status.error, timestamp)
        conditions = (_condition(callback, "Complete", outcome.reason, describe_error(outcome, error), timestamp),)
    return _with(callback, conditions, error, timestamp)


def _final_status(callback: LifecycleCallback, end: Complete | Fail) -> LifecycleCallbackStatus:
    timestamp = format_time(datetime.now(UTC))
    if isinstance(end, Complete):
        conditions = [_condition(callback, "Complete", end.reason, end.message, timestamp, is_true=True)]
    else:
        conditions = [
            _condition(callback, "Complete", end.reason, end.message, timestamp),
            _condition(callback, "Failed", end.reason, end.message, timestamp, is_true=True),
        ]
    timeout = end.timeout if isinstance(end, Complete) else None
    error = None if isinstance(end, Complete) else callback.status.error
    return _with(callback, tuple(conditions), error, timestamp).model_copy(
        update={"completion_time": timestamp, "timeout": format_time(timeout) if timeout else None}
    )


def _with(
    callback: LifecycleCallback, conditions: tuple[Condition, ...], error: ErrorStatus | None, timestamp: str
) -> LifecycleCallbackStatus:
    return callback.status.model_copy(
        update={
            "observed_generation": callback.generation,
            "start_time": callback.status.start_time or timestamp,
            "conditions": conditions,
            "error": error,
        }
    )


def _condition(  # noqa: PLR0913
    callback: LifecycleCallback, type_: str, reason: str, message: str, timestamp: str, *, is_true: bool = False
) -> Condition:
    return Condition(
        type=type_,
        status="True" if is_true else "False",
        reason=reason,
        message=message,
        observed_generation=callback.generation,
        last_transition_time=timestamp,
    ).since(callback.status.condition(type_))


def _patience(callback: LifecycleCallback, spec: LifecycleCallbackSpec) -> datetime:
    """Return until when what is not listed yet is looked for."""
    return min(callback.created_at + _PATIENCE, callback.deadline(spec))


def _loop_time(moment: datetime) -> float:
    """Return a moment by the clock of the event loop."""
    return now() + (moment - datetime.now(UTC)).total_seconds()
