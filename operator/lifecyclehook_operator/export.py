"""Manifests for the hooks of an AS group that are there already: applied, they adopt these hooks as they are."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from lifecyclehook_operator.api.v1alpha1 import API_VERSION, KIND, Hook, LifecycleHookSpec, describe_mistake
from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CallError

_TIMEOUT_SECONDS = 30

Manifest = Mapping[str, Any]


async def export_group(group_id: str, credentials: Credentials) -> tuple[list[Manifest], list[str]]:
    """Return a manifest for each hook of a group, and why there is none for others.

    Adoption changes nothing in AS: adoptionPolicy is Identical. Raises CallError.
    """
    client = AutoScalingClient(credentials, timeout_seconds=_TIMEOUT_SECONDS, concurrency=1)
    try:
        hooks = list((await client.list_hooks(group_id, not_before=0)).read())
    finally:
        await client.aclose()
    manifests: dict[str, Manifest] = {}
    problems: list[str] = []
    for hook in sorted(hooks, key=_sort_key):
        if isinstance(hook, CallError):
            problems.append(hook.message)
            continue
        spec = _spec(group_id, hook)
        try:
            LifecycleHookSpec.model_validate(spec)
        except ValidationError as error:
            reasons = "; ".join(map(describe_mistake, error.errors()))
            problems.append(f"hook {hook.lifecycle_hook_name}: {reasons}")
            continue
        name = next(name for name in _object_names(hook.lifecycle_hook_name) if name not in manifests)
        manifests[name] = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    return list(manifests.values()), problems


def _sort_key(hook: Hook | CallError) -> tuple[bool, str]:
    """Order hooks by name, those first whose resources can have the same name."""
    name = hook.lifecycle_hook_name if isinstance(hook, Hook) else ""
    return name != next(_object_names(name)), name


def _spec(group_id: str, hook: Hook) -> dict[str, Any]:
    fields = {to_camel(name): value for name, value in hook.hook_fields().items() if value != ""}
    identity = {"scalingGroupId": group_id, "lifecycleHookName": hook.lifecycle_hook_name}
    return {**identity, **fields, "adoptionPolicy": "Identical"}


def _object_names(hook_name: str) -> Iterator[str]:
    """Yield names of an object for a hook: AS allows _ and capital letters, and any character at the ends."""
    name = hook_name.lower().replace("_", "-").strip("-") or "hook"
    yield name
    yield from (f"{name}-{number}" for number in count(2))
