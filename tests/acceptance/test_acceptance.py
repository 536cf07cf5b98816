"""`make acceptance` against the simulated cloud: what it tells, what it leaves behind, and what it does not show."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.simulator import Simulator

from .__main__ import IN_CLOUD, IN_CLUSTER

DEADLINE_SECONDS = 240
ALONE = "--without-operator"
#: Why something is never tried, whatever a run is given.
NEVER_TRIED = {
    "it would lock the user for everybody",
    "it would cost the group",
    "a name of this run begins with a prefix of its own",
    "it would take a flood of requests",
    "needs a second project",
    "a token lives for a day",
    "needs a suspended instance, and this run starts no scaling action",
}
INPUTS = ("OS_", "AS_ENDPOINT", "LIMITED_", "ROLELESS_")
LEFT_OVER = "acceptance-0a1b2c-hook"


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    status: int
    output: str
    markdown: str

    @property
    def rows(self) -> dict[str, tuple[str, str]]:
        """Result and remark by the name of the assumption, as the Markdown has them."""
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in self.markdown.splitlines() if line.startswith("| ")]
        names = [assumption.name for assumption in (*IN_CLOUD, *IN_CLUSTER)]
        return {name: (row[2].strip(), row[3].strip()) for name, row in zip(names, cells[2:], strict=True)}

    @property
    def different(self) -> dict[str, str]:
        return {name: remark for name, (result, remark) in self.rows.items() if result == "DIFFERENT"}

    @property
    def reasons(self) -> set[str]:
        """Why something was not tried."""
        return {remark for result, remark in self.rows.values() if result == "not tried"}


class Account:
    """What somebody with an account gives to a run."""

    def __init__(self, simulator: Simulator, folder: Path) -> None:
        self.cloud = simulator
        self.group = simulator.add_group()
        self.topic = simulator.add_topic("gsh")
        self.markdown = folder / "acceptance.md"
        others = {name: value for name, value in os.environ.items() if not name.startswith(INPUTS)}
        self.environment = {**others, "NO_PROXY": "*", **simulator.credentials_env()}

    def hook(self, name: str) -> dict[str, Any]:
        """Put a hook into the group."""
        fields = {"lifecycle_hook_type": "INSTANCE_LAUNCHING", "notification_topic_urn": self.topic}
        return self.cloud.put_hook(self.group, name, **fields)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        given = (f"--group-id={self.group}", f"--topic-urn={self.topic}", f"--markdown={self.markdown}")
        with subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance", *given, "--settle-seconds=1", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for the end of a run. Nothing of what it shows is a secret."""
        output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        markdown = self.markdown.read_text() if self.markdown.exists() else ""
        assert self.cloud.find_secrets(output + markdown) == []
        return Ended(process.returncode, output, markdown)

    def run(self, *arguments: str) -> Ended:
        with self.running(*arguments) as process:
            return self.end(process)


@pytest.fixture
def account(simulator: Simulator, tmp_path: Path) -> Account:
    return Account(simulator, tmp_path)


