"""Secrets change, and many hooks share one."""

from collections.abc import Iterator

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OPERATOR, OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, is_ready, ready

HOOKS = 500
HOOKS_PER_GROUP = 5


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator with no credentials of its own, which does not retry by itself while a test runs."""
    with OperatorProcess(
        cluster, {}, **{**fast, "slow_retry_min_seconds": 600, "slow_retry_max_seconds": 600}
    ) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")


def logins(workspace: Workspace) -> int:
    """Return how often the user named after the workspace has tried to log in."""
    return sum(workspace.namespace in str(request.body) for request in workspace.cloud.requests("token"))


def test_a_hook_that_waits_for_better_credentials_is_tried_at_once(workspace: Workspace) -> None:
    workspace.cloud.add_user(workspace.namespace, "correct-password")
    wrong = workspace.clouds_yaml(username=workspace.namespace, password="wrong")
    workspace.put_secret("otc", wrong)
    workspace.create(credentialsRef={"secretName": "otc"})
    body = workspace.wait_reason("AuthenticationFailed")
    assert "tried again after 5 minutes, or at once when the credentials change" in ready(body)["message"]
    before = logins(workspace)
    workspace.replace_secret("otc", f"# The same credentials.\n{wrong}")
    assert ready(workspace.get() or {}) == ready(body)
    assert logins(workspace) == before == 1
    workspace.put_secret("otc", workspace.clouds_yaml(username=workspace.namespace, password="correct-password"))
    workspace.wait_ready()
    assert logins(workspace) == 2


def test_new_credentials_serve_with_no_restart(workspace: Workspace) -> None:
    workspace.cloud.add_user(f"user-{workspace.namespace}", "old password")
    workspace.put_secret("otc", workspace.clouds_yaml(username=f"user-{workspace.namespace}", password="old password"))
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.cloud.add_user(f"user-{workspace.namespace}", "another password")
    workspace.cloud.revoke_tokens()
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    workspace.wait_ready()


def test_a_malformed_secret_does_not_touch_a_ready_hook_until_it_is_needed(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    workspace.replace_secret("otc", "clouds: [")
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    workspace.wait_reason("CredentialsInvalid")
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.wait_ready()


def test_many_hooks_of_one_secret_read_it_once_and_share_a_token(workspace: Workspace) -> None:
    workspace.put_secret("otc", workspace.clouds_yaml())
    groups = [workspace.cloud.add_group() for _ in range(HOOKS // HOOKS_PER_GROUP)]
    tokens = len(workspace.cloud.requests("token"))
    for number in range(HOOKS):
        workspace.create(
            f"hook-{number}", scalingGroupId=groups[number % len(groups)], credentialsRef={"secretName": "otc"}
        )
    eventually("all are Ready", lambda: all(map(is_ready, workspace.all())), seconds=60)
    assert len(workspace.cloud.requests("token")) <= tokens + 1

    def calls() -> list[str]:
        user = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
        found = workspace.cluster.audit_events(user=user, resource="secrets", namespace=workspace.namespace)
        return sorted(event["verb"] for event in found)

    assert calls() == ["get", "patch"]


def test_projects_are_kept_apart(cloud: Simulator, workspace: Workspace) -> None:
    other_project = cloud.add_project("eu-de_second")
    other_group = cloud.add_group(project_id=other_project)
    other_topic = cloud.add_topic(workspace.namespace, project_id=other_project)
    workspace.put_secret("first", workspace.clouds_yaml())
    workspace.put_secret("second", workspace.clouds_yaml(project_name="eu-de_second"))
    workspace.create("first", credentialsRef={"secretName": "first"})
    workspace.create(
        "second",
        scalingGroupId=other_group,
        notificationTopicUrn=other_topic,
        credentialsRef={"secretName": "second"},
    )
    assert workspace.wait_ready("first")["status"]["projectId"] == cloud.project_id
    assert workspace.wait_ready("second")["status"]["projectId"] == other_project


def test_a_hook_does_not_move_to_another_project(cloud: Simulator, workspace: Workspace) -> None:
    cloud.add_project("eu-de_third")
    workspace.put_secret("otc", workspace.clouds_yaml())
    workspace.create(credentialsRef={"secretName": "otc"})
    workspace.wait_ready()
    workspace.replace_secret("otc", workspace.clouds_yaml(project_name="eu-de_third"))
    workspace.patch("hook", {"spec": {"defaultTimeout": 61}})
    body = workspace.wait_reason("CredentialsInvalid")
    assert f"the hook is in {cloud.project_id}" in body["status"]["error"]["message"]
