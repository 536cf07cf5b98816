"""Somebody else's client of Keystone clouds (a Go SDK) can work with the simulated cloud."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulator import Simulator
from tests.support.simulator.caller import build_go_program

#: The first of them builds the program, and where Go's cache is cold its modules are to be had first.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_go_program(".", tmp_path_factory.mktemp("gosdk"))


def run(program: Path, simulator: Simulator, **environment: str) -> dict[str, Any]:
    group, topic = simulator.add_group("group-of-go"), simulator.add_topic("gsh")
    credentials = simulator.credentials_env()
    ended = subprocess.run(
        [program, group, topic],
        env={**credentials, "OS_DOMAIN_NAME": credentials["OS_USER_DOMAIN_NAME"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


@pytest.mark.parametrize("path", ["", "/", "/v3", "/v3/"])
def test_it_logs_in_and_finds_as_in_the_catalog(program: Path, simulator: Simulator, path: str) -> None:
    report = run(program, simulator, OS_AUTH_URL=simulator.url + path)
    assert report["endpoint"] == f"{simulator.as_endpoint()}/"
    assert report["project"] == "eu-de_demo"
    assert report["projects"] == [simulator.project_id]
    assert "asv1" in report["services"]
    assert report["domain_scoped"] == simulator.credentials_env()["OS_USER_DOMAIN_NAME"]
    assert report["wrong_login"] == 401
    assert report["token_expires"].endswith("Z")


def test_it_creates_gets_lists_modifies_and_deletes(program: Path, simulator: Simulator) -> None:
    report = run(program, simulator)
    created = report["created"]
    assert (created["lifecycle_hook_name"], created["default_timeout"]) == ("from-go", 3600)
    assert created["notification_topic_name"] == "gsh"
    assert report["got"] == created
    assert report["listed"] == [created]
    assert report["modified"] == created | {"default_timeout": 120}
    assert report["left"] == []


def test_it_gets_errors_that_it_can_tell_apart(program: Path, simulator: Simulator) -> None:
    report = run(program, simulator)
    assert report["duplicate"] == {"status": 400, "code": "AS.7041"}
    assert report["no_group"] == {"status": 400, "code": "AS.2007"}
    assert report["no_hook"] == {"status": 404, "code": "AS.0007"}
    assert report["no_token"] == {"status": 401, "code": "AS.0005"}


def test_it_logs_in_again_when_its_token_is_refused(program: Path, simulator: Simulator) -> None:
    run(program, simulator)
    refused, repeated = simulator.requests("modify")
    assert (refused.status, refused.code, repeated.status) == (401, "AS.0006", 200)
    tokens_between = simulator.requests("token", after=refused.sequence)
    assert [token.status for token in tokens_between if token.sequence < repeated.sequence] == [201]
