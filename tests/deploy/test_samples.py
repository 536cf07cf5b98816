"""The samples about callbacks do what they say."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.harness import DEPLOY, eventually
from tests.support.workspace import Workspace

CALLBACKS, POLICIES = DEPLOY / "samples" / "callbacks", DEPLOY / "samples" / "policies"
INSTANCE = "b25c1589-c96c-465b-9fef-d06540d1945c"


def read(path: Path, namespace: str) -> list[dict[str, Any]]:
    """Return the objects of a sample, in another namespace."""
    objects: list[dict[str, Any]] = list(
        yaml.safe_load_all(path.read_text().replace("namespace: web", f"namespace: {namespace}"))
    )
    return objects


def apply(workspace: Workspace, path: Path) -> None:
    text = yaml.safe_dump_all(read(path, workspace.namespace))
    workspace.cluster.kubectl("apply", "-f", "-", input=text)


def run_job(workspace: Workspace, name: str, kubeconfig: Path, **replaced: str) -> subprocess.CompletedProcess[str]:
    """Run what a Job's container runs, with the rights of its service account."""
    (job,) = read(CALLBACKS / name, workspace.namespace)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    for old, new in replaced.items():
        script = script.replace(old, new)
    environment = {each["name"]: each["value"] for each in container["env"]}
    path = f"{workspace.cluster.kubectl_path.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*container["command"], script],
        env={**environment, "PATH": path, "KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def kubeconfig(workspace: Workspace, tmp_path: Path) -> Path:
    """Return the kubeconfig of the service account of the samples, with its namespace as a pod has it."""
    apply(workspace, CALLBACKS / "rights.yaml")
    own = yaml.safe_load(
        workspace.cluster.service_account_kubeconfig(workspace.namespace, "lifecycle-worker").read_text()
    )
    for context in own["contexts"]:
        context["context"]["namespace"] = workspace.namespace
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(own))
    may = ("auth", "can-i", "create", "lifecyclecallbacks")
    eventually(
        "it may call back", lambda: workspace.cluster.kubectl(*may, check=False, kubeconfig=path).returncode == 0
    )
    return path


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("job", "hook", "if_the_work_fails"),
    [
        ("terminating-job.yaml", "drain-before-terminate", "HANGING"),
        ("launching-job.yaml", "on-launch", "ABANDON"),
    ],
)
def test_a_job_does_its_work_and_then_calls_back(
    workspace: Workspace, kubeconfig: Path, job: str, hook: str, if_the_work_fails: str
) -> None:
    workspace.create(hook)
    workspace.wait_ready(hook)
    workspace.cloud.add_hanging_instance(workspace.group_id, hook, INSTANCE)
    ended = run_job(workspace, job, kubeconfig, echo="false")
    assert (ended.returncode == 0) == (if_the_work_fails != "HANGING"), ended.stderr
    (listed,) = workspace.cloud.hanging_instances(workspace.group_id)
    assert listed["lifecycle_hook_status"] == if_the_work_fails
    workspace.cloud.update_hanging_instance(
        workspace.group_id, listed["lifecycle_action_key"], lifecycle_hook_status="HANGING"
    )
    ended = run_job(workspace, job, kubeconfig)
    assert ended.returncode == 0, ended.stderr
    (listed,) = workspace.cloud.hanging_instances(workspace.group_id)
    assert listed["lifecycle_hook_status"] == "CONTINUE"


def test_who_calls_back_may_do_nothing_else(workspace: Workspace, kubeconfig: Path) -> None:
    def may(verb: str, resource: str, *flags: str) -> bool:
        asked = ("auth", "can-i", verb, resource, *flags)
        return workspace.cluster.kubectl(*asked, check=False, kubeconfig=kubeconfig).stdout.strip() == "yes"

    assert all(may(verb, "lifecyclecallbacks") for verb in ("create", "get", "list", "watch"))
    assert may("get", "lifecyclehooks")
    assert not any(may(verb, "lifecyclehooks") for verb in ("create", "update", "patch", "delete"))
    assert not any(may(verb, "lifecyclecallbacks") for verb in ("update", "patch", "delete"))
    assert not may("patch", "lifecyclecallbacks", "--subresource=status")
    assert not may("create", "lifecyclecallbacks", "-n", "default")


