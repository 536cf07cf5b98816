"""The Secrets that objects need: read once, protected from deletion, watched."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from lifecyclehook_operator.api.v1alpha1 import CA_CERTIFICATE_KEY, CLOUDS_YAML_KEY, FINALIZER, IN_USE_LABEL

_KEYS = frozenset({CLOUDS_YAML_KEY, CA_CERTIFICATE_KEY})

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Secret:
    """What is read of a Secret, decoded; its content is kept out of its repr."""

    content: Mapping[str, str] = field(repr=False)
    #: Whether it has our finalizer, and the label by which it is watched.
    is_protected: bool
    is_deleting: bool = False
    version: int = field(default=0, compare=False)
    #: What was parsed from the content, if it was: it is parsed once.
    parsed: list[Any] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Self:
        """Read a v1 Secret."""
        metadata = body["metadata"]
        return cls(
            {key: _decode(value) for key, value in (body.get("data") or {}).items() if key in _KEYS},
            is_protected=FINALIZER in (metadata.get("finalizers") or ())
            and IN_USE_LABEL in (metadata.get("labels") or ()),
            is_deleting=metadata.get("deletionTimestamp") is not None,
            version=int(metadata["resourceVersion"]),
        )


def _decode(value: str) -> str:
    try:
        return base64.b64decode(value).decode(errors="replace")
    except binascii.Error:
        return ""


class SecretApi(Protocol):
    """The calls of the API server that are needed. Each raises KubernetesError."""

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret, or None if it does not exist."""

    async def protect_secret(self, namespace: str, name: str) -> Secret:
        """Add our finalizer and label to a Secret, and return it."""

    async def unprotect_secret(self, namespace: str, name: str) -> None:
        """Remove our finalizer and label from a Secret, which may be gone already."""


class SecretStore:
    """Secrets by namespace and name. Protected ones are watched, so they need not be read again."""

    def __init__(self, api: SecretApi) -> None:
        self._api = api
        self._protected: dict[Key, Secret] = {}
        #: Those that may have our finalizer all the same: who has lost the label is not watched any more.
        self._doubtful: set[Key] = set()
        #: Those in use, protected or not.
        self._known: WeakValueDictionary[Key, Secret] = WeakValueDictionary()
        self._missing: set[Key] = set()
        self.is_any_missing = asyncio.Event()
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def get(self, key: Key, *, protect: bool) -> Secret | None:
        """Return a Secret, or None if it does not exist; with `protect`, keep it from deletion until `unprotect`.

        Raises KubernetesError.
        """
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self._protected:
                return self._protected[key]
            secret = await self._api.read_secret(*key)
            if secret is None:
                self._missing.add(key)
                self.is_any_missing.set()
                return None
            self.forget_missing(key)
            if protect and not secret.is_deleting:  # a finalizer can't be added to what is being deleted
                secret = await self._api.protect_secret(*key)
            secret = self._with_parsed(key, secret)
            self.update(key, secret)
            return self._protected.get(key, secret)

    async def unprotect(self, key: Key) -> None:
        """Stop protecting a Secret that no resource needs any more. Raises KubernetesError."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self.perhaps_protected():
                await self._api.unprotect_secret(*key)
                self._protected.pop(key, None)
                self._doubtful.discard(key)

    def doubt(self, key: Key) -> None:
        """Take note that a Secret may have our finalizer, of which nothing is known here."""
        if key not in self._protected and key not in self._missing:
            self._doubtful.add(key)

    def is_being_deleted(self, key: Key) -> bool | None:
        """Return whether only our finalizer keeps a Secret from being deleted; None if that is not known."""
        if key in self._protected:
            return self._protected[key].is_deleting
        return False if key in self._missing else None

    def missing(self) -> list[Key]:
        """Return the keys of the Secrets that did not exist when they were read."""
        return list(self._missing)

    def forget_missing(self, key: Key) -> None:
        """Remove a Secret from the missing ones: it exists, or nothing needs it any more."""
        self._missing.discard(key)
        if not self._missing:
            self.is_any_missing.clear()

    def find_protected(self, key: Key) -> Secret | None:
        """Return a Secret if it is protected; makes no call."""
        return self._protected.get(key)

    def protected(self) -> list[Key]:
        """Return the keys of the protected Secrets."""
        return list(self._protected)

    def version(self, key: Key) -> int | None:
        """Return the version of a Secret that is held, as it was last shown; None if it is not held."""
        return self._protected[key].version if key in self._protected else None

    def perhaps_protected(self) -> set[Key]:
        """Return the Secrets that are held, and those that may be."""
        return self._protected.keys() | self._doubtful

    def update(self, key: Key, secret: Secret | None) -> bool:
        """Store a protected Secret as the API server shows it, None if it is gone; return whether it has changed."""
        before = self._protected.get(key)
        if before is not None and secret is not None and secret.version < before.version:
            return False  # the answer to a write of ours, overtaken by the watch
        if secret is not None and secret.is_protected:
            self._protected[key] = self._with_parsed(key, secret)
            self._doubtful.discard(key)
        elif self._protected.pop(key, None) is not None:
            self.doubt(key)
        return secret != before

    def _with_parsed(self, key: Key, secret: Secret) -> Secret:
        """Return a Secret with what a reader has made, or is yet to make, of the same content."""
        known = self._known.get(key)
        if known is not None and known.content == secret.content:
            secret = replace(secret, parsed=known.parsed)
        self._known[key] = secret
        return secret
