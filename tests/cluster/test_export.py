"""Manifests are made of hooks that are there already, and adopt them as they are."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workspace import Workspace


def export(workspace: Workspace, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "AS_"))}
    return subprocess.run(
        [sys.executable, "-m", "lifecyclehook_operator", "export", *arguments],
        env={**kept, **(environment or workspace.cloud.credentials_env())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def put_hook(workspace: Workspace, name: str, **fields: Any) -> None:
    good = {"lifecycle_hook_type": "INSTANCE_TERMINATING", "notification_topic_urn": workspace.topic_urn}
    workspace.cloud.put_hook(workspace.group_id, name, **{**good, **fields})


@pytest.mark.usefixtures("operator")
def test_what_is_exported_adopts_the_hooks_of_a_group_and_changes_nothing(workspace: Workspace) -> None:
    put_hook(workspace, "on_launch", lifecycle_hook_type="INSTANCE_LAUNCHING", default_result="CONTINUE")
    put_hook(workspace, "on-launch", notification_metadata='{"drain": true}: ä, # "no" comment')
    put_hook(workspace, "Drain_Before-Terminate_", default_timeout=86400)
    put_hook(workspace, "___")
    before = workspace.cloud.hooks(workspace.group_id)
    exported = export(workspace, "--group", workspace.group_id)
    assert exported.stderr == ""
    assert exported.returncode == 0
    manifests = list(yaml.safe_load_all(exported.stdout))
    names = {each["metadata"]["name"]: each["spec"]["lifecycleHookName"] for each in manifests}
    assert names == {
        "on-launch": "on-launch",
        "on-launch-2": "on_launch",
        "drain-before-terminate": "Drain_Before-Terminate_",
        "hook": "___",
    }
    workspace.cluster.kubectl("apply", "-n", workspace.namespace, "-f", "-", input=exported.stdout)
    for name in names:
        workspace.wait_ready(name)
    assert workspace.cloud.hooks(workspace.group_id) == before
    assert {request.operation for request in workspace.cloud.requests(group_id=workspace.group_id)} == {
        *("create", "list"),
    }, "a refused create call shows that the hook is there"


def test_a_hook_that_cannot_be_exported_is_named_with_the_reason(workspace: Workspace) -> None:
    put_hook(workspace, "good")
    put_hook(workspace, "soon", default_timeout=5)
    put_hook(workspace, "marked", notification_metadata="<b>")
    exported = export(workspace, "--group", workspace.group_id)
    assert exported.returncode == 1
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(exported.stdout)] == ["good"]
    marked, soon = exported.stderr.splitlines()
    assert marked.startswith("lifecyclehook-operator: hook marked: spec.notificationMetadata: '<b>' is not allowed: ")
    assert marked.endswith("may not contain < > & ' ( )")
    assert soon.startswith("lifecyclehook-operator: hook soon: spec.defaultTimeout: 5 is not allowed: ")


def test_a_group_without_hooks_has_no_manifests(workspace: Workspace) -> None:
    exported = export(workspace, "--group", workspace.group_id)
    assert (exported.returncode, exported.stdout, exported.stderr) == (0, "", "")


def test_credentials_may_come_from_a_clouds_yaml(workspace: Workspace, tmp_path: Path) -> None:
    put_hook(workspace, "hook")
    path = tmp_path / "clouds.yaml"
    path.write_text(workspace.clouds_yaml())
    arguments = ("--group", workspace.group_id, "--credentials", str(path))
    exported = export(workspace, *arguments, OS_CLOUD="otc")
    assert exported.returncode == 0, exported.stderr
    (manifest,) = yaml.safe_load_all(exported.stdout)
    assert manifest == {
        "apiVersion": "as.otc.t-systems.com/v1alpha1",
        "kind": "LifecycleHook",
        "metadata": {"name": "hook"},
        "spec": {
            "scalingGroupId": workspace.group_id,
            "lifecycleHookName": "hook",
            "lifecycleHookType": "INSTANCE_TERMINATING",
            "defaultResult": "ABANDON",
            "defaultTimeout": 3600,
            "notificationTopicUrn": workspace.topic_urn,
            "adoptionPolicy": "Identical",
        },
    }
    missing = export(workspace, *arguments, "--cloud", "prod", OS_CLOUD="otc")
    assert missing.returncode == 1
    assert "prod" in missing.stderr


def test_what_fails_is_told_in_a_line(workspace: Workspace) -> None:
    absent = export(workspace, "--group", "absent")
    assert absent.returncode == 1
    (line,) = absent.stderr.splitlines()
    assert "absent" in line
    assert "Check --group, the project and the region." in line
    nobody = export(workspace, "--group", workspace.group_id, NOTHING="")
    assert nobody.returncode == 2
    assert "no credentials: set OS_AUTH_URL" in nobody.stderr
    assert export(workspace).returncode == 2