def test_no_built_in_role_may_call_back() -> None:
    roles = yaml.safe_load_all((DEPLOY / "base" / "roles.yaml").read_text())
    (caller,) = [each for each in roles if each["metadata"]["name"] == "lifecyclecallback-caller"]
    assert "labels" not in caller["metadata"]


@pytest.fixture
def policy(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[None]:
    """Apply a policy for the namespace of the test alone."""
    if workspace.cluster.binaries.kubernetes < (1, 30):
        pytest.skip("ValidatingAdmissionPolicy is v1 since Kubernetes 1.30")
    objects = read(POLICIES / request.param, workspace.namespace)
    for each in objects:
        if each["kind"] == "ValidatingAdmissionPolicy":
            labels = {"kubernetes.io/metadata.name": workspace.namespace}
            each["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": labels}
    text = yaml.safe_dump_all(objects)
    workspace.cluster.kubectl("apply", "-f", "-", input=text)
    yield
    workspace.cluster.kubectl("delete", "--ignore-not-found", "-f", "-", input=text)


def said(workspace: Workspace, kind: str, spec: dict[str, Any], *flags: str) -> str:
    """Return what the API server says of an object, without keeping it."""
    body = {
        "apiVersion": "as.otc.t-systems.com/v1alpha1",
        "kind": kind,
        "metadata": {"name": "tried", "namespace": workspace.namespace},
        "spec": spec,
    }
    tried = workspace.cluster.kubectl(
        "create", "--dry-run=server", *flags, "-f", "-", input=yaml.safe_dump(body), check=False
    )
    return str(tried.stdout + tried.stderr)


@pytest.mark.parametrize("policy", ["who-may-abandon.yaml"], indirect=True)
@pytest.mark.usefixtures("policy")
def test_only_who_may_abandon_does(workspace: Workspace) -> None:
    namespace = workspace.namespace
    for user, role in (("ann", "caller"), ("bob", "caller"), ("bob", "abandoner")):
        binding = ("create", "rolebinding", f"{user}-{role}", f"--clusterrole=lifecyclecallback-{role}")
        workspace.cluster.kubectl(*binding, f"--user={user}", "-n", namespace)

    def call_back(user: str, result: str) -> str:
        spec = {"lifecycleHookRef": {"name": "hook"}, "instanceId": "i", "lifecycleActionResult": result}
        return said(workspace, "LifecycleCallback", spec, f"--as={user}")

    eventually("it is in force", lambda: "ABANDON needs the verb abandon" in call_back("ann", "ABANDON"))
    eventually("bob may", lambda: "created" in call_back("bob", "ABANDON"))
    assert "created" in call_back("ann", "CONTINUE")


@pytest.mark.parametrize("policy", ["groups-and-topics.yaml"], indirect=True)
@pytest.mark.usefixtures("operator", "policy")
def test_a_namespace_uses_no_groups_and_topics_but_its_own(workspace: Workspace) -> None:
    def hook(**fields: Any) -> str:
        return said(workspace, "LifecycleHook", workspace.spec(**fields))

    def allow(**lists: str) -> None:
        annotations = [f"example.com/{name.replace('_', '-')}={value}" for name, value in lists.items()]
        workspace.cluster.kubectl("annotate", "--overwrite", "namespace", workspace.namespace, *annotations)

    eventually("it is in force", lambda: "may not use this AS group" in hook())
    allow(scaling_groups=f"other,{workspace.group_id}", topics=workspace.topic_urn)
    eventually("it is known", lambda: "created" in hook())
    assert "may not use this topic" in hook(notificationTopicUrn=f"{workspace.topic_urn}2")
    workspace.create()
    workspace.wait_ready()
    allow(scaling_groups="other")
    eventually("it is known", lambda: "may not use this AS group" in hook())
    workspace.delete()
    workspace.wait_gone()  # the finalizer can be taken off
