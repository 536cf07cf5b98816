"""An API server in memory: versions, generations, finalizers, conflicts, deletion, JSON Patch of the status, watch.

It has the methods of the operator's own client. What it may do is what tests/cluster sees the real one do.
"""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from lifecyclehook_operator.api.v1alpha1 import CREATE_INTENT_ANNOTATION, FINALIZER, LifecycleHook
from lifecyclehook_operator.kube.client import Listed
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError, StaleError

from .network import Network

Body = Mapping[str, Any]

NAMESPACE = "web"


class ApiServer:
    """The objects, and who is notified of their changes."""

    def __init__(self, draw: random.Random, notify: Callable[[str, Body], None]) -> None:
        """Take what is called with each change, by its type."""
        self.objects: dict[str, Body] = {}
        self.writes = 0
        self.removed: list[Body] = []
        self._notify = notify
        self._draw = draw
        self._version = 100
        self._uids = 0

    def create(self, name: str, spec: Body, time: float) -> None:
        """Create an object; one of this name that is there stays as it is."""
        if name in self.objects:
            return
        self._uids += 1
        created_at = f"2026-01-01T{int(time) // 3600 % 24:02}:{int(time) // 60 % 60:02}:{int(time) % 60:02}Z"
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{self._uids}",
            "generation": 1,
            "creationTimestamp": created_at,
        }
        self._store({"metadata": metadata, "spec": spec}, "ADDED")

    def edit(self, name: str, changes: Body, **metadata: Any) -> None:
        """Merge into spec and metadata (null removes) if the object is there."""
        if (body := self.objects.get(name)) is None:
            return
        spec = _merge(body["spec"], changes)
        changed = _merge(body["metadata"], metadata)
        if spec != body["spec"]:
            changed["generation"] += 1
        self._change(body, {**body, "metadata": changed, "spec": spec})

    def wipe_status(self, name: str) -> None:
        """Remove the status."""
        if body := self.objects.get(name):
            self._change(body, {key: value for key, value in body.items() if key != "status"})

    def delete(self, name: str) -> None:
        """Delete an object, or mark it as being deleted while it has finalizers."""
        body = self.objects.get(name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return
        if not body["metadata"].get("finalizers"):
            self._remove(body)
            return
        deletion = {"deletionTimestamp": "2026-01-02T00:00:00Z", "generation": body["metadata"]["generation"] + 1}
        self._store({**body, "metadata": {**body["metadata"], **deletion}}, "MODIFIED")

    def find(self, uid: str) -> Body | None:
        """Return an object by its UID."""
        return next((body for body in self.objects.values() if body["metadata"]["uid"] == uid), None)

    def patch_metadata(self, resource: LifecycleHook, metadata: Body) -> Body:
        """Merge into the metadata of an object that is as it was read."""
        body = self._get(resource)
        if int(body["metadata"]["resourceVersion"]) != resource.resource_version:
            raise StaleError("the object has been modified")
        changed = _merge(body["metadata"], metadata)
        added = {*changed.get("finalizers", ())} - {*body["metadata"].get("finalizers", ())}
        is_deleting = "deletionTimestamp" in changed
        if is_deleting and added:
            raise StaleError("no new finalizers can be added if the object is being deleted")
        if is_deleting and not changed.get("finalizers"):
            self._remove({**body, "metadata": changed})
            return body
        return self._change(body, {**body, "metadata": changed})

    def patch_status(self, resource: LifecycleHook, patch: Sequence[Body]) -> Body:
        """Apply JSON Patch operations to the status of an object that has the same UID."""
        body = self._get(resource)
        if body["metadata"]["uid"] != resource.uid:
            raise StaleError("the test of the UID fails")
        changed = dict(body)
        for operation in patch:
            if operation["op"] == "test":
                if body["metadata"]["resourceVersion"] != operation["value"]:
                    raise StaleError("the test of the version fails")
                continue
            _, *path = operation["path"].split("/")
            *parents, last = path
            if parents and "status" not in changed:
                raise StaleError("the path does not exist")
            target = changed
            if parents:
                target = changed["status"] = dict(changed["status"])
            if operation["op"] == "add":
                target[last] = operation["value"]
            elif last in target:
                del target[last]
            else:
                raise StaleError("the path does not exist")
        return self._change(body, changed)

    def _get(self, resource: LifecycleHook) -> Body:
        self.writes += 1
        if (body := self.objects.get(resource.name)) is None:
            raise GoneError("not found")
        return body

    def _change(self, before: Body, after: Body) -> Body:
        return before if after == before else self._store(after, "MODIFIED")

    def _store(self, body: Body, event_type: str) -> Body:
        self._version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self._version)}
        stored = self.objects[metadata["name"]] = {**body, "metadata": metadata}
        self._notify(event_type, stored)
        return stored

    def _remove(self, body: Body) -> None:
        del self.objects[body["metadata"]["name"]]
        self._version += 1
        last = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        self.removed.append(last)
        self._notify("DELETED", last)


