"""Limits how much is done at once, with turns for everybody who waits."""

import asyncio
from collections import Counter, deque
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from prometheus_client import Gauge


@dataclass
class _Turn(AbstractAsyncContextManager[None]):
    """A generator instead would take more of a reconcile's CPU time."""

    limit: "FairLimit"
    tenant: str

    async def __aenter__(self) -> None:
        await self.limit.acquire(self.tenant)

    async def __aexit__(self, *_: object) -> None:
        self.limit.release(self.tenant)


class FairLimit:
    """At most `size` turns at a time, given round robin to the tenants that wait.

    A tenant may hold as many turns as are left free, so half of them if it is alone: whoever comes next finds a free
    turn even if those of another never end.
    """

    def __init__(self, size: int, gauge: Gauge | None = None) -> None:
        """Take the number of turns, and a gauge that is to count who waits for one."""
        self._free = size
        self._count_waiting = nullcontext if gauge is None else gauge.track_inprogress
        self._held: Counter[str] = Counter()
        #: In the order of whose turn it is.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def turn(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Return a context in which a tenant holds a turn: entering it waits for one."""
        return _Turn(self, tenant)

    async def acquire(self, tenant: str) -> None:
        """Wait for a turn of a tenant, and take it."""
        if self._may_take(tenant) and not self._waiting:
            self._take(tenant)
        else:
            await self._wait(tenant)

    def release(self, tenant: str) -> None:
        """Give a turn of a tenant back."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant()

    async def _wait(self, tenant: str) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(granted)
        self._grant()
        try:
            with self._count_waiting():
                await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._stop_waiting(tenant, granted)
            else:
                self.release(tenant)
            raise

    def _may_take(self, tenant: str) -> bool:
        return self._held[tenant] < self._free

    def _take(self, tenant: str) -> None:
        self._held[tenant] += 1
        self._free -= 1

    def _grant(self) -> None:
        while (tenant := next(filter(self._may_take, self._waiting), None)) is not None:
            queue = self._waiting.pop(tenant)
            granted = queue.popleft()
            if queue:
                self._waiting[tenant] = queue
            if not granted.cancelled():  # else its task is about to end, and takes no turn
                granted.set_result(None)
                self._take(tenant)

    def _stop_waiting(self, tenant: str, granted: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant, deque())
        if granted in queue:
            queue.remove(granted)
            if not queue:
                del self._waiting[tenant]
