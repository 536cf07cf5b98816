"""How the process exits if kopf does not return."""

import asyncio
import logging
import subprocess
import sys

import pytest

from lifecyclehook_operator import manager

SCRIPT = """
import asyncio, sys
from lifecyclehook_operator import manager
from lifecyclehook_operator.settings import Settings

manager._END_SECONDS = 0.1

async def fail():
    raise ValueError("out of\\n order")

async def run():
    own = manager.Manager(Settings())
    own._kopf_tasks = {asyncio.create_task(fail() if "fails" in sys.argv else asyncio.sleep(3600))}
    own.end_soon()
    await asyncio.sleep(3600)

manager.configure_logging("info", "text")
asyncio.run(run())
"""

SCRIPT_OF_A_FAILURE = """
import asyncio
from lifecyclehook_operator import manager
from lifecyclehook_operator.settings import Settings

async def fail():
    raise ZeroDivisionError

async def run(self):
    manager.unawaited = asyncio.create_task(fail())
    await asyncio.sleep(0)
    raise ValueError("out of order")

manager.Manager.run = run
manager.run(Settings(log_level="debug"))
del manager.unawaited
"""


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("fails", "The operator cannot run: ValueError: out of order"),
        ("hangs", "kopf did not return within 0.1 s after the shutdown."),
    ],
)
def test_a_process_whose_kopf_does_not_return_exits_and_says_why(way: str, why: str) -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(f"CRITICAL lifecyclehook_operator.manager: {why}")


def test_nothing_follows_the_last_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT_OF_A_FAILURE], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stderr.splitlines()[-1].endswith("The operator cannot run: ValueError: out of order")


async def test_what_kopf_leaves_to_close_in_the_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    error = RuntimeError("generator did not stop")
    manager.log_loop_error(loop, {"message": "closing failed", "exception": error, "asyncgen": object()})
    manager.log_loop_error(loop, {"message": "a task failed", "exception": error})
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "closing failed: generator did not stop"),
        ("ERROR", "a task failed"),
    ]
