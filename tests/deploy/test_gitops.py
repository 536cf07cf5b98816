"""Whoever keeps applying the same manifests, by hand or as Argo CD does, meets no resistance and no changes."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lifecyclehook_operator.api.v1alpha1 import LifecycleHookSpec
from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import API_VERSION, Workspace, is_ready

BY_CLIENT: tuple[str, ...] = ()
BY_SERVER = ("--server-side", "--field-manager=argocd-controller")
#: Just what the operator writes for a hook: the finalizer, then the status.
ITS_WRITES = ["lifecyclehooks", "lifecyclehooks/status"]
TRACKING = "argocd.argoproj.io/tracking-id"


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator without a resync while a test runs."""
    with OperatorProcess(cluster, cloud.credentials_env(), resync_interval_seconds=864_000, **fast) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")


class Repository:
    """A manifest, applied and compared again and again."""

    def __init__(self, workspace: Workspace, how: tuple[str, ...], **fields: Any) -> None:
        self._workspace = workspace
        self._how = how
        self.manifest: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": "LifecycleHook",
            "metadata": {"name": "hook", "namespace": workspace.namespace},
            "spec": {**workspace.spec(), **fields},
        }

    def apply(self, *flags: str) -> None:
        self._kubectl("apply", *flags).check_returncode()

    def replace(self, *flags: str) -> None:
        """Replace the whole object, as Argo CD does with Replace=true; what the manifest does not have is lost."""
        text = yaml.safe_dump(self.manifest)
        replaced = self._workspace.cluster.kubectl("replace", *flags, "-f", "-", input=text)
        assert "replaced" in replaced.stdout

    def refusal(self) -> str:
        result = self._kubectl("apply")
        assert result.returncode == 1, result.stdout
        return str(result.stderr)

    def diff(self) -> str:
        result = self._kubectl("diff")
        assert result.returncode in (0, 1), result.stderr
        return result.stdout

    def _kubectl(self, command: str, *flags: str) -> Any:
        text = yaml.safe_dump(self.manifest)
        return self._workspace.cluster.kubectl(command, *self._how, *flags, "-f", "-", input=text, check=False)


def version_of(workspace: Workspace) -> str:
    body = workspace.get()
    assert body is not None
    return body["metadata"]["resourceVersion"]


def wait_until_the_operator_has_seen_it_all(workspace: Workspace) -> None:
    """Create another resource, and wait for it: what happened before has come through the same watch."""
    workspace.create("later", scalingGroupId=workspace.cloud.add_group())
    workspace.wait_ready("later")


def check_that_the_operator_wrote_twice(workspace: Workspace) -> None:
    wait_until_the_operator_has_seen_it_all(workspace)
    assert workspace.writes() == ITS_WRITES


OPTIONAL_FIELDS = [field.alias or "" for field in LifecycleHookSpec.model_fields.values() if not field.is_required()]
MANIFESTS: dict[str, dict[str, Any]] = {
    "what must be said": {},
    "every field": {
        "lifecycleHookName": "test-hook1",
        "defaultResult": "ABANDON",
        "defaultTimeout": 3600,
        "notificationMetadata": "",
        "deletionPolicy": "Delete",
        "adoptionPolicy": "Identical",
        "driftPolicy": "Repair",
        "suspensionPolicy": "Ignore",
    },
    "no credentials, explicitly": {"credentialsRef": None},
    "null wherever nothing must be said": dict.fromkeys(OPTIONAL_FIELDS),
}


@pytest.mark.parametrize("how", [BY_CLIENT, BY_SERVER], ids=["by the client", "by the server"])
@pytest.mark.parametrize("fields", MANIFESTS.values(), ids=MANIFESTS)
def test_the_same_manifest_again_changes_nothing(
    workspace: Workspace, how: tuple[str, ...], fields: dict[str, Any]
) -> None:
    repository = Repository(workspace, how, **fields)
    repository.apply()
    workspace.wait_ready()
    before = version_of(workspace)
    assert repository.diff() == ""
    repository.apply()
    assert repository.diff() == ""
    assert version_of(workspace) == before
    check_that_the_operator_wrote_twice(workspace)


