"""What to do next about a hook that is wanted: a table of what is wanted, what was observed, and whose it is."""

from enum import Enum, auto
from typing import Any

from lifecyclehook_operator.api.v1alpha1 import Hook, LifecycleHookSpec


class Action(Enum):
    """What to do next."""

    CREATE = auto()
    MODIFY = auto()
    KEEP = auto()
    REPORT = auto()
    REFUSE = auto()


def plan(spec: LifecycleHookSpec, hook: Hook | None, *, is_owned: bool, is_applied: bool) -> Action:
    """Return what brings the hook nearer to the spec.

    Args:
        spec: what is wanted.
        hook: what AS has, None: nothing.
        is_owned: the hook, there or not, is this resource's: created by it, or adopted.
        is_applied: this very spec has been applied before, and so what differs has drifted.
    """
    leave_drift = is_owned and is_applied and spec.drift_policy == "Report"
    if hook is None:
        return Action.REPORT if leave_drift else Action.CREATE
    if not find_difference(hook, spec):
        return Action.KEEP if is_owned or spec.adoption_policy != "Never" else Action.REFUSE
    if leave_drift:
        return Action.REPORT
    return Action.MODIFY if is_owned or spec.adoption_policy == "Always" else Action.REFUSE


def find_difference(hook: Hook, spec: LifecycleHookSpec) -> dict[str, Any]:
    """Return the fields in which the hook isn't as wanted, as they are wanted, as AS names them."""
    observed = hook.hook_fields()
    return {name: value for name, value in spec.hook_fields().items() if observed[name] != value}
