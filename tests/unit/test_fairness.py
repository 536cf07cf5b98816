"""Turns are limited, and go round."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lifecyclehook_operator.fairness import FairLimit


class Crowd:
    """Tenants that hold their turns until they are told to let go."""

    def __init__(self, size: int) -> None:
        self.limit = FairLimit(size)
        self.holding: list[str] = []
        self._tasks: list[tuple[str, asyncio.Task[None]]] = []

    def come(self, tenant: str, count: int = 1) -> None:
        self._tasks += [(tenant, asyncio.create_task(self._hold(tenant))) for _ in range(count)]

    async def _hold(self, tenant: str) -> None:
        async with self.limit.turn(tenant):
            self.holding.append(tenant)
            try:
                await asyncio.Event().wait()
            finally:
                self.holding.remove(tenant)

    async def leave(self, tenant: str, count: int = 1, *, waiting: bool = False) -> None:
        """End the first tasks of a tenant; the last ones are those that wait."""
        own = [each for each in self._tasks if each[0] == tenant]
        for each in own[-count:] if waiting else own[:count]:
            self._tasks.remove(each)
            each[1].cancel()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def crowd(size: int) -> AsyncIterator[Crowd]:
    made = Crowd(size)
    yield made
    for _, task in made._tasks:  # noqa: SLF001
        task.cancel()
    await settle()
    assert made.holding == []
    assert made.limit._free == size  # noqa: SLF001
    assert not made.limit._held  # noqa: SLF001
    assert not made.limit._waiting  # noqa: SLF001


@pytest.mark.anyio
async def test_one_tenant_takes_half_and_the_next_finds_a_free_turn() -> None:
    async with crowd(8) as all_:
        all_.come("greedy", 100)
        await settle()
        assert Counter(all_.holding) == {"greedy": 4}
        all_.come("other")
        await settle()
        assert Counter(all_.holding) == {"greedy": 4, "other": 1}


@pytest.mark.anyio
async def test_turns_go_round_among_those_who_wait() -> None:
    async with crowd(1) as all_:
        for tenant in ("first", "second", "third"):
            all_.come(tenant, 3)
            await settle()
        order = []
        while all_.holding:
            order += all_.holding
            await all_.leave(all_.holding[0])
        assert order == ["first", *["first", "second", "third"] * 2, "second", "third"]


@pytest.mark.anyio
async def test_who_stops_waiting_is_passed_over() -> None:
    async with crowd(2) as all_:
        all_.come("first", 3)
        await settle()
        await all_.leave("first", 2, waiting=True)
        all_.come("second", 3)
        await settle()
        await all_.leave("second", 2, waiting=True)
        await all_.leave("first")
        assert all_.holding == ["second"]


@pytest.mark.anyio
async def test_a_turn_that_is_granted_to_who_is_just_cancelled_is_given_on() -> None:
    async with crowd(1) as all_:
        all_.come("first")
        await settle()
        all_.come("second")
        all_.come("third")
        await settle()
        (_, first), (_, second), _ = all_._tasks  # noqa: SLF001
        first.cancel()
        await asyncio.sleep(0)  # the turn passes to the second, who has not run yet
        second.cancel()
        await settle()
        assert all_.holding == ["third"]


@pytest.mark.anyio
async def test_a_limit_of_one_serves_one_at_a_time() -> None:
    async with crowd(1) as all_:
        all_.come("a", 3)
        await settle()
        assert all_.holding == ["a"]


@pytest.mark.anyio
async def test_a_tenant_without_a_name_gets_its_turn_and_stops_nobody() -> None:
    async with crowd(4) as made:
        made.come("")
        made.come("a")
        await settle()
        assert made.holding == ["", "a"]


@pytest.mark.anyio
async def test_one_that_ends_while_others_give_up_waiting_gives_its_turn_to_the_next() -> None:
    async with crowd(1) as all_:
        all_.come("first")
        all_.come("second", 2)
        all_.come("third")
        await settle()
        first, gives_up, *_ = [task for _, task in all_._tasks]  # noqa: SLF001
        first.cancel()
        gives_up.cancel()
        ended = await asyncio.gather(first, gives_up, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
        await settle()
        assert len(all_.holding) == 1
