"""What to do next about a hook: a table of what is wanted, what was seen, and whose it is."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from lifecyclehook_operator.resource import Hook, LifecycleHookSpec


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
    REPORT = auto()
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


def decide(
    spec: LifecycleHookSpec, is_deleting: bool, observed: Hook | Unseen, claim: Claim, *, is_applied: bool = False
) -> Action:
    """Return what brings the hook nearer to what is wanted of it: there as the spec says, or gone if is_deleting.

    Where this very spec has been applied before (is_applied), what differs has drifted.
    """
    leave_drift = claim.owned and is_applied and spec.drift_policy == "Report"
    match observed:
        case _ if is_deleting:
            return _decide_deletion(spec, observed, claim)
        case Unseen.UNKNOWN:
            return Action.OBSERVE if claim.owned or claim.attempted else Action.CREATE
        case Unseen.ABSENT:
            return Action.REPORT if leave_drift else Action.CREATE
        case Hook() if not find_difference(observed, spec):
            return Action.KEEP if claim.owned or spec.adoption_policy != "Never" else Action.REFUSE
        case _ if leave_drift:
            return Action.REPORT
        case _:
            return Action.MODIFY if claim.owned or spec.adoption_policy == "Always" else Action.REFUSE


def _decide_deletion(spec: LifecycleHookSpec, observed: Hook | Unseen, claim: Claim) -> Action:
    if spec.deletion_policy == "Retain" or observed is Unseen.ABSENT:
        return Action.RELEASE
    if claim.owned:
        return Action.DELETE
    return Action.OBSERVE if claim.attempted else Action.RELEASE


def find_difference(hook: Hook, spec: LifecycleHookSpec) -> dict[str, Any]:
    """Return the fields in which the hook isn't as wanted, as they are wanted, as AS names them."""
    observed = hook.hook_fields()
    return {name: value for name, value in spec.hook_fields().items() if observed[name] != value}
