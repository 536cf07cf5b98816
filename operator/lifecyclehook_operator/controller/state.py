"""What is remembered of an object from one reconcile to the next."""

from dataclasses import dataclass

from lifecyclehook_operator.api.v1alpha1 import Hook
from lifecyclehook_operator.controller.status import Outcome

#: How many calls, each with other fields, may be in doubt at a time.
_MAX_FINGERPRINTS = 8


@dataclass(frozen=True)
class Report:
    """What came of a sync, and when the next is due if nothing else asks for one."""

    trigger: tuple[object, ...]
    outcome: Outcome
    requeue_at: float


@dataclass
class ObjectState:
    """What is remembered of an object; a restart finds as much of it as it needs on the object."""

    #: Failed syncs in a row, for the backoff.
    failures: int = 0
    #: What the API server has not accepted yet.
    report: Report | None = None
    #: The hook as AS last answered it, as far as calls of ours go. None: look first.
    observed: Hook | None = None
    #: What identifies the hook as this resource's where the status does not name it: fingerprints of calls that have
    #: taken effect, or may have.
    fingerprints: tuple[str, ...] = ()

    def add_fingerprint(self, fingerprint: str) -> tuple[str, ...]:
        """Return the fingerprints and one more."""
        return tuple(dict.fromkeys((*self.fingerprints, fingerprint)))[-_MAX_FINGERPRINTS:]
