"""Which project a resource works in, and as whom: by the Secret it refers to, or as the operator itself."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from lifecyclehook_operator.autoscaling import Project, Projects
from lifecyclehook_operator.credentials import Credentials, Secret
from lifecyclehook_operator.errors import CredentialsError, Reason
from lifecyclehook_operator.resource import LifecycleHook, LifecycleHookSpec

Key = tuple[str, str]
"""Namespace and name."""


class SecretApi(Protocol):
    """What is needed of the API server. Each raises KubernetesError."""

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret, or None if it does not exist."""

    async def hold_secret(self, namespace: str, name: str) -> Secret:
        """Put our finalizer and label on a Secret, and return it."""

    async def release_secret(self, namespace: str, name: str) -> None:
        """Take our finalizer and label off a Secret, which may be gone already."""


class SecretStore:
    """Secrets by namespace and name. Those that are held are watched, and so need not be read again."""

    def __init__(self, api: SecretApi) -> None:
        self._api = api
        self._held: dict[Key, Secret] = {}
        self._missing: set[Key] = set()
        self.is_any_missing = asyncio.Event()
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def get(self, key: Key, *, hold: bool) -> Secret | None:
        """Return a Secret, or None if it does not exist; with `hold`, see to it that it stays until it is released.

        Raises KubernetesError.
        """
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self._held:
                return self._held[key]
            secret = await self._api.read_secret(*key)
            if secret is None:
                self._missing.add(key)
                self.is_any_missing.set()
                return None
            self.forget_missing(key)
            if hold and not secret.is_deleting:  # what is being deleted can't be held any more
                secret = await self._api.hold_secret(*key)
            self.notice(key, secret)
            return self._held.get(key, secret)

    async def release(self, key: Key) -> None:
        """Let a Secret go that no resource needs any more. Raises KubernetesError."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self._held:
                await self._api.release_secret(*key)
                self._held.pop(key, None)

    def is_being_deleted(self, key: Key) -> bool | None:
        """Return whether a Secret is being deleted and stays only because it is held; None if that is not known."""
        if key in self._held:
            return self._held[key].is_deleting
        return False if key in self._missing else None

    def missing(self) -> list[Key]:
        """Return the Secrets that did not exist when they were asked for."""
        return list(self._missing)

    def forget_missing(self, key: Key) -> None:
        """Take note that a Secret is there, or that nothing needs it any more."""
        self._missing.discard(key)
        if not self._missing:
            self.is_any_missing.clear()

    def held(self) -> list[Key]:
        """Return the Secrets that are held."""
        return list(self._held)

    def notice(self, key: Key, secret: Secret | None) -> bool:
        """Take note of a held Secret as the API server tells of it, None if it is gone; return whether it differs."""
        before = self._held.get(key)
        if before is not None and secret is not None and secret.version < before.version:
            return False  # the answer to a write of ours, overtaken by the watch
        if secret is not None and secret.is_held:
            self._held[key] = secret
        else:
            self._held.pop(key, None)
        return secret != before


@dataclass(frozen=True)
class Rules:
    """What a cluster admin lets resources do; all are globs."""

    #: Namespaces whose resources may use the operator's own credentials.
    own_credentials_namespaces: tuple[str, ...]
    #: Hosts that credentials may lead to, beside those of the operator's own.
    hosts: tuple[str, ...]


class Access:
    """Finds the project of a resource."""

    def __init__(
        self,
        secrets: SecretStore,
        projects: Projects,
        own_credentials: Credentials | CredentialsError | None,
        rules: Rules,
    ) -> None:
        """Take the operator's own credentials, or why they can't be used, for resources that refer to no Secret."""
        self._secrets = secrets
        self._projects = projects
        self._own_credentials = own_credentials
        self._own_namespaces = rules.own_credentials_namespaces
        self._hosts = (
            *map(str.lower, rules.hosts),  # as urlsplit gives a host
            *(own_credentials.hosts if isinstance(own_credentials, Credentials) else ()),
        )

    async def find_project(self, resource: LifecycleHook, spec: LifecycleHookSpec) -> Project:
        """Return the project to work in; a Secret that is needed for it stays until it is released.

        Raises CredentialsError if there are no credentials, if they are malformed or refused, or if they are for
        another project than the hook lives in, another CallError if IAM can't be asked, and KubernetesError.
        """
        credentials = await self._find_credentials(resource, spec)
        self._check_hosts(credentials.hosts)  # before a byte is sent
        project = self._projects.get(credentials)
        place = await project.find_place()
        self._check_hosts([urlsplit(place.url).hostname or ""])
        project_id = place.project_id
        if resource.status.project_id not in ("", project_id):
            raise _error(
                Reason.CREDENTIALS_INVALID,
                f"the credentials are for project {project_id}, but the hook lives in {resource.status.project_id}",
            )
        return project

    def is_secret_being_deleted(self, resource: LifecycleHook) -> bool | None:
        """Return whether the Secret of a resource is being deleted, as far as that is known without a call."""
        return self._secrets.is_being_deleted(resource.secret) if resource.secret else None

    async def _find_credentials(self, resource: LifecycleHook, spec: LifecycleHookSpec) -> Credentials:
        reference = spec.credentials_ref
        if reference is None:
            if self._own_credentials is None:
                raise _error(
                    Reason.CREDENTIALS_NOT_FOUND,
                    "spec.credentialsRef names no Secret, and the operator has no credentials of its own",
                )
            if not _matches(resource.namespace, self._own_namespaces):
                raise _error(
                    Reason.CREDENTIALS_NOT_FOUND,
                    f"spec.credentialsRef names no Secret, and the namespace {resource.namespace} is none of "
                    "--default-credentials-namespaces, which may use the operator's own credentials",
                )
            if isinstance(self._own_credentials, CredentialsError):
                raise _error(
                    self._own_credentials.reason, f"the operator's own credentials: {self._own_credentials.message}"
                )
            return self._own_credentials
        key = (resource.namespace, reference.secret_name)
        source = f"Secret {'/'.join(key)}"
        secret = await self._secrets.get(key, hold=not resource.is_deleting)
        if secret is None:
            raise _error(Reason.CREDENTIALS_NOT_FOUND, f"{source} does not exist")
        return secret.read_credentials(reference.cloud_name, source)

    def _check_hosts(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if not _matches(host, self._hosts):
                raise _error(Reason.CREDENTIALS_INVALID, f"the host {host} is none of --allowed-endpoints")


def _matches(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _error(reason: Reason, message: str) -> CredentialsError:
    return CredentialsError(reason, message, operation="authenticate")
