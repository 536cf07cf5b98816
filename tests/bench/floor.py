"""The floor: the least that has to be done for a hook, with no library between us and the two servers but aiohttp.

It makes the operator's requests: one watch; a patch that puts the finalizer on, a call of AS, a patch of the status.
It handles no error, and so is no operator: it shows how fast this machine and its API server let any operator be.
"""

import argparse
import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

FINALIZER = "as.otc.t-systems.com/lifecyclehook"
HOOKS = "/apis/as.otc.t-systems.com/v1alpha1/lifecyclehooks"
WORKERS = 64
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
LINE_LIMIT_BYTES = 1 << 20
AS_NAMES = {
    "lifecycleHookType": "lifecycle_hook_type",
    "defaultResult": "default_result",
    "defaultTimeout": "default_timeout",
    "notificationTopicUrn": "notification_topic_urn",
}


class Floor:
    """Has each object brought to what it says, by whichever of the workers is free."""

    def __init__(self, kubernetes: aiohttp.ClientSession, cloud: aiohttp.ClientSession, project_id: str) -> None:
        self._kubernetes = kubernetes
        self._cloud = cloud
        self._hooks = f"/autoscaling-api/v1/{project_id}/scaling_lifecycle_hook"
        self._project_id = project_id
        self._newest: dict[str, Mapping[str, Any]] = {}
        self._due: asyncio.Queue[str] = asyncio.Queue()
        self._active: set[str] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(self._work())
            async for body in self._events():
                self._add(body)

    async def _events(self) -> AsyncIterator[Mapping[str, Any]]:
        async with self._kubernetes.get(HOOKS) as response:
            listing = await response.json()
        for body in listing["items"]:
            yield body
        version = listing["metadata"]["resourceVersion"]
        while True:
            query = {"watch": "true", "resourceVersion": version}
            async with self._kubernetes.get(HOOKS, params=query) as response:
                async for line in response.content:
                    event = json.loads(line)
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "DELETED":
                        yield event["object"]

    def _add(self, body: Mapping[str, Any]) -> None:
        uid = body["metadata"]["uid"]
        if uid in self._newest and version_of(body) < version_of(self._newest[uid]):
            return  # the watch lags behind our own writes
        self._newest[uid] = body
        if uid not in self._active and not is_done(body):
            self._active.add(uid)
            self._due.put_nowait(uid)

    async def _work(self) -> None:
        while True:
            uid = await self._due.get()
            body = await self._reconcile(self._newest[uid])
            self._active.discard(uid)
            self._add(max(body, self._newest[uid], key=version_of))

    async def _reconcile(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        metadata, spec = body["metadata"], body["spec"]
        group, name = spec["scalingGroupId"], metadata["name"]
        path = f"{HOOKS.removesuffix('/lifecyclehooks')}/namespaces/{metadata['namespace']}/lifecyclehooks/{name}"
        fields = {AS_NAMES[key]: value for key, value in spec.items() if key in AS_NAMES}
        if "deletionTimestamp" in metadata:
            await self._call("DELETE", f"{group}/{name}")
            return await self._patch(path, {"metadata": {"finalizers": []}}, MERGE)
        if "lifecycleHook" in body.get("status", {}):
            hook = await self._call("PUT", f"{group}/{name}", fields)
        else:
            body = await self._patch(path, {"metadata": {"finalizers": [FINALIZER]}}, MERGE)
            hook = await self._call("POST", group, {"lifecycle_hook_name": name, **fields})
        status = self._status(body, hook)
        return await self._patch(f"{path}/status", [{"op": "add", "path": "/status", "value": status}], JSON_PATCH)

    def _status(self, body: Mapping[str, Any], hook: Mapping[str, Any]) -> dict[str, Any]:
        generation = body["metadata"]["generation"]
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Available",
            "message": "the hook in AS is as wanted",
            "observedGeneration": generation,
            "lastTransitionTime": body["metadata"]["creationTimestamp"],
        }
        return {
            "observedGeneration": generation,
            "appliedGeneration": generation,
            "conditions": [ready],
            "projectId": self._project_id,
            "scalingGroupId": body["spec"]["scalingGroupId"],
            "lifecycleHook": {
                **{camel: hook[name] for camel, name in AS_NAMES.items()},
                "lifecycleHookName": hook["lifecycle_hook_name"],
                "notificationTopicName": hook["notification_topic_name"],
                "createTime": hook["create_time"],
            },
        }

    async def _patch(self, path: str, patch: object, content_type: str) -> Any:
        headers = {"Content-Type": content_type}
        async with self._kubernetes.patch(path, data=json.dumps(patch), headers=headers) as response:
            return await response.json()

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        async with self._cloud.request(method, f"{self._hooks}/{path}", json=body) as response:
            return None if method == "DELETE" else await response.json()


def version_of(body: Mapping[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])


def is_done(body: Mapping[str, Any]) -> bool:
    metadata = body["metadata"]
    if "deletionTimestamp" in metadata:
        return not metadata.get("finalizers")
    return body.get("status", {}).get("observedGeneration") == metadata["generation"]


async def log_in(cloud: aiohttp.ClientSession, project_name: str) -> str:
    """Put a token on all that follows, and return the project's ID."""
    domain = {"name": os.environ["OS_USER_DOMAIN_NAME"]}
    user = {"name": os.environ["OS_USERNAME"], "password": os.environ["OS_PASSWORD"], "domain": domain}
    identity = {"methods": ["password"], "password": {"user": user}}
    request = {"auth": {"identity": identity, "scope": {"project": {"name": project_name}}}}
    async with cloud.post("/v3/auth/tokens", json=request) as response:
        cloud.headers["X-Auth-Token"] = response.headers["X-Subject-Token"]
        return str((await response.json())["token"]["project"]["id"])


async def run(kubeconfig: Mapping[str, Any]) -> None:
    cluster = kubeconfig["clusters"][0]["cluster"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(
            cluster["server"],
            headers={"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"},
            connector=aiohttp.TCPConnector(ssl=context),
            raise_for_status=True,
            read_bufsize=LINE_LIMIT_BYTES,
            timeout=timeout,
        ) as kubernetes,
        aiohttp.ClientSession(
            os.environ["OS_AUTH_URL"].removesuffix("/v3"), raise_for_status=True, timeout=timeout
        ) as cloud,
    ):
        await Floor(kubernetes, cloud, await log_in(cloud, os.environ["OS_PROJECT_NAME"])).run()


def find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the fastest event loop that is installed."""
    try:
        import uvloop  # noqa: PLC0415  # there is none on Windows
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with asyncio.Runner(loop_factory=find_loop_factory()) as runner:
        runner.run(run(yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())))


if __name__ == "__main__":
    main()
