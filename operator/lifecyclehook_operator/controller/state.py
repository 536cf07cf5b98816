"""What is kept in memory of an object between reconciles."""

from dataclasses import dataclass

from lifecyclehook_operator.api.v1alpha1 import Hook
from lifecyclehook_operator.controller.status import Outcome

#: How many calls, each with other fields, may be in doubt at a time.
_MAX_FINGERPRINTS = 8


@dataclass(frozen=True)
class Report:
    """The outcome of a sync, and when the next one is due if nothing else triggers it."""

    trigger: tuple[object, ...]
    outcome: Outcome
    requeue_at: float


@dataclass
class ObjectState:
    """What is kept in memory of an object; after a restart, as much as is needed is read from the object."""

    #: Failed syncs in a row, for the backoff.
    failures: int = 0
    #: The report that the API server has not accepted yet.
    report: Report | None = None
    #: The hook as AS last returned it, our own changes included. None: list the hooks first.
    observed: Hook | None = None
    #: What identifies the hook as this resource's where the status does not name it: fingerprints of calls that have
    #: taken effect, or may have.
    fingerprints: tuple[str, ...] = ()

    def add_fingerprint(self, fingerprint: str) -> tuple[str, ...]:
        """Return the fingerprints and one more."""
        return tuple(dict.fromkeys((*self.fingerprints, fingerprint)))[-_MAX_FINGERPRINTS:]
