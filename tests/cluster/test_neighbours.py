"""Nobody bars or delays another namespace, whatever its own resources, credentials and groups do."""

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, ready

#: How long a neighbour may delay a single create or edit, in seconds.
MOST_SECONDS = 2
#: What takes a parser longest: as much as a Secret may hold, and as many values as are parsed.
LONG_TEXTS = {
    "64 KiB": "clouds: {x: [" + "{}," * 21_800 + "]}",
    "2000 values": "clouds: {x: [" + "{}," * 1_990 + "]}",
}
FAILURES = int(os.environ.get("FAILING_RESOURCES", "400"))


@pytest.fixture
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator for one test, for others here start their own, and two would do each other's work."""
    with OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=864_000, **fast) as process:
        yield process


@pytest.fixture
def neighbour(cluster: ControlPlane, cloud: Simulator) -> Iterator[Workspace]:
    """Another namespace than the one that is to be served."""
    with Workspace(cluster, cloud) as other:
        yield other


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v3"


def measure_create(workspace: Workspace, name: str = "single") -> float:
    """Return how long a create takes until it is Ready, in seconds."""
    begun = time.monotonic()
    workspace.create(name)
    workspace.wait_ready(name)
    return time.monotonic() - begun


@pytest.mark.usefixtures("operator")
def test_a_made_up_access_key_bars_nobody(workspace: Workspace, neighbour: Workspace) -> None:
    own = workspace.cloud.credentials_env()
    workspace.create("own")
    project_id = workspace.wait_ready("own")["status"]["projectId"]
    made_up = {
        "auth": {"auth_url": own["OS_AUTH_URL"], "ak": "MADEUP", "sk": "made-up", "project_id": project_id},
        "as_endpoint_override": workspace.cloud.as_endpoint(project_id),
    }
    neighbour.put_secret("made-up", yaml.safe_dump({"clouds": {"otc": made_up}}))
    claim = {"scalingGroupId": workspace.group_id, "credentialsRef": {"secretName": "made-up"}}
    for name in ("own", "coming"):
        neighbour.create(name, **claim)
        neighbour.wait(f"{name} is refused", lambda body: ready(body).get("status") == "False", name)
    workspace.create("coming")
    workspace.wait_ready("coming")
    workspace.patch("own", {"spec": {"defaultTimeout": 77}})
    workspace.wait_ready("own")
    assert {hook["default_timeout"] for hook in workspace.cloud.hooks(workspace.group_id)} == {77, 3600}


@pytest.mark.usefixtures("operator")
def test_an_iam_that_hangs_delays_nobody_else(workspace: Workspace, neighbour: Workspace, silent_address: str) -> None:
    workspace.create()
    workspace.wait_ready()
    for number in range(5):
        neighbour.put_secret(f"hangs-{number}", neighbour.clouds_yaml(auth_url=silent_address, username=f"u{number}"))
        neighbour.create(
            f"claim-{number}",
            scalingGroupId=workspace.group_id,
            lifecycleHookName="hook",
            credentialsRef={"secretName": f"hangs-{number}"},
        )
    neighbour.wait(
        "its Secret is in use", lambda body: body and neighbour.secret("hangs-4").metadata.finalizers, "claim-4"
    )
    begun = time.monotonic()
    workspace.patch("hook", {"spec": {"defaultTimeout": 77}})
    workspace.wait_ready()
    assert time.monotonic() - begun < MOST_SECONDS


@pytest.mark.usefixtures("operator")
def test_groups_that_hang_delay_nobody_else(workspace: Workspace, neighbour: Workspace) -> None:
    cloud = workspace.cloud
    groups = [cloud.add_group() for _ in range(16)]
    for group_id in groups:
        cloud.fault("create", group_id=group_id, hold=True, count=None)
    for number in range(64):
        neighbour.create(f"hangs-{number}", scalingGroupId=groups[number % 16])
    for group_id in groups[:4]:
        cloud.wait_for_request("create", group_id, state="held")
    assert measure_create(workspace) < MOST_SECONDS


def test_hundreds_of_failures_delay_nobody_else(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, neighbour: Workspace
) -> None:
    with ThreadPoolExecutor(4) as pool:
        creations = [
            pool.submit(neighbour.create, f"fails-{number}", scalingGroupId=f"no-group-{number}")
            for number in range(FAILURES)
        ]
    for creation in creations:
        creation.result()
    with OperatorProcess(cluster, cloud.credentials_env()):
        cloud.wait_for_request("create", "no-group-0")
        workspace.create()
        workspace.wait_ready()
        groups = [request.group_id for request in cloud.requests("create")]
        earlier = [group for group in groups[: groups.index(workspace.group_id)] if group.startswith("no-group-")]
        assert len(earlier) < FAILURES * 3 / 4, "it has waited for most of the others"
        neighbour.wait_reason("GroupNotFound", f"fails-{FAILURES - 1}")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_a_secret_that_takes_long_to_parse_delays_nobody_else(
    workspace: Workspace, neighbour: Workspace, text: str
) -> None:
    neighbour.put_secret("otc", text)
    for number in range(120):
        neighbour.create(f"hook-{number}", credentialsRef={"secretName": "otc", "cloudName": f"cloud-{number}"})

    def are_all_refused() -> bool:
        return all(ready(body).get("reason") == "CredentialsInvalid" for body in neighbour.all())

    eventually("all are refused", are_all_refused)
    neighbour.put_secret("otc", f"{text} ")
    assert measure_create(workspace) < MOST_SECONDS
