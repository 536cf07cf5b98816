"""An operator that is started again where nothing has changed leaves everything alone."""

from datetime import UTC, datetime

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR, OperatorProcess, eventually, rounds
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, is_ready

HOOKS = 1000
HOOKS_PER_GROUP = 5
RESYNC_SECONDS = 10


@pytest.mark.timeout(900)
def test_a_thousand_hooks_in_sync_cost_no_write_and_at_most_a_look_a_group(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    groups = [cloud.add_group() for _ in range(HOOKS // HOOKS_PER_GROUP)]
    options = {**fast, "log_level": "info"}
    with OperatorProcess(cluster, cloud.credentials_env(), **options):
        for number in range(HOOKS):
            workspace.create(f"hook-{number}", scalingGroupId=groups[number % len(groups)])
        eventually("all are Ready", lambda: all(map(is_ready, workspace.all())), seconds=300)
    assert len(cloud.requests("create")) >= HOOKS
    before = workspace.all()
    cloud.clear_requests()
    restarted_at = datetime.now(UTC)
    options["resync_interval_seconds"] = RESYNC_SECONDS
    with OperatorProcess(cluster, cloud.credentials_env(), **options) as operator:
        eventually("all are known", lambda: operator.health()["resources"] >= HOOKS)
        cloud.wait_for_request("list", count=len(groups), state="answered")
    requests = cloud.requests()
    assert {request.operation for request in requests} == {"token", "list"}
    listings = rounds([request for request in requests if request.operation == "list"], RESYNC_SECONDS)
    assert len(listings) == len(set(listings))
    writes = cluster.audit_events(
        since=restarted_at,
        user=f"system:serviceaccount:{OPERATOR}:{OPERATOR}",
        verbs=("create", "update", "patch", "delete"),
    )
    assert writes == []
    assert workspace.all() == before
