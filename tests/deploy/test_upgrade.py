"""What an earlier build wrote is read by this one. A fixture that was once released is not changed any more."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lifecyclehook_operator.api.v1alpha1 import CREATE_INTENT_ANNOTATION, LifecycleHook
from lifecyclehook_operator.controller.status import status_patch
from tests.deploy.situations import FIXTURES, PROJECT, SITUATIONS, Body
from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess
from tests.support.simulator import Simulator, run_simulator
from tests.support.workspace import Workspace

STORED = sorted(FIXTURES.glob("[0-9]*.yaml"))
ASSIGNED_BY_THE_API_SERVER = ("creationTimestamp", "generation", "resourceVersion", "uid")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Simulator]:
    """A cloud with the project that the hooks of the fixtures live in."""
    with run_simulator(f"--project={PROJECT}") as simulator:
        yield simulator


def read(path: Path) -> Body:
    body: Body = yaml.safe_load(path.read_text())
    return body


def situation_of(path: Path) -> str:
    """Return the situation that a fixture was written in, whichever the version before it."""
    return path.stem.partition("-")[2]


def stored(situation: str) -> list[Path]:
    """Return the fixture of a situation from each build that wrote one."""
    return [path for path in STORED if situation_of(path) == situation]


def test_there_is_a_fixture_for_each_situation() -> None:
    assert all(stored(situation) for situation in SITUATIONS)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_what_was_written_is_understood_to_the_last_field(path: Path) -> None:
    body = read(path)
    resource = LifecycleHook(body)
    assert resource.spec()
    assert resource.status.as_object() == body.get("status", {})
    if "status" in body:
        assert status_patch(body["status"], resource.status) == []


def restore(workspace: Workspace, body: Body) -> None:
    """Put a resource back as it was, status included, and its AS group beside it."""
    workspace.cloud.add_group(body["spec"]["scalingGroupId"])
    kept = {key: value for key, value in body["metadata"].items() if key not in ASSIGNED_BY_THE_API_SERVER}
    created = workspace.objects.create_namespaced_custom_object(
        *workspace.address, {**body, "metadata": {**kept, "namespace": workspace.namespace}}
    )
    # The fingerprint is of the object's uid too, which is another one now.
    resource = LifecycleHook(created)
    intent = resource.fingerprint(resource.spec().hook_fields())
    workspace.patch("hook", {"metadata": {"annotations": {CREATE_INTENT_ANNOTATION: intent}}})
    workspace.objects.patch_namespaced_custom_object_status(
        *workspace.address, "hook", {"status": body["status"]}, _content_type="application/merge-patch+json"
    )


def without_messages(body: Body | None) -> Body:
    """Return a spec and a status without the texts for people."""
    assert body is not None
    status = body["status"]
    conditions = [{**condition, "message": ""} for condition in status["conditions"]]
    error = {**status["error"], "message": ""} if "error" in status else None
    return {"spec": body["spec"], "status": {**status, "conditions": conditions, "error": error}}


def put_hook(cloud: Simulator, body: Body, **changed: object) -> None:
    """Put the hook that the resource is for into AS."""
    cloud.add_topic(body["spec"]["notificationTopicUrn"])
    hook = {
        "lifecycle_hook_type": body["spec"]["lifecycleHookType"],
        "notification_topic_urn": body["spec"]["notificationTopicUrn"],
    }
    if answered := body["status"].get("lifecycleHook"):
        hook["create_time"] = answered["createTime"]
    cloud.put_hook(body["spec"]["scalingGroupId"], "hook", **hook | changed)


def make_busy(cloud: Simulator, body: Body) -> None:
    """Let the group perform a scaling action."""
    cloud.add_topic(body["spec"]["notificationTopicUrn"])
    cloud.set_busy(body["spec"]["scalingGroupId"])


#: What the cloud is like in a situation.
WORLDS: dict[str, Callable[[Simulator, Body], None]] = {
    "ready": put_hook,
    "drifted": lambda cloud, body: put_hook(cloud, body, default_timeout=99),
    "already-exists": lambda cloud, body: put_hook(cloud, body, lifecycle_hook_type="INSTANCE_TERMINATING"),
    "topic-not-found": lambda _cloud, _body: None,
    "group-busy": make_busy,
}


@pytest.mark.parametrize(
    "path", [path for situation in WORLDS for path in stored(situation)], ids=lambda path: path.stem
)
def test_a_stored_resource_is_left_alone_as_long_as_its_world_is(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float], path: Path
) -> None:
    body = read(path)
    situation = situation_of(path)
    group_id = body["spec"]["scalingGroupId"]
    restore(workspace, body)
    WORLDS[situation](cloud, body)
    before, hooks = workspace.get(), cloud.hooks(group_id)
    options = {**fast, "resync_interval_seconds": 1, "slow_retry_min_seconds": 0.2}
    with OperatorProcess(cluster, cloud.credentials_env(), namespace=workspace.namespace, **options):
        cloud.wait_for_request(group_id=group_id, count=4)  # more than one reconcile makes
    after, writes = workspace.get(), workspace.writes()
    if situation == "ready":
        assert (after, writes) == (before, [])
    assert without_messages(after) == without_messages(before)
    assert writes in ([], ["lifecyclehooks/status"])  # a new build may word a message differently
    assert cloud.hooks(group_id) == hooks
    if situation in ("ready", "drifted"):
        assert {request.operation for request in cloud.requests(group_id=group_id)} == {"list"}
