"""Creates, edits and deletes resources and sees what becomes of them: one connection pool, one watch, one clock."""

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.workspace import ADDRESS, API_VERSION, PLURAL, is_ready

#: How many requests are under way at a time; more only makes the API server slower.
REQUESTS = 32
#: An event of the watch is one line, with a whole object in it.
LINE_LIMIT_BYTES = 1 << 20

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Timeline:
    """How long a batch took from its first request on; and of each resource, how long it took after its answer."""

    total_seconds: float
    seconds: Sequence[float]

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[math.ceil(len(self.seconds) * share) - 1]


@dataclass(frozen=True)
class _Awaited:
    holds: Callable[[str, Body], bool]
    seen_at: asyncio.Future[float]


class Load:
    """Changes the resources of one namespace, as fast as the API server takes it.

    Each method waits until the operator has done its part, and raises TimeoutError, with the number of those for which
    it has not, if that takes too long.
    """

    def __init__(self, session: aiohttp.ClientSession, namespace: str, timeout_seconds: float) -> None:
        self._session = session
        self._path = f"/apis/{'/'.join(ADDRESS)}/namespaces/{namespace}/{PLURAL}"
        self._timeout_seconds = timeout_seconds
        self._awaited: dict[str, _Awaited] = {}
        self._watching: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    @asynccontextmanager
    async def start(cls, control_plane: ControlPlane, namespace: str, timeout_seconds: float) -> AsyncIterator[Self]:
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
            load = cls(session, namespace, timeout_seconds)
            await load._begin_watch()
            try:
                yield load
            finally:
                load._watching.cancel()
                await asyncio.gather(load._watching, return_exceptions=True)

    async def create(self, specs: Mapping[str, Body], meanwhile: Callable[[], None] = lambda: None) -> Timeline:
        """Create resources, given as name and spec, and wait until all are Ready."""

        async def create_one(name: str) -> None:
            body = {"apiVersion": API_VERSION, "kind": "LifecycleHook", "metadata": {"name": name}, "spec": specs[name]}
            async with self._session.post(self._path, json=body) as response:
                await response.read()

        return await self._change(list(specs), create_one, lambda _, body: is_ready(body), meanwhile)

    async def edit(self, names: Sequence[str], field: str, value: object) -> Timeline:
        """Give a field of each spec another value, and wait until all are Ready with it."""

        async def edit_one(name: str) -> None:
            headers = {"Content-Type": "application/merge-patch+json"}
            data = json.dumps({"spec": {field: value}})
            async with self._session.patch(f"{self._path}/{name}", data=data, headers=headers) as response:
                await response.read()

        return await self._change(names, edit_one, lambda _, body: body["spec"][field] == value and is_ready(body))

    async def delete(self, names: Sequence[str]) -> Timeline:
        """Delete resources, and wait until all are gone."""

        async def delete_one(name: str) -> None:
            async with self._session.delete(f"{self._path}/{name}") as response:
                await response.read()

        return await self._change(names, delete_one, lambda kind, _: kind == "DELETED")

    async def _change(
        self,
        names: Sequence[str],
        change: Callable[[str], Awaitable[None]],
        holds: Callable[[str, Body], bool],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Timeline:
        loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(REQUESTS)
        seen = {name: loop.create_future() for name in names}
        self._awaited = {name: _Awaited(holds, future) for name, future in seen.items()}

        async def change_one(name: str) -> float:
            async with slots:
                await change(name)
            return time.monotonic()

        begun = time.monotonic()
        answered_at = await asyncio.gather(*map(change_one, names))
        meanwhile()
        all_seen = asyncio.gather(*seen.values())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({all_seen, self._watching}, timeout=self._timeout_seconds, return_when=first)
        if not all_seen.done():
            late = sum(not each.done() for each in seen.values())
            all_seen.cancel()
            if self._watching.done():
                self._watching.result()
            raise TimeoutError(f"{late} of {len(names)} resources are late after {self._timeout_seconds:.0f} s")
        seen_at = all_seen.result()
        seconds = [max(0.0, end - start) for start, end in zip(answered_at, seen_at, strict=True)]
        return Timeline(max(seen_at) - begun, seconds)

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
                    awaited = self._awaited.get(body["metadata"]["name"])
                    if awaited and not awaited.seen_at.done() and awaited.holds(event["type"], body):
                        awaited.seen_at.set_result(time.monotonic())
