"""Good objects to start from; what a test is about, it says itself."""

from typing import Any

from lifecyclehook_operator.api.v1alpha1 import Hook, LifecycleHook, LifecycleHookSpec

GROUP_ID = "e5d27f5c-dd76-4a61-b4bc-a67c5686719a"
TOPIC_URN = "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh"

SPEC = {"scalingGroupId": GROUP_ID, "lifecycleHookType": "INSTANCE_LAUNCHING", "notificationTopicUrn": TOPIC_URN}
HOOK = {
    "lifecycle_hook_name": "test-hook1",
    "lifecycle_hook_type": "INSTANCE_LAUNCHING",
    "default_result": "ABANDON",
    "default_timeout": 3600,
    "notification_topic_urn": TOPIC_URN,
    "notification_topic_name": "gsh",
    "notification_metadata": None,
    "create_time": "2019-03-18T16:00:11Z",
}


def make_spec(**fields: Any) -> LifecycleHookSpec:
    return LifecycleHookSpec.model_validate({**SPEC, "lifecycleHookName": "test-hook1", **fields})


def make_hook(**fields: Any) -> Hook:
    return Hook.model_validate({**HOOK, **fields})


def make_resource(
    name: str = "test-hook1",
    *,
    uid: str = "0b5f7d0e-2f7c-4d3e-9d43-5d0a3f1f6a10",
    version: int = 1,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> LifecycleHook:
    body = {
        "metadata": {
            "name": name,
            "namespace": "web",
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
            **metadata,
        },
        "spec": SPEC if spec is None else spec,
    }
    return LifecycleHook(body if status is None else {**body, "status": status})
