"""The CustomResourceDefinition, generated from the models in v1alpha1."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lifecyclehook_operator.api import v1alpha1

_DROPPED_KEYWORDS = frozenset({"title", "additionalProperties"})

_EFFECTIVE_NAME = (
    "(has({0}.spec.lifecycleHookName) ? {0}.spec.lifecycleHookName : {0}.metadata.name)"  # CEL has no functions
)
_RULES = [
    {
        "rule": f"has(self.spec.lifecycleHookName) || self.metadata.name.matches('{v1alpha1.HOOK_NAME_PATTERN}')",
        "message": "metadata.name is not a valid hook name (letters, digits, _ and -, at most 32 characters): "
        "set spec.lifecycleHookName",
        "fieldPath": ".spec",
    },
    {
        "rule": f"{_EFFECTIVE_NAME.format('self')} == {_EFFECTIVE_NAME.format('oldSelf')}",
        "message": "lifecycleHookName cannot be changed: delete this resource and create another",
        "fieldPath": ".spec",
    },
    {
        "rule": "self.spec.scalingGroupId == oldSelf.spec.scalingGroupId",
        "message": "scalingGroupId cannot be changed: delete this resource and create another",
        "fieldPath": ".spec.scalingGroupId",
    },
]

_PRINTER_COLUMNS = [
    ("Group", "string", ".spec.scalingGroupId", False),
    ("Hook", "string", ".status.lifecycleHook.lifecycleHookName", False),
    ("Type", "string", ".spec.lifecycleHookType", False),
    ("Timeout", "integer", ".spec.defaultTimeout", False),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', False),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', False),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', True),
    ("Age", "date", ".metadata.creationTimestamp", False),
]


def build_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of LifecycleHook, as a structural schema (apiextensions.k8s.io/v1)."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{v1alpha1.PLURAL}.{v1alpha1.GROUP}"},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": v1alpha1.KIND,
                "listKind": f"{v1alpha1.KIND}List",
                "plural": v1alpha1.PLURAL,
                "singular": v1alpha1.KIND.lower(),
                "shortNames": ["lch", "lchook"],
                "categories": ["otc"],
            },
            "versions": [
                {
                    "name": v1alpha1.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path} | ({"priority": 1} if is_wide else {})
                        for name, type_, path, is_wide in _PRINTER_COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "A lifecycle hook of an Auto Scaling (AS) group of Open Telekom Cloud: it "
                            "suspends an instance that is added to or removed from the group, notifies a topic, and "
                            "waits for a callback.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": _schema(v1alpha1.LifecycleHookSpec),
                                "status": _schema(v1alpha1.LifecycleHookStatus),
                            },
                            "x-kubernetes-validations": _RULES,
                        }
                    },
                }
            ],
        },
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, mode="validation")
    description = (model.__doc__ or "").strip().splitlines()[0]
    return _structural(schema, schema.get("$defs", {})) | {"description": description}


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with references inlined and in the vocabulary of structural schemas."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return _structural({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions)
    if "anyOf" in schema:  # pydantic's Optional
        (variant,) = (variant for variant in schema["anyOf"] if variant != {"type": "null"})
        rest = {k: v for k, v in schema.items() if k != "anyOf"}
        return _structural({**variant, **rest}, definitions) | {"nullable": True}
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _structural(property_, definitions) for name, property_ in value.items()}
        elif key == "items":
            result[key] = _structural(value, definitions)
        elif key == "default":
            if value not in (None, "", []):  # those mean "unset" in the models
                result[key] = value
        elif not (key.startswith("$") or key in _DROPPED_KEYWORDS):
            result[key] = value
    return result
