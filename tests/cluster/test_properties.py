"""A real API server with our CRD, and the model that the CRD is generated from, accept and refuse the same specs."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes import client, config
from kubernetes.client.exceptions import UnprocessableEntityException

from lifecyclehook_operator.api.v1alpha1 import InvalidResourceError, LifecycleHook, LifecycleHookSpec
from tests.support.controlplane import ControlPlane
from tests.support.workspace import ADDRESS, API_VERSION, PLURAL

#: The specs that a session tries: as many as take some seconds, the same ones each time where CI=true.
SETTINGS = settings(max_examples=200, derandomize=os.environ.get("CI") == "true")

Body = dict[str, Any]
#: Creates a resource without storing it, and returns what would be stored, or None if it is refused.
Server = Callable[[Body], Body | None]

GOOD: Body = {
    "scalingGroupId": "e5d27f5c-dd76-4a61-b4bc-a67c5686719a",
    "lifecycleHookType": "INSTANCE_LAUNCHING",
    "notificationTopicUrn": "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh",
}
FIELDS = tuple(field.alias or "" for field in LifecycleHookSpec.model_fields.values())
REFERENCE_FIELDS = ("secretName", "cloudName")
#: What a user may write into any field, by mistake or to see what happens.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 59, 60, 61, 86400, 86401, 10**30, 60.0, 60.5, 86400.0, 86401.0, 1e300, "60", "60.0"),
    *("", " ", "\n", "\0", "null", "x", "a.b", "a b", "hook\n", "\nhook", "häkchen", "hook😀", "ho\u0301ok", "-", "_"),
    *("a" * 32, "a" * 33, "a" * 64, "a" * 65, "a" * 253, "a" * 254, "ä" * 256, "😀" * 256, "😀" * 257, "a" * 401),
    *("INSTANCE_TERMINATING", "instance_launching", "INSTANCE_LAUNCHING ", "CONTINUE", "Continue", "Retain", "Never"),
    *("urn:smn:eu-de:p:t", "urn:smn:eu-de:p:t\n", "urn:smn:eu-de:p:" + "t" * 255, "urn:smn:eu-de:p:" + "t" * 256),
    *("urn:smn:eu-de:p", "urn:smn::p:t", "urn:smn:eu-de:p:t:u", "URN:smn:eu-de:p:t", "urn:smn:eu-de:p-q:t"),
    *("<", ">", "&", "'", "(", ")", '"', "`", "{}", "a\tb", "\u2028", "\ufeff", "\x7f", "\ud7ff", "\U0010ffff"),
    *([], [1], {}, {"a": 1}, {"secretName": "otc"}, {"secretName": "otc", "cloudName": "dev"}),
)
#: Unknown to the resource: the model's own names of fields, and what resembles a field.
EXTRA_FIELDS = (
    *LifecycleHookSpec.model_fields,
    "",
    "spec",
    "ScalingGroupID",
    "defaulttimeout",
    "häkchen",
    "a.b",
    "$ref",
)

NAMES = st.sampled_from(["hook", "0", "a-b", "web.hook", "a" * 32, "a" * 33, "a" * 250])


@pytest.fixture(scope="module")
def server(cluster: ControlPlane) -> Iterator[Server]:
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        objects = client.CustomObjectsApi(api)

        def create(body: Body) -> Body | None:
            try:
                return objects.create_namespaced_custom_object(
                    *ADDRESS, "default", PLURAL, body, dry_run="All", field_validation="Ignore"
                )
            except UnprocessableEntityException:
                return None

        yield create


def check_agreement(server: Server, name: str, spec: Body) -> None:
    """Assert that the server and the model both refuse a spec, or both read the same from it."""
    body = {"apiVersion": API_VERSION, "kind": "LifecycleHook", "metadata": {"name": name}, "spec": spec}
    stored, read = server(body), read_spec(name, spec)
    assert (stored is not None) == (read is not None)
    if stored is None or read is None:
        return
    assert read_spec(name, stored["spec"]) == read
    assert without_unset(stored["spec"]) == without_unset(
        read.model_dump(
            by_alias=True, exclude=set() if stored["spec"].get("lifecycleHookName") else {"lifecycle_hook_name"}
        )
    )


def read_spec(name: str, spec: Any) -> LifecycleHookSpec | None:
    """Return the spec as the operator reads it, or None if it refuses it."""
    metadata = {"name": name, "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1}
    try:
        return LifecycleHook({"metadata": metadata, "spec": spec}).spec()
    except InvalidResourceError:
        return None


def without_unset(spec: Body) -> Body:
    """Return a spec without the fields that say nothing: null and empty text are how the model has "unset"."""
    return {field: value for field, value in spec.items() if value not in (None, "")}


# --- every odd value in every field -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_an_odd_value_is_read_or_refused_by_both(server: Server, field: str) -> None:
    for value in ODD_VALUES:
        check_agreement(server, "hook", {**GOOD, field: value})


@pytest.mark.parametrize("field", REFERENCE_FIELDS)
def test_an_odd_value_in_the_reference_is_read_or_refused_by_both(server: Server, field: str) -> None:
    for value in ODD_VALUES:
        check_agreement(server, "hook", {**GOOD, "credentialsRef": {"secretName": "otc", field: value}})


@pytest.mark.parametrize("field", EXTRA_FIELDS)
def test_an_unknown_field_means_nothing_to_both(server: Server, field: str) -> None:
    check_agreement(server, "hook", {**GOOD, field: "x"})
    check_agreement(server, "hook", {**GOOD, "credentialsRef": {"secretName": "otc", field: "x"}})
    for required in GOOD:
        rest = {name: value for name, value in GOOD.items() if name != required}
        check_agreement(server, "hook", {**rest, field: GOOD[required]})


# --- combinations -----------------------------------------------------------------------------------------------------

WORDS = st.text(alphabet=st.sampled_from("abzAZ09_-"), min_size=1, max_size=32)
TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=300)
JUNK = st.recursive(
    st.sampled_from(ODD_VALUES) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
REFERENCES = st.fixed_dictionaries(
    {"secretName": st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)},
    optional={"cloudName": st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=20)},
)
GOOD_SPECS = st.fixed_dictionaries(
    {
        "scalingGroupId": WORDS,
        "lifecycleHookType": st.sampled_from(["INSTANCE_TERMINATING", "INSTANCE_LAUNCHING"]),
        "notificationTopicUrn": st.builds("urn:smn:{}:p0:{}".format, WORDS, WORDS),
    },
    optional={
        "lifecycleHookName": WORDS,
        "defaultResult": st.sampled_from(["ABANDON", "CONTINUE"]),
        "defaultTimeout": st.integers(60, 86400),
        "notificationMetadata": st.text(
            alphabet=st.characters(codec="utf-8", exclude_characters="<>&'()"), max_size=256
        ),
        "credentialsRef": REFERENCES,
        "deletionPolicy": st.sampled_from(["Delete", "Retain"]),
        "adoptionPolicy": st.sampled_from(["Identical", "Always", "Never"]),
        "suspensionPolicy": st.sampled_from(["Ignore", "Watch"]),
        "driftPolicy": st.sampled_from(["Repair", "Report"]),
    },
)


@st.composite
def specs(draw: st.DrawFn) -> Body:
    """Return a good spec, or one that has been spoiled in one or two places."""
    spec = draw(GOOD_SPECS)
    for field in draw(st.lists(st.sampled_from((*FIELDS, *EXTRA_FIELDS)), max_size=2)):
        match draw(st.sampled_from(["drop", "put", "put inside"])):
            case "drop":
                spec.pop(field, None)
            case "put":
                spec[field] = draw(JUNK)
            case _:
                inside = draw(st.sampled_from((*REFERENCE_FIELDS, "extra")))
                spec["credentialsRef"] = {**draw(REFERENCES), inside: draw(JUNK)}
    return spec


@SETTINGS
@given(name=NAMES, spec=specs())
def test_any_spec_is_read_the_same_or_refused_by_both(server: Server, name: str, spec: Body) -> None:
    check_agreement(server, name, spec)
