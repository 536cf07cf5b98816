"""Builds the next status from what came of a reconcile, and the minimal JSON Patch, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from lifecyclehook_operator.api.v1alpha1 import (
    Condition,
    ErrorStatus,
    Hook,
    LifecycleHook,
    LifecycleHookSpec,
    LifecycleHookStatus,
)
from lifecyclehook_operator.cloud.errors import CallError, Reason, TransientError, WaitingError, find_missing_right
from lifecyclehook_operator.controller.plan import find_difference
from lifecyclehook_operator.kube.events import Event


@dataclass(frozen=True)
class InSync:
    """The hook is as wanted."""

    hook: Hook
    project_id: str
    group_id: str
    event: Event | None = None


@dataclass(frozen=True)
class Drifted:
    """Somebody else has changed the hook, or deleted it (None), and the spec says to leave it so."""

    hook: Hook | None
    message: str


@dataclass(frozen=True)
class Released:
    """Nothing in AS is this resource's any more."""

    event: Event | None = None


@dataclass(frozen=True)
class Failed:
    """The hook isn't as wanted, or it isn't known whether it is."""

    error: CallError


Outcome = InSync | Drifted | Released | Failed


def next_status(
    previous: LifecycleHookStatus,
    outcome: InSync | Drifted | Failed,
    generation: int,
    now: datetime,
) -> LifecycleHookStatus:
    """Return the status that follows. What is the same as before stays to the letter, times included."""
    timestamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def condition(type_: str, status: Literal["True", "False", "Unknown"], reason: Reason, message: str) -> Condition:
        before = previous.condition(type_)
        return Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=before.last_transition_time if before and before.status == status else timestamp,
        )

    if isinstance(outcome, InSync):
        return LifecycleHookStatus(
            observed_generation=generation,
            applied_generation=generation,
            conditions=(condition("Ready", "True", Reason.AVAILABLE, _in_sync_message(previous, outcome, generation)),),
            project_id=outcome.project_id,
            scaling_group_id=outcome.group_id,
            lifecycle_hook=outcome.hook,
        )
    if isinstance(outcome, Drifted):
        return previous.model_copy(
            update={
                "observed_generation": generation,
                "conditions": (condition("Ready", "False", Reason.DRIFTED, outcome.message),),
                "lifecycle_hook": outcome.hook or previous.lifecycle_hook,
                "error": None,
            }
        )
    error = outcome.error
    entry = _error_entry(error, previous.error if previous.observed_generation == generation else None, timestamp)
    message = _describe(error, entry)
    conditions = [condition("Ready", _readiness(error, previous), error.reason, message)]
    if error.is_terminal:
        conditions.append(condition("Stalled", "True", error.reason, message))
    changes = {
        "observed_generation": generation,
        "conditions": tuple(conditions),
        "error": entry,
    }
    if error.reason is Reason.CONFLICT:
        changes |= {"lifecycle_hook": None, "applied_generation": None}
    return previous.model_copy(update=changes)


def note_secret(
    obj: LifecycleHook, status: LifecycleHookStatus, *, is_being_deleted: bool | None
) -> LifecycleHookStatus:
    """Return the status with a note on the Ready condition while the object's Secret is being deleted.

    It stays as it is where that is not known (None), and once the object itself is being deleted.
    """
    note = _secret_note(obj)
    if obj.is_deleting or is_being_deleted is None:
        is_being_deleted = _has_note(obj.status, note)
    return _with_note(status, note, is_on=is_being_deleted)


def find_events(obj: LifecycleHook, outcome: InSync | Drifted | Failed, status: LifecycleHookStatus) -> list[Event]:
    """Return the Events of what is new in the status that is about to be written."""
    note = _secret_note(obj)
    events = [outcome.event] if isinstance(outcome, InSync) and outcome.event else []
    before, after = (_with_note(each, note, is_on=False) for each in (obj.status, status))
    ready = after.condition("Ready")
    if not isinstance(outcome, InSync) and ready is not None and before != after:
        events.append(Event("Warning", ready.reason, ready.message))
    if _has_note(status, note) and not _has_note(obj.status, note):
        events.append(Event("Warning", "SecretInUse", note.strip()))
    return events


def _secret_note(obj: LifecycleHook) -> str:
    """Return what the Ready condition says beside all else while the object's Secret is being deleted."""
    if obj.secret is None:
        return ""
    return (
        f" Secret {'/'.join(obj.secret)} is being deleted, but stays until no LifecycleHook needs it. Delete this "
        "resource or change spec.credentialsRef; to keep the Secret, take the operator's finalizer off it and create "
        "it again."
    )


def _has_note(status: LifecycleHookStatus, note: str) -> bool:
    ready = status.condition("Ready")
    return bool(note) and ready is not None and ready.message.endswith(note)


