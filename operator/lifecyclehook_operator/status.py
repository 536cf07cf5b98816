"""From what came of a pass, and the status before it, to the smallest write of the status, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from lifecyclehook_operator.errors import CallError, Reason, TransientError, find_missing_right
from lifecyclehook_operator.resource import Condition, ErrorStatus, Hook, LifecycleHookStatus


@dataclass(frozen=True)
class Happening:
    """Something that users are told of by an Event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class InSync:
    """The hook is as wanted."""

    hook: Hook
    project_id: str
    group_id: str
    happening: Happening | None = None


@dataclass(frozen=True)
class Drifted:
    """Somebody else has changed the hook, or deleted it (None), and the spec says to leave it so."""

    hook: Hook | None
    message: str


@dataclass(frozen=True)
class Released:
    """Nothing in AS is this resource's any more."""

    happening: Happening | None = None


@dataclass(frozen=True)
class Failed:
    """The hook isn't as wanted, or it isn't known whether it is."""

    error: CallError


def next_status(
    previous: LifecycleHookStatus,
    outcome: InSync | Drifted | Failed,
    generation: int,
    now: datetime,
    answered: Hook | None = None,
) -> LifecycleHookStatus:
    """Return the status that follows. What is the same as before stays to the letter, times included.

    A hook that AS has answered as the resource's is told of even if the pass failed later: by that it stays known.
    """
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
    if error.needs_human:
        conditions.append(condition("Stalled", "True", error.reason, message))
    changes = {
        "observed_generation": generation,
        "conditions": tuple(conditions),
        "lifecycle_hook": answered or previous.lifecycle_hook,
        "error": entry,
    }
    if error.reason is Reason.CONFLICT:
        changes |= {"lifecycle_hook": None, "applied_generation": None}
    return previous.model_copy(update=changes)


def secret_note(namespace: str, name: str) -> str:
    """Return what the Ready condition says beside all else while the resource's Secret is being deleted."""
    return (
        f" Secret {namespace}/{name} is being deleted, but stays until no LifecycleHook needs it. Delete this resource "
        "or change spec.credentialsRef; to keep the Secret, take the operator's finalizer off it and create it again."
    )


def has_note(status: LifecycleHookStatus, note: str) -> bool:
    """Return whether the Ready condition has a note."""
    ready = status.condition("Ready")
    return ready is not None and ready.message.endswith(note)


def with_note(status: LifecycleHookStatus, note: str, *, is_on: bool) -> LifecycleHookStatus:
    """Return the status with a note at the end of what the Ready condition says, or without it."""
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


def _in_sync_message(previous: LifecycleHookStatus, outcome: InSync, generation: int) -> str:
    """Return what the Ready condition says; what it said of a repair stays until something else happens."""
    before = previous.condition("Ready")
    if outcome.happening is not None and outcome.happening.reason == "Repaired":
        return f"The hook in AS is as wanted, since it was {outcome.happening.message}."
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
