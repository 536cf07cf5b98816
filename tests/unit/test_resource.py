"""The rules of the spec, as the model holds them for what was stored under an older CRD, and what a resource tells."""

from typing import Any

import pytest
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from lifecyclehook_operator.api.v1alpha1 import (
    CREATE_INTENT_ANNOTATION,
    FINALIZER,
    FORCE_RELEASE_ANNOTATION,
    PAUSED_ANNOTATION,
    RECONCILE_AT_ANNOTATION,
    Hook,
    InvalidResourceError,
    LifecycleHookStatus,
)
from tests.unit.samples import GROUP_ID, HOOK, SPEC, TOPIC_URN, make_hook, make_resource, make_spec

URN = "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:"

GOOD = [
    *[("scalingGroupId", value) for value in ("g", "A-z_0", "x" * 64)],
    *[("lifecycleHookName", value) for value in ("h", "A-z_0", "list", "x" * 32)],
    *[("lifecycleHookType", value) for value in ("INSTANCE_TERMINATING", "INSTANCE_LAUNCHING")],
    *[("defaultResult", value) for value in ("ABANDON", "CONTINUE", None)],
    *[("defaultTimeout", value) for value in (60, 61, 3600, 86399, 86400, 60.0, None)],
    *[("notificationTopicUrn", value) for value in (TOPIC_URN, f"{URN}t", f"{URN}{'x' * 255}", "urn:smn:r:p:A-z_0")],
    *[("notificationMetadata", value) for value in ("", "x", "x" * 256, "ä" * 256, '"\n;/%', "👍" * 256)],
    *[("credentialsRef", value) for value in (None, {"secretName": "otc"}, {"secretName": "a", "cloudName": "b"})],
    *[("credentialsRef", {"secretName": value}) for value in ("a", "a.b-c0", "x" * 253)],
    ("credentialsRef", {"secretName": "a", "cloudName": None}),
    *[("deletionPolicy", value) for value in ("Delete", "Retain", None)],
    *[("adoptionPolicy", value) for value in ("Identical", "Always", "Never", None)],
    *[("suspensionPolicy", value) for value in ("Ignore", "Watch", None)],
    *[("driftPolicy", value) for value in ("Repair", "Report", None)],
]

NAME_RULE = "must be 1 to 32 letters, digits, _ or -"
URN_RULE = "must be urn:smn:<region>:<project ID>:<topic>"

# Field, value, what the message says of the rule.
BAD = [
    *[("scalingGroupId", value, "must be 1 to 64") for value in ("", "x" * 65, "a b", "a/b", "a\n", "ä")],
    *[("scalingGroupId", value, "string") for value in (7, ["x"], True)],
    *[("lifecycleHookName", value, NAME_RULE) for value in ("", "x" * 33, "a.b", "a b", "a\n", "ä", "a/b", "<b>")],
    ("lifecycleHookName", 7, "string"),
    *[("lifecycleHookType", value, "INSTANCE_LAUNCHING") for value in ("", "instance_launching", "OTHER", 7)],
    *[("defaultResult", value, "'ABANDON' or 'CONTINUE'") for value in ("", "abandon", "EXTEND", 7)],
    *[("defaultTimeout", value, "60") for value in (59, 0, -1)],
    *[("defaultTimeout", value, "86400") for value in (86401, 10**30)],
    *[("defaultTimeout", value, "integer") for value in ("3600", 3600.5, True, [60])],
    *[
        ("notificationTopicUrn", value, URN_RULE)
        for value in ("", "gsh", "urn:smn:eu-de:p", "urn:smn::p:t", "urn:smn:r:p:t:u", "urn:dms:r:p:t", f"{URN}t\n")
    ],
    *[("notificationTopicUrn", value, URN_RULE) for value in (f"{URN}{'x' * 256}", f" {TOPIC_URN}", f"{URN}a b")],
    ("notificationTopicUrn", f"urn:smn:{'r' * 400}:p:t", "400"),
    ("notificationTopicUrn", 7, "string"),
    *[("notificationMetadata", f"a{character}b", "may not contain < > & ' ( )") for character in "<>&'()"],
    *[("notificationMetadata", value, "256") for value in ("x" * 257, "ä" * 257)],
    ("notificationMetadata", 7, "string"),
    *[("deletionPolicy", value, "'Delete' or 'Retain'") for value in ("", "delete", "Orphan")],
    *[("adoptionPolicy", value, "'Identical', 'Always' or 'Never'") for value in ("", "always", "Sometimes")],
    *[("suspensionPolicy", value, "'Ignore' or 'Watch'") for value in ("", "watch", "Repair")],
    *[("driftPolicy", value, "'Repair' or 'Report'") for value in ("", "repair", "Ignore")],
]
BAD_REFERENCES = [
    ({}, "credentialsRef.secretName is required"),
    ("otc", "credentialsRef: 'otc' is not allowed"),
    ({"secretName": ""}, "credentialsRef.secretName: '' is not allowed: must be 1 to 253 lowercase letters"),
    ({"secretName": "Otc"}, "credentialsRef.secretName: 'Otc' is not allowed"),
    ({"secretName": "-a"}, "credentialsRef.secretName: '-a' is not allowed"),
    ({"secretName": "x" * 254}, "must be 1 to 253"),
    ({"secretName": "a", "cloudName": ""}, "credentialsRef.cloudName: '' is not allowed"),
    ({"secretName": "a", "cloudName": "x" * 254}, "must have 1 to 253 characters"),
]


