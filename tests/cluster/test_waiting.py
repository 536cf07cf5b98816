"""The world isn't ready, and the hook becomes Ready by itself when it is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, ready


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator that waits for an answer for longer than a test does for what is to come without it."""
    with OperatorProcess(cluster, cloud.credentials_env(), **{**fast, "cloud_timeout_seconds": 120}) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")


def test_a_missing_group_is_waited_for(workspace: Workspace) -> None:
    workspace.cloud.delete_group(workspace.group_id)
    workspace.create()
    assert "scalingGroupId" in ready(workspace.wait_reason("GroupNotFound"))["message"]
    workspace.cloud.add_group(workspace.group_id)
    workspace.wait_ready()


def test_the_sixth_hook_of_a_group_takes_the_place_of_one_that_goes(
    cluster: ControlPlane, cloud: Simulator, fast: dict[str, float], operator: OperatorProcess
) -> None:
    options = {**fast, "slow_retry_min_seconds": 600, "slow_retry_max_seconds": 600}  # no retry comes by itself
    operator.stop()
    try:
        with OperatorProcess(cluster, cloud.credentials_env(), **options), Workspace(cluster, cloud) as own:
            for number in range(5):
                own.create(f"hook-{number}")
                own.wait_ready(f"hook-{number}")
            own.create("sixth")
            own.wait_reason("QuotaExceeded", "sixth")
            own.delete("hook-0")
            own.wait_gone("hook-0")
            own.wait_ready("sixth")
    finally:
        operator.start()


def test_a_refusal_until_a_date_is_honoured(workspace: Workspace) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    workspace.cloud.fault("create", group_id=workspace.group_id, status=429, headers={"Retry-After": date}, json={})
    workspace.create()
    workspace.wait_ready()
    workspace.wait_events([("Warning", "Throttled"), ("Normal", "Created")])
    _, second = workspace.cloud.requests("create", workspace.group_id)
    assert second.time >= parsedate_to_datetime(date)


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
    workspace.wait_ready("other")


def test_a_project_that_hangs_does_not_slow_others(workspace: Workspace) -> None:
    """More hooks hang than are processed at a time for one project; those of another identity go on."""
    workspace.put_secret("otc", workspace.clouds_yaml())
    hanging = [workspace.cloud.add_group() for _ in range(5)]
    for group_id in hanging:
        workspace.cloud.fault("create", group_id=group_id, count=None, hold=True)
    for number in range(25):
        workspace.create(f"hanging-{number}", scalingGroupId=hanging[number % 5])
    workspace.cloud.wait_for_request("create", state="held", count=16)
    workspace.create("other", credentialsRef={"secretName": "otc"})
    workspace.wait_ready("other")
