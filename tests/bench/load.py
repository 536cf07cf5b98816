"""Creates resources and sees them become Ready: one connection pool, one watch, one clock."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.workspace import ADDRESS, API_VERSION, PLURAL, is_ready

#: How many create requests are under way at a time; more only makes the API server slower.
CREATORS = 32
#: An event of the watch is one line, with a whole object in it.
LINE_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Timeline:
    """When a batch was begun and when its last resource was Ready; of each, how long it took after its answer."""

    total_seconds: float
    seconds: Sequence[float]


class Load:
    """Puts resources into one namespace, as fast as the API server takes them."""

    def __init__(self, session: aiohttp.ClientSession, namespace: str) -> None:
        self._session = session
        self._path = f"/apis/{'/'.join(ADDRESS)}/namespaces/{namespace}/{PLURAL}"
        self._is_ready: dict[str, asyncio.Future[float]] = {}
        self._watching: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    @asynccontextmanager
    async def start(cls, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Self]:
        """Connect and watch, as the administrator."""
        token = yaml.safe_load(control_plane.kubeconfig.read_text())["users"][0]["user"]["token"]
        async with aiohttp.ClientSession(
            control_plane.url,
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=control_plane.ca_file)),
            timeout=aiohttp.ClientTimeout(total=None, connect=30),
            raise_for_status=True,
            read_bufsize=LINE_LIMIT_BYTES,
        ) as session:
            load = cls(session, namespace)
            await load._begin_watch()
            try:
                yield load
            finally:
                load._watching.cancel()
                await asyncio.gather(load._watching, return_exceptions=True)

    async def create(self, specs: Mapping[str, Mapping[str, Any]], timeout_seconds: float) -> Timeline:
        """Create resources, given as name and spec, and wait until all are Ready.

        Raises TimeoutError, with the number that is not, if that takes too long.
        """
        ready = {name: asyncio.get_running_loop().create_future() for name in specs}
        self._is_ready.update(ready)
        slots = asyncio.Semaphore(CREATORS)

        async def create_one(name: str) -> float:
            body = {"apiVersion": API_VERSION, "kind": "LifecycleHook", "metadata": {"name": name}, "spec": specs[name]}
            async with slots, self._session.post(self._path, json=body) as response:
                await response.read()
            return time.monotonic()

        begun = time.monotonic()
        answered_at = await asyncio.gather(*map(create_one, specs))
        all_ready = asyncio.gather(*ready.values())
        await asyncio.wait({all_ready, self._watching}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not all_ready.done():
            late = sum(not each.done() for each in ready.values())
            all_ready.cancel()
            if self._watching.done():
                self._watching.result()
            raise TimeoutError(f"{late} of {len(specs)} resources are not Ready after {timeout_seconds:.0f} s")
        ready_at = all_ready.result()
        seconds = [max(0.0, end - start) for start, end in zip(answered_at, ready_at, strict=True)]
        return Timeline(max(ready_at) - begun, seconds)

    async def _begin_watch(self) -> None:
        async with self._session.get(self._path) as response:
            version = (await response.json())["metadata"]["resourceVersion"]
        self._watching = asyncio.create_task(self._watch(version))

    async def _watch(self, version: str) -> None:
        while True:  # the API server ends a watch whose reader was too busy for a while
            query = {"watch": "true", "resourceVersion": version}
            async with self._session.get(self._path, params=query) as response:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch has failed: {event['object'].get('message')}")
                    body = event["object"]
                    version = body["metadata"]["resourceVersion"]
                    awaited = self._is_ready.get(body["metadata"]["name"])
                    if awaited is not None and not awaited.done() and is_ready(body):
                        awaited.set_result(time.monotonic())
