"""What the operator makes of the cloud: as a process, with a local control plane, and the real IAM and AS."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lifecyclehook_operator.cloud.credentials import Credentials, get_address
from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually, install, log_tail

from .assumption import Assumptions, DifferentError, NotTriedError, expect, expect_equal
from .masking import Masking
from .run import Run

OPERATOR = "the operator"
NAMESPACE = "acceptance"
WAIT_SECONDS = 120
#: Shorter than the harness waits before it kills the operator.
SHUTDOWN_SECONDS = 8
#: A resync must not do what a check is about.
RESYNC_SECONDS = 86_400
#: The variable of a field of the credentials, unless it is OS_ and the field's name.
VARIABLES = {"ak": "OS_ACCESS_KEY", "sk": "OS_SECRET_KEY", "as_endpoint": "AS_ENDPOINT"}
#: Variables about the way to the cloud.
NETWORK = {"http_proxy", "https_proxy", "no_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir"}

ASSUMPTIONS = Assumptions()


@dataclass(frozen=True)
class Stage(Run):
    """A run with an operator that works."""

    control_plane: ControlPlane
    operator: OperatorProcess

    @property
    def hook_name(self) -> str:
        return self.group.name("operator")

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run kubectl in the namespace of the run. Raises DifferentError if it fails."""
        try:
            return self.control_plane.kubectl(*arguments, "--namespace", NAMESPACE, **options).stdout
        except subprocess.CalledProcessError as error:
            raise DifferentError(f"{error.stderr.strip()}; {self.ready()}") from error

    def apply(self, **fields: Any) -> None:
        """Apply the resource, with some fields of the caller's."""
        spec = {
            "scalingGroupId": self.group.id,
            "lifecycleHookName": self.hook_name,
            "lifecycleHookType": "INSTANCE_TERMINATING",
            "defaultResult": "CONTINUE",
            "defaultTimeout": 60,
            "notificationTopicUrn": self.group.topic_urn,
            **fields,
        }
        resource = {
            "apiVersion": "as.otc.t-systems.com/v1alpha1",
            "kind": "LifecycleHook",
            "metadata": {"name": "hook"},
            "spec": spec,
        }
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump(resource))

    def wait(self, condition: str) -> None:
        """Wait for a condition of the resource, as kubectl wait takes it."""
        self.kubectl("wait", f"--for={condition}", "lifecyclehook/hook", f"--timeout={WAIT_SECONDS}s")

    def reconcile(self, number: int) -> None:
        """Ask for a reconciliation."""
        self.kubectl("annotate", "lifecyclehook/hook", f"as.otc.t-systems.com/reconcile-at={number}", "--overwrite")

    def wait_in_cloud(self, what: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until something holds of the hook in AS, and return it. Raises DifferentError if it never does."""

        def look() -> dict[str, Any] | None:
            hook = self.group.find(self.hook_name)
            return hook if hook is not None and holds(hook) else None

        try:
            return eventually(what, look, WAIT_SECONDS)
        except TimeoutError as error:
            raise DifferentError(f"{error}; in AS: {self.group.find(self.hook_name)}; {self.ready()}") from error

    def read(self) -> dict[str, Any]:
        """Return the resource."""
        body: dict[str, Any] = json.loads(self.kubectl("get", "lifecyclehook/hook", "--output=json"))
        return body

    def ready(self) -> str:
        """Return what the Ready condition says."""
        condition = "{.status.conditions[?(@.type=='Ready')]"
        output = f"--output=jsonpath={condition}.reason}}: {condition}.message}}"
        command = ("get", "lifecyclehook/hook", "--namespace", NAMESPACE, output)
        return self.control_plane.kubectl(*command, check=False).stdout.strip()


@contextmanager
def set_stage(run: Run, say: Callable[[str], None], masking: Masking) -> Iterator[Stage]:
    """Start the control plane and the operator, with the credentials of the run, and stop both when the block ends."""
    say("Starting etcd and kube-apiserver")
    with ControlPlane() as control_plane:
        install(control_plane)
        control_plane.kubectl("create", "namespace", NAMESPACE)
        say("Starting the operator, with the permissions of its service account")
        operator = OperatorProcess(
            control_plane,
            environment(run.project.credentials, control_plane.work_dir),
            log_level="info",
            allowed_endpoints=",".join(map(get_address, (run.project.iam_url, run.project.endpoint.url))),
            resync_interval_seconds=RESYNC_SECONDS,
            shutdown_grace_seconds=SHUTDOWN_SECONDS,
        )
        run.group.expect_hook(run.group.name("operator"))
        try:
            operator.start()
            yield Stage(
                run.project, run.group, run.busy_group, run.users, control_plane=control_plane, operator=operator
            )
        except BaseException as error:
            error.add_note(masking.hide_secrets(f"End of the operator's log:\n{log_tail(operator.log)}"))
            raise
        finally:
            run.project.interrupts.ignore()  # what is left to do is to stop, and to remove what is there
            # It must not make a hook again that is removed afterwards; a call that it could not end may.
            run.group.is_in_doubt |= operator.stop() not in (None, 0)


def environment(credentials: Credentials, folder: Path) -> dict[str, str]:
    """Return the variables that give credentials to the operator, and how to reach the cloud."""
    values = {name: value for name, value in credentials if value}
    found = {name: value for name, value in os.environ.items() if name.lower() in NETWORK}
    if certificates := values.pop("ca_certificates", ""):
        path = folder / "ca.pem"
        path.write_text(certificates)
        found["OS_CACERT"] = str(path)
    for name, value in values.items():
        text = value if isinstance(value, str) else value.get_secret_value()
        found[VARIABLES.get(name, f"OS_{name.upper()}")] = text
    return found


def require(stage: Stage) -> None:
    """Give up what needs a resource that is Ready."""
    if not stage.ready().startswith("Available"):
        raise NotTriedError(f"the resource is not Ready: {stage.ready()}")


@ASSUMPTIONS.add(OPERATOR)
def a_resource_becomes_ready(stage: Stage) -> None:
    """A LifecycleHook becomes Ready; the hook is in AS as specified, and in the status as AS has it."""
    stage.apply()
    stage.wait("condition=Ready")
    hook = stage.group.find(stage.hook_name)
    expect(hook is not None, "the hook is not listed")
    expected = stage.group.body(lifecycle_hook_name=stage.hook_name)
    expect_equal({name: value for name, value in hook.items() if name in expected}, expected, "in AS")
    expect_equal(stage.read()["status"]["lifecycleHook"]["createTime"], hook["create_time"], "createTime")


@ASSUMPTIONS.add(OPERATOR)
def an_edit_is_made_in_as(stage: Stage) -> None:
    """An edit of timeout and metadata is made in AS, and removed metadata is removed there."""
    require(stage)
    stage.apply(defaultTimeout=120, notificationMetadata="edited")
    stage.wait("jsonpath={.status.lifecycleHook.notificationMetadata}=edited")
    stage.wait_in_cloud("120 s", lambda hook: hook["default_timeout"] == 120)
    stage.apply(defaultTimeout=120)
    stage.wait_in_cloud("no metadata", lambda hook: not hook["notification_metadata"])
    stage.wait("condition=Ready")


@ASSUMPTIONS.add(OPERATOR)
def drift_is_repaired(stage: Stage) -> None:
    """A hook that was changed in AS is changed back, and one that was deleted there is created again."""
    require(stage)
    response = stage.group.modify(stage.hook_name, default_timeout=300)
    expect(response.is_success, "the hook could not be changed in AS")
    stage.reconcile(1)
    stage.wait_in_cloud("120 s again", lambda hook: hook["default_timeout"] == 120)
    stage.group.delete(stage.hook_name)
    stage.group.expect_hook(stage.hook_name)
    stage.reconcile(2)
    stage.wait_in_cloud("the hook is there again", lambda hook: hook["default_timeout"] == 120)


@ASSUMPTIONS.add(OPERATOR)
def a_missing_topic_is_reported(stage: Stage) -> None:
    """A topic that does not exist is reported as TopicNotFound; corrected, the resource recovers."""
    require(stage)
    stage.apply(defaultTimeout=120, notificationTopicUrn=f"{stage.group.topic_urn}-{stage.group.prefix}none")
    stage.wait('jsonpath={.status.conditions[?(@.type=="Ready")].reason}=TopicNotFound')
    stage.apply(defaultTimeout=120)
    stage.wait('jsonpath={.status.conditions[?(@.type=="Ready")].reason}=Available')


@ASSUMPTIONS.add(OPERATOR)
def a_deleted_resource_takes_its_hook_along(stage: Stage) -> None:
    """A resource that is deleted deletes its hook, and is gone."""
    require(stage)
    stage.kubectl("delete", "lifecyclehook/hook", f"--timeout={WAIT_SECONDS}s")
    expect(stage.group.find(stage.hook_name) is None, "the hook is still in AS")
