"""Whatever happens to resources, hooks, cloud, API server, watch and operator, everything ends up as specified."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .scenario import Step, make_life, shrink
from .world import play

LIVES = int(os.environ.get("SIMULATED_LIVES", "5000"))
PROCESSES = 2


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Play lives in a process of their own: measuring coverage takes more time than the lives do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lives", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(1200)
def test_every_life_ends_well() -> None:
    share = LIVES // PROCESSES
    players = [start(number * share, (number + 1) * share - 1) for number in range(PROCESSES)]
    outputs = [player.communicate()[0] for player in players]
    assert [player.returncode for player in players] == [0] * PROCESSES, "\n".join(outputs)


@pytest.mark.parametrize("seed", range(60))
def test_a_life_ends_well(seed: int) -> None:
    """Some of them in this process, where a debugger and the measuring of coverage can see them."""
    assert play(make_life(seed), seed) == []


def test_a_life_is_the_same_in_every_process() -> None:
    outputs = []
    for hash_seed in ("1", "2"):
        code = "import sys; from tests.lives.scenario import *; from tests.lives.world import *; "
        code += "[play(make_life(seed), seed, print) for seed in range(20)]"
        outputs.append(
            subprocess.run(
                [sys.executable, "-c", code],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
    assert len(outputs[0].splitlines()) > 200
    assert outputs[0] == outputs[1]


def test_a_life_that_fails_is_shrunk_to_what_it_fails_by() -> None:
    life = make_life(3)
    culprits = [life[0], life[-1]]

    def fails(steps: list[Step]) -> bool:
        return {step.kind for step in culprits} <= {step.kind for step in steps}

    shortest = shrink(life, fails)
    assert sorted(step.kind for step in shortest) == sorted(step.kind for step in culprits)
