"""The next action for a hook: a table of spec, observed hook and ownership."""

from enum import Enum, auto
from typing import Any

from lifecyclehook_operator.api.v1alpha1 import Hook, LifecycleHookSpec


class Action(Enum):
    """The next action."""

    CREATE = auto()
    MODIFY = auto()
    KEEP = auto()
    REPORT = auto()
    REFUSE = auto()


def plan(spec: LifecycleHookSpec, hook: Hook | None, *, is_owned: bool, is_applied: bool) -> Action:
    """Return the action that brings the hook closer to the spec.

    Args:
        spec: the desired hook.
        hook: the observed hook, None if there is none.
        is_owned: this resource has created or adopted the hook, whether it still exists or not.
        is_applied: this very spec has been applied before, so any difference is drift.
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
    """Return the fields in which the hook differs from the spec, with the values of the spec, as AS names them."""
    observed = hook.hook_fields()
    return {name: value for name, value in spec.hook_fields().items() if observed[name] != value}
