"""What we read and write ourselves at the API server; watching is kopf's."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from lifecyclehook_operator.api.callback import PLURAL as CALLBACK_PLURAL
from lifecyclehook_operator.api.callback import LifecycleCallback
from lifecyclehook_operator.api.v1alpha1 import (
    CREATE_INTENT_ANNOTATION,
    FINALIZER,
    GROUP,
    IN_USE_LABEL,
    PLURAL,
    VERSION,
    LifecycleHook,
)
from lifecyclehook_operator.kube import apiserver
from lifecyclehook_operator.kube.apiserver import ApiServer
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError, StaleError
from lifecyclehook_operator.kube.events import COMPONENT
from lifecyclehook_operator.kube.secrets import Secret

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_SECONDS = 3.0
#: How many objects are listed at a time: some 10 ms of the event loop's time.
PAGE_SIZE = 250
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
#: What the HTTP status of a list or watch of our resources means; None: no response.
PROBLEMS: Mapping[int | None, str] = {
    None: "the API server does not answer",
    HTTPStatus.UNAUTHORIZED: f"not permitted to list {PLURAL}",
    HTTPStatus.FORBIDDEN: f"not permitted to list {PLURAL}",
    HTTPStatus.NOT_FOUND: "the CRD is not installed",
}


class Listed(NamedTuple):
    """What a list says of an object by its metadata alone."""

    uid: str
    namespace: str
    name: str
    resource_version: int
    #: Whether it is being deleted and does not wait for us.
    is_finalized: bool


class KubeClient:
    """The writes of a reconcile: finalizer and status; Events; and Secrets, read.

    Every method raises KubernetesError, StaleError where the object is not as it was read.
    """

    def __init__(self, server: ApiServer) -> None:
        """Take what sends the requests."""
        self.server = server

    async def is_crd_installed(self) -> bool:
        """Return whether the API server serves our resources."""
        try:
            served = await self.server.call("GET", f"/apis/{GROUP}/{VERSION}")
        except GoneError:
            return False
        return {PLURAL, CALLBACK_PLURAL} <= {each["name"] for each in served["resources"]}

    async def check_access(self, namespaces: Sequence[str] = ()) -> None:
        """Raise KubernetesError if our resources cannot be listed in these namespaces (none: in all).

        The list has no resourceVersion, so that it needs etcd, too.
        """
        for namespace in namespaces or ("",):
            await self.server.call(
                "GET",
                _hooks_path(namespace),
                query={"limit": "1"},
                accept=_as_metadata("PartialObjectMetadataList"),
                timeout_seconds=_PROBE_TIMEOUT_SECONDS,
            )

    async def find_problem(self, namespaces: Sequence[str] = ()) -> str:
        """Return why our resources cannot be listed in these namespaces (none: in all), "" if they can."""
        try:
            await self.check_access(namespaces)
        except KubernetesError as error:
            return PROBLEMS.get(error.status, f"the API server answers {error.status}")
        return ""

    async def list_hooks(self, namespace: str = "", name: str = "") -> AsyncIterator[LifecycleHook]:
        """Yield the resources of a namespace, or of all; with a name, the one that has it, if it exists."""
        query = {"fieldSelector": f"metadata.name={name}"} if name else {}
        async for body in self._list(_hooks_path(namespace), query, _JSON):
            yield LifecycleHook(body)

    def list_versions(self, namespace: str = "") -> AsyncIterator[Listed]:
        """Yield which resources there are in a namespace, or in all."""
        return self._list_versions(_hooks_path(namespace), {})

    async def list_callbacks(self, namespace: str, name: str) -> AsyncIterator[LifecycleCallback]:
        """Yield the LifecycleCallback of that name, if it exists."""
        async for body in self._list(_callbacks_path(namespace), {"fieldSelector": f"metadata.name={name}"}, _JSON):
            yield LifecycleCallback(body)

    def list_callback_versions(self, namespace: str = "") -> AsyncIterator[Listed]:
        """Yield which LifecycleCallbacks there are in a namespace, or in all."""
        return self._list_versions(_callbacks_path(namespace), {})

    def list_secret_versions(self, namespace: str = "") -> AsyncIterator[Listed]:
        """Yield which Secrets with our label there are in a namespace, or in all."""
        return self._list_versions(_secrets_path(namespace), {"labelSelector": IN_USE_LABEL})

    async def _list_versions(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Listed]:
        async for body in self._list(path, query, _as_metadata("PartialObjectMetadataList")):
            metadata = body["metadata"]
            is_finalized = "deletionTimestamp" in metadata and FINALIZER not in metadata.get("finalizers", ())
            version = int(metadata["resourceVersion"])
            yield Listed(metadata["uid"], metadata["namespace"], metadata["name"], version, is_finalized)

    async def _list(self, path: str, query: Mapping[str, str], accept: str) -> AsyncIterator[Mapping[str, Any]]:
        token = ""
        while True:
            page_query = {**query, "limit": str(PAGE_SIZE), **({"continue": token} if token else {})}
            page = await self.server.call("GET", path, query=page_query, accept=accept)
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
        path = _hooks_path(resource.namespace, resource.name)
        return LifecycleHook(await self._patch_status(path, resource.uid, patch))

    async def patch_callback_status(
        self, callback: LifecycleCallback, patch: Sequence[Mapping[str, Any]]
    ) -> LifecycleCallback:
        """Apply JSON Patch operations to the status, unless the name has passed on to another object."""
        return LifecycleCallback(
            await self._patch_status(_callbacks_path(callback.namespace, callback.name), callback.uid, patch)
        )

    async def delete_callback(self, callback: LifecycleCallback) -> None:
        """Delete a LifecycleCallback; that it is gone already, and another has its name, is fine."""
        with suppress(StaleError):
            await self.server.call(
                "DELETE",
                _callbacks_path(callback.namespace, callback.name),
                body={"preconditions": {"uid": callback.uid}},
            )

    async def _patch_status(self, path: str, uid: str, patch: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        is_same_object = {"op": "test", "path": "/metadata/uid", "value": uid}
        return await self._patch(f"{path}/status", [is_same_object, *map(dict, patch)], _JSON_PATCH)

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event (events.k8s.io/v1), unless its namespace is being deleted."""
        try:
            await self.server.send("POST", _events_path(namespace), body=body)
        except KubernetesError as error:
            if not (isinstance(error, GoneError) or "NamespaceTerminating" in error.causes):
                raise
            logger.debug("No Event in namespace %s, which is being deleted", namespace)

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        """Merge into an Event."""
        await self._patch(f"{_events_path(namespace)}/{quote(name)}", patch, _MERGE_PATCH)

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret, or None if it does not exist."""
        try:
            return Secret.from_object(await self.server.call("GET", _secrets_path(namespace, name)))
        except GoneError:
            return None

    async def find_secrets_version(self, namespace: str = "") -> str:
        """Return the resourceVersion from which `watch_secret_names` shows all later changes."""
        accept = _as_metadata("PartialObjectMetadataList")
        listing = await self.server.call("GET", _secrets_path(namespace), query={"limit": "1"}, accept=accept)
        return str(listing["metadata"]["resourceVersion"])

    async def watch_secret_names(self, namespace: str, since: str) -> AsyncIterator[tuple[str, str]]:
        """Yield namespace and name of each Secret of a namespace, or of all, that changes, for some minutes."""
        accept = _as_metadata("PartialObjectMetadata")
        async with aclosing(self.server.watch(_secrets_path(namespace), since=since, accept=accept)) as changed:
            async for body in changed:
                yield body["metadata"]["namespace"], body["metadata"]["name"]

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
        path = _secrets_path(namespace, name)
        return Secret.from_object(await self._patch(path, {"metadata": metadata}, _STRATEGIC_MERGE_PATCH))

    async def _patch_metadata(self, resource: LifecycleHook, metadata: Mapping[str, Any]) -> LifecycleHook:
        """Merge into the metadata, unless the object has changed since it was read."""
        patch = {"metadata": {"resourceVersion": str(resource.resource_version), **metadata}}
        return LifecycleHook(await self._patch(_hooks_path(resource.namespace, resource.name), patch, _MERGE_PATCH))

    async def _patch(self, path: str, patch: object, content_type: str) -> Mapping[str, Any]:
        return await self.server.call(
            "PATCH", f"{path}?fieldManager={COMPONENT}", body=patch, content_type=content_type
        )


@asynccontextmanager
async def connect() -> AsyncIterator[KubeClient]:
    """Connect with the identity of the pod, or where there is none, of the kubeconfig (KUBECONFIG, ~/.kube/config)."""
    async with apiserver.connect() as server:
        yield KubeClient(server)


def _hooks_path(namespace: str, name: str = "") -> str:
    return _path(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL, name)


def _callbacks_path(namespace: str, name: str = "") -> str:
    return _path(f"/apis/{GROUP}/{VERSION}", namespace, CALLBACK_PLURAL, name)


def _secrets_path(namespace: str, name: str = "") -> str:
    return _path("/api/v1", namespace, "secrets", name)


def _events_path(namespace: str) -> str:
    return _path("/apis/events.k8s.io/v1", namespace, "events", "")


def _path(api: str, namespace: str, plural: str, name: str) -> str:
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return "/".join(filter(None, (f"{api}{scope}", plural, quote(name, safe=""))))


def _as_metadata(kind: str) -> str:
    """Return what to accept to get the metadata of objects only."""
    return f"application/json;as={kind};g=meta.k8s.io;v=v1"
