"""Resolves an object to its credentials and a shared AS client, as the admin's policy allows."""

import asyncio
import re
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook, LifecycleHookSpec
from lifecyclehook_operator.cloud.auth import LoginLimits
from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.clouds_yaml import Clouds
from lifecyclehook_operator.cloud.credentials import Credentials, get_address
from lifecyclehook_operator.cloud.endpoints import find_region
from lifecyclehook_operator.cloud.errors import CallError, CredentialsError, Reason, sanitize
from lifecyclehook_operator.kube.secrets import Secret, SecretStore

#: After how long without use a client is forgotten, and its token: longer than the default resync interval.
_UNUSED_SECONDS = 600
#: Failures that wrong credentials, or those of another project or region, may cause.
_REASONS_TO_DESCRIBE = frozenset(
    {
        Reason.CREDENTIALS_INVALID,
        Reason.AUTHENTICATION_FAILED,
        Reason.FORBIDDEN,
        Reason.GROUP_NOT_FOUND,
        Reason.TOPIC_NOT_FOUND,
        Reason.CLOUD_UNAVAILABLE,
        Reason.UNEXPECTED_RESPONSE,
    }
)
#: How much is shown of each value that a user has configured.
_SHOWN_CHARACTERS = 100
#: The port of an endpoint that is given without one.
_DEFAULT_PORT = 443


class ClientCache:
    """The clients in use: objects with the same credentials share a client, its token and its connections."""

    def __init__(self, *, timeout_seconds: float, concurrency: int) -> None:
        """Take what each AutoScalingClient takes."""
        self._timeout_seconds = timeout_seconds
        self._concurrency = concurrency
        self._login_limits = LoginLimits()
        self._clients: dict[Credentials, AutoScalingClient] = {}
        self._latest: dict[Hashable, Credentials] = {}

    def get(self, credentials: Credentials, source: Hashable = None) -> AutoScalingClient:
        """Return the client for these credentials.

        Where they come from (`source`), they take the place of those that came from there before; these are forgotten
        unless they come from somewhere else, too.
        """
        if credentials not in self._clients:
            self._forget_unused()
            self._clients[credentials] = AutoScalingClient(
                credentials,
                timeout_seconds=self._timeout_seconds,
                concurrency=self._concurrency,
                login_limits=self._login_limits,
            )
        client = self._clients[credentials]
        client.used_at = time.monotonic()
        if source is not None:
            former, self._latest[source] = self._latest.get(source), credentials
            if former not in (None, credentials) and former not in self._latest.values():
                self._forget(former)
        return client

    def _forget_unused(self) -> None:
        """Forget what has not been used for long: nothing needs it any more."""
        long_ago = time.monotonic() - _UNUSED_SECONDS
        for credentials, client in list(self._clients.items()):
            if client.used_at < long_ago:
                self._forget(credentials)
        self._latest = {source: each for source, each in self._latest.items() if each in self._clients}

    def _forget(self, credentials: Credentials) -> None:
        if (client := self._clients.pop(credentials, None)) is not None:
            client.close_when_unused()

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


@dataclass(frozen=True)
class CredentialsPolicy:
    """What a cluster admin allows; all are globs."""

    #: Namespaces whose resources may use the operator's own credentials.
    own_credentials_namespaces: tuple[str, ...]
    #: Where credentials in Secrets may lead, as host or host:port, besides where the operator's own credentials do.
    endpoints: tuple[str, ...]


