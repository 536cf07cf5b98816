"""The CustomResourceDefinitions, generated from the models."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from lifecyclehook_operator.api import callback, v1alpha1
from lifecyclehook_operator.api.rules import HOOK_NAME

_DROPPED_KEYWORDS = frozenset({"title", "additionalProperties"})

_EFFECTIVE_NAME = (
    "(has({0}.spec.lifecycleHookName) ? {0}.spec.lifecycleHookName : {0}.metadata.name)"  # CEL has no functions
)
_HOOK_RULES = [
    {
        "rule": f"has(self.spec.lifecycleHookName) || {HOOK_NAME.as_cel('self.metadata.name')}",
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

#: Name, type, path, and whether it is only in `-o wide`: 120 columns with a namespace, 200 for those.
_HOOK_COLUMNS = [
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', False),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', False),
    ("Hook", "string", ".status.lifecycleHook.lifecycleHookName", False),
    ("Type", "string", ".spec.lifecycleHookType", False),
    ("Age", "date", ".metadata.creationTimestamp", False),
    ("Suspended", "integer", ".status.suspendedInstances.count", True),
    ("Timeout", "integer", ".spec.defaultTimeout", True),
    ("Group", "string", ".spec.scalingGroupId", True),
]
_CALLBACK_RULES = [
    {
        "rule": "self.spec == oldSelf.spec",
        "message": "a LifecycleCallback cannot be changed: create another",
        "fieldPath": ".spec",
    }
]
_CALLBACK_COLUMNS = [
    ("Complete", "string", '.status.conditions[?(@.type=="Complete")].status', False),
    ("Reason", "string", '.status.conditions[?(@.type=="Complete")].reason', False),
    ("Hook", "string", ".spec.lifecycleHookRef.name", False),
    ("Result", "string", ".spec.lifecycleActionResult", False),
    ("Age", "date", ".metadata.creationTimestamp", False),
    ("Instance", "string", ".spec.instanceId", True),
]


def build_crds() -> dict[str, dict[str, Any]]:
    """Return the CustomResourceDefinitions by plural, as structural schemas (apiextensions.k8s.io/v1)."""
    return {v1alpha1.PLURAL: _build_hook_crd(), callback.PLURAL: _build_callback_crd()}


def _build_hook_crd() -> dict[str, Any]:
    return _build_crd(
        (v1alpha1.KIND, v1alpha1.PLURAL, ["lch", "lchook"]),
        "A lifecycle hook of an Auto Scaling (AS) group of Open Telekom Cloud: it suspends an instance that is added "
        "to or removed from the group, notifies a topic, and waits for a callback.",
        (v1alpha1.LifecycleHookSpec, v1alpha1.LifecycleHookStatus),
        columns=_HOOK_COLUMNS,
        rules=_HOOK_RULES,
        default_status={"observedGeneration": v1alpha1.NONE_OBSERVED},
    )


def _build_callback_crd() -> dict[str, Any]:
    return _build_crd(
        (callback.KIND, callback.PLURAL, ["lcb", "lcallback"]),
        "An action on one instance that a lifecycle hook suspends: lets it go on, terminates it, or gives it an hour "
        "more. It is taken once, and its outcome is in the status.",
        (callback.LifecycleCallbackSpec, callback.LifecycleCallbackStatus),
        columns=_CALLBACK_COLUMNS,
        rules=_CALLBACK_RULES,
    )


def _build_crd(  # noqa: PLR0913
    names: tuple[str, str, Sequence[str]],
    description: str,
    models: tuple[type[BaseModel], type[BaseModel]],
    *,
    columns: Sequence[tuple[str, str, str, bool]],
    rules: Sequence[Mapping[str, str]],
    default_status: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    kind, plural, short_names = names
    spec, status = map(_schema, models)
    if default_status:
        status["default"] = default_status
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{v1alpha1.GROUP}"},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short_names,
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
                        for name, type_, path, is_wide in columns
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                            "x-kubernetes-validations": rules,
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
                result["description"] = (
                    f"{schema['description']} Defaults to {value}."  # kubectl explain shows no other
                )
        elif not (key.startswith("$") or key in _DROPPED_KEYWORDS):
            result.setdefault(key, value)
    return result
