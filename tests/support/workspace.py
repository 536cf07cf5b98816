"""What a test has of its own in the shared cluster and cloud: a namespace, an AS group, a topic."""

import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import yaml
from kubernetes import client, config

from tests.support.controlplane import ControlPlane
from tests.support.harness import eventually
from tests.support.simulator import Simulator

API_VERSION = "as.otc.t-systems.com/v1alpha1"
ADDRESS = ("as.otc.t-systems.com", "v1alpha1")
PLURAL = "lifecyclehooks"
CALLBACKS = "lifecyclecallbacks"

_numbers = itertools.count(1)


class Workspace:
    """Applies, reads and deletes hooks in a namespace of its own; what is left of them goes at the end."""

    def __init__(self, cluster: ControlPlane, cloud: Simulator, *, namespace: str = "") -> None:
        """Take a namespace that exists; empty: make one."""
        self.cluster = cluster
        self.cloud = cloud
        self.namespace = namespace or f"test-{next(_numbers)}-{uuid.uuid4().hex[:6]}"
        self._is_namespace_new = not namespace
        self.group_id = cloud.add_group()
        self.topic_urn = cloud.add_topic(self.namespace)

    def __enter__(self) -> Self:
        self._api = config.new_client_from_config(str(self.cluster.kubeconfig))
        self.objects = client.CustomObjectsApi(self._api)
        self.core = client.CoreV1Api(self._api)
        if self._is_namespace_new:
            self.core.create_namespace({"metadata": {"name": self.namespace}})
        return self

    def __exit__(self, *_: object) -> None:
        self.cloud.clear_faults()
        with suppress(ValueError):  # a test may have deleted the group
            for suspension in self.cloud.hanging_instances(self.group_id):
                self.cloud.delete_hanging_instance(self.group_id, suspension["lifecycle_action_key"])
        for hook in self.all():
            self.delete(hook["metadata"]["name"])  # first: from then on no reconcile can add the finalizer again
            self.let_go(hook["metadata"]["name"])
        self._api.close()

    @property
    def address(self) -> tuple[str, str, str, str]:
        """Return group, version, namespace and plural, as the client's calls take them."""
        return (*ADDRESS, self.namespace, PLURAL)

    def spec(self, **fields: Any) -> dict[str, Any]:
        """Return a spec that is good in this workspace, with some fields of the caller's."""
        spec = {
            "scalingGroupId": self.group_id,
            "lifecycleHookType": "INSTANCE_LAUNCHING",
            "notificationTopicUrn": self.topic_urn,
            **fields,
        }
        return {name: value for name, value in spec.items() if value is not None}

    def clouds_yaml(self, **auth: Any) -> str:
        """Return a clouds.yaml that is good in this workspace, with some fields of auth the caller's."""
        own = self.cloud.credentials_env()
        good = {
            "auth_url": own["OS_AUTH_URL"],
            "username": own["OS_USERNAME"],
            "password": own["OS_PASSWORD"],
            "user_domain_name": own["OS_USER_DOMAIN_NAME"],
            "project_name": own["OS_PROJECT_NAME"],
        }
        return yaml.safe_dump({"clouds": {"otc": {"auth": {**good, **auth}}}})

    def put_secret(self, name: str, content: str, key: str = "clouds.yaml") -> None:
        """Create a Secret, or replace its content."""
        secret = {"metadata": {"name": name}, "stringData": {key: content}}
        if self.secret(name) is None:
            self.core.create_namespaced_secret(self.namespace, secret)
        else:
            self.core.patch_namespaced_secret(name, self.namespace, secret)

    def replace_secret(self, name: str, content: str) -> None:
        """Replace the content of a Secret, and wait until the operator has seen it: a resource tells what is there."""
        self.create("witness", credentialsRef={"secretName": name, "cloudName": "witness"})
        before = ready(self.wait_reason("CredentialsInvalid", "witness"))["message"]
        self.put_secret(name, content + "  witness: {}\n")
        self.wait("the witness has seen it", lambda body: ready(body)["message"] != before, "witness")

    def secret(self, name: str) -> Any:
        """Return a Secret, or None if it does not exist."""
        try:
            return self.core.read_namespaced_secret(name, self.namespace)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def create(self, name: str = "hook", **fields: Any) -> dict[str, Any]:
        """Create a resource."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "LifecycleHook",
            "metadata": {"name": name},
            "spec": self.spec(**fields),
        }
        return self.objects.create_namespaced_custom_object(*self.address, body)

    def call_back(
        self, result: str, instance_id: str, *, hook: str = "hook", name: str = "callback", **fields: Any
    ) -> dict[str, Any]:
        """Create a LifecycleCallback for a suspended instance."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "LifecycleCallback",
            "metadata": {"name": name},
            "spec": {
                "lifecycleHookRef": {"name": hook},
                "instanceId": instance_id,
                "lifecycleActionResult": result,
                **fields,
            },
        }
        return self.objects.create_namespaced_custom_object(*ADDRESS, self.namespace, CALLBACKS, body)

    def get_callback(self, name: str = "callback") -> dict[str, Any] | None:
        """Return a LifecycleCallback, or None if it does not exist."""
        try:
            return self.objects.get_namespaced_custom_object(*ADDRESS, self.namespace, CALLBACKS, name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def callbacks(self) -> list[dict[str, Any]]:
        """Return all LifecycleCallbacks of the namespace."""
        return self.objects.list_namespaced_custom_object(*ADDRESS, self.namespace, CALLBACKS)["items"]

    def delete_callbacks(self) -> None:
        """Ask for the deletion of all LifecycleCallbacks of the namespace."""
        self.objects.delete_collection_namespaced_custom_object(*ADDRESS, self.namespace, CALLBACKS)

    def wait_callback(
        self, what: str, holds: Callable[[dict[str, Any]], object], name: str = "callback"
    ) -> dict[str, Any]:
        """Wait until something holds of a LifecycleCallback, and return it."""

        def look() -> dict[str, Any] | None:
            body = self.get_callback(name)
            return body if body is not None and holds(body) else None

        try:
            return eventually(what, look)
        except TimeoutError as error:
            error.add_note(yaml.safe_dump(self.get_callback(name)))
            raise

    def wait_complete(self, name: str = "callback") -> dict[str, Any]:
        """Wait until a LifecycleCallback is Complete, and return it."""
        return self.wait_callback(
            "it is Complete", lambda body: condition(body, "Complete").get("status") == "True", name
        )

    def wait_callback_gone(self, name: str = "callback") -> None:
        """Wait until a LifecycleCallback does not exist any more."""
        eventually(f"{name} is gone", lambda: self.get_callback(name) is None)

    def wait_failed(self, reason: str, name: str = "callback") -> dict[str, Any]:
        """Wait until a LifecycleCallback has Failed for this reason, and return it."""
        return self.wait_callback(
            f"it has Failed: {reason}", lambda body: condition(body, "Failed").get("reason") == reason, name
        )

    def patch(self, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a patch into a resource."""
        return self.objects.patch_namespaced_custom_object(
            *self.address, name, patch, _content_type="application/merge-patch+json"
        )

    def wipe_status(self, name: str = "hook") -> None:
        """Take the status off a resource that has one."""
        self.objects.patch_namespaced_custom_object_status(
            *self.address,
            name,
            [{"op": "remove", "path": "/status"}],
            _content_type="application/json-patch+json",
        )

    def get(self, name: str = "hook") -> dict[str, Any] | None:
        """Return a resource, or None if it does not exist."""
        try:
            return self.objects.get_namespaced_custom_object(*self.address, name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def all(self) -> list[dict[str, Any]]:
        """Return all resources of the namespace."""
        return self.objects.list_namespaced_custom_object(*self.address)["items"]

    def delete(self, name: str = "hook") -> None:
        """Ask for the deletion of a resource, which may be gone already."""
        try:
            self.objects.delete_namespaced_custom_object(*self.address, name)
        except client.ApiException as error:
            if error.status != 404:
                raise

    def delete_as_seen(self, name: str = "hook") -> None:
        """Ask for the deletion of a resource only as it is at that moment, which the API server then sees to.

        Else it may let a deletion through that meets the finalizer on its way; if the operator is killed right then,
        nobody can know of the hook any more.
        """
        while body := self.get(name):
            seen = client.V1Preconditions(resource_version=body["metadata"]["resourceVersion"])
            try:
                self.objects.delete_namespaced_custom_object(
                    *self.address, name, body=client.V1DeleteOptions(preconditions=seen)
                )
            except client.ApiException as error:
                if error.status not in (404, 409):
                    raise
            else:
                return

    def let_go(self, name: str) -> None:
        """Take the finalizer off a resource that is being deleted, which may be gone already."""
        try:
            self.patch(name, {"metadata": {"finalizers": None}})
        except client.ApiException as error:
            if error.status != 404:
                raise

    def apply(self, manifest: Mapping[str, Any], *, check: bool = True) -> Any:
        """Run kubectl apply."""
        return self.cluster.kubectl(
            "apply", "-n", self.namespace, "-f", "-", input=yaml.safe_dump(dict(manifest)), check=check
        )

    def wait(
        self, what: str, holds: Callable[[dict[str, Any]], object], name: str = "hook", seconds: float = 60
    ) -> dict[str, Any]:
        """Wait until something holds of a resource, and return it."""

        def find() -> dict[str, Any] | None:
            body = self.get(name)
            return body if body is not None and holds(body) else None

        try:
            return eventually(what, find, seconds)
        except TimeoutError as error:
            error.add_note(yaml.safe_dump(self.get(name)))
            raise

    def wait_ready(self, name: str = "hook", seconds: float = 60) -> dict[str, Any]:
        """Wait until a resource is Ready in its present generation, and return it."""
        return self.wait(f"{name} is Ready", is_ready, name, seconds)

    def wait_reason(self, reason: str, name: str = "hook", seconds: float = 60) -> dict[str, Any]:
        """Wait until a resource is not Ready for this reason, and return it."""
        return self.wait(f"{name} is {reason}", lambda body: ready(body).get("reason") == reason, name, seconds)

    def wait_gone(self, name: str = "hook", seconds: float = 60) -> None:
        """Wait until a resource does not exist any more."""
        eventually(f"{name} is gone", lambda: self.get(name) is None, seconds)

    def events(self, name: str = "hook") -> list[tuple[str, str]]:
        """Return type and reason of the Events about a resource, oldest first."""
        found = self.core.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}").items
        return [(event.type, event.reason) for event in sorted(found, key=lambda event: event.event_time)]

    def wait_events(self, expected: Sequence[tuple[str, str]], name: str = "hook") -> None:
        """Wait until just these Events have been published about a resource."""
        try:
            eventually(f"Events {expected}", lambda: self.events(name) == expected)
        except TimeoutError as error:
            error.add_note(f"there are {self.events(name)}")
            raise

    def writes(self, name: str = "hook") -> list[str]:
        """Return the writes on a resource that the operator made, as the audit log has them."""
        user = "system:serviceaccount:lifecyclehook-operator:lifecyclehook-operator"
        events = self.cluster.audit_events(user=user, namespace=self.namespace, name=name, verbs=("patch", "update"))
        return [
            "/".join(filter(None, (event["objectRef"]["resource"], event["objectRef"].get("subresource"))))
            for event in events
        ]


def condition(body: Mapping[str, Any], type_: str) -> dict[str, Any]:
    """Return a condition of a resource, or an empty one."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == type_), {})


def ready(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Ready condition of a resource, or an empty one."""
    return condition(body, "Ready")


def is_ready(body: Mapping[str, Any]) -> bool:
    """Whether a resource is Ready in its present generation."""
    return (
        ready(body).get("status") == "True" and body["status"]["observedGeneration"] == body["metadata"]["generation"]
    )
