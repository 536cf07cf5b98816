"""Desired is the resource, observed is what AS answers, and one pass brings the second to the first.

`decide` is the table of that, `Reconciler` carries out what it says. Neither knows what woke the pass up.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Protocol, Self

from pydantic.alias_generators import to_camel

from lifecyclehook_operator.autoscaling import Project, Projects
from lifecyclehook_operator.credentials import SECRET_KEY, Credentials, read_clouds_yaml
from lifecyclehook_operator.errors import (
    ABSENT_CODES,
    HOOK_MAY_EXIST_CODES,
    CallError,
    CredentialsError,
    InvalidError,
    KubernetesError,
    Reason,
    UnexpectedError,
    WaitingError,
)
from lifecyclehook_operator.resource import Hook, InvalidResourceError, LifecycleHook, LifecycleHookSpec
from lifecyclehook_operator.status import Failed, Happening, InSync, Released, next_status, status_patch

logger = logging.getLogger(__name__)

FOREVER = float("inf")
#: A pass takes fewer steps than this, unless AS does not answer what it was asked for.
_MAX_STEPS = 6


class Unseen(Enum):
    """Why there is no hook to look at."""

    UNKNOWN = auto()
    ABSENT = auto()


class Action(Enum):
    """What to do next."""

    OBSERVE = auto()
    CREATE = auto()
    MODIFY = auto()
    KEEP = auto()
    REFUSE = auto()
    DELETE = auto()
    RELEASE = auto()


@dataclass(frozen=True)
class Claim:
    """What ties a hook to the resource."""

    #: The hook is this resource's: created by it, or adopted.
    owned: bool
    #: A create call of this resource may have gone out, and what came of it is not known.
    attempted: bool


def decide(spec: LifecycleHookSpec, is_deleting: bool, observed: Hook | Unseen, claim: Claim) -> Action:
    """Return what brings the hook nearer to what is wanted of it: there as the spec says, or gone if is_deleting."""
    match observed:
        case _ if is_deleting:
            return _decide_deletion(spec, observed, claim)
        case Unseen.UNKNOWN:
            return Action.OBSERVE if claim.owned or claim.attempted else Action.CREATE
        case Unseen.ABSENT:
            return Action.CREATE
        case Hook() if not _difference(observed, spec):
            return Action.KEEP if claim.owned or spec.adoption_policy != "Never" else Action.REFUSE
        case _:
            return Action.MODIFY if claim.owned or spec.adoption_policy == "Always" else Action.REFUSE


def _decide_deletion(spec: LifecycleHookSpec, observed: Hook | Unseen, claim: Claim) -> Action:
    if spec.deletion_policy == "Retain" or observed is Unseen.ABSENT:
        return Action.RELEASE
    if claim.owned:
        return Action.DELETE
    return Action.OBSERVE if claim.attempted else Action.RELEASE


class Kubernetes(Protocol):
    """What a pass needs of the API server. Each raises KubernetesError; writes return the resource as it then is."""

    async def add_finalizer(self, resource: LifecycleHook, create_intent: str | None) -> LifecycleHook:
        """Put on the finalizer, and the fingerprint of the create call that is about to go out."""

    async def remove_finalizer(self, resource: LifecycleHook) -> None:
        """Let the API server delete the object."""

    async def patch_status(self, resource: LifecycleHook, patch: Sequence[Mapping[str, Any]]) -> LifecycleHook:
        """Apply JSON Patch operations to the status."""

    async def publish_event(self, resource: LifecycleHook, happening: Happening) -> None:
        """Publish an Event about the resource."""

    async def read_secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the decoded content of a Secret, or None if it does not exist."""


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds, before jitter."""

    resync: float
    backoff_min: float
    backoff_max: float
    slow_min: float
    slow_max: float

    def after_failure(self, error: CallError, failures: int) -> float:
        """Return the wait after so many failures in a row: at least what the cloud's Retry-After asks for."""
        if error.retry == "Never":
            return FOREVER
        least, most = (
            (self.backoff_min, self.backoff_max) if error.retry == "Backoff" else (self.slow_min, self.slow_max)
        )
        return max(jitter(min(most, least * 2.0 ** min(failures - 1, 30))), error.retry_after_seconds or 0)