def refuse(**fields: Any) -> str:
    """Return the message that a spec with these fields is refused with."""
    with pytest.raises(InvalidResourceError) as caught:
        make_resource(spec={**SPEC, **fields}).spec()
    return str(caught.value)


@pytest.mark.parametrize(("field", "value"), GOOD)
def test_a_value_within_the_rules_is_accepted(field: str, value: object) -> None:
    make_resource(spec={**SPEC, field: value}).spec()


@pytest.mark.parametrize(("field", "value", "rule"), BAD)
def test_a_value_that_breaks_a_rule_is_refused_with_field_value_and_rule(field: str, value: object, rule: str) -> None:
    message = refuse(**{field: value})
    assert message.startswith(f"spec.{field}: {repr(value)[:80]} is not allowed: ")
    assert rule in message.rpartition(" is not allowed: ")[2]
    assert ";" not in message


@pytest.mark.parametrize("field", ["scalingGroupId", "lifecycleHookType", "notificationTopicUrn"])
@pytest.mark.parametrize("is_null", [False, True])
def test_a_required_field_that_is_missing_is_named(field: str, is_null: bool) -> None:
    spec = {name: value for name, value in SPEC.items() if name != field} | ({field: None} if is_null else {})
    with pytest.raises(InvalidResourceError) as caught:
        make_resource(spec=spec).spec()
    assert str(caught.value) == f"spec.{field} is required"


@pytest.mark.parametrize(("reference", "message"), BAD_REFERENCES)
def test_a_reference_that_breaks_a_rule_is_refused_with_field_value_and_rule(reference: object, message: str) -> None:
    assert message in refuse(credentialsRef=reference)


def test_all_that_is_wrong_is_told_at_once() -> None:
    message = refuse(defaultTimeout=1, defaultResult="x")
    assert "spec.defaultTimeout: 1 is not allowed" in message
    assert "spec.defaultResult: 'x' is not allowed" in message


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refuse(scalingGroupId="x" * 100_000)) < 300


@pytest.mark.parametrize("name", ["my.hook", "x" * 33])
def test_a_name_of_the_resource_that_cannot_be_a_hooks_needs_another_for_the_hook(name: str) -> None:
    with pytest.raises(InvalidResourceError, match=r"spec\.lifecycleHookName: .* is not allowed"):
        make_resource(name).spec()
    assert make_resource(name, spec={**SPEC, "lifecycleHookName": "h"}).spec().lifecycle_hook_name == "h"


def test_what_is_left_out_has_the_defaults_of_as() -> None:
    spec = make_resource("hook-a").spec()
    assert spec.lifecycle_hook_name == "hook-a"
    assert spec.hook_fields() == {
        "lifecycle_hook_type": "INSTANCE_LAUNCHING",
        "default_result": "ABANDON",
        "default_timeout": 3600,
        "notification_topic_urn": TOPIC_URN,
        "notification_metadata": "",
    }
    assert (spec.deletion_policy, spec.adoption_policy, spec.drift_policy) == ("Delete", "Identical", "Repair")
    assert spec.credentials_ref is None


def test_a_null_where_there_is_a_default_is_the_default_as_for_the_api_server() -> None:
    nulls = {"defaultResult": None, "defaultTimeout": None, "deletionPolicy": None, "adoptionPolicy": None}
    assert make_spec(**nulls) == make_spec()


def test_a_hook_whose_name_is_null_is_claimed_by_the_resources_name() -> None:
    resource = make_resource("web-hook", spec={**SPEC, "lifecycleHookName": None})
    assert resource.hook_key == (SPEC["scalingGroupId"], "web-hook")
    assert resource.spec().lifecycle_hook_name == "web-hook"


def test_a_cloud_that_is_not_named_is_otc() -> None:
    reference = make_spec(credentialsRef={"secretName": "a"}).credentials_ref
    assert reference is not None
    assert reference.cloud_name == "otc"


def test_an_unknown_field_is_ignored_for_it_may_come_from_a_newer_crd() -> None:
    assert make_spec(somethingNew=1) == make_spec()


OPTIONAL = ["notification_topic_name", "notification_metadata", "create_time"]


@pytest.mark.parametrize("field", [name for name in HOOK if name not in OPTIONAL])
def test_a_hook_with_a_field_missing_that_is_needed_is_not_accepted(field: str) -> None:
    with pytest.raises(ValidationError, match=to_camel(field)):
        Hook.model_validate({name: value for name, value in HOOK.items() if name != field})


