"""The responses to probes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from lifecyclehook_operator.health import Health
from tests.support.controlplane import free_ports


@asynccontextmanager
async def serve(*, lag_seconds: float = 0, problem: str = "") -> AsyncIterator[httpx.AsyncClient]:
    async def answer() -> str:
        return problem

    (port,) = free_ports(1)
    stop = await Health(lambda: 7, lambda: lag_seconds, answer).serve(port)
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


@pytest.mark.parametrize(("problem", "status", "word"), [("", 200, "ready"), ("starting", 503, "starting")])
async def test_what_keeps_it_from_working_makes_it_not_ready(problem: str, status: int, word: str) -> None:
    async with serve(problem=problem, lag_seconds=9999) as client:
        response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (status, {"status": word})


async def test_there_is_nothing_else() -> None:
    async with serve() as client:
        assert (await client.get("/")).status_code == 404
