"""Try in a real project of the cloud what this project assumes of IAM and AS: `make acceptance`.

Credentials come from OS_* or OS_CLOUD, as the operator's own do. One idle AS group and one SMN topic are needed. Hooks
are made in that group for seconds at a time, and removed, also after Ctrl-C; no scaling action is started. The exit
status is 0 if nothing that was tried is different; 1 if something is, if the run failed, or if a hook could not be
removed; 2 if the run was refused; 130 if it was interrupted.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from lifecyclehook_operator.cloud.clouds_yaml import read_environment
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CallError, Reason
from tests.support.controlplane import BinariesNotFoundError, ControlPlaneError

from . import about_client, about_hooks, about_instances, about_login, about_operator
from .assumption import BUSY_CODE, Assumption, DifferentError, NotTriedError, code_of, describe
from .group import NAME_PREFIX, BorrowedGroup, UnusableGroupError
from .interrupts import Interrupts
from .masking import Masking
from .project import Project
from .report import Report, Result
from .run import Run

#: The operator's own checks come last: its hook would be in the way of the others.
IN_CLOUD = [
    *about_login.ASSUMPTIONS,
    *about_hooks.ASSUMPTIONS,
    *about_instances.ASSUMPTIONS,
    *about_client.ASSUMPTIONS,
]
IN_CLUSTER = about_operator.ASSUMPTIONS
#: What a check meets that counts on another shape of an answer than it has got.
SHAPE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError)
#: How the control plane fails, or the operator on it.
STAGE_ERRORS = (BinariesNotFoundError, ControlPlaneError, RuntimeError, TimeoutError, subprocess.SubprocessError)
STARTED = time.monotonic()


class RefusedError(Exception):
    """The run does not begin; the message says why, and what to do."""


def main() -> None:
    options = parse_arguments()
    interrupts, masking = Interrupts(), Masking()
    interrupts.install()
    try:
        with closing(connect(interrupts, masking)) as project:
            sys.exit(clean(project, options) if options.clean else run(project, options, masking))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RefusedError, UnusableGroupError, CallError, httpx.HTTPError) as error:
        print(masking.hide_secrets(f"Not tried: {error}"), file=sys.stderr)
        sys.exit(2)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance", description=__doc__)
    parser.add_argument("--group-id", type=non_empty, required=True, help="AS group, idle, to make hooks in")
    parser.add_argument("--topic-urn", type=non_empty, required=True, help="SMN topic for these hooks")
    parser.add_argument("--busy-group-id", help="AS group that performs a scaling action (default: not tried)")
    parser.add_argument(
        "--foreign-hooks",
        choices=["refuse", "allow"],
        default="refuse",
        help="whether the group may have hooks already, which are left alone (default: refuse)",
    )
    parser.add_argument("--without-operator", action="store_true", help="try the cloud alone")
    parser.add_argument("--clean", action="store_true", help="only remove what runs have left that were killed")
    parser.add_argument(
        "--markdown", type=Path, default=Path("build/acceptance.md"), help="where the table goes (default: %(default)s)"
    )
    parser.add_argument(
        "--removal-seconds",
        type=float,
        default=120,
        help="how long a hook is tried again that can't be removed (default: %(default)s)",
    )
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=30,
        help="how long to look for hooks after a call without an answer (default: %(default)s)",
    )
    return parser.parse_args()


def non_empty(text: str) -> str:
    """Return an argument that must not be empty. Raises ArgumentTypeError if it is."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def say(line: str) -> None:
    print(f"==> {line} ({time.monotonic() - STARTED:.1f} s)", flush=True)


def connect(interrupts: Interrupts, masking: Masking) -> Project:
    """Log in. Raises RefusedError, CallError or httpx.HTTPError if that is not possible."""
    credentials = read_environment()
    if credentials is None:
        raise RefusedError("there are no credentials: set OS_AUTH_URL and so on, or OS_CLOUD")
    return Project(credentials, interrupts, masking)


def read_users(credentials: Credentials, masking: Masking) -> dict[str, Credentials]:
    """Return the further users that were given, of the same domain."""
    users = {}
    for user in ("LIMITED", "ROLELESS"):
        name, password = os.environ.get(f"{user}_USERNAME"), os.environ.get(f"{user}_PASSWORD")
        if name and password:
            other = {"username": name, "user_id": "", "password": SecretStr(password), "ak": "", "sk": None}
            users[user] = credentials.model_copy(update=other)
            masking.add_credentials(users[user])
    return users


def clean(project: Project, options: argparse.Namespace) -> int:
    """Remove the hooks of all runs."""
    group = borrow(project, options.group_id, options)
    for name in sorted(name for name in group.find_foreign() if name.startswith(NAME_PREFIX)):
        group.expect_hook(name)
        say(f"Removing {name}")
    return give_back([group], 0)


def borrow(project: Project, group_id: str, options: argparse.Namespace) -> BorrowedGroup:
    return BorrowedGroup(project, group_id, options.topic_urn, removal_seconds=options.removal_seconds)