@pytest.mark.parametrize("how", [BY_CLIENT, BY_SERVER], ids=["by the client", "by the server"])
def test_a_null_means_the_default_that_cannot_be_changed_either(workspace: Workspace, how: tuple[str, ...]) -> None:
    repository = Repository(workspace, how, lifecycleHookName=None, notificationMetadata=None)
    repository.apply()
    workspace.wait_ready()
    (hook,) = workspace.cloud.hooks(workspace.group_id)
    assert hook["lifecycle_hook_name"] == "hook"
    repository.manifest["spec"]["lifecycleHookName"] = "other"
    assert "lifecycleHookName cannot be changed" in repository.refusal()
    repository.manifest["spec"]["lifecycleHookName"] = "hook"
    repository.apply()
    repository.manifest["spec"] |= {"lifecycleHookName": None, "notificationMetadata": "text"}
    repository.apply()
    workspace.wait_ready()
    assert workspace.cloud.hooks(workspace.group_id)[0]["notification_metadata"] == "text"
    repository.manifest["metadata"]["name"] = "no.hook"
    assert "set spec.lifecycleHookName" in repository.refusal()


def test_who_changes_from_client_side_to_server_side_takes_over_once(workspace: Workspace) -> None:
    Repository(workspace, BY_CLIENT).apply()
    workspace.wait_ready()
    repository = Repository(workspace, BY_SERVER)
    repository.apply("--force-conflicts")
    before = version_of(workspace)
    repository.apply()
    assert version_of(workspace) == before
    assert repository.diff() == ""
    check_that_the_operator_wrote_twice(workspace)


def test_self_heal_has_nothing_to_fight_for(workspace: Workspace) -> None:
    repository = Repository(workspace, BY_SERVER)
    repository.apply("--force-conflicts")
    workspace.wait_ready()
    before = version_of(workspace)
    for _ in range(5):
        repository.apply("--force-conflicts")
    assert version_of(workspace) == before
    check_that_the_operator_wrote_twice(workspace)
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == ["create"]


def test_self_heal_reverts_an_edit_and_the_hook_follows(workspace: Workspace) -> None:
    repository = Repository(workspace, BY_SERVER, defaultTimeout=600)
    repository.apply("--force-conflicts")
    workspace.wait_ready()
    for edited in (700, 800):
        workspace.patch("hook", {"spec": {"defaultTimeout": edited}})
        repository.apply("--force-conflicts")
    workspace.wait_ready()
    assert workspace.cloud.hooks(workspace.group_id)[0]["default_timeout"] == 600
    assert repository.diff() == ""


def test_a_changed_manifest_is_one_status_write_more(workspace: Workspace) -> None:
    repository = Repository(workspace, BY_SERVER)
    repository.apply()
    workspace.wait_ready()
    repository.manifest["spec"]["defaultTimeout"] = 600
    assert repository.diff()
    repository.apply()
    workspace.wait_ready()
    assert repository.diff() == ""
    wait_until_the_operator_has_seen_it_all(workspace)
    assert workspace.writes() == [*ITS_WRITES, "lifecyclehooks/status"]


@pytest.mark.parametrize(
    "mark", [{"annotations": {TRACKING: "app:of:it"}}, {"labels": {"app.kubernetes.io/instance": "app"}}]
)
def test_a_mark_of_argo_cd_is_none_of_the_operators_business(
    workspace: Workspace, mark: dict[str, dict[str, str]]
) -> None:
    repository = Repository(workspace, BY_SERVER)
    repository.apply()
    workspace.wait_ready()
    repository.manifest["metadata"] |= mark
    repository.apply()
    check_that_the_operator_wrote_twice(workspace)
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == ["create"]
    assert repository.diff() == ""


@pytest.mark.parametrize("propagation", ["Foreground", "Background", "Orphan"])
@pytest.mark.parametrize("collector_comes", ["first", "last"])
def test_a_cascading_deletion_ends(workspace: Workspace, propagation: str, collector_comes: str) -> None:
    Repository(workspace, BY_SERVER).apply()
    workspace.wait_ready()
    if collector_comes == "first":
        held = workspace.cloud.fault("delete", group_id=workspace.group_id, hold=True)
    workspace.objects.delete_namespaced_custom_object(*workspace.address, "hook", propagation_policy=propagation)
    if collector_comes == "first":
        workspace.cloud.wait_for_request("delete", workspace.group_id, state="held")
        collect_garbage(workspace)
        workspace.cloud.release(held)
    else:
        eventually("the hook is gone", lambda: not workspace.cloud.hooks(workspace.group_id))
        eventually("the operator lets go", lambda: not ours(workspace.get()))
        collect_garbage(workspace)
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def ours(body: dict[str, Any] | None) -> list[str]:
    finalizers = body["metadata"].get("finalizers", []) if body else []
    return [name for name in finalizers if name.startswith("as.otc.t-systems.com/")]


