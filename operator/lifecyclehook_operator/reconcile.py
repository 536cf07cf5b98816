"""Desired is the resource, observed is what AS answers, and one pass brings the second to the first.

The table of that is in `decision`; here it is carried out. Nothing here knows what woke the pass up.
"""

import asyncio
import logging
import math
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from pydantic.alias_generators import to_camel

from lifecyclehook_operator.access import Access
from lifecyclehook_operator.autoscaling import Project
from lifecyclehook_operator.decision import Action, Claim, Unseen, decide, find_difference
from lifecyclehook_operator.errors import (
    ABSENT_CODES,
    HOOK_MAY_EXIST_CODES,
    CallError,
    GoneError,
    InvalidError,
    KubernetesError,
    Reason,
    TransientError,
    UnexpectedError,
    WaitingError,
)
from lifecyclehook_operator.metrics import ACTIVE_WORKERS, DRIFT_CORRECTIONS, RECONCILE_DURATION, RECONCILES
from lifecyclehook_operator.resource import (
    Hook,
    InvalidResourceError,
    LifecycleHook,
    LifecycleHookSpec,
    LifecycleHookStatus,
)
from lifecyclehook_operator.status import (
    Drifted,
    Failed,
    Happening,
    InSync,
    Released,
    has_note,
    next_status,
    secret_note,
    status_patch,
    with_note,
)

logger = logging.getLogger(__name__)

FOREVER = float("inf")
#: A pass takes fewer steps than this, unless AS does not answer what it was asked for.
_MAX_STEPS = 6
#: How many calls, each with other fields, may be in doubt at a time.
_MAX_INTENTS = 8
Outcome = InSync | Drifted | Released | Failed
#: How the metrics call them.
_RESULTS = {InSync: "success", Drifted: "drifted", Released: "released", Failed: "cloud_error"}


class Kubernetes(Protocol):
    """What a pass needs of the API server. Each raises KubernetesError; writes return the resource as it then is."""

    async def add_finalizer(self, resource: LifecycleHook, create_intents: Sequence[str]) -> LifecycleHook:
        """Put on the finalizer, and the fingerprints of the calls by whose effect the hook is known for ours."""

    async def remove_finalizer(self, resource: LifecycleHook) -> None:
        """Let the API server delete the object."""

    async def patch_status(self, resource: LifecycleHook, patch: Sequence[Mapping[str, Any]]) -> LifecycleHook:
        """Apply JSON Patch operations to the status."""

    async def publish_event(self, resource: LifecycleHook, happening: Happening) -> None:
        """Publish an Event about the resource."""


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds, before jitter."""

    resync: float
    backoff_min: float
    backoff_max: float
    slow_min: float
    slow_max: float

    def next_look(self, group_id: str) -> float:
        """Return when to look at a hook next, of time.monotonic: at once for all of a group: one call serves."""
        phase = zlib.crc32(group_id.encode()) / 2**32
        return (math.floor(time.monotonic() / self.resync - phase) + 1 + phase) * self.resync

    def after_failure(self, error: CallError, failures: int) -> float:
        """Return the wait after so many failures in a row: at least what the cloud's Retry-After asks for."""
        if error.retry == "Never":
            return FOREVER
        least, most = (
            (self.backoff_min, self.backoff_max) if error.retry == "Backoff" else (self.slow_min, self.slow_max)
        )
        wait = jitter(min(most, least * 2.0 ** min(failures - 1, 30)))
        return max(wait, (error.retry_after_seconds or 0) * random.uniform(1, 1.25))  # noqa: S311  (no secret)


def jitter(seconds: float) -> float:
    """Return up to a quarter less, so that what failed together does not come back together."""
    return seconds * random.uniform(0.75, 1)  # noqa: S311  (no secret)


