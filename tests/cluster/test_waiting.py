"""The world isn't ready, and the hook becomes Ready by itself when it is."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.workspace import Workspace, ready

pytestmark = pytest.mark.usefixtures("operator")


def test_a_missing_group_is_waited_for(workspace: Workspace) -> None:
    workspace.cloud.delete_group(workspace.group_id)
    workspace.create()
    assert "scalingGroupId" in ready(workspace.wait_reason("GroupNotFound"))["message"]
    workspace.cloud.add_group(workspace.group_id)
    workspace.wait_ready()


def test_the_sixth_hook_of_a_group_takes_the_place_of_one_that_goes(workspace: Workspace) -> None:
    for number in range(5):
        workspace.create(f"hook-{number}")
        workspace.wait_ready(f"hook-{number}")
    workspace.create("sixth")
    workspace.wait_reason("QuotaExceeded", "sixth")
    # The waits double: after some tries the next one is seconds away.
    workspace.cloud.wait_for_request("create", workspace.group_id, hook_name="sixth", count=3, timeout=15)
    workspace.delete("hook-0")
    workspace.wait_gone("hook-0")
    workspace.wait_ready("sixth", seconds=1.5)


def test_a_refusal_until_a_date_is_honoured(workspace: Workspace) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    workspace.cloud.fault("create", group_id=workspace.group_id, status=429, headers={"Retry-After": date}, json={})
    workspace.create()
    workspace.wait_reason("Throttled")
    workspace.wait_ready()
    first, second = workspace.cloud.requests("create", workspace.group_id)
    assert second.received_at - first.received_at > 3


def test_a_changed_spec_does_not_wait_out_the_backoff(workspace: Workspace) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, status=429, headers={"Retry-After": "3600"}, json={})
    workspace.create()
    workspace.wait_reason("Throttled")
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    workspace.wait_ready()


def test_a_group_that_hangs_does_not_slow_others(workspace: Workspace) -> None:
    hanging = workspace.cloud.add_group()
    workspace.cloud.fault("create", group_id=hanging, count=None, hold=True)
    for number in range(25):
        workspace.create(f"hanging-{number}", scalingGroupId=hanging)
    workspace.cloud.wait_for_request("create", hanging, state="held")
    workspace.create("other")
    workspace.wait_ready("other", seconds=2)


def test_a_project_that_hangs_does_not_slow_others(workspace: Workspace) -> None:
    """More hooks hang than may be in work for one project; those of another identity go on."""
    workspace.put_secret("otc", workspace.clouds_yaml())
    hanging = [workspace.cloud.add_group() for _ in range(5)]
    for group_id in hanging:
        workspace.cloud.fault("create", group_id=group_id, count=None, hold=True)
    for number in range(25):
        workspace.create(f"hanging-{number}", scalingGroupId=hanging[number % 5])
    workspace.cloud.wait_for_request("create", state="held", count=16)
    workspace.create("other", credentialsRef={"secretName": "otc"})
    workspace.wait_ready("other", seconds=2)
