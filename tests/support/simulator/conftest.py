from collections.abc import Iterator

import httpx
import pytest

from tests.support.simulator import Simulator
from tests.support.simulator.caller import Caller


@pytest.fixture
def caller(simulator: Simulator) -> Iterator[Caller]:
    with httpx.Client(trust_env=False) as http:
        yield Caller(simulator, http)