@dataclass
class Memory:
    """What is remembered of a resource from pass to pass; nothing that a restart may not lose."""

    #: What the last pass that was carried out was asked for.
    handled: tuple[object, ...] | None = None
    #: When to look again although nothing else is asked for, of time.monotonic.
    due_at: float = 0
    failures: int = 0
    #: Somebody thinks that what was missing may be there now.
    is_retry_asked: bool = False
    #: The hook that AS answered and that is this resource's, until the status says so.
    answered: Hook | None = None
    #: The hook in AS is as answered or as the status says, as far as calls of ours go.
    is_current: bool = False
    #: What came of the last pass, while Kubernetes has not been told of it.
    untold: Outcome | None = None
    #: The hook may be there, be it from a create call whose effect has not been looked up, or somebody else's.
    look_before_create: bool = False
    #: A create call may have taken effect although it was never answered so: the fingerprint tells.
    may_have_created: bool = False
    #: The fingerprints that were written last, for a resource from which they are taken.
    create_intents: tuple[str, ...] = ()

    @classmethod
    def begin(cls, resource: LifecycleHook) -> Self:
        """Return the memory of a resource that is new to this process; an intent found on it is a former process's."""
        return cls(
            look_before_create=resource.has_intended,
            may_have_created=bool(resource.create_intents),
            create_intents=resource.create_intents,
        )


