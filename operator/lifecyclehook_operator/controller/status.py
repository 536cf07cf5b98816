"""Builds the next status, the minimal JSON Patch and the Events from the outcome of a reconcile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from lifecyclehook_operator.api.callback import LifecycleCallbackStatus
from lifecyclehook_operator.api.v1alpha1 import (
    PAUSED_ANNOTATION,
    Condition,
    ErrorStatus,
    Hook,
    LifecycleHook,
    LifecycleHookSpec,
    LifecycleHookStatus,
    format_time,
)
from lifecyclehook_operator.cloud.errors import (
    CallError,
    Reason,
    TransientError,
    WaitingError,
    find_missing_right,
    sanitize,
)
from lifecyclehook_operator.controller.plan import find_difference
from lifecyclehook_operator.kube.events import Event

#: The last sentence of a failure's message, by `CallError.retry`; the intervals are options.
_RETRIES = {
    "Never": "",
    "Slow": "The operator retries every few minutes.",
    "Backoff": "The operator retries automatically.",
}
_UP_TO_DATE = "The lifecycle hook is up to date."
#: The reason of the Event about a hook that was changed or deleted outside Kubernetes and has been restored.
DRIFT_CORRECTED = "DriftCorrected"
#: How much of each old and new value is shown.
_SHOWN_CHARACTERS = 100
#: The condition that says whether the status shows the suspended instances as AS lists them.
SUSPENSIONS_KNOWN = "SuspensionsKnown"


@dataclass(frozen=True)
class InSync:
    """The hook matches the spec."""

    hook: Hook
    project_id: str
    group_id: str
    event: Event | None = None


@dataclass(frozen=True)
class Drifted:
    """The hook was changed outside Kubernetes, or deleted (None), and driftPolicy is Report."""

    hook: Hook | None
    message: str


@dataclass(frozen=True)
class Released:
    """This resource owns nothing in AS any more, so its finalizer may go."""

    event: Event | None = None


@dataclass(frozen=True)
class Failed:
    """The hook doesn't match the spec, or nobody knows whether it does."""

    error: CallError
    #: The credentials, project and region that the failed call used; empty if that explains nothing.
    context: str = ""


@dataclass(frozen=True)
class Paused:
    """Nobody knows whether the hook matches the spec: an annotation asks for no calls."""

    message: str


Outcome = InSync | Drifted | Released | Failed | Paused


def next_status(
    previous: LifecycleHookStatus,
    outcome: InSync | Drifted | Failed | Paused,
    generation: int,
    now: datetime,
) -> LifecycleHookStatus:
    """Return the next status. What has not changed is kept exactly, times included."""
    timestamp = format_time(now)

    def condition(type_: str, status: Literal["True", "False", "Unknown"], reason: Reason, message: str) -> Condition:
        return Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=timestamp,
        ).since(previous.condition(type_))

    # What is known of suspended instances is another's to say.
    others = tuple(each for each in previous.conditions if each.type == SUSPENSIONS_KNOWN)
    if isinstance(outcome, InSync):
        message = _in_sync_message(previous, outcome, generation)
        return LifecycleHookStatus(
            observed_generation=generation,
            applied_generation=generation,
            conditions=(condition("Ready", "True", Reason.AVAILABLE, message), *others),
            project_id=outcome.project_id,
            scaling_group_id=outcome.group_id,
            lifecycle_hook=outcome.hook,
            suspended_instances=previous.suspended_instances,
        )
    if isinstance(outcome, Drifted):
        return previous.model_copy(
            update={
                "observed_generation": generation,
                "conditions": (condition("Ready", "False", Reason.DRIFTED, outcome.message), *others),
                "lifecycle_hook": _clean(outcome.hook) if outcome.hook else previous.lifecycle_hook,
                "error": None,
            }
        )
    if isinstance(outcome, Paused):
        return previous.model_copy(
            update={
                "observed_generation": generation,
                "conditions": (condition("Ready", "Unknown", Reason.PAUSED, outcome.message),),
                "suspended_instances": None,  # nobody looks at them either
                "error": None,
            }
        )
    error = outcome.error
    entry = error_entry(error, previous.error if previous.observed_generation == generation else None, timestamp)
    message = describe_error(error, entry, outcome.context)
    readiness = _readiness(error, previous)
    conditions = [condition("Ready", readiness, error.reason, message)]
    if error.is_terminal and readiness == "False":
        conditions.append(condition("Stalled", "True", error.reason, message))
    changes = {
        "observed_generation": generation,
        "conditions": (*conditions, *others),
        "error": entry,
    }
    if error.reason is Reason.CONFLICT:
        changes |= {"lifecycle_hook": None, "applied_generation": None}
    return previous.model_copy(update=changes)


