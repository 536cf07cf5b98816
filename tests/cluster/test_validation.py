"""What the API server knows of the resource from our CRD alone: rules, defaults, immutability, help, columns."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.harness import CRD
from tests.support.simulator import Simulator
from tests.support.workspace import API_VERSION, Workspace

CRD_FILE = Path(__file__).parents[2] / "crds" / "lifecyclehooks.yaml"
NAME_RULE = "must be 1 to 32 letters, digits, _ or -"
ID_RULE = "must be 1 to 64 letters, digits, _ or -"
OBJECT_NAME_RULE = "must be 1 to 253 lowercase letters, digits, - or ."
NOW = "2026-11-24T09:27:34Z"
TOPIC_RULE = "must be urn:smn:<region>:<project ID>:<topic>"
DEFAULTS = {
    "defaultResult": "ABANDON",
    "defaultTimeout": 3600,
    "deletionPolicy": "Delete",
    "adoptionPolicy": "Identical",
    "driftPolicy": "Repair",
    "suspensionPolicy": "Ignore",
}


def manifest(workspace: Workspace, name: str = "hook", **fields: Any) -> dict[str, Any]:
    """Return a resource that is good but for the given fields; None leaves one out."""
    return {
        "apiVersion": API_VERSION,
        "kind": "LifecycleHook",
        "metadata": {"name": name, "namespace": workspace.namespace},
        "spec": workspace.spec(**fields),
    }


def refusal(workspace: Workspace, name: str = "hook", **fields: Any) -> str:
    """Apply a resource that must be refused, and return what kubectl says."""
    applied = workspace.apply(manifest(workspace, name, **fields), check=False)
    assert applied.returncode == 1, applied.stdout
    return str(applied.stderr)


def dry_run(workspace: Workspace, name: str = "hook", **fields: Any) -> dict[str, Any]:
    """Apply a resource that must be accepted, without storing it, and return the spec as it would be stored."""
    text = yaml.safe_dump(manifest(workspace, name, **fields))
    applied = workspace.cluster.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", input=text)
    spec: dict[str, Any] = json.loads(applied.stdout)["spec"]
    return spec


def words(text: str) -> str:
    """Return the text with its line breaks and indentation undone."""
    return " ".join(text.split())


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("scalingGroupId", None, "Required value"),
        ("scalingGroupId", "", ID_RULE),
        ("scalingGroupId", "a/b", ID_RULE),
        ("lifecycleHookName", "", NAME_RULE),
        ("lifecycleHookName", "not a name", NAME_RULE),
        ("lifecycleHookName", "häkchen", NAME_RULE),
        ("lifecycleHookName", "a" * 33, NAME_RULE),
        ("lifecycleHookType", None, "Required value"),
        (
            "lifecycleHookType",
            "INSTANCE_STARTING",
            'supported values: "INSTANCE_TERMINATING", "INSTANCE_LAUNCHING"',
        ),
        ("defaultResult", "EXTEND", 'supported values: "ABANDON", "CONTINUE"'),
        ("defaultTimeout", 59, "should be greater than or equal to 60"),
        ("defaultTimeout", 86401, "should be less than or equal to 86400"),
        ("defaultTimeout", "3600", "must be of type integer"),
        ("defaultTimeout", 60.5, "must be of type integer"),
        ("notificationTopicUrn", None, "Required value"),
        ("notificationTopicUrn", "gsh", TOPIC_RULE),
        ("notificationTopicUrn", "urn:smn:eu-de:gsh", TOPIC_RULE),
        ("notificationTopicUrn", f"urn:smn:{'r' * 400}:p:t", "may not have more than 400 characters"),
        ("notificationMetadata", "a" * 257, "may not have more than 256 characters"),
        *(("notificationMetadata", f"a{character}b", "may not contain < > & ' ( )") for character in "<>&'()"),
        ("deletionPolicy", "Keep", 'supported values: "Delete", "Retain"'),
        ("adoptionPolicy", "Yes", 'supported values: "Identical", "Always", "Never"'),
        ("suspensionPolicy", "Repair", 'supported values: "Ignore", "Watch"'),
        ("driftPolicy", "Ignore", 'supported values: "Repair", "Report"'),
        ("credentialsRef.secretName", "", OBJECT_NAME_RULE),
        ("credentialsRef.secretName", None, "Required value"),
        ("credentialsRef.secretName", "Not_A_Secret", OBJECT_NAME_RULE),
        ("credentialsRef.secretName", "a" * 254, OBJECT_NAME_RULE),
        ("credentialsRef.cloudName", "", "must have 1 to 253 characters"),
    ],
)
def test_a_broken_rule_is_refused_by_field_and_rule(workspace: Workspace, field: str, value: Any, rule: str) -> None:
    outer, _, inner = field.partition(".")
    if inner:
        value = {name: content for name, content in {"secretName": "otc", inner: value}.items() if content is not None}
    said = refusal(workspace, **{outer: value})
    (line,) = [line for line in said.splitlines() if f"spec.{field}: " in line and rule in line]
    assert line
    assert workspace.get() is None


@pytest.mark.parametrize("name", ["drain.before.terminate", "a" * 33])
def test_a_metadata_name_that_cannot_be_a_hook_name_is_refused(workspace: Workspace, name: str) -> None:
    said = refusal(workspace, name)
    assert "metadata.name is not a valid hook name" in said
    assert "letters, digits, _ and -, at most 32 characters" in said
    assert "set spec.lifecycleHookName" in said
    assert dry_run(workspace, name, lifecycleHookName="Drain_1")["lifecycleHookName"] == "Drain_1"


def test_all_broken_rules_are_named_at_once_and_nothing_else(workspace: Workspace) -> None:
    broken = {
        "scalingGroupId": "?",
        "defaultTimeout": 1,
        "notificationTopicUrn": "x" * 401,
        "notificationMetadata": "<" * 257,
        "lifecycleHookName": "?",
        "credentialsRef": {"secretName": "?" * 254, "cloudName": ""},
    }
    lines = refusal(workspace, **broken).splitlines()[1:]
    assert {line.partition(": ")[0] for line in lines} == {
        *(f"* spec.{field}" for field in broken if field != "credentialsRef"),
        *("* spec.credentialsRef.secretName", "* spec.credentialsRef.cloudName"),
    }
    assert not any("a-z" in line for line in lines), "a rule is told in words"


def test_a_value_outside_a_list_is_named_with_the_list(workspace: Workspace) -> None:
    """It keeps the API server from checking the rules in words, which is what its line without a field says."""
    said = refusal(workspace, lifecycleHookType="X", defaultTimeout=1)
    assert '* spec.lifecycleHookType: Unsupported value: "X": supported values: ' in said
    assert "* spec.defaultTimeout: " in said


def test_an_unknown_field_is_refused_by_its_name(workspace: Workspace) -> None:
    assert 'unknown field "spec.timeout"' in refusal(workspace, timeout=60)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lifecycleHookName", "a" * 32),
        ("lifecycleHookName", "-_09azAZ"),
        ("lifecycleHookType", "INSTANCE_TERMINATING"),
        ("lifecycleHookType", "INSTANCE_LAUNCHING"),
        ("defaultResult", "ABANDON"),
        ("defaultResult", "CONTINUE"),
        ("defaultTimeout", 60),
        ("defaultTimeout", 86400),
        ("notificationMetadata", ""),
        ("notificationMetadata", "é" * 256),
        ("notificationMetadata", '{"drain": true}\n'),
        ("deletionPolicy", "Retain"),
        ("adoptionPolicy", "Never"),
        ("driftPolicy", "Report"),
        ("suspensionPolicy", "Watch"),
        ("credentialsRef", {"secretName": "otc.prod-1", "cloudName": "Prod 1"}),
    ],
)
def test_a_value_at_the_edge_of_a_rule_is_accepted_as_it_is(workspace: Workspace, field: str, value: Any) -> None:
    assert dry_run(workspace, **{field: value})[field] == value


def test_a_resource_name_of_32_characters_serves_as_the_hook_name(workspace: Workspace) -> None:
    assert "lifecycleHookName" not in dry_run(workspace, "a" * 32)


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_defaults_are_filled_in(workspace: Workspace) -> None:
    assert dry_run(workspace) == {**workspace.spec(), **DEFAULTS}
    reference = dry_run(workspace, credentialsRef={"secretName": "otc"})["credentialsRef"]
    assert reference == {"secretName": "otc", "cloudName": "otc"}


# --- what cannot be changed -------------------------------------------------------------------------------------------


def test_the_group_cannot_be_changed(workspace: Workspace) -> None:
    workspace.apply(manifest(workspace))
    said = refusal(workspace, scalingGroupId="another")
    assert "spec.scalingGroupId: " in said
    assert "scalingGroupId cannot be changed: delete this resource and create another" in said


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "other"), ("other", None), ("other", "another"), ("other", "hook"), ("hook", "other")],
)
def test_the_hook_name_cannot_be_changed(workspace: Workspace, before: str | None, after: str | None) -> None:
    workspace.apply(manifest(workspace, lifecycleHookName=before))
    said = refusal(workspace, lifecycleHookName=after)
    assert "lifecycleHookName cannot be changed: delete this resource and create another" in said


def test_the_hook_name_may_be_spelled_out_and_left_out_again(workspace: Workspace) -> None:
    for name in (None, "hook", None):
        workspace.apply(manifest(workspace, lifecycleHookName=name))
        stored = workspace.get()
        assert stored is not None
        assert stored["spec"].get("lifecycleHookName") == name


def test_everything_else_can_be_changed(workspace: Workspace) -> None:
    workspace.apply(manifest(workspace))
    changes = {
        "lifecycleHookType": "INSTANCE_TERMINATING",
        "defaultResult": "CONTINUE",
        "defaultTimeout": 60,
        "notificationTopicUrn": workspace.topic_urn + "-2",
        "notificationMetadata": "text",
        "credentialsRef": {"secretName": "otc", "cloudName": "dev"},
        "deletionPolicy": "Retain",
        "adoptionPolicy": "Always",
        "driftPolicy": "Report",
        "suspensionPolicy": "Watch",
    }
    assert dry_run(workspace, **changes) == {**workspace.spec(), **changes}


# --- kubectl ----------------------------------------------------------------------------------------------------------


def test_a_second_apply_says_unchanged(workspace: Workspace) -> None:
    full = manifest(workspace, lifecycleHookName="hook", notificationMetadata="", credentialsRef={"secretName": "otc"})
    assert workspace.apply(full).stdout.endswith("/hook created\n")
    assert workspace.apply(full).stdout.endswith("/hook unchanged\n")


def test_a_server_side_apply_works_and_its_repetition_changes_nothing(workspace: Workspace) -> None:
    text = yaml.safe_dump(manifest(workspace))
    for _ in range(2):
        applied = workspace.cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
        assert applied.stdout.endswith("/hook serverside-applied\n")
        stored = workspace.get()
        assert stored is not None
        assert stored["metadata"]["generation"] == 1
    bad = yaml.safe_dump(manifest(workspace, defaultTimeout=1))
    said = workspace.cluster.kubectl("apply", "--server-side", "-f", "-", input=bad, check=False).stderr
    assert "spec.defaultTimeout: " in said


@pytest.mark.parametrize("how", [[], ["--server-side"]])
def test_a_status_that_a_user_applies_is_ignored(workspace: Workspace, how: list[str]) -> None:
    body = {**manifest(workspace), "status": {"projectId": "made-up"}}
    workspace.cluster.kubectl("apply", *how, "-f", "-", input=yaml.safe_dump(body))
    stored = workspace.get()
    assert stored is not None
    assert stored.get("status", {}).get("projectId") != "made-up"


def test_explain_lists_the_spec_with_what_is_required_and_what_is_allowed(cluster: ControlPlane) -> None:
    text = cluster.kubectl("explain", "lifecyclehook.spec", "--recursive").stdout
    fields = [words(line) for line in text.partition("FIELDS:\n")[2].splitlines() if line.strip()]
    assert fields == [
        "adoptionPolicy <string>",
        "enum: Identical, Always, Never",
        "credentialsRef <Object>",
        "cloudName <string>",
        "secretName <string> -required-",
        "defaultResult <string>",
        "enum: ABANDON, CONTINUE",
        "defaultTimeout <integer>",
        "deletionPolicy <string>",
        "enum: Delete, Retain",
        "driftPolicy <string>",
        "enum: Repair, Report",
        "lifecycleHookName <string>",
        "lifecycleHookType <string> -required-",
        "enum: INSTANCE_TERMINATING, INSTANCE_LAUNCHING",
        "notificationMetadata <string>",
        "notificationTopicUrn <string> -required-",
        "scalingGroupId <string> -required-",
        "suspensionPolicy <string>",
        "enum: Ignore, Watch",
    ]


@pytest.mark.parametrize(
    ("field", "teaches"),
    [
        ("spec.defaultTimeout", "in seconds: 60 to 86400. Defaults to 3600."),
        ("spec.adoptionPolicy", "Never does not adopt it. Defaults to Identical."),
        ("spec.defaultResult", "ENUM: ABANDON CONTINUE"),
        ("spec.lifecycleHookName", "letters, digits, _ and -, at most 32 characters. Defaults to metadata.name."),
        ("spec.notificationMetadata", "at most 256 characters, without < > & ' ( )"),
        ("spec.notificationTopicUrn", "urn:smn:<region>:<project ID>:<topic>"),
        ("spec.credentialsRef.secretName", "in the namespace of this resource; its key clouds.yaml is read"),
        ("status.lifecycleHook.createTime", "in UTC"),
        ("status.error.code", "for example AS.7038"),
    ],
)
def test_explain_teaches_units_and_rules(cluster: ControlPlane, field: str, teaches: str) -> None:
    assert teaches in words(cluster.kubectl("explain", f"lifecyclehook.{field}").stdout)


def test_columns_and_names(workspace: Workspace) -> None:
    kubectl = workspace.cluster.kubectl
    served = kubectl("api-resources", "--api-group=as.otc.t-systems.com", "-o", "wide").stdout.splitlines()[1:]
    callbacks, hooks = (line.split() for line in sorted(served))
    assert hooks[:5] == ["lifecyclehooks", "lch,lchook", API_VERSION, "true", "LifecycleHook"]
    assert callbacks[:5] == ["lifecyclecallbacks", "lcb,lcallback", API_VERSION, "true", "LifecycleCallback"]
    assert hooks[-1] == callbacks[-1] == "otc"
    workspace.apply(manifest(workspace, defaultTimeout=90))
    columns = ["NAME", "READY", "REASON", "HOOK", "TYPE", "AGE"]
    for resource in ("lifecyclehook", "lch", "lchook", "otc"):
        heading, row = kubectl("get", resource, "-n", workspace.namespace).stdout.splitlines()
        assert heading.split() == columns
        assert row.split()[1] == "INSTANCE_LAUNCHING"
    heading, row = kubectl("get", "lch", "-n", workspace.namespace, "-o", "wide").stdout.splitlines()
    assert heading.split() == [*columns, "SUSPENDED", "TIMEOUT", "GROUP"]
    assert row.split()[-2:] == ["90", workspace.group_id]


@pytest.mark.parametrize(
    ("kind", "name", "spec"),
    [
        (
            "LifecycleHook",
            "drain-before-terminate",
            {"scalingGroupId": "e5d27f5c-dd76-4a61-b4bc-a67c5686719a", "defaultTimeout": 86400},
        ),
        (
            "LifecycleCallback",
            "drain-before-terminate-x7k2p",
            {"instanceId": "b25c1589-c96c-465b-9fef-d06540d1945c", "lifecycleActionResult": "CONTINUE"},
        ),
    ],
)
def test_a_row_with_long_values_fits_the_screen(
    cluster: ControlPlane, cloud: Simulator, kind: str, name: str, spec: dict[str, Any]
) -> None:
    """120 columns with a namespace, 200 with -o wide."""
    kubectl, namespace = cluster.kubectl, "payments"
    kubectl("create", "namespace", namespace, check=False)
    with Workspace(cluster, cloud, namespace=namespace) as workspace:
        if kind == "LifecycleHook":
            spec = workspace.spec(lifecycleHookType="INSTANCE_TERMINATING", **spec)
        else:
            spec = {"lifecycleHookRef": {"name": "drain-before-terminate"}, **spec}
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        workspace.apply(body)
        hook = {
            "lifecycleHookName": "drain-before-terminate",
            "lifecycleHookType": "INSTANCE_TERMINATING",
            "defaultResult": "CONTINUE",
            "defaultTimeout": 86400,
            "notificationTopicUrn": workspace.topic_urn,
        }
        conditions = [
            {"type": type_, "status": "Unknown", "reason": reason, "message": "long " * 99, "lastTransitionTime": NOW}
            for type_, reason in (("Ready", "CloudUnavailable"), ("Complete", "SuspensionUnclear"))
        ]
        suspended = {"count": 100, "truncated": True, "items": []}
        status = {"lifecycleHook": hook, "conditions": conditions, "suspendedInstances": suspended}
        patch = json.dumps({"status": status})
        kubectl("patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
        alone = ("-A", f"--field-selector=metadata.name={name},metadata.namespace={namespace}")
        for options, width in (((), 120), (("-o", "wide"), 200)):
            heading, row = kubectl("get", kind, *alone, *options).stdout.splitlines()
            assert row.split()[:2] == [namespace, name]
            assert len(heading) - len("AGE") + len("7y364d") <= width, row
        workspace.delete_callbacks()


# --- the CRD ----------------------------------------------------------------------------------------------------------


def test_the_shipped_crd_is_established_as_it_is_and_has_nothing_non_structural(cluster: ControlPlane) -> None:
    stored = json.loads(cluster.kubectl("get", "crd", CRD, "-o", "json").stdout)
    conditions = {condition["type"]: condition["status"] for condition in stored["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert stored["spec"]["versions"] == yaml.safe_load(CRD_FILE.read_text())["spec"]["versions"]
    # A value that the server takes only with a warning, such as an unknown format, is said on standard error.
    assert cluster.kubectl("apply", "--dry-run=server", "-f", CRD_FILE).stderr == ""


def test_every_field_has_a_description(cluster: ControlPlane) -> None:
    schema = json.loads(cluster.kubectl("get", "crd", CRD, "-o", "json").stdout)["spec"]["versions"][0]["schema"]

    def undescribed(path: str, node: dict[str, Any]) -> list[str]:
        fields = {**node.get("properties", {}), **node.get("items", {}).get("properties", {})}
        inner = [found for name, field in fields.items() for found in undescribed(f"{path}.{name}", field)]
        return inner if "description" in node else [path, *inner]

    properties = schema["openAPIV3Schema"]["properties"]
    assert [*undescribed("spec", properties["spec"]), *undescribed("status", properties["status"])] == []
