"""What to do next about a callback: a table of what is wanted, what was pinned, and what AS lists of the instance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lifecyclehook_operator.api.callback import CallbackTarget
from lifecyclehook_operator.api.v1alpha1 import format_time
from lifecyclehook_operator.cloud.instances import Suspension

#: An EXTEND adds an hour; a timeout that has grown by half of that or more has been put off.
_GROWN = timedelta(minutes=30)


class CallbackReason(StrEnum):
    """Why a callback is Complete or Failed, beside the reasons of failed calls. docs/reference.md has the comments."""

    #: Complete: AS has accepted the call.
    ACCEPTED = "Accepted"
    #: Complete: the response was lost, but the list of AS shows that the call took effect.
    CONFIRMED = "Confirmed"
    #: Complete: the suspension had already ended with this result.
    ALREADY_DONE = "AlreadyDone"
    #: Complete: the response was lost, and AS does not list the suspension any more.
    PRESUMED = "Presumed"
    #: Waiting: AS lists the instance more than once, or with an unknown status, or another callback for it is in
    #: progress.
    SUSPENSION_UNCLEAR = "SuspensionUnclear"
    #: Waiting: the response to an EXTEND was lost. It is sent again if AS lists no later timeout within twice
    #: --cloud-timeout-seconds.
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    #: Failed: the suspension has ended with another result, or the instance has been suspended again.
    SUSPENSION_ENDED = "SuspensionEnded"
    #: Failed: for one minute, AS has not listed the instance as suspended by this hook.
    NOT_SUSPENDED = "NotSuspended"
    #: Failed: there is no such LifecycleHook, or it has no hook in AS.
    HOOK_NOT_OWNED = "HookNotOwned"
    #: Waiting: the LifecycleHook is paused by the annotation as.otc.t-systems.com/paused.
    HOOK_PAUSED = "HookPaused"
    #: Failed: the AS group does not exist.
    GROUP_NOT_FOUND = "GroupNotFound"
    #: Failed: the spec breaks a rule.
    INVALID_SPEC = "InvalidSpec"
    #: Failed: not done within activeDeadlineSeconds. The message has the last problem.
    DEADLINE_EXCEEDED = "DeadlineExceeded"


@dataclass(frozen=True)
class Pin:
    """Write down which suspension is meant, then call."""

    suspension: Suspension


@dataclass(frozen=True)
class Call:
    """Send the callback for the pinned suspension."""

    suspension: Suspension


@dataclass(frozen=True)
class Complete:
    """The action has been taken."""

    reason: CallbackReason
    message: str
    timeout: datetime | None = None


@dataclass(frozen=True)
class Fail:
    """The action has not been taken, and can't be."""

    reason: CallbackReason
    message: str


@dataclass(frozen=True)
class Wait:
    """Look again; if `is_brief` only for a short while, for AS may not list yet what is new."""

    reason: CallbackReason
    message: str
    is_brief: bool = False


Action = Pin | Call | Complete | Fail | Wait


def next_action(
    wanted: str,
    target: CallbackTarget | None,
    suspensions: Sequence[Suspension],
    *,
    may_have_acted: bool,
    may_act_yet: bool = False,
) -> Action:
    """Return what brings the callback to its end.

    Args:
        wanted: CONTINUE, ABANDON or EXTEND.
        target: the suspension that was pinned, None: none yet.
        suspensions: what AS lists of this instance and this hook, at this moment.
        may_have_acted: a call for the target may have taken effect. False only if it is known that none has.
        may_act_yet: such a call may take effect later than AS has listed this.
    """
    if target is None:
        return _choose(suspensions)
    pinned = next((each for each in suspensions if each.lifecycle_action_key == target.lifecycle_action_key), None)
    if pinned is None:
        return _conclude_without_entry(wanted, suspensions, may_have_acted=may_have_acted)
    has_grown = pinned.timeout - datetime.fromisoformat(target.timeout) >= _GROWN
    if wanted == "EXTEND" and has_grown and may_have_acted:
        return Complete(CallbackReason.CONFIRMED, "AS lists the later timeout.", pinned.timeout)
    if pinned.is_hanging:
        if wanted == "EXTEND" and may_act_yet:  # a second one would add a second hour
            message = "The answer to EXTEND was lost. It is sent again if AS does not list a later timeout soon."
            return Wait(CallbackReason.OUTCOME_UNKNOWN, message)
        return Call(pinned)
    return _conclude(wanted, pinned, may_have_acted=may_have_acted)


def _conclude(wanted: str, pinned: Suspension, *, may_have_acted: bool) -> Action:
    if not pinned.has_ended:
        return _unclear(pinned)
    if pinned.lifecycle_hook_status == wanted:
        reason = CallbackReason.CONFIRMED if may_have_acted else CallbackReason.ALREADY_DONE
        return Complete(reason, f"AS lists that the suspension has ended with {wanted}.")
    return _ended(pinned)


def _choose(suspensions: Sequence[Suspension]) -> Action:
    """Return which suspension to pin: the one that hangs, if there is one and no doubt."""
    hanging = [each for each in suspensions if each.is_hanging]
    if len(hanging) == 1:
        return Pin(hanging[0])
    if hanging:
        message = f"AS lists {len(hanging)} suspensions of this instance by this hook at a time."
        return Wait(CallbackReason.SUSPENSION_UNCLEAR, message)
    if unclear := [each for each in suspensions if not each.has_ended]:
        return _unclear(unclear[0])
    if suspensions:
        last = _ended(max(suspensions, key=lambda each: each.timeout))
        return Wait(last.reason, last.message, is_brief=True)
    return Wait(CallbackReason.NOT_SUSPENDED, "AS does not list the instance as suspended by this hook.", is_brief=True)


def _conclude_without_entry(wanted: str, suspensions: Sequence[Suspension], *, may_have_acted: bool) -> Action:
    if any(each.is_hanging for each in suspensions):
        message = "The suspension has ended, and the instance has been suspended again."
        return Fail(CallbackReason.SUSPENSION_ENDED, f"{message} Create another LifecycleCallback for that.")
    if may_have_acted and wanted != "EXTEND":
        message = "AS does not list the suspension any more, after a call whose answer is not known."
        return Complete(CallbackReason.PRESUMED, message)
    return Fail(CallbackReason.SUSPENSION_ENDED, "AS does not list the suspension any more.")


def _unclear(suspension: Suspension) -> Wait:
    message = f"AS lists the suspension with an unknown status: {suspension.lifecycle_hook_status!r}."
    return Wait(CallbackReason.SUSPENSION_UNCLEAR, message)


def _ended(suspension: Suspension) -> Fail:
    until = format_time(suspension.timeout)
    message = f"The suspension has ended with {suspension.lifecycle_hook_status}; it would have timed out at {until}."
    return Fail(CallbackReason.SUSPENSION_ENDED, message)
