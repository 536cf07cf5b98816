"""What can go wrong at the API server.

KubernetesError           the API server refused a call or could not be reached
└── StaleError            the object has changed: the next reconcile will see a newer one
    └── GoneError         the object is gone
"""


class KubernetesError(Exception):
    """The API server refused a call or could not be reached."""

    #: The HTTP status of the response, None if there was none.
    status: int | None = None
    #: The reasons of the causes that the API server names, for example NamespaceTerminating.
    causes: frozenset[str] = frozenset()


class StaleError(KubernetesError):
    """The object has changed since it was read, or is gone."""


class GoneError(StaleError):
    """The object is gone."""