def jitter(seconds: float) -> float:
    """Return up to a quarter less, so that what failed together does not come back together."""
    return seconds * random.uniform(0.75, 1)  # noqa: S311  (no secret)


@dataclass
class Memory:
    """What is remembered of a resource from pass to pass; nothing that a restart may not lose."""

    #: Generation, and whether it was being deleted, of the resource that the last pass acted upon.
    handled: tuple[int, bool] | None = None
    due_at: float = 0
    failures: int = 0
    #: The hook that AS answered and that is this resource's, until the status says so.
    answered: Hook | None = None
    #: A create call may have gone out whose effect has not been looked up.
    look_before_create: bool = False
    #: A create call may have taken effect although it was never answered so: the fingerprint tells.
    may_have_created: bool = False

    @classmethod
    def begin(cls, resource: LifecycleHook) -> Self:
        """Return the memory of a resource that is new to this process; an intent found on it is a former process's."""
        is_intent_found = resource.create_intent is not None
        return cls(look_before_create=is_intent_found, may_have_created=is_intent_found)


class Reconciler:
    """Makes passes: observe, decide, act, write the status if it changed, say when to look again."""

    def __init__(
        self, kubernetes: Kubernetes, projects: Projects, own_credentials: Credentials | None, timing: Timing
    ) -> None:
        self._kubernetes = kubernetes
        self._projects = projects
        self._own_credentials = own_credentials
        self._timing = timing

    async def reconcile(self, resource: LifecycleHook, memory: Memory) -> tuple[LifecycleHook, float]:
        """Make one pass.

        Returns the resource as it then is, and the seconds until the next look.
        Raises KubernetesError if the API server refuses a write or can't be reached.
        """
        current = (resource.generation, resource.is_deleting)
        if resource.is_deleting and not resource.has_finalizer:
            return resource, FOREVER
        if memory.handled is None and _is_settled(resource):
            memory.handled = current
            memory.due_at = time.monotonic() + self._timing.resync * random.random()  # noqa: S311  (no secret)
        if memory.handled == current and (wait := memory.due_at - time.monotonic()) > 0:
            return resource, wait
        if memory.handled != current:
            memory.failures = 0
        outcome: InSync | Released | Failed
        try:
            outcome = await self._converge(resource, memory, look_first=memory.handled == current)
        except CallError as error:
            outcome = Failed(error)
        if isinstance(outcome, Released):
            await self._kubernetes.remove_finalizer(resource)
            await self._tell(resource, outcome.happening)
            return resource, FOREVER
        resource = await self._write_status(resource, memory, outcome)
        if isinstance(outcome, Failed):
            memory.failures += 1
            delay = self._timing.after_failure(outcome.error, memory.failures)
        else:
            memory.failures = 0
            delay = jitter(self._timing.resync)
        memory.handled = current
        memory.due_at = time.monotonic() + delay
        return resource, delay

    async def _converge(self, resource: LifecycleHook, memory: Memory, *, look_first: bool) -> InSync | Released:
        claim = Claim(
            owned=resource.status.lifecycle_hook is not None or memory.answered is not None,
            attempted=memory.look_before_create,
        )
        try:
            spec = resource.spec()
        except InvalidResourceError as error:
            if resource.is_deleting and not (claim.owned or claim.attempted):
                return Released()
            raise InvalidError(Reason.INVALID_SPEC, str(error), operation="validate") from error
        if decide(spec, resource.is_deleting, Unseen.UNKNOWN, claim) is Action.RELEASE:
            return Released()  # asks for no credentials, which may be gone by now
        project = await self._find_project(resource, spec)
        believed = None if look_first else memory.answered or resource.status.lifecycle_hook
        async with project.slots:
            return await _Pass(
                self._kubernetes, project, memory, spec, resource, claim, observed=believed or Unseen.UNKNOWN
            ).run()

    async def _find_project(self, resource: LifecycleHook, spec: LifecycleHookSpec) -> Project:
        """Return the project to work in.

        Raises CredentialsError if there are no credentials, or if they are for another project than the hook lives in.
        """
        project = self._projects.get(await self._find_credentials(resource.namespace, spec))
        project_id = await project.get_id()
        if resource.status.project_id not in ("", project_id):
            raise CredentialsError(
                Reason.CREDENTIALS_INVALID,
                f"the credentials are for project {project_id}, but the hook lives in {resource.status.project_id}",
                operation="authenticate",
            )
        return project

    async def _find_credentials(self, namespace: str, spec: LifecycleHookSpec) -> Credentials:
        reference = spec.credentials_ref
        if reference is None:
            if self._own_credentials is None:
                raise CredentialsError(
                    Reason.CREDENTIALS_NOT_FOUND,
                    "spec.credentialsRef names no Secret, and the operator has no credentials of its own",
                    operation="authenticate",
                )
            return self._own_credentials
        source = f"Secret {namespace}/{reference.secret_name}"
        secret = await self._kubernetes.read_secret(namespace, reference.secret_name)
        if secret is None:
            raise CredentialsError(Reason.CREDENTIALS_NOT_FOUND, f"{source} does not exist", operation="authenticate")
        if SECRET_KEY not in secret:
            raise CredentialsError(
                Reason.CREDENTIALS_INVALID, f"{source} has no key {SECRET_KEY}", operation="authenticate"
            )
        return read_clouds_yaml(secret[SECRET_KEY], reference.cloud_name, source)

    async def _write_status(self, resource: LifecycleHook, memory: Memory, outcome: InSync | Failed) -> LifecycleHook:
        """Write the status, and tell of what happened, if there is anything new."""
        status = next_status(resource.status, outcome, resource.generation, datetime.now(UTC))
        if patch := status_patch(resource.body.get("status"), status):
            resource = await self._kubernetes.patch_status(resource, patch)
            ready = status.condition("Ready")
            if isinstance(outcome, InSync):
                await self._tell(resource, outcome.happening)
            elif ready is not None:
                await self._tell(resource, Happening("Warning", ready.reason, ready.message))
        memory.answered = None
        return resource

    async def _tell(self, resource: LifecycleHook, happening: Happening | None) -> None:
        if happening is None:
            return
        level = logging.WARNING if happening.type == "Warning" else logging.INFO
        logger.log(level, "%s: %s: %s", resource, happening.reason, happening.message)
        try:
            await self._kubernetes.publish_event(resource, happening)
        except KubernetesError as error:  # what it tells of has been done, and stands in the status
            logger.warning("%s: cannot publish an Event: %s", resource, error)


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

    async def run(self) -> InSync | Released:
        for _ in range(_MAX_STEPS):
            match decide(self.spec, self.resource.is_deleting, self.observed, self.claim), self.observed:
                case Action.OBSERVE, _:
                    await self._observe()
                case Action.CREATE, _:
                    await self._create()
                case Action.MODIFY, Hook() as hook:
                    await self._modify(hook)
                case Action.KEEP, Hook() as hook:
                    return await self._keep(hook)
                case Action.REFUSE, Hook() as hook:
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

    async def _observe(self) -> None:
        """Look the hook up, and see whether it comes from this resource's create call."""
        group_id, name = self._path
        try:
            hooks = await self.project.list_hooks(group_id)
        except CallError as error:
            if error.code not in ABSENT_CODES:
                raise
            hooks = []
        hook = next((hook for hook in hooks if hook.lifecycle_hook_name == name), None)
        self.observed = hook or Unseen.ABSENT
        self.memory.look_before_create = False
        self.claim = Claim(owned=self.claim.owned, attempted=False)
        if hook is None or self.claim.owned or not self.memory.may_have_created:
            return
        if self.resource.fingerprint(hook.hook_fields()) == self.resource.create_intent:
            self._own(hook, "Created", f"created hook {name} in AS group {group_id}")

    async def _create(self) -> None:
        group_id, name = self._path
        fields = self.spec.hook_fields()
        await self._make_orphan_proof(
            self.resource.create_intent if self.claim.owned else self.resource.fingerprint(fields)
        )
        try:
            hook = await self.project.create_hook(group_id, name, fields)
        except CallError as error:
            await self._look_after_failed_create(error)
        else:
            self._own(hook, "Created", f"created hook {name} in AS group {group_id}")

    async def _look_after_failed_create(self, error: CallError) -> None:
        """Look the hook up if the create call may have had its effect all the same, or it was there; else raise."""
        if error.operation == "create" and error.may_have_been_done:
            self.memory.look_before_create = self.memory.may_have_created = True
        elif error.code not in HOOK_MAY_EXIST_CODES:
            raise error
        try:
            await self._observe()
        except CallError as second_error:
            raise error from second_error
        if self.observed is Unseen.ABSENT:
            raise error

    async def _modify(self, hook: Hook) -> None:
        changes = _difference(hook, self.spec)
        await self._make_orphan_proof(self.resource.create_intent)
        try:
            modified = await self.project.modify_hook(*self._path, changes)
        except CallError as error:
            if error.code not in ABSENT_CODES:
                raise
            self.observed = Unseen.ABSENT
            return
        fields = ", ".join(map(to_camel, changes))
        if self.claim.owned:
            self._own(modified, "Modified", f"modified {fields} of hook {hook.lifecycle_hook_name}")
        else:
            self._own(modified, "Adopted", f"adopted hook {hook.lifecycle_hook_name} and modified its {fields}")

    async def _keep(self, hook: Hook) -> InSync:
        await self._make_orphan_proof(self.resource.create_intent)
        if not self.claim.owned:
            self._own(hook, "Adopted", f"adopted hook {hook.lifecycle_hook_name}, which is as wanted")
        return InSync(hook, await self.project.get_id(), self.happening)

    def _refusal(self, hook: Hook) -> WaitingError:
        fields = ", ".join(map(to_camel, _difference(hook, self.spec)))
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
            if error.code not in ABSENT_CODES:
                raise
        return Released(Happening("Normal", "Deleted", f"deleted hook {name} from AS group {group_id}"))

    async def _make_orphan_proof(self, create_intent: str | None) -> None:
        """See to it that a crash from here on leaves neither an orphan nor a hook that isn't known for ours."""
        if not self.resource.has_finalizer or self.resource.create_intent != create_intent:
            self.resource = await self.kubernetes.add_finalizer(self.resource, create_intent)

    def _own(self, hook: Hook, reason: str, message: str) -> None:
        self.observed = self.memory.answered = hook
        self.claim = Claim(owned=True, attempted=False)
        self.happening = Happening("Normal", reason, message)


def _is_settled(resource: LifecycleHook) -> bool:
    """Whether the status says that this very spec has been brought about."""
    ready = resource.status.condition("Ready")
    return (
        not resource.is_deleting
        and resource.has_finalizer
        and resource.status.observed_generation == resource.generation
        and ready is not None
        and ready.status == "True"
    )


def _difference(hook: Hook, spec: LifecycleHookSpec) -> dict[str, Any]:
    """Return the fields in which the hook isn't as wanted, as they are wanted, as AS names them."""
    observed = hook.hook_fields()
    return {name: value for name, value in spec.hook_fields().items() if observed[name] != value}
