"""Limits how much is done at once, with turns for everybody who waits."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairLimit:
    """At most `size` turns at a time, given round robin to the tenants that wait.

    A tenant may hold as many turns as are left free, so half of them if it is alone: whoever comes next finds a free
    turn even if those of another never end.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._held: Counter[str] = Counter()
        #: In the order of whose turn it is.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a turn of a tenant, and hold it."""
        if self._may_take(tenant) and not self._waiting:
            self._take(tenant)
        else:
            await self._wait(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    async def _wait(self, tenant: str) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(granted)
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._stop_waiting(tenant, granted)
            else:
                self._give_back(tenant)
            raise

    def _may_take(self, tenant: str) -> bool:
        return self._held[tenant] < self._free

    def _take(self, tenant: str) -> None:
        self._held[tenant] += 1
        self._free -= 1

    def _give_back(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant()

    def _grant(self) -> None:
        while (tenant := next(filter(self._may_take, self._waiting), None)) is not None:
            queue = self._waiting.pop(tenant)
            queue.popleft().set_result(None)
            if queue:
                self._waiting[tenant] = queue
            self._take(tenant)

    def _stop_waiting(self, tenant: str, granted: asyncio.Future[None]) -> None:
        queue = self._waiting[tenant]
        queue.remove(granted)
        if not queue:
            del self._waiting[tenant]
