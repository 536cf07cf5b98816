"""Makes the hook in AS match the object, whatever event triggered the reconcile.

`plan` decides what to do; this module does it. Because of two invariants, a crash between any two lines leaves neither
an orphan nor a hook that its own resource does not recognize:

1. A create call goes out only when the finalizer and, unless the status names the hook, the call's fingerprint are on
   the object. A fingerprint is forgotten when AS refuses the call for sure, or when the hook has been observed and
   another fingerprint identifies it; never because AS did not answer, or has no such hook yet.
2. A hook that only its fingerprint identifies is written to the status before it is modified: that changes its
   fingerprint.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from weakref import WeakValueDictionary

from lifecyclehook_operator.api.v1alpha1 import Hook, InvalidResourceError, LifecycleHook
from lifecyclehook_operator.cloud.errors import (
    ABSENT_CODES,
    HOOK_MAY_EXIST_CODES,
    CallError,
    CredentialsError,
    InvalidError,
    Reason,
    UnexpectedError,
)
from lifecyclehook_operator.controller.claims import Claim, find_owner
from lifecyclehook_operator.controller.clients import ClientResolver
from lifecyclehook_operator.controller.plan import Action, find_difference, plan
from lifecyclehook_operator.controller.state import ObjectState, Report
from lifecyclehook_operator.controller.status import (
    DRIFT_CORRECTED,
    Drifted,
    Failed,
    InSync,
    Outcome,
    Paused,
    Released,
    already_exists,
    conflict,
    describe_changes,
    describe_drift,
    find_changes,
    is_only_unobserved,
    paused,
    status_patch,
)
from lifecyclehook_operator.controller.suspensions import describe_holder
from lifecyclehook_operator.controller.timing import NEVER, Timing, now
from lifecyclehook_operator.kube.client import KubeClient
from lifecyclehook_operator.kube.events import Event, EventRecorder
from lifecyclehook_operator.metrics import ACTIVE_WORKERS, DRIFT_CORRECTIONS, RECONCILE_DURATION, RECONCILES

logger = logging.getLogger(__name__)

#: A sync takes fewer steps than this, unless AS does not do what it confirms.
_MAX_STEPS = 5
#: The label of each outcome in the metrics.
_RESULTS = {InSync: "success", Drifted: "drifted", Released: "released", Failed: "cloud_error", Paused: "paused"}


@dataclass(eq=False)
class Reconciler:
    """Observes, plans, acts, writes the status if it changes, and returns when to reconcile next."""

    kubernetes: KubeClient
    resolver: ClientResolver
    timing: Timing
    #: Returns the other objects' claims on the same hook, as they are at this moment.
    find_claims: Callable[[LifecycleHook], Iterable[Claim]]
    events: EventRecorder
    _locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def begin(self, obj: LifecycleHook) -> tuple[ObjectState, float]:
        """Return the state of an object that is new to this process, and when to reconcile it for the first time."""
        hook = obj.status.lifecycle_hook
        known = () if hook is None else (obj.fingerprint(hook.hook_fields()),)
        state = ObjectState(observed=hook if obj.is_synced else None, fingerprints=(*obj.create_intents, *known))
        return state, self.timing.next_resync(obj.hook_key[0]) if obj.is_synced else now()

    async def reconcile(self, obj: LifecycleHook, state: ObjectState, due_at: float) -> tuple[LifecycleHook, float]:
        """Reconcile an object; what AS answered at `due_at` or later counts as observed.

        Returns the object as it is afterwards, and when to reconcile it next. Raises KubernetesError if the API server
        refuses a write or can't be reached; the next reconcile then repeats the write without calling AS.
        """
        with ACTIVE_WORKERS.track_inprogress(), RECONCILE_DURATION.time():
            report = state.report
            obj = await self._restore_finalizer(obj, state)
            if report is None or report.trigger != obj.trigger or report.requeue_at <= now():
                obj, report = await self._sync(obj, state, due_at)
                state.report = report
            obj = await self._write(obj, report.outcome)
        RECONCILES.labels(_RESULTS[type(report.outcome)]).inc()
        state.report = None
        return obj, report.requeue_at

    async def _restore_finalizer(self, obj: LifecycleHook, state: ObjectState) -> LifecycleHook:
        """Restore the finalizer, or the fingerprints that stand in for a lost status, before anything can fail."""
        is_named = obj.status.lifecycle_hook is not None
        has_lost_finalizer = not obj.has_finalizer and (is_named or state.fingerprints)
        has_lost_status = not is_named and not {*state.fingerprints} <= {*obj.create_intents}
        if obj.is_finalized or not (has_lost_finalizer or has_lost_status):
            return obj
        return await self.kubernetes.add_finalizer(obj, state.fingerprints)

    async def _sync(self, obj: LifecycleHook, state: ObjectState, due_at: float) -> tuple[LifecycleHook, Report]:
        """Make AS match the object: the only caller of AS. Returns the object as it is afterwards."""
        sync = _Sync(self, obj, state, due_at)
        try:
            outcome = await sync.run()
        except CallError as error:
            state.failures += 1
            failed = Failed(error, self.resolver.describe(sync.obj, error))
            return sync.obj, Report(obj.trigger, failed, self.timing.next_retry(error, state.failures))
        state.failures = 0
        requeue_at = NEVER if isinstance(outcome, Released | Paused) else self.timing.next_resync(obj.hook_key[0])
        return sync.obj, Report(obj.trigger, outcome, requeue_at)

    async def _write(self, obj: LifecycleHook, outcome: Outcome) -> LifecycleHook:
        """Remove the finalizer, or write the status if it changes, and publish the Events that this causes."""
        if isinstance(outcome, Released):
            await self.kubernetes.remove_finalizer(obj)
            self.events.record(obj, outcome.event)
            return obj
        if isinstance(outcome, Failed) and is_only_unobserved(obj, outcome.error):
            logger.warning("%s: Failed to list lifecycle hooks: %s", obj.label, outcome.error)
            return obj
        patch, events = find_changes(obj, outcome, is_secret_deleted=self.resolver.is_secret_being_deleted(obj))
        if patch:
            obj = await self.kubernetes.patch_status(obj, patch)
            for event in events:
                self.events.record(obj, event)
        return obj

    async def clean_up(self, obj: LifecycleHook, state: ObjectState) -> float:
        """Delete the hook of an object that was deleted in spite of our finalizer.

        A deletion may overtake the write of the finalizer, and anybody may remove the finalizer.
        Returns when to try again, NEVER if there is nothing left to do. Raises KubernetesError.
        """
        if not (obj.status.lifecycle_hook or state.fingerprints) or list(self.find_claims(obj)):
            return NEVER  # there is no hook, or other objects may adopt it
        _, report = await self._sync(obj.as_deleted(), state, now())
        if isinstance(report.outcome, Failed):
            is_last = isinstance(report.outcome.error, (CredentialsError, InvalidError))
            logger.error("%s: The object is gone, its hook is still in AS: %s", obj.label, report.outcome.error)
            return NEVER if is_last else report.requeue_at
        if isinstance(report.outcome, Released) and report.outcome.event:
            logger.warning("%s: The object is gone: %s", obj.label, report.outcome.event.message)
        if isinstance(report.outcome, Paused):
            logger.warning("%s: The object is gone, its hook is still in AS: it was paused", obj.label)
        return NEVER

    def lock(self, project_id: str, path: tuple[str, str]) -> asyncio.Lock:
        """Return the lock of a hook: objects that claim it take turns, so that each sees what the others did."""
        return self._locks.setdefault((project_id, *path), asyncio.Lock())


@dataclass
class _Sync:
    """One sync of one object: looks up the hook if necessary, and does what `plan` says until nothing is left to do."""

    reconciler: Reconciler
    obj: LifecycleHook
    state: ObjectState
    due_at: float
    event: Event | None = None

    async def run(self) -> Outcome:
        obj, state = self.obj, self.state
        is_unclaimed = obj.status.lifecycle_hook is None and not state.fingerprints
        if obj.is_deleting and obj.is_force_released:
            message = "Removed the finalizer without calling AS, as annotated; check whether the hook still exists"
            return Released(Event("Warning", "ForceFinalized", message))
        if obj.is_paused:
            state.observed = None  # it may change meanwhile
            return paused(obj)
        try:
            self.spec = obj.validated_spec()
        except InvalidResourceError as error:
            if obj.is_deleting and is_unclaimed:
                return Released()
            raise InvalidError(Reason.INVALID_SPEC, str(error), operation="validate") from error
        self.path = self.spec.scaling_group_id, self.spec.lifecycle_hook_name
        if obj.is_deleting and (is_unclaimed or self.spec.deletion_policy == "Retain"):
            return Released()  # needs no credentials, which may be gone by now
        self.client = await self.reconciler.resolver.resolve(obj, self.spec)
        project_id = await self.client.get_project_id()
        # Only after the login, so that no object waits for the login of another.
        async with self.reconciler.lock(project_id, self.path):
            if owner := find_owner(Claim(obj, state), project_id, self.reconciler.find_claims(obj)):
                if obj.is_deleting:
                    return Released()
                raise conflict(owner, self.spec)
            try:
                return await (self._delete() if obj.is_deleting else self._apply())
            except CallError as error:
                await self._name_holder(error)
                raise

    def _turn(self) -> AbstractAsyncContextManager[None]:
        """Return what to hold during a call, but not while the API server is written to, which takes far longer."""
        return self.client.turn(self.path[0], self.obj.namespace)

    async def _name_holder(self, error: CallError) -> None:
        """Add to the error of a busy group which instance keeps it busy, if that can be found out."""
        if error.reason is Reason.GROUP_BUSY and self.spec.suspension_policy == "Watch":
            with suppress(CallError):
                async with self._turn():
                    listed = await self.client.list_suspensions(self.path[0], not_before=self.due_at)
                error.add_advice(describe_holder(listed))

    @property
    def _is_named(self) -> bool:
        return self.obj.status.lifecycle_hook is not None

    def _is_owned(self, hook: Hook | None) -> bool:
        if self._is_named or hook is None:
            return self._is_named
        return self.obj.fingerprint(hook.hook_fields()) in self.state.fingerprints

    async def _apply(self) -> InSync | Drifted:
        # Drift can only be seen in AS; without it, the known hook is enough to find the changes.
        hook, self.state.observed = self.state.observed, None
        may_exist = self._is_named or self.state.fingerprints or self.obj.was_refused
        if may_exist and (hook is None or self.obj.is_applied):
            hook = await self._find(self.due_at)
        for _ in range(_MAX_STEPS):
            is_owned = self._is_owned(hook)
            match plan(self.spec, hook, is_owned=is_owned, is_applied=self.obj.is_applied), hook:
                case Action.CREATE, _:
                    hook = await self._create()
                case Action.MODIFY, Hook():
                    hook = await self._modify(hook, is_owned=is_owned)
                case Action.KEEP, Hook():
                    return await self._keep(hook, is_owned=is_owned)
                case Action.REFUSE, Hook():
                    if self.obj.create_intents and not self.state.fingerprints:
                        await self._ensure_finalizer(())  # else the hook would count as ours after a restart
                    raise already_exists(hook, self.spec)
                case _:
                    await self._ensure_finalizer()
                    return Drifted(hook, describe_drift(hook, self.spec))
        raise UnexpectedError(Reason.UNEXPECTED_RESPONSE, "AS did not apply the update it accepted", operation="modify")

    async def _create(self) -> Hook | None:
        """Create the hook and return it; after a failure that leaves this open, return the hook that exists, if any."""
        fields = self.spec.hook_fields()
        before, fingerprints = self.state.fingerprints, self.state.add_fingerprint(self.obj.fingerprint(fields))
        await self._ensure_finalizer(None if self._is_named else fingerprints)  # invariant 1
        self.state.fingerprints = fingerprints
        try:
            async with self._turn():
                hook = await self.client.create_hook(*self.path, fields)
        except CallError as error:
            if error.operation != "create" or not error.outcome_unknown:  # it certainly had no effect
                self.state.fingerprints = before
                if error.code not in HOOK_MAY_EXIST_CODES:
                    raise
            if (found := await self._find_after(error)) is None:
                raise
            return found
        self.state.fingerprints = self.state.add_fingerprint(self.obj.fingerprint(hook.hook_fields()))
        if self._is_named:
            self.event = Event("Normal", DRIFT_CORRECTED, "Recreated the hook: it had been deleted outside Kubernetes")
        return hook

    async def _modify(self, hook: Hook, *, is_owned: bool) -> Hook | None:
        """Update the fields that differ, and return the hook, or None if it is gone."""
        changes = find_difference(hook, self.spec)
        if is_owned and not self._is_named:
            await self._name(hook)  # invariant 2
        await self._ensure_finalizer()
        if is_owned:
            self.state.fingerprints = self.state.add_fingerprint(self.obj.fingerprint(self.spec.hook_fields()))
        try:
            async with self._turn():
                modified = await self.client.modify_hook(*self.path, changes)
        except CallError as error:
            await self._confirm_gone(error)
            return None
        described = describe_changes(hook, self.spec)
        if not is_owned:
            self.event = Event("Normal", "Adopted", f"Adopted hook {self.path[1]} and updated {described}")
            self.state.fingerprints = self.state.add_fingerprint(self.obj.fingerprint(modified.hook_fields()))
        elif self.obj.is_applied:
            self.event = Event("Normal", DRIFT_CORRECTED, f"Reverted external change: {described}")
        else:
            self.event = Event("Normal", "Updated", f"Updated {described}")
        return modified

    async def _keep(self, hook: Hook, *, is_owned: bool) -> InSync:
        await self._ensure_finalizer()
        group_id, name = self.path
        if self.event is None and not is_owned:
            self.event = Event("Normal", "Adopted", f"Adopted hook {name}, which was up to date")
        elif self.event is None and not self._is_named:
            self.event = Event("Normal", "Created", f"Created hook {name} in AS group {group_id}")
        DRIFT_CORRECTIONS.inc(self.event is not None and self.event.reason == DRIFT_CORRECTED)
        self.state.observed, self.state.fingerprints = hook, (self.obj.fingerprint(hook.hook_fields()),)
        return InSync(hook, await self.client.get_project_id(), group_id, self.event)

    async def _delete(self) -> Released:
        group_id, name = self.path
        self.state.observed = None
        if not self._is_named and not self._is_owned(await self._find(self.due_at)):
            return Released()
        try:
            async with self._turn():
                await self.client.delete_hook(group_id, name)
        except CallError as error:
            await self._confirm_gone(error)
        return Released(Event("Normal", "Deleted", f"Deleted hook {name} from AS group {group_id}"))

    async def _find(self, not_before: float) -> Hook | None:
        """Look up the hook; what AS answered at `not_before` or later is recent enough."""
        try:
            async with self._turn():
                listed = await self.client.list_hooks(self.path[0], not_before=not_before)
            return listed.find(self.path[1])
        except CallError as error:
            if error.code not in ABSENT_CODES:
                raise
            return None

    async def _find_after(self, error: CallError) -> Hook | None:
        """Look up the hook after a failed call; if that fails, too, raise the first error."""
        try:
            return await self._find(now())
        except CallError as second_error:
            raise error from second_error

    async def _confirm_gone(self, error: CallError) -> None:
        """Return if a call failed because the hook is gone, else raise the error."""
        if error.code in ABSENT_CODES:
            return
        # A 404 without an AS code may come from a wrong endpoint: only the list proves that the hook is gone.
        if error.http_status != HTTPStatus.NOT_FOUND or await self._find_after(error) is not None:
            raise error

    async def _ensure_finalizer(self, fingerprints: Sequence[str] | None = None) -> None:
        """Write the finalizer and, if given, the fingerprints, unless the object has them already."""
        intents = self.obj.create_intents if fingerprints is None else tuple(fingerprints)
        if not self.obj.has_finalizer or self.obj.create_intents != intents:
            self.obj = await self.reconciler.kubernetes.add_finalizer(self.obj, intents)

    async def _name(self, hook: Hook) -> None:
        """Write the hook into the status, unless the object has changed since it was read."""
        status = self.obj.status.model_copy(update={"lifecycle_hook": hook})
        is_as_read = {"op": "test", "path": "/metadata/resourceVersion", "value": str(self.obj.resource_version)}
        patch = status_patch(self.obj.body.get("status"), status)
        self.obj = await self.reconciler.kubernetes.patch_status(self.obj, [is_as_read, *patch])
