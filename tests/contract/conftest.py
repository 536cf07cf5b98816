from collections.abc import Iterator

import httpx
import pytest

from tests.contract.caller import Caller
from tests.simulator import Simulator, run_simulator


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with run_simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    running_simulator.reset()
    return running_simulator


@pytest.fixture
def caller(simulator: Simulator) -> Iterator[Caller]:
    with httpx.Client(trust_env=False) as http:
        yield Caller(simulator, http)
