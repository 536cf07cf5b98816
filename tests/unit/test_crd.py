"""The CRD: that crds/ is up to date, that it explains itself, and that it is a structural schema."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from lifecyclehook_operator.api.callback import LifecycleCallbackSpec, LifecycleCallbackStatus
from lifecyclehook_operator.api.crd import build_crds
from lifecyclehook_operator.api.v1alpha1 import LifecycleHookSpec, LifecycleHookStatus

CRDS = Path(__file__).parents[2] / "crds"
BUILT = build_crds()
CRD = BUILT["lifecyclehooks"]


def version(crd: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the only version of a CRD."""
    (version,) = crd["spec"]["versions"]
    return dict(version)


VERSION = version(CRD)
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
#: What structural schemas have, of it what ours may need.
KEYWORDS = {
    *("type", "description", "properties", "required", "items", "enum", "default", "nullable", "format"),
    *("pattern", "minLength", "maxLength", "minimum", "maximum"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}

Schema = Mapping[str, Any]


def walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Return each schema below and at this one, with its path."""
    yield path, schema
    for name, property_ in schema.get("properties", {}).items():
        yield from walk(property_, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


NODES = {
    path: schema
    for crd in BUILT.values()
    for path, schema in walk(version(crd)["schema"]["openAPIV3Schema"], crd["spec"]["names"]["kind"])
}


def node(path: str) -> Schema:
    return NODES[f"LifecycleHook.{path}"]


@pytest.mark.parametrize("plural", BUILT)
def test_the_file_is_what_the_model_says(plural: str) -> None:
    assert yaml.safe_load((CRDS / f"{plural}.yaml").read_text()) == BUILT[plural], "run make generate"


@pytest.mark.parametrize("path", [path for path in NODES if path.count(".")])
def test_every_field_is_explained(path: str) -> None:
    top = path.split(".")[1]
    assert top not in ("spec", "status") or len(NODES[path].get("description", "")) > 10


@pytest.mark.parametrize("path", NODES)
def test_every_schema_is_structural(path: str) -> None:
    schema = NODES[path]
    assert schema.keys() <= KEYWORDS
    assert schema["type"] in ("object", "array", "string", "integer", "boolean")
    assert ("items" in schema) == (schema["type"] == "array")
    assert set(schema.get("required", ())) <= set(schema.get("properties", {}))


DEFAULTED = [path for path, schema in NODES.items() if "default" in schema and not path.endswith(".status")]


@pytest.mark.parametrize("path", DEFAULTED)
def test_a_default_is_allowed_by_its_own_schema_and_not_required(path: str) -> None:
    schema = NODES[path]
    parent, _, name = path.rpartition(".")
    default = schema["default"]
    assert name not in NODES[parent].get("required", ())
    assert default in schema.get("enum", [default])
    assert type(default) is {"string": str, "integer": int}[schema["type"]]
    assert not schema.get("nullable")


@pytest.mark.parametrize("path", ["spec", "spec.credentialsRef"])
def test_a_field_that_need_not_be_given_may_be_null(path: str) -> None:
    """The API server drops a null where there is a default, and else needs nullable, for server-side apply."""
    schema = node(path)
    for name in schema["properties"].keys() - set(schema["required"]):
        assert "default" in node(f"{path}.{name}") or node(f"{path}.{name}").get("nullable"), name


@pytest.mark.parametrize("path", [path for path, schema in NODES.items() if "x-kubernetes-list-map-keys" in schema])
def test_the_keys_of_a_list_are_required_in_its_items(path: str) -> None:
    schema = NODES[path]
    assert schema["x-kubernetes-list-type"] == "map"
    assert set(schema["x-kubernetes-list-map-keys"]) <= set(schema["items"]["required"])


@pytest.mark.parametrize(
    ("field", "rules"),
    [
        ("lifecycleHookType", {"enum": ["INSTANCE_TERMINATING", "INSTANCE_LAUNCHING"]}),
        ("defaultResult", {"enum": ["ABANDON", "CONTINUE"], "default": "ABANDON"}),
        ("defaultTimeout", {"type": "integer", "minimum": 60, "maximum": 86400, "default": 3600}),
        ("deletionPolicy", {"enum": ["Delete", "Retain"], "default": "Delete"}),
        ("adoptionPolicy", {"enum": ["Identical", "Always", "Never"], "default": "Identical"}),
        ("suspensionPolicy", {"enum": ["Ignore", "Watch"], "default": "Ignore"}),
        ("driftPolicy", {"enum": ["Repair", "Report"], "default": "Repair"}),
        ("credentialsRef", {"nullable": True, "required": ["secretName"]}),
        ("credentialsRef.cloudName", {"default": "otc"}),
    ],
)
def test_the_rules_of_the_api_page_are_in_the_schema(field: str, rules: Schema) -> None:
    assert rules.items() <= node(f"spec.{field}").items()


@pytest.mark.parametrize(
    ("field", "patterns"),
    [
        ("scalingGroupId", ["^[A-Za-z0-9_-]{1,64}$"]),
        ("lifecycleHookName", ["^[A-Za-z0-9_-]{1,32}$"]),
        ("notificationMetadata", ["(?s)^.{0,256}$", "^[^<>&'()]*$"]),
    ],
)
def test_the_rules_for_text_are_told_in_words(field: str, patterns: list[str]) -> None:
    schema = node(f"spec.{field}")
    assert not {"pattern", "maxLength"} & set(schema)
    rules = {rule["rule"]: rule["message"] for rule in schema["x-kubernetes-validations"]}
    assert sorted(rules) == sorted(f'self.matches(r"{pattern}")' for pattern in patterns)
    assert all(re.match("m(ust|ay)", message) for message in rules.values())


def test_a_new_resource_says_that_it_has_not_been_reconciled() -> None:
    assert node("status")["default"] == {"observedGeneration": -1}
    assert LifecycleHookStatus.model_validate(node("status")["default"]) == LifecycleHookStatus()


@pytest.mark.parametrize("path", DEFAULTED)
def test_a_default_is_told_in_words_too(path: str) -> None:
    """`kubectl explain` shows descriptions, and no defaults."""
    assert NODES[path]["description"].endswith(f" Defaults to {NODES[path]['default']}.")


def test_what_as_demands_is_required_and_nothing_else() -> None:
    assert set(node("spec")["required"]) == {"scalingGroupId", "lifecycleHookType", "notificationTopicUrn"}
    assert SCHEMA["required"] == ["spec"]


def test_all_eight_fields_of_the_answer_have_a_place_in_the_status() -> None:
    fields = {
        *("lifecycleHookName", "lifecycleHookType", "defaultResult", "defaultTimeout"),
        *("notificationTopicUrn", "notificationTopicName", "notificationMetadata", "createTime"),
    }
    hook = node("status.lifecycleHook")
    assert set(hook["properties"]) == fields
    assert set(hook["required"]) == fields - {"notificationTopicName", "notificationMetadata", "createTime"}


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("LifecycleHook.spec", LifecycleHookSpec),
        ("LifecycleHook.status", LifecycleHookStatus),
        ("LifecycleCallback.spec", LifecycleCallbackSpec),
        ("LifecycleCallback.status", LifecycleCallbackStatus),
    ],
)
def test_the_schema_has_every_field_of_the_model(path: str, model: type[BaseModel]) -> None:
    assert set(NODES[path]["properties"]) == {field.alias for field in model.model_fields.values()}


def test_the_names_are_those_of_the_design() -> None:
    assert CRD["metadata"]["name"] == "lifecyclehooks.as.otc.t-systems.com"
    assert CRD["spec"]["names"]["shortNames"] == ["lch", "lchook"]
    assert CRD["spec"]["names"]["categories"] == ["otc"]
    assert CRD["spec"]["scope"] == "Namespaced"
    assert (VERSION["name"], VERSION["served"], VERSION["storage"]) == ("v1alpha1", True, True)
    assert VERSION["subresources"] == {"status": {}}


@pytest.mark.parametrize(
    ("plural", "names"),
    [
        ("lifecyclehooks", ["Ready", "Reason", "Hook", "Type", "Age", "Suspended", "Timeout", "Group"]),
        ("lifecyclecallbacks", ["Complete", "Reason", "Hook", "Result", "Age", "Instance"]),
    ],
)
def test_the_printer_columns_lead_to_fields_that_exist(plural: str, names: list[str]) -> None:
    crd = BUILT[plural]
    columns = {column["name"]: column["jsonPath"].lstrip(".") for column in version(crd)["additionalPrinterColumns"]}
    assert [*columns][: len(names)] == names
    for path in columns.values():
        top, _, _ = path.partition("[")
        assert path.startswith("metadata.") or f"{crd['spec']['names']['kind']}.{top}" in NODES


def test_a_callback_cannot_be_changed() -> None:
    (rule,) = NODES["LifecycleCallback"]["x-kubernetes-validations"]
    assert rule["rule"] == "self.spec == oldSelf.spec"
    assert BUILT["lifecyclecallbacks"]["spec"]["names"]["shortNames"] == ["lcb", "lcallback"]


def test_what_cannot_be_changed_is_held_by_transition_rules_with_messages() -> None:
    rules = SCHEMA["x-kubernetes-validations"]
    assert all(rule["message"] and rule["fieldPath"].startswith(".spec") for rule in rules)
    transitions = [rule["rule"] for rule in rules if "oldSelf" in rule["rule"]]
    assert any("scalingGroupId" in rule for rule in transitions)
    assert any("lifecycleHookName" in rule for rule in transitions)
