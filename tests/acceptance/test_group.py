"""The borrowed group: what it remembers of calls that had no answer."""

import threading
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from lifecyclehook_operator.cloud.credentials import Credentials
from tests.support.simulator import Simulator

from . import group as group_module
from .group import BorrowedGroup
from .interrupts import Interrupts
from .masking import Masking
from .project import Project

DEADLINE_SECONDS = 60


@pytest.fixture
def group(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[BorrowedGroup]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(group_module, "RETRY_SECONDS", 0.05)
    given = {name.removeprefix("OS_").lower(): value for name, value in simulator.credentials_env().items()}
    credentials = Credentials.model_validate(given)
    with closing(Project(credentials, Interrupts(), Masking())) as project:
        yield BorrowedGroup(project, simulator.add_group(), simulator.add_topic("gsh"), removal_seconds=3)


def test_a_hook_that_appears_after_its_create_was_given_up_is_removed(
    simulator: Simulator, group: BorrowedGroup
) -> None:
    simulator.fault("create", drop=True)
    with pytest.raises(httpx.HTTPError):
        group.create()
    simulator.fault("list", count=1)
    held = simulator.fault("list", stage="after", hold=True)
    left: list[str] = []
    removal = threading.Thread(target=lambda: left.extend(group.remove_all(settle_seconds=2)))
    removal.start()
    simulator.wait_for_request("list", state="held")
    assert [request.status for request in simulator.requests("delete")] == [404]
    body = group.body()
    simulator.put_hook(group.id, body.pop("lifecycle_hook_name"), **body)
    simulator.release(held)
    removal.join(DEADLINE_SECONDS)
    assert not removal.is_alive()
    assert left == simulator.hooks(group.id) == []


def test_what_can_not_be_removed_is_told(simulator: Simulator, group: BorrowedGroup) -> None:
    group.create()
    simulator.fault("delete", status=403, count=None)
    assert group.remove_all(settle_seconds=0) == [group.name()]
    simulator.fault("list", status=403, count=None)
    assert group.remove_all(settle_seconds=0) == [group.name()]


def test_hooks_that_were_there_are_not_the_runs_even_if_a_create_is_answered_with_one(
    simulator: Simulator, group: BorrowedGroup
) -> None:
    hook = simulator.put_hook(
        group.id, "mine", lifecycle_hook_type="INSTANCE_LAUNCHING", notification_topic_urn=group.topic_urn
    )
    assert group.find_foreign() == {"mine"}
    simulator.fault("create", status=200, json=hook)
    group.create()
    assert group.remove_all(settle_seconds=0) == []
    assert simulator.hooks(group.id) == [hook]