@pytest.fixture
def operator_folder(control_plane: ControlPlane, account: Account, tmp_path: Path) -> Path:
    """The temporary folder of a run with the operator."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    account.environment |= {"KUBEBUILDER_ASSETS": str(control_plane.binaries.folder), "TMPDIR": str(folder)}
    return folder


def add_all_inputs(account: Account) -> tuple[str, ...]:
    """Give a run all that it can use, and return the arguments for it."""
    cloud = account.cloud
    cloud.add_user("limited", "limited-password", permissions=["as:lifecycleHooks:list"])
    cloud.add_user("roleless", "roleless-password", permissions=[])
    access, secret, token = cloud.add_access_key(security_token=True)
    account.environment |= {
        "OS_ACCESS_KEY": access,
        "OS_SECRET_KEY": secret,
        "OS_SECURITY_TOKEN": token,
        "LIMITED_USERNAME": "limited",
        "LIMITED_PASSWORD": "limited-password",
        "ROLELESS_USERNAME": "roleless",
        "ROLELESS_PASSWORD": "roleless-password",
    }
    return (f"--busy-group-id={cloud.add_group(busy=True)}",)


# --- what it tells ------------------------------------------------------------------------------------------------


def test_the_simulated_cloud_is_as_assumed_and_the_operator_works_with_it(
    account: Account, operator_folder: Path
) -> None:
    ended = account.run(*add_all_inputs(account))
    assert ended.status == 0, ended.output
    assert ended.different == {}
    assert ended.reasons == NEVER_TRIED
    assert account.cloud.hooks(account.group) == []
    assert list(operator_folder.iterdir()) == []


def test_what_a_run_is_not_given_it_does_not_try_and_says_what_to_give(account: Account) -> None:
    ended = account.run(ALONE)
    assert ended.status == 0, ended.output
    assert ended.different == {}
    assert ended.reasons - NEVER_TRIED == {
        "no access key was given: OS_ACCESS_KEY, OS_SECRET_KEY",
        "no user who may only list hooks was given: LIMITED_USERNAME, LIMITED_PASSWORD",
        "no user without any right on AS was given: ROLELESS_USERNAME, ROLELESS_PASSWORD",
        "no group that performs a scaling action was given: BUSY_GROUP_ID",
        "left out, as asked (--without-operator)",
    }


def test_a_permanent_access_key_alone_will_do(account: Account) -> None:
    access, secret = account.cloud.add_access_key()
    account.environment |= {"OS_ACCESS_KEY": access, "OS_SECRET_KEY": secret}
    for name in ("OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME"):
        del account.environment[name]
    ended = account.run(ALONE)
    assert ended.status == 0, ended.output
    assert ended.rows["a_signed_create_is_taken"] == ended.rows["create_has_defaults"] == ("confirmed", "")
    assert "no user with a password was given: OS_USERNAME, OS_PASSWORD" in ended.reasons
    assert "no temporary access key was given: OS_SECURITY_TOKEN" in ended.reasons


def test_a_clouds_yaml_will_do(account: Account, tmp_path: Path) -> None:
    given = {name.removeprefix("OS_").lower(): value for name, value in account.cloud.credentials_env().items()}
    region = given.pop("region_name")
    lines = [f"      {name}: {value}" for name, value in given.items()]
    path = tmp_path / "clouds.yaml"
    path.write_text("\n".join(["clouds:", "  mine:", f"    region_name: {region}", "    auth:", *lines]))
    for name in account.cloud.credentials_env():
        del account.environment[name]
    account.environment |= {"OS_CLIENT_CONFIG_FILE": str(path), "OS_CLOUD": "mine"}
    ended = account.run(ALONE)
    assert (ended.status, ended.different) == (0, {}), ended.output


def test_a_cloud_that_does_otherwise_is_told_of(account: Account) -> None:
    gateway = {"error_code": "APIGW.0101", "error_msg": "The API does not exist"}
    account.cloud.fault("list_hanging", status=404, json=gateway, count=None)
    account.cloud.fault("delete", stage="after", status=202, count=None)
    account.cloud.fault("get", status=200, json={"lifecycle_hook": {}}, count=None)
    account.cloud.fault("callback", drop=True)
    ended = account.run(ALONE)
    assert ended.status == 1
    found = ended.different
    assert found["suspensions_are_listed"] == "404 APIGW.0101 The API does not exist"
    assert found["a_callback_for_nothing_is_as_7042"] == "no answer: RemoteProtocolError"
    assert found["delete_answers_204"] == "202"
    assert found["get_answers_with_the_hook"].startswith("the hook: {'lifecycle_hook': {}}, expected {")
    assert "instead: 404 APIGW.0101 The API does not exist" in ended.output
    assert found.keys() == {
        "suspensions_are_listed",
        "suspensions_of_an_instance_are_listed",
        "suspensions_of_a_missing_group_are_as_2007",
        "a_callback_for_nothing_is_as_7042",
        "delete_answers_204",
        "get_answers_with_the_hook",
        "a_missing_group_is_as_2007",
        "a_missing_hook_is_as_0007",
        "the_client_lives_through_a_hook",
    }
    assert account.cloud.hooks(account.group) == []


def test_a_cloud_that_accepts_what_it_should_refuse_keeps_nothing_of_it(account: Account) -> None:
    """What was not to be made is removed under the name that AS has given it."""
    answer = {"lifecycle_hook_name": "made-up-by-as"}
    account.cloud.fault("create", count=1)  # the one that shows that the group can be used
    account.cloud.fault("create", path=f"{account.group}$", status=200, json=answer, count=None)
    account.hook("made-up-by-as")
    account.cloud.fault("list", status=200, json={"lifecycle_hooks": []})  # as if it came later
    ended = account.run(ALONE)
    assert ended.status == 1
    assert account.cloud.hooks(account.group) == []


def test_a_request_that_is_one_too_many_is_sent_again(account: Account) -> None:
    account.cloud.fault("get", status=429, headers={"Retry-After": "0"}, text="slow down", count=3)
    ended = account.run(ALONE)
    assert (ended.status, ended.different) == (0, {}), ended.output


def test_a_run_that_can_not_start_the_operator_fails_and_tells_the_rest(
    account: Account, operator_folder: Path, tmp_path: Path
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (assets / name).symlink_to(Path(account.environment["KUBEBUILDER_ASSETS"]) / name)
    (assets / "kubectl").write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    (assets / "kubectl").chmod(0o755)
    account.environment["KUBEBUILDER_ASSETS"] = str(assets)
    ended = account.run()
    assert (ended.status, ended.different) == (1, {}), ended.output
    assert "the operator does not run on the local control plane; the output says why" in ended.reasons
    assert "out of order" in ended.output
    assert list(operator_folder.iterdir()) == []


def test_a_user_who_can_not_log_in_is_told_of(account: Account) -> None:
    account.environment |= {"LIMITED_USERNAME": "limited", "LIMITED_PASSWORD": "not-it"}
    ended = account.run(ALONE)
    assert (ended.status, ended.different) == (0, {}), ended.output
    result, remark = ended.rows["a_missing_right_is_as_0031"]
    assert (result, remark.partition(":")[0]) == ("not tried", "the user who may only list hooks can't log in")


# --- what it leaves behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("is_lost", [False, True])
def test_an_interrupted_run_removes_its_hooks_even_one_whose_create_was_in_flight(
    account: Account, number: signal.Signals, is_lost: bool
) -> None:
    account.cloud.fault("create", count=4)
    held = account.cloud.fault("create", stage="after", hold=True)
    with account.running(ALONE) as process:
        account.cloud.wait_for_request("create", state="held")
        (hook,) = account.cloud.hooks(account.group)
        assert hook["lifecycle_hook_name"].startswith("acceptance-")
        os.killpg(process.pid, number)
        assert process.stdout is not None
        assert any(line.startswith("==> Stopping") for line in iter(process.stdout.readline, ""))
        account.cloud.release(held, drop=is_lost)
        ended = account.end(process)
    assert ended.status == 130, ended.output
    assert account.cloud.hooks(account.group) == []
    assert "the run ended before" in ended.reasons


def test_a_run_that_nobody_reads_any_more_removes_its_hooks(account: Account) -> None:
    account.cloud.fault("create", count=4)
    held = account.cloud.fault("create", stage="after", hold=True)
    with account.running(ALONE) as process:
        account.cloud.wait_for_request("create", state="held")
        assert process.stdout is not None
        process.stdout.close()
        account.cloud.release(held)
        assert process.wait(DEADLINE_SECONDS) != 0
    assert account.cloud.hooks(account.group) == []


def test_a_run_that_is_interrupted_while_the_operator_works_removes_the_operators_hook(
    account: Account, operator_folder: Path
) -> None:
    with account.running() as process:
        assert process.stdout is not None
        ready = "A LifecycleHook becomes Ready"
        assert any(ready in line for line in iter(process.stdout.readline, ""))
        (hook,) = account.cloud.hooks(account.group)
        os.killpg(process.pid, signal.SIGINT)
        ended = account.end(process)
    assert hook["lifecycle_hook_name"].endswith("-operator")
    assert ended.status == 130, ended.output
    assert account.cloud.hooks(account.group) == []
    assert list(operator_folder.iterdir()) == []


def test_hooks_of_a_group_that_becomes_busy_are_removed_when_it_is_idle_again(account: Account) -> None:
    account.cloud.fault("delete", code="AS.2020", count=3)
    ended = account.run(ALONE)
    assert ended.status == 0, ended.output
    assert account.cloud.hooks(account.group) == []


def test_a_run_that_can_not_remove_its_hooks_ends_and_names_them(account: Account) -> None:
    account.cloud.fault("delete", code="AS.0011", count=None)
    ended = account.run(ALONE, "--removal-seconds=0")
    assert (ended.status, ended.different) == (1, {}), ended.output
    (hook,) = account.cloud.hooks(account.group)
    assert f"could not be removed; ARGS=--clean tries again: {hook['lifecycle_hook_name']}" in ended.output
    assert "the run ended before" in ended.reasons


def test_hooks_of_a_run_that_was_killed_are_removed_on_request_and_no_others(account: Account) -> None:
    account.hook(LEFT_OVER)
    mine = account.hook("mine")
    refused = account.run(ALONE, "--foreign-hooks=refuse")
    assert (refused.status, "ARGS=--clean" in refused.output) == (2, True)
    assert account.run("--clean").status == 0
    assert account.cloud.hooks(account.group) == [mine]


# --- what it refuses ----------------------------------------------------------------------------------------------


def test_a_group_with_hooks_of_somebody_else_is_refused_before_anything_is_made(account: Account) -> None:
    hook = account.hook("mine")
    ended = account.run(ALONE)
    assert ended.status == 2
    assert "the group has hooks that are not of this run: mine" in ended.output
    assert "FOREIGN_HOOKS=allow" in ended.output
    assert ended.markdown == ""
    assert account.cloud.hooks(account.group) == [hook]
    assert {request.operation for request in account.cloud.requests()} == {"token", "list"}


def test_hooks_of_somebody_else_are_left_alone_where_they_are_allowed(account: Account) -> None:
    hooks = [account.hook(name) for name in ("mine-1", "mine-2", "mine-3", "mine-4")]
    ended = account.run(ALONE, "--foreign-hooks=allow")
    assert ended.status == 0, ended.output
    assert "the group has room for 1 hooks of this run, not 2" in ended.reasons
    assert account.cloud.hooks(account.group) == hooks
    touched = {request.hook_name for request in account.cloud.requests() if request.operation != "list"}
    assert not touched & {hook["lifecycle_hook_name"] for hook in hooks}


@pytest.mark.parametrize("why", ["full", "busy", "no topic", "no group", "no login", "no credentials"])
def test_a_run_that_could_tell_nothing_is_refused_and_says_why(account: Account, why: str) -> None:
    arguments, message = [ALONE, "--foreign-hooks=allow"], ""
    match why:
        case "full":
            message = "no room for a hook"
            for number in range(5):
                account.hook(f"mine-{number}")
        case "busy":
            message = "AS.2020"
            account.cloud.set_busy(account.group)
        case "no topic":
            message = "400 AS.7043"
            account.cloud.delete_topic(account.topic)
        case "no group":
            message = "400 AS.2007"
            account.cloud.delete_group(account.group)
        case "no login":
            message = "The user name, the password or the scope is not right"
            account.environment["OS_PASSWORD"] = "wrong"
        case "no credentials":
            message = "set OS_AUTH_URL and so on, or OS_CLOUD"
            for name in account.cloud.credentials_env():
                del account.environment[name]
    ended = account.run(*arguments)
    assert (ended.status, message in ended.output) == (2, True), ended.output
    assert "Traceback" not in ended.output
    assert ended.markdown == ""


# --- what it does not show ----------------------------------------------------------------------------------------


def test_what_the_cloud_tells_of_secrets_and_ids_is_not_shown(account: Account) -> None:
    known: Mapping[str, str] = account.environment
    foreign_id = "0123456789abcdef0123456789abcdef"
    where = f"{account.cloud.project_id}, {account.group}, {foreign_id}"
    told = f"{known['OS_PASSWORD']} of {known['OS_USERNAME']} in {where}" + ", and so on" * 20 + known["OS_PASSWORD"]
    account.cloud.fault("callback", status=400, json={"error": {"code": "AS.7042", "message": told}}, count=None)
    account.cloud.fault("list_hanging", status=400, json={"error": {"code": "AS.0001", "message": told}}, count=None)
    ended = account.run(ALONE)
    assert ended.status == 1
    assert f"*** of {known['OS_USERNAME']} in {where}" in ended.output
    assert "*** of USERNAME in PROJECT_ID, GROUP_ID, 0123…" in ended.markdown
    for shown in (account.cloud.project_id, account.group, account.topic, foreign_id, known["OS_USER_DOMAIN_NAME"]):
        assert shown not in ended.markdown