def run(project: Project, options: argparse.Namespace, masking: Masking) -> int:
    """Try everything, print the table and write it, and return the exit status."""
    masking.add_name(options.topic_urn, "TOPIC_URN")
    for group_id in filter(None, (options.group_id, options.busy_group_id)):
        masking.add_name(group_id, "GROUP_ID")
    group = borrow(project, options.group_id, options)
    busy_group = options.busy_group_id and borrow(project, options.busy_group_id, options)
    groups = [each for each in (group, busy_group) if each]
    check_group(group, options.foreign_hooks == "allow")
    if busy_group:
        busy_group.find_foreign()
    report = Report([*IN_CLOUD, *IN_CLUSTER], masking)
    left, is_complete, is_interrupted = 0, False, False
    try:
        try_create(group)
        say(f"The hooks of this run are named {group.prefix}...")
        users = read_users(project.credentials, masking)
        is_complete = try_all(Run(project, group, busy_group, users), options, report, masking)
    except UnusableGroupError as error:
        say(masking.hide_secrets(str(error)))
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        project.interrupts.ignore()
        left = give_back(groups, options.settle_seconds)
    say(report.summary())
    write_markdown(report, project, options.markdown)
    return 130 if is_interrupted else int(left or not (is_complete and report.is_confirmed))


def check_group(group: BorrowedGroup, are_foreign_allowed: bool) -> None:
    """Raise RefusedError unless the run may use the group, and there is room."""
    foreign = sorted(group.find_foreign())
    if foreign and not are_foreign_allowed:
        hint = "Take another group, or set FOREIGN_HOOKS=allow: they are neither changed nor deleted."
        if any(name.startswith(NAME_PREFIX) for name in foreign):
            hint += f" {NAME_PREFIX}* are of a run that was killed: ARGS=--clean removes them."
        raise RefusedError(f"the group has hooks that are not of this run: {', '.join(foreign)}. {hint}")
    if group.find_room() < 1:
        raise RefusedError("the group has no room for a hook")


def try_create(group: BorrowedGroup) -> None:
    """Raise RefusedError if no hook can be made in the group: nothing could be told then."""
    response = group.create()
    if code_of(response) == BUSY_CODE:
        raise RefusedError("the group performs a scaling action (AS.2020): try again when it is over")
    if not response.is_success:
        raise RefusedError(f"no hook can be created: {describe(response)}")
    group.remove_made()


def try_all(run: Run, options: argparse.Namespace, report: Report, masking: Masking) -> bool:
    """Try every assumption that is to be tried, and return whether the run itself did not fail."""
    for assumption in IN_CLOUD:
        settle(assumption, run, report)
    if options.without_operator:
        leave_out(report, "left out, as asked (--without-operator)")
        return True
    try:
        with about_operator.set_stage(run, say, masking) as stage:
            for assumption in IN_CLUSTER:
                settle(assumption, stage, report, keeps_hooks=True)
    except STAGE_ERRORS as error:
        say("\n".join([masking.hide_secrets(str(error)), *getattr(error, "__notes__", [])]))
        leave_out(report, "the operator does not run on the local control plane; the output says why")
        return False
    return True


def leave_out(report: Report, reason: str) -> None:
    for assumption in IN_CLUSTER:
        if not report.is_settled(assumption):
            report.settle(assumption, Result.NOT_TRIED, reason)


def settle(assumption: Assumption, run: Run, report: Report, *, keeps_hooks: bool = False) -> None:
    """Try one assumption, and remove what its check has made."""
    try:
        result, remark = try_one(lambda: assumption.check(run))
    finally:
        run.project.interrupts.check()
    report.settle(assumption, result, remark)
    if not keeps_hooks:
        for group in filter(None, (run.group, run.busy_group)):
            group.remove_made()


def describe_error(error: CallError) -> str:
    """Return what the operator's client makes of an answer; its message is cut, and so can't be masked for sure."""
    return " ".join(filter(None, (error.reason, error.operation, str(error.http_status or ""), error.code)))


def try_one(check: Callable[[], None]) -> tuple[Result, str]:
    """Run a check, and return its result, with what came instead or why it could not be tried."""
    result = Result.DIFFERENT
    try:
        check()
    except NotTriedError as reason:
        result, remark = Result.NOT_TRIED, str(reason)
    except CallError as error:
        if error.reason is Reason.GROUP_BUSY:
            result = Result.NOT_TRIED
        remark = describe_error(error)
    except httpx.HTTPError as error:
        remark = f"no answer: {type(error).__name__}"
    except (DifferentError, TimeoutError, subprocess.SubprocessError) as difference:
        remark = str(difference)
    except SHAPE_ERRORS as error:
        remark = f"an answer of another shape: {error!r}"
    else:
        result, remark = Result.CONFIRMED, ""
    return result, remark


def give_back(groups: list[BorrowedGroup], settle_seconds: float) -> int:
    """Remove the hooks of this run from the groups, and return how many can't be removed."""
    # Nothing is printed before: where nobody reads any more, that fails.
    left = [name for group in groups for name in group.remove_all(settle_seconds)]
    if left:
        say(f"These hooks could not be removed; ARGS=--clean tries again: {', '.join(left)}")
    else:
        say("The hooks of this run are removed")
    return len(left)


def write_markdown(report: Report, project: Project, path: Path) -> None:
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "endpoint of AS": urlsplit(project.endpoint.url).hostname or "",
        "logged in with": " and ".join(
            name for name, given in {"a user": project.has_user, "an access key": project.has_key}.items() if given
        ),
        "version": version("lifecyclehook-operator"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.markdown(facts))
    say(f"The table for docs/acceptance.md is in {path}")


if __name__ == "__main__":
    main()
