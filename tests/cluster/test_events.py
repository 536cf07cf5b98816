"""The Events of a hook that fails in ever new ways are bounded and in order."""

from typing import Any

import pytest

from tests.support.harness import OperatorProcess, eventually
from tests.support.workspace import Workspace

FAILURES = 30
#: This many report one failure each, and one more reports all that follow.
REPORTED = 11

pytestmark = pytest.mark.usefixtures("operator")


def find_events(workspace: Workspace) -> list[Any]:
    selector = "involvedObject.name=hook"
    found = workspace.core.list_namespaced_event(workspace.namespace, field_selector=selector).items
    return sorted(found, key=lambda event: event.event_time)


def test_ever_new_failures_make_a_bounded_number_of_events(operator: OperatorProcess, workspace: Workspace) -> None:
    workspace.create()
    workspace.wait_ready()
    for number in range(FAILURES):
        workspace.cloud.clear_faults()
        workspace.cloud.fault("modify", group_id=workspace.group_id, code=f"AS.9{number:03}", status=400, count=None)
        workspace.patch("hook", {"spec": {"defaultTimeout": 600 + number}})
        workspace.wait(
            "it fails anew",
            lambda body, number=number: body["status"].get("error", {}).get("code") == f"AS.9{number:03}",
        )
    eventually(
        "the burst is over", lambda: f"{FAILURES - 1:03}" in operator.log.read_text().rpartition("Dropped an Event")[0]
    )
    created, *reported = find_events(workspace)
    assert created.reason == "Created"
    assert [f"AS.9{number:03}" in event.message for number, event in enumerate(reported)] == [True] * REPORTED
    assert [event.message.startswith("(combined from similar events)") for event in reported] == [False] * 10 + [True]
    assert 2 <= reported[-1].series.count <= FAILURES - 10
    assert all(event.series is None for event in (created, *reported[:-1]))
    requests = workspace.cluster.audit_events(
        resource="events", namespace=workspace.namespace, verbs=("create", "patch", "update")
    )
    assert len(requests) == 25
