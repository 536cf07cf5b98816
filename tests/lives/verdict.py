"""What is to be true when a life has come to rest; the same in memory and on a real API server and cloud."""

from collections.abc import Iterable, Mapping
from typing import Any

HOOKS_PER_GROUP = 5

Key = tuple[str, str]
"""AS group and name of a hook."""


def find_wrongs(
    resources: Iterable[Mapping[str, Any]], hooks: Mapping[Key, Mapping[str, Any]], left_behind: Iterable[Key]
) -> list[str]:
    """Return what is not as it is to be.

    Args:
        resources: the LifecycleHook objects that are there.
        hooks: what AS has, as its API shows them.
        left_behind: hooks that may be there although no resource has them: somebody else's, and those retained.
    """
    wrongs: list[str] = []
    owners: dict[Key, str] = {}
    resources = list(resources)
    for body in resources:
        wrong = _find_wrong(body, hooks, resources)
        if wrong:
            wrongs.append(f"{body['metadata']['name']} {wrong}: {describe(body)}")
        if reason(body) in ("Available", "Drifted"):
            key = hook_key(body)
            if key in owners:
                wrongs.append(f"{owners[key]} and {body['metadata']['name']} both have {key}")
            owners[key] = body["metadata"]["name"]
    excused = {*left_behind, *owners}
    return wrongs + [f"{key} is orphaned" for key in hooks if key not in excused]


def _find_wrong(  # noqa: C901, PLR0911, PLR0912  (one question after the other)
    body: Mapping[str, Any], hooks: Mapping[Key, Mapping[str, Any]], resources: Iterable[Mapping[str, Any]]
) -> str:
    metadata, spec, status = body["metadata"], body["spec"], body.get("status", {})
    if "deletionTimestamp" in metadata:
        return "is still there"
    if status.get("observedGeneration") != metadata["generation"]:
        return "has not been acted upon"
    hook = hooks.get(hook_key(body))
    policy = spec.get("adoptionPolicy", "Identical")
    match reason(body):
        case "Available":
            if "error" in status:
                return "is Ready and has an error"
            if hook is None or differs(hook, spec):
                return f"is Ready, and its hook is {hook}"
            if status["lifecycleHook"]["createTime"] != hook["create_time"]:
                return "names a hook that does not exist any more"
        case "Drifted":
            if spec.get("driftPolicy") != "Report" or (hook is not None and not differs(hook, spec)):
                return f"is Drifted, and its hook is {hook}"
        case "AlreadyExists":
            if hook is None or policy == "Always" or (policy == "Identical" and not differs(hook, spec)):
                return f"is AlreadyExists, and the hook is {hook}"
            return ""
        case "QuotaExceeded":
            count = sum(group_id == spec["scalingGroupId"] for group_id, _ in hooks)
            return "" if hook is None and count >= HOOKS_PER_GROUP else f"is QuotaExceeded by {count} hooks"
        case "Conflict":
            others = [each for each in resources if each is not body and hook_key(each) == hook_key(body)]
            return "" if any(reason(each) != "Conflict" for each in others) else "has no rival"
        case other:
            return f"is {other}"
    return "" if metadata.get("finalizers") else "has no finalizer"


def summarize(
    resources: Iterable[Mapping[str, Any]], hooks: Mapping[Key, Mapping[str, Any]]
) -> dict[str, dict[Any, Any]]:
    """Return what two ends of the same life have in common: reasons and generations, and the hooks' fields."""
    return {
        "resources": {
            body["metadata"]["name"]: (
                reason(body),
                body["metadata"]["generation"] == body.get("status", {}).get("observedGeneration"),
                "deletionTimestamp" in body["metadata"],
                bool(body["metadata"].get("finalizers")),
            )
            for body in resources
        },
        "hooks": {
            key: (hook["default_timeout"], hook["default_result"], metadata(hook)) for key, hook in hooks.items()
        },
    }


def hook_key(body: Mapping[str, Any]) -> Key:
    """Return which hook a resource is for."""
    return body["spec"]["scalingGroupId"], body["spec"].get("lifecycleHookName", body["metadata"]["name"])


def reason(body: Mapping[str, Any]) -> str:
    """Return the reason of the Ready condition; empty: there is none."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((each["reason"] for each in conditions if each["type"] == "Ready"), "")


def metadata(hook: Mapping[str, Any]) -> str:
    """Return what is sent with each notification."""
    return hook["notification_metadata"] or ""


def differs(hook: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """Whether a hook has other fields than a spec asks for."""
    return (
        hook["lifecycle_hook_type"] != spec["lifecycleHookType"]
        or hook["notification_topic_urn"] != spec["notificationTopicUrn"]
        or hook["default_timeout"] != spec.get("defaultTimeout", 3600)
        or hook["default_result"] != spec.get("defaultResult", "ABANDON")
        or metadata(hook) != spec.get("notificationMetadata", "")
    )


def describe(body: Mapping[str, Any]) -> str:
    """Return a resource in a line."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status", {})
    marks = [
        metadata["uid"],
        f"generation {metadata['generation']}, acted upon {status.get('observedGeneration')}",
        f"version {metadata['resourceVersion']}",
        "" if metadata.get("finalizers") else "no finalizer",
        "deleting" if "deletionTimestamp" in metadata else "",
        f"intents {','.join(metadata.get('annotations', {}).values()) or 'none'}",
        reason(body) or "no status",
        "names the hook" if "lifecycleHook" in status else "",
        status.get("error", {}).get("message", ""),
        *(f"{key}={spec[key]}" for key in spec if key not in ("lifecycleHookType", "notificationTopicUrn")),
    ]
    return "; ".join(filter(None, marks))