class Reconciler:
    """Makes passes: observe, decide, act, write the status if it changed, say when to look again."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        access: Access,
        timing: Timing,
        find_rivals: Callable[[LifecycleHook], Awaitable[Iterable[LifecycleHook]]],
    ) -> None:
        """
        Args:
            kubernetes: where to write.
            access: who may call which project.
            timing: how long to wait.
            find_rivals: returns the other resources that claim the same hook, as they are at this moment.
        """
        self._kubernetes = kubernetes
        self._access = access
        self._timing = timing
        self._find_rivals = find_rivals
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def reconcile(self, resource: LifecycleHook, memory: Memory) -> tuple[LifecycleHook, float]:
        """Make one pass.

        Returns the resource as it then is, and the seconds until the next look.
        Raises KubernetesError if the API server refuses a write or can't be reached.
        """
        if resource.is_released:
            return resource, FOREVER
        if not resource.is_deleting:
            resource = await self._restore_finalizer(resource, memory)
            resource = await self._note_secret(resource)
        if memory.handled is None and _is_settled(resource):
            memory.handled, memory.is_current = resource.request, True
            memory.due_at = self._timing.next_look(resource.claimed_hook[0])
        if memory.is_retry_asked and memory.failures:
            memory.due_at = time.monotonic()
        memory.is_retry_asked = False
        if memory.handled != resource.request:
            memory.failures, memory.due_at, memory.untold = 0, time.monotonic(), None
        if memory.untold is None and (wait := memory.due_at - time.monotonic()) > 0:
            return resource, wait
        # Resources that claim the same hook take turns, so that each sees what the other has done.
        async with self._locks.setdefault(resource.claimed_hook, asyncio.Lock()):
            with ACTIVE_WORKERS.track_inprogress(), RECONCILE_DURATION.time():
                return await self._make_pass(resource, memory)

    async def _restore_finalizer(self, resource: LifecycleHook, memory: Memory) -> LifecycleHook:
        """Put the finalizer on again where it is needed and was taken off, as by a replacement of the whole object."""
        may_have_hook = resource.status.lifecycle_hook or memory.answered or memory.may_have_created
        if resource.has_finalizer or not may_have_hook:
            return resource
        return await self._kubernetes.add_finalizer(resource, resource.create_intents or memory.create_intents)

    async def _note_secret(self, resource: LifecycleHook) -> LifecycleHook:
        """Say in the status, and by an Event, that the Secret is being deleted, which it cannot be before we let go."""
        status = self._with_note(resource, resource.status)
        return await self._patch_status(resource, status) if status != resource.status else resource

    def _with_note(self, resource: LifecycleHook, status: LifecycleHookStatus) -> LifecycleHookStatus:
        if resource.secret is None:
            return status
        note, is_deleted = secret_note(*resource.secret), self._access.is_secret_being_deleted(resource)
        if resource.is_deleting or is_deleted is None:  # what has been said stays
            is_deleted = has_note(resource.status, note)
        return with_note(status, note, is_on=is_deleted)

    async def _patch_status(self, resource: LifecycleHook, status: LifecycleHookStatus) -> LifecycleHook:
        """Write the status if it differs, and tell of a Secret that is being deleted when that is new in it."""
        patch = status_patch(resource.body.get("status"), status)
        if not patch:
            return resource
        note = secret_note(*resource.secret) if resource.secret else ""
        is_new = bool(note) and has_note(status, note) and not has_note(resource.status, note)
        resource = await self._kubernetes.patch_status(resource, patch)
        if is_new:
            await self._tell(resource, Happening("Warning", "SecretInUse", note.strip()))
        return resource

    async def _make_pass(self, resource: LifecycleHook, memory: Memory) -> tuple[LifecycleHook, float]:
        if memory.untold is None or memory.due_at <= time.monotonic():
            memory.untold = None
            outcome = await self._act(resource, memory)
            memory.handled, memory.untold = resource.request, outcome
        else:  # the API server did not take it
            outcome = memory.untold
        if isinstance(outcome, Released):
            await self._kubernetes.remove_finalizer(resource)
            await self._tell(resource, outcome.happening)
        elif isinstance(outcome, Failed) and _is_login_trouble_of_a_look(resource, outcome.error):
            logger.warning("%s: cannot look at the hook: %s", resource.label, outcome.error)
        else:
            try:
                resource = await self._write_status(resource, memory, outcome)
            except GoneError:
                await self._clean_up(resource, memory)
                raise
        RECONCILES.labels(_RESULTS[type(outcome)]).inc()
        memory.untold = None
        return resource, memory.due_at - time.monotonic()

    async def _clean_up(self, resource: LifecycleHook, memory: Memory) -> None:
        """Delete the hook of a resource that went past our finalizer.

        The API server lets a deletion through that meets the finalizer on its way, and anybody may take that off.
        """
        is_ours, memory.untold = memory.answered is not None, None
        try:
            outcome = await self._converge(resource.as_deleted(), memory) if is_ours else None
        except CallError as error:
            logger.error("%s: the resource is gone, and its hook stays in AS: %s", resource.label, error)  # noqa: TRY400
        else:
            if isinstance(outcome, Released) and outcome.happening:
                logger.warning("%s: the resource is gone: %s", resource.label, outcome.happening.message)
        memory.answered = None

    async def _act(self, resource: LifecycleHook, memory: Memory) -> Outcome:
        """Bring AS nearer to what is wanted, and remember when to go on."""
        try:
            outcome = await self._converge(resource, memory)
        except CallError as error:
            memory.failures += 1
            memory.due_at = time.monotonic() + self._timing.after_failure(error, memory.failures)
            return Failed(error)
        memory.failures, memory.is_current = 0, isinstance(outcome, InSync)
        is_done = isinstance(outcome, Released)
        memory.due_at = FOREVER if is_done else self._timing.next_look(resource.claimed_hook[0])
        return outcome

    async def _converge(self, resource: LifecycleHook, memory: Memory) -> InSync | Drifted | Released:
        if resource.is_deleting and resource.is_force_released:
            return Released(
                Happening("Warning", "ForceReleased", "released without a call to AS, as an admin asked for")
            )
        claim = Claim(
            owned=resource.status.lifecycle_hook is not None or memory.answered is not None,
            attempted=memory.may_have_created if resource.is_deleting else memory.look_before_create,
        )
        try:
            spec = _find_spec(resource)
        except InvalidResourceError as error:
            if resource.is_deleting and not (claim.owned or claim.attempted):
                return Released()
            raise InvalidError(Reason.INVALID_SPEC, str(error), operation="validate") from error
        if decide(spec, resource.is_deleting, Unseen.UNKNOWN, claim) is Action.RELEASE:
            return Released()  # asks for no credentials, which may be gone by now
        project = await self._access.find_project(resource, spec)
        if owner := await self._find_owner(resource, project):
            if resource.is_deleting:
                return Released()
            raise WaitingError(
                Reason.CONFLICT,
                f"LifecycleHook {owner} owns the hook {spec.lifecycle_hook_name} of this AS group",
                operation="claim",
            )
        # What differs from an applied spec can only be seen in AS; else what is known tells what there is to change.
        is_known = memory.is_current and not resource.is_applied
        believed = (memory.answered or resource.status.lifecycle_hook) if is_known else None
        memory.is_current = False
        async with project.slot(spec.scaling_group_id):
            return await _Pass(
                self._kubernetes, project, memory, spec, resource, claim, observed=believed or Unseen.UNKNOWN
            ).run()

    async def _find_owner(self, resource: LifecycleHook, project: Project) -> LifecycleHook | None:
        """Return the resource that comes before this one as the owner of the hook, or None.

        Only who can reach the same project counts: nobody can bar others from a hook by naming it.
        """
        for rival in sorted(await self._find_rivals(resource), key=lambda rival: rival.precedence):
            if rival.precedence > resource.precedence:
                return None
            try:
                rival_project_id = rival.status.project_id or await self._find_project_id(rival)
            except (CallError, InvalidResourceError) as error:
                logger.debug("%s: %s does not count as an owner: %s", resource, rival, error)
                continue
            if rival_project_id == await project.get_id():
                return rival
        return None

    async def _find_project_id(self, resource: LifecycleHook) -> str:
        return await (await self._access.find_project(resource, resource.spec())).get_id()

    async def _write_status(
        self, resource: LifecycleHook, memory: Memory, outcome: InSync | Drifted | Failed
    ) -> LifecycleHook:
        """Write the status, and tell of what happened, if there is anything new."""
        status = next_status(resource.status, outcome, resource.generation, datetime.now(UTC), memory.answered)
        written = await self._patch_status(resource, self._with_note(resource, status))
        if written is not resource:
            ready = status.condition("Ready")
            if isinstance(outcome, InSync):
                await self._tell(written, outcome.happening)
            elif ready is not None:
                await self._tell(written, Happening("Warning", ready.reason, ready.message))
        memory.answered = None
        return written

    async def _tell(self, resource: LifecycleHook, happening: Happening | None) -> None:
        if happening is None:
            return
        level = logging.WARNING if happening.type == "Warning" else logging.INFO
        logger.log(level, "%s: %s: %s", resource.label, happening.reason, happening.message)
        try:
            await self._kubernetes.publish_event(resource, happening)
        except KubernetesError as error:  # what it tells of has been done, and stands in the status
            logger.warning("%s: cannot publish an Event: %s", resource.label, error)


@dataclass
class _Pass:
    """The part of a pass that calls AS: does what `decide` says until there is nothing left to do."""

    kubernetes: Kubernetes
    project: Project
    memory: Memory
    spec: LifecycleHookSpec
    resource: LifecycleHook
    claim: Claim
    observed: Hook | Unseen
    happening: Happening | None = None

    async def run(self) -> InSync | Drifted | Released:
        for _ in range(_MAX_STEPS):
            action = decide(
                self.spec, self.resource.is_deleting, self.observed, self.claim, is_applied=self.resource.is_applied
            )
            match action, self.observed:
                case Action.OBSERVE, _:
                    await self._observe(not_before=self.memory.due_at)
                case Action.CREATE, _:
                    await self._create()
                case Action.MODIFY, Hook() as hook:
                    await self._modify(hook)
                case Action.KEEP, Hook() as hook:
                    return await self._keep(hook)
                case Action.REPORT, observed:
                    return self._report(observed)
                case Action.REFUSE, Hook() as hook:
                    await self._disown()
                    raise self._refusal(hook)
                case Action.DELETE, _:
                    return await self._delete()
                case _:
                    return Released()
        raise UnexpectedError(
            Reason.UNEXPECTED_RESPONSE, "AS does not keep the hook as it was asked to", operation="modify"
        )

    @property
    def _path(self) -> tuple[str, str]:
        return self.spec.scaling_group_id, self.spec.lifecycle_hook_name

    async def _observe(self, not_before: float) -> None:
        """Look the hook up, and see whether it comes from this resource's create call."""
        group_id, name = self._path
        try:
            hook = (await self.project.list_hooks(group_id, not_before=not_before)).find(name)
        except CallError as error:
            if error.code not in ABSENT_CODES:
                raise
            hook = None
        self.observed = hook or Unseen.ABSENT
        self.memory.look_before_create = False
        self.claim = Claim(owned=self.claim.owned, attempted=False)
        if hook is None or self.claim.owned or not self.memory.may_have_created:
            return
        if self.resource.fingerprint(hook.hook_fields()) in self.resource.create_intents:
            self._own(hook, "Created", f"created hook {name} in AS group {group_id}")

    async def _create(self) -> None:
        group_id, name = self._path
        fields = self.spec.hook_fields()
        if self.claim.owned:
            await self._make_orphan_proof()
        else:
            await self._make_orphan_proof(fields, keep_former=self.memory.may_have_created)
        try:
            hook = await self.project.create_hook(group_id, name, fields)
        except CallError as error:
            await self._look_after_failed_create(error)
        else:
            if self.claim.owned:
                self._own(hook, "Repaired", "created again in AS, where it was gone")
            else:
                self._own(hook, "Created", f"created hook {name} in AS group {group_id}")

    async def _look_after_failed_create(self, error: CallError) -> None:
        """Look the hook up if the create call may have had its effect all the same, or it was there; else raise."""
        if error.operation == "create" and error.may_have_been_done:
            self.memory.look_before_create = self.memory.may_have_created = True
        elif error.code not in HOOK_MAY_EXIST_CODES:
            raise error
        await self._look_after(error)
        if self.observed is Unseen.ABSENT:
            raise error

    async def _look_after(self, error: CallError) -> None:
        try:
            await self._observe(not_before=time.monotonic())
        except CallError as second_error:
            raise error from second_error

    async def _see_that_it_is_gone(self, error: CallError) -> None:
        """Note that the hook is gone if that is why a call for it failed; else raise."""
        if error.code in ABSENT_CODES:
            self.observed = Unseen.ABSENT
        elif error.http_status == HTTPStatus.NOT_FOUND:  # or the endpoint is wrong: a list that AS answers tells
            await self._look_after(error)
        if self.observed is not Unseen.ABSENT:
            raise error

    async def _modify(self, hook: Hook) -> None:
        changes = find_difference(hook, self.spec)
        is_known_by_intent = self.claim.owned and self.resource.status.lifecycle_hook is None
        await self._make_orphan_proof(self.spec.hook_fields() if is_known_by_intent else None, keep_former=True)
        try:
            modified = await self.project.modify_hook(*self._path, changes)
        except CallError as error:
            await self._see_that_it_is_gone(error)
            return
        fields = ", ".join(map(to_camel, changes))
        if self.claim.owned and self.resource.is_applied:
            self._own(
                modified, "Repaired", f"repaired in AS, where somebody else had set {_describe_drift(hook, self.spec)}"
            )
        elif self.claim.owned:
            self._own(modified, "Modified", f"modified {fields} of hook {hook.lifecycle_hook_name}")
        else:
            self._own(modified, "Adopted", f"adopted hook {hook.lifecycle_hook_name} and modified its {fields}")

    async def _keep(self, hook: Hook) -> InSync:
        await self._make_orphan_proof()
        self.memory.answered = hook
        if not self.claim.owned:
            self._own(hook, "Adopted", f"adopted hook {hook.lifecycle_hook_name}, which is as wanted")
        return InSync(hook, await self.project.get_id(), self.spec.scaling_group_id, self.happening)

    def _report(self, observed: Hook | Unseen) -> Drifted:
        if isinstance(observed, Hook):
            what = f"somebody else has set {_describe_drift(observed, self.spec)} in AS"
        else:
            what = "somebody else has deleted the hook in AS"
        return Drifted(
            observed if isinstance(observed, Hook) else None,
            f"{what}, and spec.driftPolicy is Report. Change the spec, or set spec.driftPolicy to Repair.",
        )

    def _refusal(self, hook: Hook) -> WaitingError:
        fields = ", ".join(map(to_camel, find_difference(hook, self.spec)))
        return WaitingError(
            Reason.ALREADY_EXISTS,
            f"the group has a hook named {hook.lifecycle_hook_name} that is not this resource's"
            + (f" and differs in {fields}" if fields else ""),
            operation="adopt",
        )

    async def _delete(self) -> Released:
        group_id, name = self._path
        try:
            await self.project.delete_hook(group_id, name)
        except CallError as error:
            await self._see_that_it_is_gone(error)
        return Released(Happening("Normal", "Deleted", f"deleted hook {name} from AS group {group_id}"))

    async def _make_orphan_proof(self, fields: Mapping[str, Any] | None = None, *, keep_former: bool = False) -> None:
        """See to it that a crash from here on leaves neither an orphan nor a hook that isn't known for ours.

        Args:
            fields: what the call that is about to go out gives the hook, if that is how the hook will be known.
            keep_former: calls before may have had their effect, or may have it yet.
        """
        intents = self.resource.create_intents
        if fields is not None:
            intent = self.resource.fingerprint(fields)
            former = [each for each in intents if each != intent] if keep_former else []
            intents = (*former, intent)[-_MAX_INTENTS:]
        self.memory.create_intents = intents
        if not self.resource.has_finalizer or self.resource.create_intents != intents:
            self.resource = await self.kubernetes.add_finalizer(self.resource, intents)

    async def _disown(self) -> None:
        """See to it that a hook that isn't this resource's is not taken for it after a restart."""
        self.memory.look_before_create = True
        if self.resource.create_intents and not self.memory.may_have_created:
            self.memory.create_intents = ()
            self.resource = await self.kubernetes.add_finalizer(self.resource, ())

    def _own(self, hook: Hook, reason: str, message: str) -> None:
        self.observed = self.memory.answered = hook
        self.claim = Claim(owned=True, attempted=False)
        self.happening = Happening("Normal", reason, message)
        if reason == "Repaired":
            DRIFT_CORRECTIONS.inc()


