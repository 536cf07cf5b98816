"""Situations of a resource, produced with a real operator: what it writes into the status of each.

`python -m tests.deploy.situations` keeps them as fixtures, for later builds to read.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR, OperatorProcess, install
from tests.support.simulator import run_simulator
from tests.support.workspace import Workspace, ready

FIXTURES = Path(__file__).with_name("fixtures")
#: Where the hooks of the fixtures live.
PROJECT = "eu-de_web=b53e5554fad0494d96206fb84296510b"
RECONCILE_AT = "as.otc.t-systems.com/reconcile-at"
PAUSED = "as.otc.t-systems.com/paused"

Body = dict[str, Any]
Situation = Callable[[Workspace], Body]


def before_the_first_status(workspace: Workspace) -> Body:
    """The create call is in progress."""
    workspace.cloud.fault("create", group_id=workspace.group_id, hold=True)
    workspace.create()
    workspace.cloud.wait_for_request("create", workspace.group_id, state="held")
    return workspace.wait("it has the finalizer", lambda body: body["metadata"].get("finalizers"))


def ready_(workspace: Workspace) -> Body:
    workspace.create()
    return workspace.wait_ready()


def generation_lag(workspace: Workspace) -> Body:
    """The spec was changed, and the modify call is in progress."""
    ready_(workspace)
    workspace.cloud.fault("modify", group_id=workspace.group_id, hold=True)
    workspace.patch("hook", {"spec": {"defaultTimeout": 600}})
    workspace.cloud.wait_for_request("modify", workspace.group_id, state="held")
    return workspace.get() or {}


def topic_not_found(workspace: Workspace) -> Body:
    workspace.create(notificationTopicUrn=workspace.topic_urn + "-absent")
    return workspace.wait_reason("TopicNotFound")


def invalid_spec(workspace: Workspace) -> Body:
    """AS rejects what our own rules allow."""
    workspace.cloud.fault("create", group_id=workspace.group_id, code="AS.7036")
    workspace.create()
    return workspace.wait_reason("InvalidSpec")


def group_not_found(workspace: Workspace) -> Body:
    workspace.create(scalingGroupId="absent")
    return workspace.wait_reason("GroupNotFound")


def group_full(workspace: Workspace) -> Body:
    fields = {"lifecycle_hook_type": "INSTANCE_TERMINATING", "notification_topic_urn": workspace.topic_urn}
    for number in range(5):
        workspace.cloud.put_hook(workspace.group_id, f"other-{number}", **fields)
    workspace.create()
    return workspace.wait_reason("QuotaExceeded")


def already_exists(workspace: Workspace) -> Body:
    workspace.cloud.put_hook(
        workspace.group_id,
        "hook",
        lifecycle_hook_type="INSTANCE_TERMINATING",
        notification_topic_urn=workspace.topic_urn,
    )
    workspace.create()
    return workspace.wait_reason("AlreadyExists")


def conflict(workspace: Workspace) -> Body:
    workspace.create("older", lifecycleHookName="hook")
    workspace.wait_ready("older")
    workspace.create()
    return workspace.wait_reason("Conflict")


def credentials_not_found(workspace: Workspace) -> Body:
    workspace.create(credentialsRef={"secretName": "absent"})
    return workspace.wait_reason("CredentialsNotFound")


def cloud_unavailable_at_first(workspace: Workspace) -> Body:
    workspace.cloud.fault("create", group_id=workspace.group_id, status=503, count=None)
    workspace.create()
    return workspace.wait_reason("CloudUnavailable")


def cloud_unavailable_later(workspace: Workspace) -> Body:
    ready_(workspace)
    workspace.cloud.fault("list", group_id=workspace.group_id, status=503, count=None)
    _reconcile_now(workspace)
    return workspace.wait_reason("CloudUnavailable")


def group_busy(workspace: Workspace) -> Body:
    workspace.cloud.set_busy(workspace.group_id)
    workspace.create()
    return workspace.wait_reason("GroupBusy")


def group_busy_while_deleting(workspace: Workspace) -> Body:
    ready_(workspace)
    workspace.cloud.set_busy(workspace.group_id)
    workspace.delete()
    return workspace.wait_reason("GroupBusy")


def drifted(workspace: Workspace) -> Body:
    workspace.create(driftPolicy="Report")
    workspace.wait_ready()
    workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=99)
    _reconcile_now(workspace)
    return workspace.wait_reason("Drifted")


def paused(workspace: Workspace) -> Body:
    ready_(workspace)
    workspace.patch("hook", {"metadata": {"annotations": {PAUSED: "true"}}})
    return workspace.wait_reason("Paused")


def paused_while_deleting(workspace: Workspace) -> Body:
    paused(workspace)
    workspace.delete()
    return workspace.wait("it says so", lambda body: "Being deleted" in ready(body)["message"])


def _reconcile_now(workspace: Workspace) -> None:
    workspace.patch("hook", {"metadata": {"annotations": {RECONCILE_AT: "now"}}})


#: By name, with the health that Argo CD is to show.
SITUATIONS: dict[str, tuple[Situation, str]] = {
    "before-the-first-status": (before_the_first_status, "Progressing"),
    "ready": (ready_, "Healthy"),
    "generation-lag": (generation_lag, "Progressing"),
    "topic-not-found": (topic_not_found, "Degraded"),
    "group-not-found": (group_not_found, "Degraded"),
    "group-full": (group_full, "Degraded"),
    "invalid-spec": (invalid_spec, "Degraded"),
    "already-exists": (already_exists, "Degraded"),
    "conflict": (conflict, "Degraded"),
    "credentials-not-found": (credentials_not_found, "Degraded"),
    "cloud-unavailable-at-first": (cloud_unavailable_at_first, "Progressing"),
    "cloud-unavailable-later": (cloud_unavailable_later, "Progressing"),
    "group-busy": (group_busy, "Progressing"),
    "group-busy-while-deleting": (group_busy_while_deleting, "Progressing"),
    "drifted": (drifted, "Suspended"),
    "paused": (paused, "Suspended"),
    "paused-while-deleting": (paused_while_deleting, "Progressing"),
}


def main() -> None:
    """Write a fixture for each situation."""
    with ControlPlane() as cluster, run_simulator(f"--project={PROJECT}") as cloud:
        install(cluster)
        with OperatorProcess(cluster, cloud.credentials_env(), cloud_timeout_seconds=30):
            for name, (bring_about, _) in SITUATIONS.items():
                with Workspace(cluster, cloud) as workspace:
                    body = bring_about(workspace)
                    print(name, ready(body))
                del body["metadata"]["managedFields"]
                path = FIXTURES / f"{version(OPERATOR)}-{name}.yaml"
                path.write_text(yaml.safe_dump(body, sort_keys=False, width=120))


if __name__ == "__main__":
    main()
