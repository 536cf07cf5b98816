"""What we read and write ourselves at the API server; watching is kopf's."""

import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api, CustomObjectsApi, V1Secret, VersionApi
from kubernetes.aio.client.exceptions import (
    ApiException,
    ConflictException,
    ForbiddenException,
    NotFoundException,
    UnprocessableEntityException,
)
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.watch import Watch

from lifecyclehook_operator.api.v1alpha1 import (
    API_VERSION,
    CREATE_INTENT_ANNOTATION,
    FINALIZER,
    GROUP,
    IN_USE_LABEL,
    KIND,
    PLURAL,
    VERSION,
    LifecycleHook,
)
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError, StaleError
from lifecyclehook_operator.kube.events import Event
from lifecyclehook_operator.kube.secrets import Secret

logger = logging.getLogger(__name__)

COMPONENT = "lifecyclehook-operator"
_TIMEOUT_SECONDS = 30.0
_PROBE_TIMEOUT_SECONDS = 3.0
_PAGE_SIZE = 500
_WATCH_SECONDS = 240
_NOTE_BYTES = 1024  # as events.k8s.io/v1 has it


class KubeClient:
    """The writes of a reconcile: finalizer, status and Events; and Secrets, read.

    Every method raises KubernetesError, StaleError where the object is not as it was read.
    """

    def __init__(self, api: ApiClient) -> None:
        self.api = api
        self._objects = CustomObjectsApi(api)
        self._core = CoreV1Api(api)
        self._version = VersionApi(api)

    async def is_crd_installed(self) -> bool:
        """Return whether the API server serves our resource."""
        with _kubernetes_errors():
            try:
                served = await self._objects.get_api_resources(GROUP, VERSION, _request_timeout=_TIMEOUT_SECONDS)
            except NotFoundException:
                return False
        return any(each.name == PLURAL for each in served.resources)

    async def is_reachable(self) -> bool:
        """Return whether the API server answers, whatever it says."""
        try:
            await self._version.get_code(_request_timeout=_PROBE_TIMEOUT_SECONDS)
        except ApiException:
            return True
        except (aiohttp.ClientError, TimeoutError):
            return False
        return True

    async def list_hooks(self, namespace: str = "", name: str = "") -> AsyncIterator[LifecycleHook]:
        """Yield the resources of a namespace, or of all; with a name, the one that has it, if it exists."""
        async for body in self._list(namespace, field_selector=f"metadata.name={name}" if name else None):
            yield LifecycleHook(body)

    async def list_uids(self, namespace: str = "") -> AsyncIterator[str]:
        """Yield the UIDs of the resources of a namespace, or of all."""
        async for body in self._list(namespace, _headers=_as_metadata("PartialObjectMetadataList")):
            yield body["metadata"]["uid"]

    async def _list(self, namespace: str, **query: Any) -> AsyncIterator[Mapping[str, Any]]:  # noqa: ANN401
        list_page = (
            partial(self._objects.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL)
            if namespace
            else partial(self._objects.list_cluster_custom_object, GROUP, VERSION, PLURAL)
        )
        token: str | None = None
        while True:
            with _kubernetes_errors():
                page: Any = await list_page(
                    **query, limit=_PAGE_SIZE, _continue=token, _request_timeout=_TIMEOUT_SECONDS
                )
            for body in page["items"] or ():  # null, where only the metadata of nothing is asked for
                yield body
            token = page["metadata"].get("continue")
            if not token:
                return

    async def add_finalizer(self, resource: LifecycleHook, create_intents: Sequence[str]) -> LifecycleHook:
        """Put on our finalizer, and the fingerprints of the calls by whose effect the hook is known for ours."""
        finalizers = [name for name in resource.finalizers if name != FINALIZER]
        metadata: dict[str, Any] = {"finalizers": [*finalizers, FINALIZER]}
        if create_intents or resource.create_intents:
            metadata["annotations"] = {CREATE_INTENT_ANNOTATION: ",".join(create_intents)}
        return await self._patch_metadata(resource, metadata)

    async def remove_finalizer(self, resource: LifecycleHook) -> None:
        """Take off our finalizer; that the object is gone already is fine."""
        with suppress(GoneError):
            await self._patch_metadata(
                resource, {"finalizers": [name for name in resource.finalizers if name != FINALIZER]}
            )

    async def patch_status(self, resource: LifecycleHook, patch: Sequence[Mapping[str, Any]]) -> LifecycleHook:
        """Apply JSON Patch operations to the status, unless the name has passed on to another object."""
        is_same_object = {"op": "test", "path": "/metadata/uid", "value": resource.uid}
        with _kubernetes_errors():
            body = await self._objects.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                resource.namespace,
                PLURAL,
                resource.name,
                [is_same_object, *map(dict, patch)],
                field_manager=COMPONENT,
                _request_timeout=_TIMEOUT_SECONDS,
                _content_type="application/json-patch+json",
            )
        return _as_resource(body)

    async def publish_event(self, obj: LifecycleHook, event: Event) -> None:
        """Publish an Event (events.k8s.io/v1) about the object, unless its namespace is being deleted."""
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{obj.name[:200].rstrip('.-')}-", "namespace": obj.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event.type,
            "reason": event.reason,
            "note": event.message.encode()[:_NOTE_BYTES].decode(errors="ignore"),
            "action": "Reconcile",
            "reportingController": f"{GROUP}/{COMPONENT}",
            "reportingInstance": os.environ.get("HOSTNAME") or COMPONENT,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": obj.namespace,
                "name": obj.name,
                "uid": obj.uid,
                "resourceVersion": str(obj.resource_version),
            },
        }
        with _kubernetes_errors():
            try:
                await self._objects.create_namespaced_custom_object(
                    "events.k8s.io", "v1", obj.namespace, "events", body, _request_timeout=_TIMEOUT_SECONDS
                )
            except (ForbiddenException, NotFoundException) as error:
                if not (error.status == HTTPStatus.NOT_FOUND or _is_namespace_terminating(error)):
                    raise
                logger.debug("%s: no Event, because the namespace is being deleted", obj.label)

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret, or None if it does not exist."""
        with _kubernetes_errors():
            try:
                secret = await self._core.read_namespaced_secret(name, namespace, _request_timeout=_TIMEOUT_SECONDS)
            except NotFoundException:
                return None
        return self._as_secret(secret)

    async def find_secrets_version(self, namespace: str = "") -> str:
        """Return from where `watch_secret_names` tells of all that follows."""
        with _kubernetes_errors():
            # What an empty list of metadata has for items, null, is not accepted as a V1SecretList.
            list_secrets: Any = (
                partial(self._core.list_namespaced_secret_without_preload_content, namespace)
                if namespace
                else self._core.list_secret_for_all_namespaces_without_preload_content
            )
            response = await list_secrets(
                limit=1, _request_timeout=_TIMEOUT_SECONDS, _headers=_as_metadata("PartialObjectMetadataList")
            )
            text = await response.text()
            if response.status != HTTPStatus.OK:
                raise ApiException(http_resp=response, body=text)
        return str(json.loads(text)["metadata"]["resourceVersion"])

    async def watch_secret_names(self, namespace: str, since: str) -> AsyncIterator[tuple[str, str]]:
        """Yield namespace and name of each Secret of a namespace, or of all, that changes, for some minutes."""
        with _kubernetes_errors():
            list_secrets, where = self._secrets_lister(namespace)
            async with Watch(return_type="object") as watch:  # type: ignore[no-untyped-call]
                async for event in watch.stream(
                    list_secrets,
                    *where,
                    resource_version=since,
                    timeout_seconds=_WATCH_SECONDS,
                    _request_timeout=_WATCH_SECONDS + _TIMEOUT_SECONDS,
                    _headers=_as_metadata("PartialObjectMetadata"),
                ):
                    metadata = event["raw_object"]["metadata"]
                    yield metadata["namespace"], metadata["name"]

    def _secrets_lister(self, namespace: str) -> tuple[Any, tuple[str, ...]]:
        if namespace:
            return self._core.list_namespaced_secret, (namespace,)
        return self._core.list_secret_for_all_namespaces, ()

    async def protect_secret(self, namespace: str, name: str) -> Secret:
        """Put our finalizer and label on a Secret, and return it."""
        return await self._patch_secret(namespace, name, {"finalizers": [FINALIZER], "labels": {IN_USE_LABEL: "true"}})

    async def unprotect_secret(self, namespace: str, name: str) -> None:
        """Take our finalizer and label off a Secret, which may be gone already."""
        with suppress(GoneError):
            await self._patch_secret(
                namespace, name, {"$deleteFromPrimitiveList/finalizers": [FINALIZER], "labels": {IN_USE_LABEL: None}}
            )

    async def _patch_secret(self, namespace: str, name: str, metadata: Mapping[str, Any]) -> Secret:
        # A strategic merge patch changes single finalizers of the list, whoever else changes others meanwhile.
        with _kubernetes_errors():
            secret = await self._core.patch_namespaced_secret(
                name,
                namespace,
                {"metadata": dict(metadata)},
                field_manager=COMPONENT,
                _request_timeout=_TIMEOUT_SECONDS,
                _content_type="application/strategic-merge-patch+json",
            )
        return self._as_secret(secret)

    def _as_secret(self, secret: V1Secret) -> Secret:
        body: Mapping[str, Any] = self.api.sanitize_for_serialization(secret)  # type: ignore[no-untyped-call]
        return Secret.from_object(body)

    async def _patch_metadata(self, resource: LifecycleHook, metadata: Mapping[str, Any]) -> LifecycleHook:
        """Merge into the metadata, unless the object has changed since it was read."""
        with _kubernetes_errors():
            body = await self._objects.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                resource.namespace,
                PLURAL,
                resource.name,
                {"metadata": {"resourceVersion": str(resource.resource_version), **metadata}},
                field_manager=COMPONENT,
                _request_timeout=_TIMEOUT_SECONDS,
                _content_type="application/merge-patch+json",
            )
        return _as_resource(body)


@asynccontextmanager
async def connect() -> AsyncIterator[KubeClient]:
    """Connect with the identity of the pod, or where there is none, of the kubeconfig (KUBECONFIG, ~/.kube/config)."""
    configuration = Configuration()
    try:
        await _load_configuration(configuration)
    except ConfigException as error:
        raise KubernetesError(f"no cluster to connect to: {error}") from error
    # With trust_env, aiohttp looks for proxies and .netrc in a thread, twice for each request.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    async with ApiClient(configuration) as api:
        yield KubeClient(api)


async def _load_configuration(configuration: Configuration) -> None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]


def _as_metadata(kind: str) -> Mapping[str, str]:
    """Return the headers that ask the API server for the metadata of objects only."""
    return {"Accept": f"application/json;as={kind};g=meta.k8s.io;v=v1"}


def _as_resource(body: object) -> LifecycleHook:
    if not isinstance(body, Mapping):
        raise KubernetesError(f"the API server answered {type(body).__name__} instead of an object")
    return LifecycleHook(body)


@contextmanager
def _kubernetes_errors() -> Iterator[None]:
    try:
        yield
    except NotFoundException as error:
        raise GoneError(_describe(error)) from error
    except (ConflictException, UnprocessableEntityException) as error:
        raise StaleError(_describe(error)) from error
    except ApiException as error:
        raise KubernetesError(_describe(error)) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise KubernetesError(f"cannot reach the API server: {error or type(error).__name__}") from error


def _read_status(error: ApiException) -> Mapping[str, Any]:
    """Return the Status that the API server answered, or an empty one."""
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return {}
    return status if isinstance(status, Mapping) else {}


def _is_namespace_terminating(error: ApiException) -> bool:
    causes = (_read_status(error).get("details") or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def _describe(error: ApiException) -> str:
    # The exception's own text has headers and the whole body; the message in the body's Status says why.
    return f"{error.status} {error.reason}: {_read_status(error).get('message', error.body)}"
