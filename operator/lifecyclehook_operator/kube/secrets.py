"""The Secrets that objects need: read once, protected from deletion, watched."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from lifecyclehook_operator.api.v1alpha1 import FINALIZER

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Secret:
    """A Secret, decoded; its content is not shown where this is printed."""

    content: Mapping[str, str] = field(repr=False)
    #: Whether it has our finalizer.
    is_protected: bool
    is_deleting: bool = False
    version: int = field(default=0, compare=False)
    #: What a reader has made of the content, so that it is parsed once.
    parsed: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Self:
        """Read a v1 Secret."""
        metadata = body["metadata"]
        return cls(
            {key: _decode(value) for key, value in (body.get("data") or {}).items()},
            is_protected=FINALIZER in (metadata.get("finalizers") or ()),
            is_deleting=metadata.get("deletionTimestamp") is not None,
            version=int(metadata["resourceVersion"]),
        )


def _decode(value: str) -> str:
    try:
        return base64.b64decode(value).decode(errors="replace")
    except binascii.Error:
        return ""


class SecretApi(Protocol):
    """What is needed of the API server. Each raises KubernetesError."""

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret, or None if it does not exist."""

    async def protect_secret(self, namespace: str, name: str) -> Secret:
        """Put our finalizer and label on a Secret, and return it."""

    async def unprotect_secret(self, namespace: str, name: str) -> None:
        """Take our finalizer and label off a Secret, which may be gone already."""


class SecretStore:
    """Secrets by namespace and name. Those that are held are watched, and so need not be read again."""

    def __init__(self, api: SecretApi) -> None:
        self._api = api
        self._protected: dict[Key, Secret] = {}
        self._missing: set[Key] = set()
        self.is_any_missing = asyncio.Event()
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def get(self, key: Key, *, protect: bool) -> Secret | None:
        """Return a Secret, or None if it does not exist; with `protect`, see to it that it stays until it is released.

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
            if protect and not secret.is_deleting:  # what is being deleted can't be held any more
                secret = await self._api.protect_secret(*key)
            self.update(key, secret)
            return self._protected.get(key, secret)

    async def unprotect(self, key: Key) -> None:
        """Let a Secret go that no resource needs any more. Raises KubernetesError."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self._protected:
                await self._api.unprotect_secret(*key)
                self._protected.pop(key, None)

    def is_being_deleted(self, key: Key) -> bool | None:
        """Return whether a Secret is being deleted and stays only because it is held; None if that is not known."""
        if key in self._protected:
            return self._protected[key].is_deleting
        return False if key in self._missing else None

    def missing(self) -> list[Key]:
        """Return the Secrets that did not exist when they were asked for."""
        return list(self._missing)

    def forget_missing(self, key: Key) -> None:
        """Take note that a Secret is there, or that nothing needs it any more."""
        self._missing.discard(key)
        if not self._missing:
            self.is_any_missing.clear()

    def protected(self) -> list[Key]:
        """Return the Secrets that are held."""
        return list(self._protected)

    def update(self, key: Key, secret: Secret | None) -> bool:
        """Take note of a held Secret as the API server tells of it, None if it is gone; return whether it differs."""
        before = self._protected.get(key)
        if before is not None and secret is not None and secret.version < before.version:
            return False  # the answer to a write of ours, overtaken by the watch
        if secret is not None and secret.is_protected:
            self._protected[key] = secret
        else:
            self._protected.pop(key, None)
        return secret != before