@pytest.mark.parametrize("field", OPTIONAL)
def test_a_field_that_is_not_needed_may_be_missing_or_null_and_is_empty_in_the_status(field: str) -> None:
    hook = Hook.model_validate({name: value for name, value in HOOK.items() if name != field})
    assert hook == make_hook(**{field: None}) == make_hook(**{field: ""})
    status = LifecycleHookStatus(lifecycle_hook=hook)
    assert status.as_object()["lifecycleHook"][to_camel(field)] == ""
    assert LifecycleHookStatus.model_validate(status.as_object()) == status


def test_a_hook_may_have_fields_that_we_do_not_know() -> None:
    assert make_hook(something_new=1) == make_hook()


def test_the_fingerprint_is_the_same_in_every_version_of_the_operator() -> None:
    spec = make_spec()
    assert make_resource(uid="u-1").fingerprint(spec.hook_fields()) == "4faaf189945a7619318828939b47c1fe"


def test_the_fingerprint_does_not_depend_on_the_order_of_fields_nor_on_what_else_is_in_the_resource() -> None:
    fields = make_spec().hook_fields()
    fingerprint = make_resource(uid="u-1").fingerprint(fields)
    assert make_resource(uid="u-1").fingerprint(dict(reversed(fields.items()))) == fingerprint
    assert make_resource("other", uid="u-1", version=9, generation=5).fingerprint(fields) == fingerprint
    assert make_resource(uid="u-1").fingerprint(make_hook().hook_fields()) == fingerprint


@pytest.mark.parametrize(
    ("uid", "changes"),
    [
        ("u-2", {}),
        ("u-1", {"lifecycleHookType": "INSTANCE_TERMINATING"}),
        ("u-1", {"defaultResult": "CONTINUE"}),
        ("u-1", {"defaultTimeout": 60}),
        ("u-1", {"notificationTopicUrn": f"{URN}other"}),
        ("u-1", {"notificationMetadata": "x"}),
    ],
)
def test_the_fingerprint_differs_by_object_and_by_field(uid: str, changes: dict[str, Any]) -> None:
    fingerprint = make_resource(uid="u-1").fingerprint(make_spec().hook_fields())
    assert make_resource(uid=uid).fingerprint(make_spec(**changes).hook_fields()) != fingerprint


def test_a_new_resource_has_nothing_of_ours() -> None:
    resource = make_resource("hook-a", version=7)
    assert str(resource) == "web/hook-a"
    assert resource.resource_version == 7
    for is_so in (resource.is_deleting, resource.has_finalizer, resource.is_force_released, resource.is_applied):
        assert not is_so
    assert resource.create_intents == ()
    assert resource.hook_key == (GROUP_ID, "hook-a")
    assert resource.status == LifecycleHookStatus()


def test_a_resource_tells_what_its_metadata_says() -> None:
    resource = make_resource(
        generation=3,
        finalizers=["other", FINALIZER],
        deletionTimestamp="2026-03-01T12:00:00Z",
        annotations={CREATE_INTENT_ANNOTATION: "f-1,f-2", FORCE_RELEASE_ANNOTATION: "true"},
        spec={**SPEC, "lifecycleHookName": "h"},
        status={"appliedGeneration": 3},
    )
    assert resource.is_deleting
    assert resource.has_finalizer
    assert resource.is_force_released
    assert resource.is_applied
    assert resource.create_intents == ("f-1", "f-2")
    assert resource.hook_key == (GROUP_ID, "h")


@pytest.mark.parametrize(
    "metadata",
    [
        {"generation": 2},
        {"deletionTimestamp": "2026-03-01T12:00:00Z"},
        {"annotations": {RECONCILE_AT_ANNOTATION: "now"}},
        {"annotations": {FORCE_RELEASE_ANNOTATION: "true"}},
        {"annotations": {PAUSED_ANNOTATION: "true"}},
    ],
)
def test_whatever_asks_for_a_reconcile_is_another_trigger(metadata: dict[str, Any]) -> None:
    assert make_resource(**metadata).trigger != make_resource().trigger


@pytest.mark.parametrize(
    ("value", "is_paused"),
    [("true", True), ("True", True), ("yes", True), ("", True), ("0", True), ("false", False), (" False\n", False)],
)
def test_every_value_but_false_pauses(value: str, is_paused: bool) -> None:
    assert make_resource(annotations={PAUSED_ANNOTATION: value}).is_paused == is_paused
    assert not make_resource().is_paused


@pytest.mark.parametrize(
    "metadata",
    [{"version": 2}, {"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, {"finalizers": [FINALIZER]}],
)
def test_what_others_change_in_the_metadata_is_no_trigger(metadata: dict[str, Any]) -> None:
    assert make_resource(**metadata).trigger == make_resource().trigger


def test_what_an_older_crd_let_pass_can_be_asked_all_the_same() -> None:
    assert make_resource("hook-a", spec={}).hook_key == ("", "hook-a")


def test_a_status_that_another_version_has_written_is_read_as_far_as_it_can_be() -> None:
    status = {
        "projectId": "p",
        "scalingGroupId": "g",
        "error": {"retry": "Sometimes"},
        "conditions": [{"type": "Ready"}],
    }
    resource = make_resource(status=status)
    assert (resource.status.project_id, resource.status.scaling_group_id) == ("p", "g")
    assert (resource.status.error, resource.status.conditions) == (None, ())
