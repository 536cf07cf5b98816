"""The simulator as a command: `python -m tests.support.simulator`."""

import signal
import subprocess
import sys

import httpx
import pytest

from tests.support.simulator import run_simulator
from tests.support.simulator.process import REPOSITORY

COMMAND = [sys.executable, "-m", "tests.support.simulator"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_what_to_export_and_stops_cleanly(number: signal.Signals) -> None:
    arguments = ["--project=eu-nl_play=p-1", "--group=g-1", "--topic=urn:smn:eu-nl:p-1:t", "--password=made-up"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(10)]
        exported = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        url = exported["OS_AUTH_URL"].removesuffix("/v3")
        assert url in lines[0]
        assert {"AS group g-1", "SMN topic urn:smn:eu-nl:p-1:t"} <= set(lines)
        assert exported["OS_REGION_NAME"] == "eu-nl"
        assert exported["OS_PASSWORD"] == "made-up"
        (group,) = httpx.get(f"{url}/_sim/groups", trust_env=False).json()
        assert group == {"id": "g-1", "project_id": "p-1", "busy": False, "hooks": []}
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


def test_a_password_is_made_up_when_none_is_given() -> None:
    with run_simulator() as one, run_simulator("--username=other") as other:
        passwords = {simulator.credentials_env()["OS_PASSWORD"] for simulator in (one, other)}
        assert len(passwords) == 2
        assert min(map(len, passwords)) >= 16
        assert other.credentials_env()["OS_USERNAME"] == "other"


def test_it_stops_with_the_block_though_a_request_is_held() -> None:
    with run_simulator() as simulator:
        simulator.fault("versions", hold=True)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(simulator.url, timeout=httpx.Timeout(5, read=0.1), trust_env=False)
        url = simulator.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_it_does_not_outlive_a_killed_parent() -> None:
    script = (
        "import os, signal; from tests.support.simulator import run_simulator\n"
        "with run_simulator() as simulator: os.kill(os.getpid(), signal.SIGKILL)"
    )
    # The simulator inherits standard error: this returns only when it has ended as well.
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, b"")


def test_a_wrong_option_is_told() -> None:
    with pytest.raises(RuntimeError, match="did not start"), run_simulator("--no-such-option"):
        pass


def test_help_explains_every_option() -> None:
    shown = subprocess.run([*COMMAND, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for option in ("host", "port", "project", "username", "password", "group", "topic", "latency", "tls-cert"):
        assert f"--{option}" in shown