class ClientResolver:
    """Finds the client of an object: by the Secret that it refers to, or with the operator's own credentials."""

    def __init__(
        self,
        secrets: SecretStore,
        clients: ClientCache,
        own_credentials: Credentials | CredentialsError | None,
        rules: CredentialsPolicy,
    ) -> None:
        """Take the operator's own credentials, if any, or why they are unusable: for resources without a Secret."""
        self._secrets = secrets
        self._clients = clients
        self._secret_reader = SecretReader()
        self._own_credentials = own_credentials
        self._own_namespaces = rules.own_credentials_namespaces
        own_addresses = own_credentials.addresses if isinstance(own_credentials, Credentials) else ()
        self._endpoints = [_compile_endpoint(each) for each in (*rules.endpoints, *own_addresses)]

    async def resolve(self, resource: LifecycleHook, spec: LifecycleHookSpec) -> AutoScalingClient:
        """Return the client to call AS with, and protect the Secret that it needs.

        Raises CredentialsError if there are no credentials, if they are malformed or refused, or if they are for
        another project than the hook lives in, another CallError if IAM can't be asked, and KubernetesError.
        """
        credentials = await self._find_credentials(resource, spec)
        self._check_addresses(credentials.addresses)  # before anything is sent
        source = (resource.namespace, spec.credentials_ref) if spec.credentials_ref else None
        client = self._clients.get(credentials, source)
        endpoint = await client.find_endpoint()
        self._check_addresses([get_address(endpoint.url)])
        project_id = endpoint.project_id
        if resource.status.project_id not in ("", project_id):
            raise _error(
                Reason.CREDENTIALS_INVALID,
                f"the credentials are for project {project_id}, but the hook is in {resource.status.project_id}",
            )
        return client

    def describe(self, resource: LifecycleHook, error: CallError) -> str:
        """Return what a failed call used: credentials, auth_url, project and region; no secrets, at most 1 KB.

        Empty if that explains nothing, or if the credentials could not be read. It is the same for each retry: what is
        configured, and, once a login has succeeded, what IAM answered.
        """
        if error.reason not in _REASONS_TO_DESCRIBE:
            return ""
        credentials, source = self._own_credentials, "the operator's own credentials"
        if (reference := resource.spec().credentials_ref) is not None:
            key = (resource.namespace, reference.secret_name)
            source = f"Secret {'/'.join(key)} (cloud {_shorten(reference.cloud_name)})"
            secret = self._secrets.find_protected(key)
            try:
                credentials = _find_cloud(secret, reference.cloud_name) if secret and secret.parsed else None
            except CredentialsError:
                return ""
        if not isinstance(credentials, Credentials):
            return ""
        endpoint = self._clients.get(credentials).endpoint if error.operation != "authenticate" else None
        name, id_ = credentials.project_name, credentials.project_id
        if endpoint is not None:
            name, id_ = endpoint.project_name, endpoint.project_id
        region = find_region(credentials, name)
        return ", ".join(
            [
                source,
                f"auth_url {_without_userinfo(credentials.auth_url)}",
                f"project {_shorten(name or id_)}{f' ({id_})' if name and id_ else ''}",
                *([f"region {region}"] if region else []),
            ]
        )

    def is_secret_being_deleted(self, resource: LifecycleHook) -> bool | None:
        """Return whether the Secret of a resource is being deleted, as far as that is known without a call."""
        return self._secrets.is_being_deleted(resource.secret) if resource.secret else None

    async def _find_credentials(self, resource: LifecycleHook, spec: LifecycleHookSpec) -> Credentials:
        reference = spec.credentials_ref
        if reference is None:
            if self._own_credentials is None:
                raise _error(
                    Reason.CREDENTIALS_NOT_FOUND,
                    "spec.credentialsRef is not set, and the operator has no credentials of its own",
                    "Set spec.credentialsRef, or configure credentials for the operator.",
                )
            if not _matches(resource.namespace, self._own_namespaces):
                raise _error(
                    Reason.CREDENTIALS_NOT_FOUND,
                    f"namespace {resource.namespace} may not use the operator's credentials "
                    "(--default-credentials-namespaces)",
                    "Set spec.credentialsRef, or ask a cluster admin to allow this namespace.",
                )
            if isinstance(self._own_credentials, CredentialsError):
                raise _error(
                    self._own_credentials.reason, f"the operator's own credentials: {self._own_credentials.message}"
                )
            return self._own_credentials
        key = (resource.namespace, reference.secret_name)
        source = f"Secret {'/'.join(key)}"
        secret = await self._secrets.get(key, protect=not resource.is_deleting)
        if secret is None:
            raise _error(Reason.CREDENTIALS_NOT_FOUND, f"{source} does not exist")
        return await self._secret_reader.read(secret, reference.cloud_name, source)

    def _check_addresses(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            if not any(pattern.fullmatch(address) for pattern in self._endpoints):
                host = address.removesuffix(f":{_DEFAULT_PORT}")
                raise _error(
                    Reason.CREDENTIALS_INVALID,
                    f"host {host} is not in --allowed-endpoints",
                    "Correct the credentials, or ask a cluster admin to allow this host.",
                )


def _compile_endpoint(glob: str) -> re.Pattern[str]:
    """Compile a glob of host or host:port, in which * and ? stand for characters of one label, or of the port."""
    address = glob if re.search(r":[0-9*]+$", glob) else f"{glob}:{_DEFAULT_PORT}"
    return re.compile(re.escape(address.lower()).replace(r"\*", "[^.:]*").replace(r"\?", "[^.:]"))


class SecretReader:
    """Reads credentials from Secrets: tenants write them, so none may hold up the event loop."""

    def __init__(self) -> None:
        # One parse at a time: each parsing thread makes the event loop wait for its turn of the interpreter.
        self._lock = asyncio.Lock()

    async def read(self, secret: Secret, cloud_name: str, source: str) -> Credentials:
        """Return the credentials of a cloud. The Secret is parsed once, however many ask. Raises CredentialsError."""
        if not secret.parsed:
            async with self._lock:
                if not secret.parsed:
                    secret.parsed.append(await asyncio.to_thread(_parse, secret.content, source))
        return _find_cloud(secret, cloud_name)


def _find_cloud(secret: Secret, cloud_name: str) -> Credentials:
    """Return the credentials of a cloud in a Secret that has been parsed. Raises CredentialsError."""
    clouds: Clouds | str = secret.parsed[0]
    if isinstance(clouds, str):
        raise _error(Reason.CREDENTIALS_INVALID, clouds)
    return clouds.read(cloud_name)


def _parse(content: Mapping[str, str], source: str) -> Clouds | str:
    """Return the clouds in the content of a Secret, or what is wrong with it."""
    try:
        return Clouds.from_secret(content, source)
    except CredentialsError as error:
        return error.message


def _matches(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _shorten(text: str) -> str:
    return sanitize(text, _SHOWN_CHARACTERS)


def _without_userinfo(url: str) -> str:
    """Return scheme, host and path of a URL: the rest may be secret."""
    parts = urlsplit(url)
    return _shorten(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _error(reason: Reason, message: str, advice: str = "") -> CredentialsError:
    return CredentialsError(reason, message, operation="authenticate", advice=advice)