def _merge(content: Body, changes: Body) -> dict[str, Any]:
    merged = {**content, **changes}
    for key, value in changes.items():
        if isinstance(value, Mapping):
            merged[key] = _merge(content.get(key, {}), value)
    return {key: value for key, value in merged.items() if value is not None}


class ApiClient:
    """What the operator has in the place of its client of the API server."""

    def __init__(self, server: ApiServer, network: Network, process: int) -> None:
        self._server = server
        self._network = network
        self._process = process

    async def list_hooks(self, namespace: str = "", name: str = "") -> AsyncIterator[LifecycleHook]:
        for body in await self._call("list_objects", lambda: list(self._server.objects.values())):
            if name in ("", body["metadata"]["name"]):
                yield LifecycleHook(body)

    async def list_versions(self, namespace: str = "") -> AsyncIterator[Listed]:
        async for obj in self.list_hooks(namespace):
            yield Listed(obj.uid, obj.namespace, obj.name, obj.resource_version, obj.is_finalized)

    async def list_secret_versions(self, namespace: str = "") -> AsyncIterator[Listed]:
        for listed in ():
            yield listed

    async def add_finalizer(self, resource: LifecycleHook, create_intents: Sequence[str]) -> LifecycleHook:
        others = [name for name in resource.finalizers if name != FINALIZER]
        metadata: dict[str, Any] = {"finalizers": [*others, FINALIZER]}
        if create_intents or CREATE_INTENT_ANNOTATION in resource.metadata.get("annotations", {}):
            metadata["annotations"] = {CREATE_INTENT_ANNOTATION: ",".join(create_intents)}
        return LifecycleHook(
            await self._write("finalizer", resource, lambda: self._server.patch_metadata(resource, metadata))
        )

    async def remove_finalizer(self, resource: LifecycleHook) -> None:
        others = [name for name in resource.finalizers if name != FINALIZER]
        try:
            await self._write(
                "release", resource, lambda: self._server.patch_metadata(resource, {"finalizers": others or None})
            )
        except GoneError:
            return

    async def patch_status(self, resource: LifecycleHook, patch: Sequence[Body]) -> LifecycleHook:
        return LifecycleHook(await self._write("status", resource, lambda: self._server.patch_status(resource, patch)))

    async def _write(self, operation: str, resource: LifecycleHook, act: Callable[[], Body]) -> Body:
        def explain(effect: dict[str, Any]) -> KubernetesError:
            if "conflict" not in effect:
                return KubernetesError(f"the API server: {effect}")
            self._server.edit(resource.name, {}, labels={"somebody": f"at {self._server.writes}"})
            return StaleError("somebody else was faster")

        return await self._network.call(self._process, operation, None, act, explain)

    async def _call(self, operation: str, act: Callable[[], Any]) -> Any:
        return await self._network.call(
            self._process, operation, None, act, lambda effect: KubernetesError(f"the API server: {effect}")
        )
