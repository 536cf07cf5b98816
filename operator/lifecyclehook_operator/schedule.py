"""When a resource gets its next pass: at once where something happened, else when its last pass asked for one."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from lifecyclehook_operator.errors import KubernetesError, StaleError
from lifecyclehook_operator.metrics import RECONCILES
from lifecyclehook_operator.reconcile import FOREVER, Memory, jitter
from lifecyclehook_operator.resource import LifecycleHook

logger = logging.getLogger(__name__)

Reconcile = Callable[[LifecycleHook, Memory], Awaitable[tuple[LifecycleHook, float]]]

_STALE_RETRY_SECONDS = 1
_STALE_RETRIES = 5
_FAULT_RETRY_SECONDS = (2, 5, 10, 30, 60)


@dataclass
class _Entry:
    resource: LifecycleHook
    memory: Memory
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    is_due: bool = False
    faults: int = 0
    #: Of what the watch told last, and since when it owes us a newer version, of time.monotonic.
    noticed_version: int = 0
    unseen_since: float | None = None


class Schedule:
    """Runs passes, for each resource one at a time, always on the newest version that was seen of it."""

    def __init__(self, reconcile: Reconcile) -> None:
        """Take the function that makes a pass; what it returns is the resource as it then is, and seconds to wait."""
        self._reconcile = reconcile
        self._entries: dict[str, _Entry] = {}
        self._is_closed = False

    def newest(self, uid: str) -> LifecycleHook | None:
        """Return the newest version that was seen of a resource, or None if there was none."""
        entry = self._entries.get(uid)
        return entry.resource if entry is not None else None

    def resources(self) -> list[LifecycleHook]:
        """Return the newest version that was seen of every resource."""
        return [entry.resource for entry in list(self._entries.values())]

    def unseen_write_seconds(self) -> float:
        """Return for how long the watch has not told of a write that was made here; 0 if it has told of all."""
        now = time.monotonic()
        return max((now - entry.unseen_since for entry in self._entries.values() if entry.unseen_since), default=0.0)

    def retry(self, uids: Iterable[str]) -> None:
        """Make a pass at once for those of these resources that wait after a failure: what they need may be there."""
        for entry in filter(None, map(self._entries.get, list(uids))):
            if entry.memory.failures or entry.task is not None:  # who is at work may be failing just now
                entry.memory.is_retry_asked = True
                self._wake(entry)

    def wake(self, uids: Iterable[str]) -> None:
        """Make a pass for these resources: what is known beside them has changed."""
        for entry in filter(None, map(self._entries.get, list(uids))):
            self._wake(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def notice(self, resource: LifecycleHook) -> None:
        """Take note of a resource as the API server has just told of it, and make a pass."""
        entry = self._entries.setdefault(resource.uid, _Entry(resource, Memory.begin(resource)))
        entry.resource = _newer(entry.resource, resource)
        entry.noticed_version = max(entry.noticed_version, resource.resource_version)
        if entry.noticed_version >= entry.resource.resource_version:
            entry.unseen_since = None
        self._wake(entry)

    def forget(self, uid: str) -> None:
        """Take note that a resource is gone."""
        if entry := self._entries.pop(uid, None):
            _rest(entry)

    async def close(self, grace_seconds: float) -> None:
        """Begin no further pass, and give those at work so long to end before they are cancelled."""
        self._is_closed = True
        entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            _rest(entry)
        tasks = [entry.task for entry in entries if entry.task is not None]
        if not tasks:
            return
        _, unfinished = await asyncio.wait(tasks, timeout=grace_seconds)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def _wake(self, entry: _Entry) -> None:
        _rest(entry)
        if self._is_closed:
            return
        entry.is_due = True
        if entry.task is None:
            entry.task = asyncio.create_task(self._work(entry), name=f"passes of {entry.resource}")

    async def _work(self, entry: _Entry) -> None:
        delay = FOREVER
        try:
            while entry.is_due:
                entry.is_due = False
                delay = await self._make_pass(entry)
        finally:
            entry.task = None
        if delay != FOREVER and self._entries.get(entry.resource.uid) is entry:
            entry.timer = asyncio.get_running_loop().call_later(delay, self._wake, entry)

    async def _make_pass(self, entry: _Entry) -> float:
        try:
            resource, delay = await self._reconcile(entry.resource, entry.memory)
        except StaleError as error:
            if entry.faults < _STALE_RETRIES:  # a newer version is on its way
                logger.debug("%s: %s", entry.resource.label, error)
                entry.faults += 1
                return jitter(_STALE_RETRY_SECONDS)
            logger.warning("%s: %s", entry.resource.label, error)
            RECONCILES.labels("kubernetes_error").inc()
        except KubernetesError as error:
            logger.warning("%s: %s", entry.resource.label, error)
            RECONCILES.labels("kubernetes_error").inc()
        except Exception:  # a fault of ours: one resource's must not stop the others
            logger.exception("%s: the pass failed", entry.resource.label)
            RECONCILES.labels("internal_error").inc()
        else:
            entry.resource = _newer(entry.resource, resource)
            if entry.resource.resource_version > entry.noticed_version:
                entry.unseen_since = entry.unseen_since or time.monotonic()
            entry.faults = 0
            return delay
        entry.faults += 1
        return jitter(_FAULT_RETRY_SECONDS[min(entry.faults, len(_FAULT_RETRY_SECONDS)) - 1])


def _rest(entry: _Entry) -> None:
    """Plan no pass."""
    entry.is_due = False
    if entry.timer is not None:
        entry.timer.cancel()
        entry.timer = None


def _newer(known: LifecycleHook, seen: LifecycleHook) -> LifecycleHook:
    """Return the newer of two versions of a resource: the watch may lag behind what our own writes have returned."""
    return seen if seen.resource_version >= known.resource_version else known
