"""The responses to probes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from lifecyclehook_operator.health import Health, Probe
from tests.support.controlplane import free_ports


@asynccontextmanager
async def serve(*, lag_seconds: float = 0, status: str = "ready") -> AsyncIterator[httpx.AsyncClient]:
    async def find_readiness() -> tuple[bool, str]:
        return status == "ready", status

    (port,) = free_ports(1)
    stop = await Health(lambda: 7, lambda: lag_seconds, find_readiness).serve(port)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
    finally:
        await stop()


@pytest.mark.parametrize(
    ("lag_seconds", "status", "watch"),
    [(0, 200, "alive"), (179, 200, "alive"), (180, 503, "dead"), (9999, 503, "dead")],
)
async def test_a_watch_that_lags_far_behind_is_dead(lag_seconds: float, status: int, watch: str) -> None:
    async with serve(lag_seconds=lag_seconds) as client:
        response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (status, {"resources": 7, "watch": watch})


@pytest.mark.parametrize(("status", "code"), [("ready", 200), ("starting", 503)])
async def test_what_keeps_it_from_working_makes_it_not_ready(status: str, code: int) -> None:
    async with serve(status=status, lag_seconds=9999) as client:
        response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (code, {"status": status})


@pytest.mark.parametrize(("problem", "seconds"), [("", 5), ("starting", 1)])
async def test_a_result_is_shared_and_reused_for_some_seconds(
    monkeypatch: pytest.MonkeyPatch, problem: str, seconds: float
) -> None:
    asked = []

    async def ask() -> str:
        asked.append(1)
        await asyncio.sleep(0)
        return problem

    now = [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    probe = Probe(ask)
    for after_seconds, times in ((0, 1), (seconds - 0.1, 1), (0.2, 2)):
        now[0] += after_seconds
        assert await asyncio.gather(*(probe.find_problem() for _ in range(20))) == [problem] * 20
        assert len(asked) == times


async def test_there_is_nothing_else() -> None:
    async with serve() as client:
        assert (await client.get("/")).status_code == 404