def _is_settled(resource: LifecycleHook) -> bool:
    """Whether the status says that this very spec has been brought about."""
    ready = resource.status.condition("Ready")
    is_ready = ready is not None and ready.status == "True"
    return is_ready and resource.is_applied and resource.has_finalizer and not resource.is_deleting


def _find_spec(resource: LifecycleHook) -> LifecycleHookSpec:
    """Return the spec; one that is to be deleted is deleted where it is.

    Raises InvalidResourceError if the spec breaks a rule, or names another hook than it did: an older CRD let it pass.
    """
    spec, status = resource.spec(), resource.status
    if status.lifecycle_hook is None:
        return spec
    for field, now, before in (
        ("scaling_group_id", spec.scaling_group_id, status.scaling_group_id),
        ("lifecycle_hook_name", spec.lifecycle_hook_name, status.lifecycle_hook.lifecycle_hook_name),
    ):
        if before in ("", now):
            continue
        if not resource.is_deleting:
            raise InvalidResourceError(f"spec.{to_camel(field)} cannot be changed: it was {before!r}")
        spec = spec.model_copy(update={field: before})
    return spec


def _is_login_trouble_of_a_look(resource: LifecycleHook, error: CallError) -> bool:
    """Whether all that is wrong is that IAM can't be asked for a token to look at a hook that was fine."""
    return (
        resource.is_applied
        and not resource.is_deleting
        and isinstance(error, TransientError)
        and error.operation == "authenticate"
    )


def _describe_drift(hook: Hook, spec: LifecycleHookSpec) -> str:
    observed = hook.hook_fields()
    return ", ".join(
        f"{to_camel(name)} to {observed[name]!r} instead of {wanted!r}"
        for name, wanted in find_difference(hook, spec).items()
    )