def collect_garbage(workspace: Workspace) -> None:
    """Do what the garbage collector does with a resource that nothing depends on; none runs here."""
    if workspace.get() is not None:
        workspace.patch("hook", {"metadata": {"finalizers": ours(workspace.get())}})


def test_a_replaced_resource_gets_its_finalizer_back_at_once(workspace: Workspace) -> None:
    repository = Repository(workspace, BY_CLIENT)
    repository.apply()
    before = workspace.wait_ready()
    repository.replace()
    body = workspace.wait("the finalizer is back", ours)
    assert body["status"] == before["status"]
    wait_until_the_operator_has_seen_it_all(workspace)
    assert workspace.writes() == [*ITS_WRITES, "lifecyclehooks"]
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == [
        "create",
        "list",
    ]
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_resource_replaced_by_another_spec_costs_no_write_more(workspace: Workspace) -> None:
    repository = Repository(workspace, BY_CLIENT)
    repository.apply()
    workspace.wait_ready()
    repository.manifest["spec"]["defaultTimeout"] = 600
    repository.replace()
    workspace.wait_ready()
    assert ours(workspace.get())
    wait_until_the_operator_has_seen_it_all(workspace)
    assert workspace.writes() == [*ITS_WRITES, *ITS_WRITES]
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == [
        "create",
        "modify",
    ]


def test_a_resource_replaced_while_it_is_not_known_whether_there_is_a_hook_leaves_no_orphan(
    workspace: Workspace,
) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, status=504, stage="after")
    workspace.cloud.fault("list", group_id=workspace.group_id, status=503, count=None)
    repository = Repository(workspace, BY_CLIENT, adoptionPolicy="Never")
    repository.apply()
    workspace.wait_reason("CloudUnavailable")
    repository.replace()
    workspace.wait("the finalizer is back", ours)
    workspace.cloud.clear_faults()
    workspace.wait_ready()
    assert len(workspace.cloud.requests("create", workspace.group_id)) == 1
    workspace.delete()
    workspace.wait_gone()
    assert workspace.cloud.hooks(workspace.group_id) == []


def test_a_resource_replaced_while_the_operator_is_down_gets_its_finalizer_back(
    workspace: Workspace, operator: OperatorProcess
) -> None:
    repository = Repository(workspace, BY_CLIENT)
    repository.apply()
    workspace.wait_ready()
    operator.stop()
    repository.replace()
    assert not ours(workspace.get())
    operator.start()
    workspace.wait("the finalizer is back", ours)
    wait_until_the_operator_has_seen_it_all(workspace)
    assert workspace.writes() == [*ITS_WRITES, "lifecyclehooks"]
    assert [request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)] == [
        "create",
        "list",
    ]


def test_a_replaced_resource_that_has_no_hook_gets_no_finalizer(workspace: Workspace) -> None:
    workspace.create("older", lifecycleHookName="hook")
    workspace.wait_ready("older")
    repository = Repository(workspace, BY_CLIENT)
    repository.apply()
    workspace.wait_reason("Conflict")
    repository.replace()
    wait_until_the_operator_has_seen_it_all(workspace)
    assert not ours(workspace.get())
    assert workspace.writes() == ["lifecyclehooks/status"]


def test_a_restart_leaves_synced_resources_alone(workspace: Workspace, operator: OperatorProcess) -> None:
    repository = Repository(workspace, BY_SERVER)
    repository.apply()
    workspace.wait_ready()
    operator.stop()
    operator.start()
    check_that_the_operator_wrote_twice(workspace)
    assert is_ready(workspace.get() or {})
    assert repository.diff() == ""


def test_another_group_is_a_matter_of_deleting_and_creating_anew(workspace: Workspace) -> None:
    """As Argo CD does with Force=true,Replace=true."""
    repository = Repository(workspace, BY_CLIENT)
    repository.apply()
    workspace.wait_ready()
    other_group = workspace.cloud.add_group()
    repository.manifest["spec"]["scalingGroupId"] = other_group
    assert "scalingGroupId cannot be changed" in repository.refusal()
    repository.replace("--force")
    workspace.wait_ready()
    assert workspace.cloud.hooks(workspace.group_id) == []
    assert len(workspace.cloud.hooks(other_group)) == 1
