"""Credentials change again and again, and nothing is left of the former ones: no memory, and no connection."""

import asyncio
import gc
import math
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lifecyclehook_operator.cloud import http
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.controller import clients as module
from lifecyclehook_operator.controller.clients import ClientCache
from tests.contract.hostile import MIB, memory
from tests.support.controlplane import ControlPlane
from tests.support.simulator import Simulator, run_simulator

SOURCE = ("web", "otc")
DEADLINE_SECONDS = 20


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def certificate(control_plane: ControlPlane) -> tuple[Path, Path]:
    """The API server's own certificate and key, of this machine, serve the simulated cloud as well."""
    folder = control_plane.work_dir / "pki"
    return folder / "apiserver.crt", folder / "apiserver.key"


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[Simulator]:
    with run_simulator(tls=certificate) as simulator:
        yield simulator


@pytest.fixture
async def clients() -> AsyncIterator[ClientCache]:
    clients = ClientCache(timeout_seconds=30, concurrency=4)
    yield clients
    await clients.aclose()


def make_credentials(simulator: Simulator, **changes: str) -> Credentials:
    named = {name.removeprefix("OS_").lower(): value for name, value in simulator.credentials_env().items()}
    return Credentials.model_validate({**named, **changes})


def count_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def count_sockets() -> int:
    return sum(str(each.readlink()).startswith("socket:") for each in Path("/proc/self/fd").iterdir() if each.exists())


async def closed(sockets: int) -> None:
    """Wait until so many sockets are open, and no more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while count_sockets() > sockets:  # noqa: ASYNC110  (the kernel sends no event)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("rotations", "is_authority_new"), [(100, False), (30, True)])
async def test_rotations_leave_neither_memory_nor_descriptors(
    secure: Simulator, certificate: tuple[Path, Path], clients: ClientCache, rotations: int, is_authority_new: bool
) -> None:
    authority, group = certificate[0].read_text(), secure.add_group()

    async def rotate(number: int) -> None:
        password = f"password-{number}"
        secure.add_user("demo", password)
        bundle = f"{authority}\n# {number if is_authority_new else ''}"
        client = clients.get(make_credentials(secure, password=password, ca_certificates=bundle), SOURCE)
        assert (await client.list_hooks(group, not_before=math.inf)).entries == []

    for number in range(10):
        await rotate(number)
    gc.collect()
    before = memory("VmRSS"), count_descriptors()
    for number in range(rotations):
        await rotate(10 + number)
    gc.collect()
    assert memory("VmRSS") - before[0] < 10 * MIB
    assert count_descriptors() - before[1] <= 5


async def test_a_call_in_flight_goes_on_when_its_credentials_are_superseded(
    simulator: Simulator, clients: ClientCache
) -> None:
    group, before = simulator.add_group(), count_sockets()
    held = simulator.fault("list", hold=True)
    former = clients.get(make_credentials(simulator), SOURCE)
    call = asyncio.create_task(former.list_hooks(group, not_before=math.inf))
    await asyncio.to_thread(simulator.wait_for_request, "list", state="held")
    during = count_sockets()
    simulator.add_user("other", "other-password")
    other = make_credentials(simulator, username="other", password="other-password")
    assert clients.get(other, SOURCE) is not former
    simulator.release(held)
    assert (await call).entries == []
    assert during > before
    await closed(before)
    assert (await former.list_hooks(group, not_before=math.inf)).entries == []  # by one who still has it


async def test_credentials_that_another_secret_has_too_are_not_superseded(
    simulator: Simulator, clients: ClientCache
) -> None:
    simulator.add_user("other", "other-password")
    shared = make_credentials(simulator)
    other = make_credentials(simulator, username="other", password="other-password")
    client = clients.get(shared, SOURCE)
    assert clients.get(shared, ("db", "otc")) is client
    clients.get(other, SOURCE)
    assert clients.get(shared, ("db", "otc")) is client
    clients.get(other, ("db", "otc"))
    assert clients.get(shared) is not client


async def test_idle_connections_are_closed_and_opened_again(
    simulator: Simulator, clients: ClientCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_KEEPALIVE_SECONDS", 0.2)
    group, before = simulator.add_group(), count_sockets()
    client = clients.get(make_credentials(simulator))
    for _ in range(2):
        await asyncio.gather(*(client.list_hooks(group, not_before=math.inf) for _ in range(8)))
        assert count_sockets() > before
        await closed(before)
    assert len(simulator.requests("token")) == 1


async def test_a_client_that_is_not_used_for_long_is_forgotten(
    simulator: Simulator, clients: ClientCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNUSED_SECONDS", 0)
    group, before = simulator.add_group(), count_sockets()
    client = clients.get(make_credentials(simulator), SOURCE)
    await client.list_hooks(group, not_before=math.inf)
    clients.get(make_credentials(simulator, username="other"))
    await closed(before)
    assert clients.get(make_credentials(simulator)) is not client


def test_clients_that_trust_the_same_share_a_context(certificate: tuple[Path, Path]) -> None:
    authority = certificate[0].read_text()
    assert http._trust(authority) is http._trust("".join(authority))  # noqa: SLF001
    assert isinstance(http._trust(""), ssl.SSLContext)  # noqa: SLF001