def find_changes(
    obj: LifecycleHook, outcome: InSync | Drifted | Failed | Paused, *, is_secret_deleted: bool | None
) -> tuple[Sequence[Mapping[str, Any]], list[Event]]:
    """Return the patch of an object's status, empty if nothing changes, and the Events to publish with it.

    Say whether the object's Secret is being deleted, None if that is not known.
    """
    status = next_status(obj.status, outcome, obj.generation, datetime.now(UTC))
    status = note_secret(obj, status, is_being_deleted=is_secret_deleted)
    patch = status_patch(obj.body.get("status"), status)
    return patch, find_events(obj, outcome, status) if patch else []


def note_secret(
    obj: LifecycleHook, status: LifecycleHookStatus, *, is_being_deleted: bool | None
) -> LifecycleHookStatus:
    """Return the status with a note in the Ready message while the object's Secret is being deleted.

    The note stays as it is if that is not known (None), or if the object itself is being deleted.
    """
    note = _secret_note(obj)
    if obj.is_deleting or is_being_deleted is None:
        is_being_deleted = _has_note(obj.status, note)
    return _with_note(status, note, is_on=is_being_deleted)


def find_events(
    obj: LifecycleHook, outcome: InSync | Drifted | Failed | Paused, status: LifecycleHookStatus
) -> list[Event]:
    """Return the Events to publish with a status that is about to be written."""
    note = _secret_note(obj)
    events = []
    before, after = (_with_note(each, note, is_on=False) for each in (obj.status, status))
    ready = after.condition("Ready")
    if was_paused(before) and not isinstance(outcome, Paused):
        events.append(Event("Normal", "Resumed", "The operator works on this resource again"))
    if isinstance(outcome, InSync):
        events += [event for event in [outcome.event or _find_recovery(before)] if event]
    elif isinstance(outcome, Paused):
        events += [Event("Normal", "Paused", outcome.message)] if before.conditions != after.conditions else []
    elif ready is not None and before != after:
        events.append(Event("Warning", ready.reason, ready.message))
    if _has_note(status, note) and not _has_note(obj.status, note):
        events.append(Event("Warning", "SecretInUse", note.strip()))
    return events


def _find_recovery(before: LifecycleHookStatus) -> Event | None:
    """Return the Event that ends a failure or a drift, if there was one."""
    ready = before.condition("Ready")
    if ready is None or ready.status == "True" or was_paused(before):
        return None
    failure = f"{ready.reason}, {_describe_failure(before.error)}" if before.error else ready.reason
    return Event("Normal", "Recovered", f"The lifecycle hook is up to date again. Before: {failure}.")


def _secret_note(obj: LifecycleHook) -> str:
    """Return what the Ready message adds while the object's Secret is being deleted."""
    if obj.secret is None:
        return ""
    return (
        f" Secret {'/'.join(obj.secret)} is being deleted, but stays until no LifecycleHook needs it. Delete this "
        "resource or change spec.credentialsRef; to keep the Secret, remove the operator's finalizer from it and "
        "create it again."
    )


def _has_note(status: LifecycleHookStatus, note: str) -> bool:
    ready = status.condition("Ready")
    return bool(note) and ready is not None and ready.message.endswith(note)


def _with_note(status: LifecycleHookStatus, note: str, *, is_on: bool) -> LifecycleHookStatus:
    if not note:
        return status
    conditions = tuple(
        each.model_copy(update={"message": each.message.removesuffix(note) + (note if is_on else "")})
        if each.type == "Ready"
        else each
        for each in status.conditions
    )
    return status.model_copy(update={"conditions": conditions})


def status_patch(
    current: Mapping[str, Any] | None, wanted: LifecycleHookStatus | LifecycleCallbackStatus
) -> Sequence[Mapping[str, Any]]:
    """Return the JSON Patch operations (RFC 6902) from the current status to the wanted one; none if they are equal."""
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
    """Whether the only failure is that IAM is unavailable, and so a hook that was up to date can't be observed."""
    return (
        obj.is_applied
        and not obj.is_deleting
        and isinstance(error, TransientError)
        and error.operation == "authenticate"
        and not was_paused(obj.status)
    )


def was_paused(status: LifecycleHookStatus) -> bool:
    """Whether the status says that the resource is paused."""
    ready = status.condition("Ready")
    return ready is not None and ready.reason == Reason.PAUSED


