"""Who owns a hook that several objects claim."""

from collections.abc import Iterable
from dataclasses import dataclass

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.controller.state import ObjectState
from lifecyclehook_operator.controller.status import InSync


@dataclass(frozen=True)
class Claim:
    """An object that is for a hook, and what is known of its right to it."""

    obj: LifecycleHook
    state: ObjectState | None = None

    @property
    def _in_sync(self) -> InSync | None:
        """What AS has answered and the status does not say yet."""
        report = self.state.report if self.state is not None else None
        return report.outcome if report is not None and isinstance(report.outcome, InSync) else None

    @property
    def project_id(self) -> str:
        """The project in which a call has found the object's hook, empty if none has."""
        return self.obj.status.project_id or (self._in_sync.project_id if self._in_sync else "")

    @property
    def order(self) -> tuple[bool, str, str]:
        """Orders the claims on one hook, the owner's first: who has it, then who is older."""
        has_hook = self.obj.status.lifecycle_hook is not None or self._in_sync is not None
        return not has_hook, self.obj.metadata["creationTimestamp"], self.obj.uid


def find_owner(own: Claim, project_id: str, others: Iterable[Claim]) -> LifecycleHook | None:
    """Return the object that owns a hook of a project, or None if that is the one whose own claim is given.

    Only a claim that a call has proven counts, whatever the credentials say: nobody bars others by naming their hook.
    """
    proven = [claim for claim in others if claim.project_id == project_id and claim.order < own.order]
    return min(proven, key=lambda claim: claim.order).obj if proven else None