def _with_note(status: LifecycleHookStatus, note: str, *, is_on: bool) -> LifecycleHookStatus:
    conditions = tuple(
        each.model_copy(update={"message": each.message.removesuffix(note) + (note if is_on else "")})
        if each.type == "Ready"
        else each
        for each in status.conditions
    )
    return status.model_copy(update={"conditions": conditions})


def status_patch(current: Mapping[str, Any] | None, wanted: LifecycleHookStatus) -> Sequence[Mapping[str, Any]]:
    """Return the JSON Patch operations (RFC 6902) that make the status as wanted, none if it is."""
    content = wanted.as_object()
    if not current:
        return [{"op": "add", "path": "/status", "value": content}]
    changed = [
        {"op": "add", "path": f"/status/{key}", "value": value}
        for key, value in content.items()
        if current.get(key) != value
    ]
    removed = [{"op": "remove", "path": f"/status/{key}"} for key in current if key not in content]
    return changed + removed


def is_only_unobserved(obj: LifecycleHook, error: CallError) -> bool:
    """Whether all that is wrong is that IAM can't be asked for a token to look at a hook that was fine."""
    return (
        obj.is_applied
        and not obj.is_deleting
        and isinstance(error, TransientError)
        and error.operation == "authenticate"
    )


def already_exists(hook: Hook, spec: LifecycleHookSpec) -> WaitingError:
    """Return the error that says that the hook is somebody else's."""
    fields = ", ".join(map(to_camel, find_difference(hook, spec)))
    return WaitingError(
        Reason.ALREADY_EXISTS,
        f"the group has a hook named {hook.lifecycle_hook_name} that is not this resource's"
        + (f" and differs in {fields}" if fields else ""),
        operation="adopt",
    )


def conflict(owner: LifecycleHook, spec: LifecycleHookSpec) -> WaitingError:
    """Return the error that says that the hook is another resource's."""
    message = f"LifecycleHook {owner} owns the hook {spec.lifecycle_hook_name} of this AS group"
    return WaitingError(Reason.CONFLICT, message, operation="claim")


def describe_difference(hook: Hook, spec: LifecycleHookSpec) -> str:
    """Return which fields of the hook have another value than the spec, and which."""
    observed = hook.hook_fields()
    return ", ".join(
        f"{to_camel(name)} to {observed[name]!r} instead of {wanted!r}"
        for name, wanted in find_difference(hook, spec).items()
    )


def describe_drift(hook: Hook | None, spec: LifecycleHookSpec) -> str:
    """Return what somebody else has done to the hook, and what to do about it."""
    if hook is None:
        what = "somebody else has deleted the hook in AS"
    else:
        what = f"somebody else has set {describe_difference(hook, spec)} in AS"
    return f"{what}, and spec.driftPolicy is Report. Change the spec, or set spec.driftPolicy to Repair."


def _in_sync_message(previous: LifecycleHookStatus, outcome: InSync, generation: int) -> str:
    """Return what the Ready condition says; what it said of a repair stays until something else happens."""
    before = previous.condition("Ready")
    if outcome.event is not None and outcome.event.reason == "Repaired":
        return f"The hook in AS is as wanted, since it was {outcome.event.message}."
    if before is not None and before.status == "True" and before.observed_generation == generation:
        return before.message
    return "The hook in AS is as wanted."


def _readiness(error: CallError, previous: LifecycleHookStatus) -> Literal["False", "Unknown"]:
    before = previous.condition("Ready")
    was_fine = before is not None and before.status in ("True", "Unknown")
    return "Unknown" if was_fine and isinstance(error, TransientError) else "False"


def _error_entry(error: CallError, previous: ErrorStatus | None, timestamp: str) -> ErrorStatus:
    """Return the entry for an error; the same error, met again, keeps its first time and request ID."""
    entry = ErrorStatus(
        operation=error.operation,
        http_status=error.http_status,
        code=error.code,
        message=error.message,
        request_id=error.request_id,
        time=timestamp,
        retry=error.retry,
    )
    if previous is not None and _identity(previous) == _identity(entry):
        # What the cloud or the way to it says may differ from try to try; what we say names what is wrong right now.
        is_ours = error.http_status is None and not isinstance(error, TransientError)
        return previous.model_copy(update={"message": error.message}) if is_ours else previous
    return entry


def _identity(entry: ErrorStatus) -> tuple[object, ...]:
    right = find_missing_right(entry.operation, entry.code, entry.message)
    return entry.operation, entry.http_status, entry.code, entry.retry, right


def _describe(error: CallError, entry: ErrorStatus) -> str:
    answer = " ".join(str(part) for part in (entry.http_status, entry.code) if part)
    return f"{entry.operation}: {entry.message.rstrip('.')}{f' ({answer})' if answer else ''}. {error.advice}"