def paused(obj: LifecycleHook) -> Paused:
    """Return the outcome for a resource that is paused: what does not happen, and how it does again."""
    what = (
        "this resource and its hook stay" if obj.is_deleting else "the operator neither calls AS nor repairs the hook"
    )
    message = f'Paused by the annotation {PAUSED_ANNOTATION}: {what}. To resume, remove it, or set it to "false".'
    return Paused(f"Being deleted, but {message[0].lower()}{message[1:]}" if obj.is_deleting else message)


def already_exists(hook: Hook, spec: LifecycleHookSpec) -> WaitingError:
    """Return the error for a hook that this resource did not create and may not adopt."""
    fields = ", ".join(map(to_camel, find_difference(hook, spec)))
    message = f"a hook named {hook.lifecycle_hook_name} already exists in the group"
    return WaitingError(
        Reason.ALREADY_EXISTS, message + (f" and differs in {fields}" if fields else ""), operation="adopt"
    )


def conflict(owner: LifecycleHook, spec: LifecycleHookSpec) -> WaitingError:
    """Return the error for a hook that another resource owns."""
    message = f"LifecycleHook {owner} owns hook {spec.lifecycle_hook_name} of this AS group"
    return WaitingError(Reason.CONFLICT, message, operation="claim")


def describe_changes(old: Hook | LifecycleHookSpec, new: Hook | LifecycleHookSpec) -> str:
    """Return the fields that differ, with their old and new values."""
    before, after = old.hook_fields(), new.hook_fields()
    return ", ".join(
        f"{to_camel(name)} {_show(before[name])} -> {_show(after[name])}"
        for name in before
        if before[name] != after[name]
    )


def _clean(hook: Hook) -> Hook:
    """Return a hook that is not as its spec says as a status shows it: its metadata is foreign text."""
    return hook.model_copy(update={"notification_metadata": sanitize(hook.notification_metadata)})


def _show(value: object) -> str:
    return sanitize(str(value), _SHOWN_CHARACTERS) or '""'


def describe_drift(hook: Hook | None, spec: LifecycleHookSpec) -> str:
    """Return what was done to the hook outside Kubernetes, and what the user can do about it."""
    what = (
        "Deleted outside Kubernetes" if hook is None else f"Changed outside Kubernetes: {describe_changes(spec, hook)}"
    )
    return f"{what}. spec.driftPolicy is Report: change the spec, or set spec.driftPolicy to Repair."


def _in_sync_message(previous: LifecycleHookStatus, outcome: InSync, generation: int) -> str:
    """Return the Ready message; a drift correction stays in it until the next change or failure."""
    before = previous.condition("Ready")
    if outcome.event is not None and outcome.event.reason == DRIFT_CORRECTED:
        return f"{_UP_TO_DATE} {outcome.event.message}."
    if before is not None and before.status == "True" and before.observed_generation == generation:
        return before.message
    return _UP_TO_DATE


def _readiness(error: CallError, previous: LifecycleHookStatus) -> Literal["False", "Unknown"]:
    before = previous.condition("Ready")
    was_fine = before is not None and before.status in ("True", "Unknown")
    if was_paused(previous):
        was_fine = previous.lifecycle_hook is not None
    return "Unknown" if was_fine and isinstance(error, TransientError) else "False"


def error_entry(error: CallError, previous: ErrorStatus | None, timestamp: str) -> ErrorStatus:
    """Return the entry for an error; an error that repeats keeps the time and request ID of its first occurrence."""
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
        # The text of a response or of a lost connection may differ from retry to retry; our own text is deterministic.
        is_ours = error.http_status is None and not isinstance(error, TransientError)
        return previous.model_copy(update={"message": error.message}) if is_ours else previous
    return entry


def _identity(entry: ErrorStatus) -> tuple[object, ...]:
    right = find_missing_right(entry.operation, entry.code, entry.message)
    return entry.operation, entry.http_status, entry.code, entry.retry, right


def describe_error(error: CallError, entry: ErrorStatus, context: str = "") -> str:
    """Return what a condition says of an error: what failed and why, with what, and what to do."""
    used = f"Used {context}." if context else ""
    return " ".join(filter(None, (f"{_describe_failure(entry)}.", used, error.advice, _RETRIES[error.retry])))


def _describe_failure(entry: ErrorStatus) -> str:
    response = " ".join(str(part) for part in (entry.http_status, entry.code) if part)
    return f"{entry.operation}: {entry.message.rstrip('.')}{f' ({response})' if response else ''}"
