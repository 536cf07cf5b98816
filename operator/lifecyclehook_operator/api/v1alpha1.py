"""The LifecycleHook resource: the spec, the status, and how both are parsed.

Field names in snake_case are those of the AS API, their camelCase aliases those of the resource. Rules and defaults
are those of the AS API page "Creating a Lifecycle Hook", tables 2 and 3; the CRD is generated from these models.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from lifecyclehook_operator.api.rules import HOOK_NAME, ID, NO_MARKUP, OBJECT_NAME, TOPIC_URN, at_most

GROUP = "as.otc.t-systems.com"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LifecycleHook"
PLURAL = "lifecyclehooks"

#: On a resource: its hook may exist in AS. On a Secret: an existing resource needs it.
FINALIZER = f"{GROUP}/lifecyclehook"
#: On a Secret that an existing resource needs, and so has the finalizer: only these are watched.
IN_USE_LABEL = f"{GROUP}/in-use"
#: What is read of a Secret with credentials.
CLOUDS_YAML_KEY = "clouds.yaml"
CA_CERTIFICATE_KEY = "cacert"
#: For internal use: the fingerprint of a create call, written with the finalizer before the call goes out. A hook found
#: after a crash is the resource's if its fields have this fingerprint, even if the spec has been edited since.
CREATE_INTENT_ANNOTATION = f"{GROUP}/create-intent"

_LAST_APPLIED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
#: Any new value compares the hook with AS, or retries, at once.
RECONCILE_AT_ANNOTATION = f"{GROUP}/reconcile-at"
#: "true" removes the finalizer of a resource that is being deleted without calling AS; its hook may stay there.
FORCE_RELEASE_ANNOTATION = f"{GROUP}/force-release"
#: "true" pauses a resource: no calls to AS until the annotation is removed, not even for a deletion. So does any other
#: value but "false".
PAUSED_ANNOTATION = f"{GROUP}/paused"

#: The observedGeneration of a new resource, by which kstatus knows that there is more to come: without any status, it
#: takes a resource for Current.
NONE_OBSERVED = -1

#: The fields that a modify call can change (table 2, without the name).
MUTABLE_FIELDS = (
    "lifecycle_hook_type",
    "default_result",
    "default_timeout",
    "notification_topic_urn",
    "notification_metadata",
)


StatusT = TypeVar("StatusT", bound=BaseModel)

#: For an optional field without a default. Without this, the API server rejects a null in a server-side apply.
_NULLABLE: dict[str, JsonValue] = {"nullable": True}


def format_time(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it (metav1.Time): in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class InvalidResourceError(Exception):
    """The spec breaks a rule. The message names each field, its value and the rule."""


class Model(BaseModel):
    """A part of an object, by its names in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True)


class WantedModel(Model):
    """A part of the spec, parsed as strictly as the API server does."""

    model_config = ConfigDict(strict=True, validate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _read_as_the_api_server_does(cls, data: object) -> object:
        # The API server drops nulls before it fills in defaults, and stores a number without a fraction as an integer.
        if not isinstance(data, Mapping):
            return data
        return {
            key: int(value) if isinstance(value, float) and value.is_integer() else value
            for key, value in data.items()
            if value is not None
        }


class CredentialsRef(WantedModel):
    """Refers to credentials for AS: a cloud of the clouds.yaml in a Secret of the resource's namespace."""

    secret_name: Annotated[str, OBJECT_NAME] = Field(
        description="Name of the Secret in the namespace of this resource; its key clouds.yaml is read."
    )
    cloud_name: Annotated[str, at_most(253, at_least=1)] = Field(
        default="otc", description="Name of the cloud in clouds.yaml."
    )


class LifecycleHookSpec(WantedModel):
    """The desired hook. Defaults and limits are those of the AS API."""

    scaling_group_id: Annotated[str, ID] = Field(
        description="ID of the AS group that the hook belongs to. Cannot be changed."
    )
    lifecycle_hook_name: Annotated[str, HOOK_NAME] = Field(
        default="",
        description="Name of the hook in its AS group: letters, digits, _ and -, at most 32 characters. Defaults to "
        "metadata.name. Cannot be changed.",
        json_schema_extra=_NULLABLE,
    )
    lifecycle_hook_type: Literal["INSTANCE_TERMINATING", "INSTANCE_LAUNCHING"] = Field(
        description="INSTANCE_LAUNCHING suspends an instance while it is started, INSTANCE_TERMINATING while it is "
        "terminated."
    )
    default_result: Literal["ABANDON", "CONTINUE"] = Field(
        default="ABANDON",
        description="What AS does when the timeout expires. A starting instance is put into service by CONTINUE and "
        "terminated by ABANDON; a terminating one is terminated by both, and ABANDON also stops its other hooks.",
    )
    default_timeout: Annotated[int, Field(ge=60, le=86400)] = Field(
        default=3600, description="How long an instance waits for a callback, in seconds: 60 to 86400."
    )
    notification_topic_urn: Annotated[str, TOPIC_URN, at_most(400)] = Field(
        description="URN of the SMN topic that is notified when an instance is suspended: "
        "urn:smn:<region>:<project ID>:<topic>."
    )
    notification_metadata: Annotated[str, NO_MARKUP, at_most(256)] = Field(
        default="",
        description="Text that is sent with each notification: at most 256 characters, without < > & ' ( ). "
        "No text is sent if it is unset or empty.",
        json_schema_extra=_NULLABLE,
    )
    credentials_ref: CredentialsRef | None = Field(
        default=None, description="Credentials for AS. Defaults to the operator's own credentials."
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        default="Delete",
        description="What happens to the hook when this resource is deleted: Delete deletes it, too, Retain keeps it.",
    )
    adoption_policy: Literal["Identical", "Always", "Never"] = Field(
        default="Identical",
        description="Whether to adopt an existing hook of this name that this resource did not create: Identical "
        "adopts it if it matches the spec, Always adopts and updates it, Never does not adopt it.",
    )
    suspension_policy: Literal["Ignore", "Watch"] = Field(
        default="Ignore",
        description="Whether to show in the status which instances the hook suspends: Ignore or Watch. Watch needs the "
        "right as:instanceHooks:list.",
    )
    drift_policy: Literal["Repair", "Report"] = Field(
        default="Repair",
        description="What to do if the hook is changed or deleted outside Kubernetes: Repair restores it, Report only "
        "reports it in the status.",
    )

    def hook_fields(self) -> dict[str, Any]:
        """Return the fields that can be changed, as AS names them."""
        return {name: getattr(self, name) for name in MUTABLE_FIELDS}


class Hook(Model):
    """A hook as AS returns it (table 3): unknown fields are ignored, missing required ones are an error."""

    lifecycle_hook_name: str = Field(description="Name of the hook in its AS group.")
    lifecycle_hook_type: str = Field(description="INSTANCE_LAUNCHING or INSTANCE_TERMINATING.")
    default_result: str = Field(description="ABANDON or CONTINUE.")
    default_timeout: int = Field(description="How long an instance waits for a callback, in seconds.")
    notification_topic_urn: str = Field(description="URN of the SMN topic that is notified.")
    notification_topic_name: str = Field(
        default="", description="Name of the SMN topic that is notified; empty if AS does not return it."
    )
    notification_metadata: str = Field(
        default="", description="Text that is sent with each notification; empty if there is none."
    )
    create_time: str = Field(
        default="", description="When AS created the hook, in UTC; empty if AS does not return it."
    )

    @field_validator("notification_topic_name", "notification_metadata", "create_time", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return "" if value is None else value

    def hook_fields(self) -> dict[str, Any]:
        """Return the fields that can be changed, as AS names them."""
        return {name: getattr(self, name) for name in MUTABLE_FIELDS}


class Condition(Model):
    """A condition as in metav1.Condition."""

    type: Annotated[str, Field(max_length=316)] = Field(
        description="Which condition it is; the list of them explains each."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="Why, as one word of a fixed list; docs/reference.md explains each."
    )
    message: Annotated[str, Field(max_length=32768)] = Field(description="What happened and what to do, for humans.")
    observed_generation: int | None = Field(
        default=None, description="The metadata.generation that this condition refers to."
    )
    last_transition_time: str = Field(
        description="When the status of this condition last changed.", json_schema_extra={"format": "date-time"}
    )

    def since(self, before: Self | None) -> Self:
        """Return the condition with the transition time of the one before it if its status is the same."""
        if before is None or before.status != self.status:
            return self
        return self.model_copy(update={"last_transition_time": before.last_transition_time})


class ErrorStatus(Model):
    """The failure that keeps the hook from matching the spec."""

    operation: str = Field(
        description="What failed: validate, authenticate, claim, list, create, adopt, modify, delete, list_suspensions "
        "or callback."
    )
    http_status: int | None = Field(default=None, description="HTTP status of the response, if there was one.")
    code: str = Field(default="", description="Error code of the response, for example AS.7038, if there was one.")
    message: str = Field(description="What the cloud responded, or why there was no response.")
    request_id: str = Field(default="", description="Request ID of the response, for the support of the cloud.")
    time: str = Field(description="When this error first occurred.", json_schema_extra={"format": "date-time"})
    retry: Literal["Never", "Slow", "Backoff"] = Field(
        description="When the operator retries: Never (not until the spec changes), Slow (by default after 30 s to "
        "10 min) or Backoff (by default after 1 s to 5 min)."
    )


class SuspendedInstance(Model):
    """An instance that waits for a callback."""

    instance_id: str = Field(description="ID of the instance.")
    timeout: str = Field(
        description="When AS acts by defaultResult, in UTC, unless a callback comes first.",
        json_schema_extra={"format": "date-time"},
    )
    default_result: str = Field(description="ABANDON or CONTINUE, as it was when the instance was suspended.")


class SuspendedInstances(Model):
    """The instances that the hook suspends."""

    count: int = Field(description="How many there are.")
    truncated: bool = Field(description="Whether there are more than those listed.")
    items: tuple[SuspendedInstance, ...] = Field(
        description="Those whose timeout comes first, at most 20, the next to time out first."
    )


class LifecycleHookStatus(Model):
    """The observed state."""

    observed_generation: int | None = Field(
        default=None, description="The metadata.generation that was last reconciled; -1: none yet."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready: the hook in AS matches the spec. Stalled: it cannot become Ready until somebody changes "
        "something. SuspensionsKnown: suspendedInstances is what AS lists.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    applied_generation: int | None = Field(
        default=None, description="The metadata.generation that was last applied to the hook in AS."
    )
    project_id: str = Field(default="", description="ID of the project of the hook.")
    scaling_group_id: str = Field(default="", description="ID of the AS group of the hook.")
    lifecycle_hook: Hook | None = Field(default=None, description="The hook as AS last returned it.")
    suspended_instances: SuspendedInstances | None = Field(
        default=None, description="The instances that the hook suspends. Present only with suspensionPolicy Watch."
    )
    error: ErrorStatus | None = Field(default=None, description="Present only if the last attempt failed.")

    @field_validator("observed_generation")
    @classmethod
    def _read_default(cls, value: int | None) -> int | None:
        return None if value == NONE_OBSERVED else value

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of that type, or None."""
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def as_object(self) -> dict[str, Any]:
        """Return the status as it is stored: without empty fields, but with all fields of the hook."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self.lifecycle_hook is not None:
            content["lifecycleHook"] = self.lifecycle_hook.model_dump(by_alias=True)
        return content


class Resource:
    """What objects of our kinds have in common, as the API server stores it."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body = _strip(body)
        self.metadata: Mapping[str, Any] = body["metadata"]
        self.name: str = self.metadata["name"]
        self.namespace: str = self.metadata["namespace"]
        self.uid: str = self.metadata["uid"]
        #: Comparable for one resource since Kubernetes 1.35, and in fact always was: the revision of etcd.
        self.resource_version = int(self.metadata["resourceVersion"])
        self.generation: int = self.metadata["generation"]
        self.is_deleting = "deletionTimestamp" in self.metadata

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class LifecycleHook(Resource):
    """A LifecycleHook object as the API server stores it.

    The spec is validated on access, since an object may have been stored under an older CRD.
    """

    kind = KIND

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(body)
        self.finalizers: Sequence[str] = self.metadata.get("finalizers", ())
        self.has_finalizer = FINALIZER in self.finalizers
        annotations: Mapping[str, str] = self.metadata.get("annotations", {})
        self.create_intents = tuple(filter(None, annotations.get(CREATE_INTENT_ANNOTATION, "").split(",")))
        self.is_force_released = annotations.get(FORCE_RELEASE_ANNOTATION) == "true"
        #: Only "false" in any case is no pause: whoever has misspelled "true" does not want any calls.
        self.is_paused = annotations.get(PAUSED_ANNOTATION, "false").strip().lower() != "false"
        #: Changes with everything that triggers a reconcile: the spec, a deletion, our three annotations for admins.
        self.trigger = (
            self.generation,
            self.is_deleting,
            self.is_force_released,
            self.is_paused,
            annotations.get(RECONCILE_AT_ANNOTATION),
        )

    @cached_property
    def status(self) -> LifecycleHookStatus:
        """The observed state, parsed when it is first read: most watch events only show what a write has returned."""
        return read_status(LifecycleHookStatus, self.body.get("status", {}))

    @property
    def label(self) -> str:
        """The resource and its AS group, for the log."""
        return f"{self} (AS group {self.hook_key[0]})"

    @property
    def is_watching_suspensions(self) -> bool:
        """Whether the status is to show which instances the hook suspends: only a hook that is ours has any."""
        is_wanted = self.body.get("spec", {}).get("suspensionPolicy") == "Watch" and not self.is_paused
        return is_wanted and self.status.lifecycle_hook is not None

    @property
    def is_applied(self) -> bool:
        """Whether this very spec has been applied to the hook in AS."""
        return self.status.applied_generation == self.generation

    @property
    def is_synced(self) -> bool:
        """Whether the status says that the hook matches this very spec."""
        ready = self.status.condition("Ready")
        is_ready = ready is not None and ready.status == "True"
        return is_ready and self.is_applied and self.has_finalizer and not self.is_deleting

    @property
    def was_refused(self) -> bool:
        """Whether the hook could not be adopted when it was last observed."""
        return self.status.error is not None and self.status.error.operation == "adopt"

    @property
    def is_finalized(self) -> bool:
        """Whether it is being deleted and has our finalizer no more, so nothing is left to do."""
        return self.is_deleting and not self.has_finalizer

    @property
    def hook_key(self) -> tuple[str, str]:
        """AS group and name of the hook, valid or not."""
        spec = self.body.get("spec", {})
        return spec.get("scalingGroupId", ""), spec.get("lifecycleHookName") or self.name

    @property
    def secret(self) -> tuple[str, str] | None:
        """Namespace and name of the Secret that the resource refers to, if it does."""
        reference = self.body.get("spec", {}).get("credentialsRef")
        return (self.namespace, reference.get("secretName", "")) if reference else None

    def spec(self) -> LifecycleHookSpec:
        """Return the spec with lifecycle_hook_name filled in.

        Raises InvalidResourceError if it breaks a rule of tables 1 and 2.
        """
        given = {key: value for key, value in self.body.get("spec", {}).items() if value is not None}
        try:
            return LifecycleHookSpec.model_validate({"lifecycleHookName": self.name, **given})
        except ValidationError as error:
            raise InvalidResourceError("; ".join(describe_mistake(details) for details in error.errors())) from error

    def validated_spec(self) -> LifecycleHookSpec:
        """Return the spec, for a resource that is being deleted with the group and name that its hook really has.

        Raises InvalidResourceError if the spec breaks a rule, or names another hook than before, which an older CRD
        allowed.
        """
        spec, status = self.spec(), self.status
        if status.lifecycle_hook is None:
            return spec
        for field, now, before in (
            ("scaling_group_id", spec.scaling_group_id, status.scaling_group_id),
            ("lifecycle_hook_name", spec.lifecycle_hook_name, status.lifecycle_hook.lifecycle_hook_name),
        ):
            if before in ("", now):
                continue
            if not self.is_deleting:
                raise InvalidResourceError(f"spec.{to_camel(field)} cannot be changed: it was {before!r}")
            spec = spec.model_copy(update={field: before})
        return spec

    def as_deleted(self) -> Self:
        """Return the resource as it would be if it were being deleted."""
        deleted_at = {"deletionTimestamp": self.metadata["creationTimestamp"]}
        return type(self)({**self.body, "metadata": {**self.metadata, **deleted_at}})

    def fingerprint(self, hook_fields: Mapping[str, Any]) -> str:
        """Return a fingerprint of the call that creates this very object's hook with these fields."""
        return _fingerprint(self.uid, tuple(hook_fields.items()))


@lru_cache(256)  # a reconcile asks for the same one again and again
def _fingerprint(uid: str, hook_fields: tuple[tuple[str, Any], ...]) -> str:
    content = json.dumps({"uid": uid, **dict(hook_fields)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def read_status(model: type[StatusT], content: Mapping[str, Any]) -> StatusT:
    """Return a status without the fields that can't be parsed, which another version may have written."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        odd = {details["loc"][0] for details in error.errors()}
        return model.model_validate({key: value for key, value in content.items() if key not in odd})


def _strip(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object without the fields that are never read, which are more than half of it."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED_ANNOTATION}
    return {**body, "metadata": metadata}


def describe_mistake(details: Any) -> str:  # noqa: ANN401  (pydantic's ErrorDetails is a TypedDict of its core package)
    where = ".".join(["spec", *map(str, details["loc"])])
    if details["type"] == "missing":
        return f"{where} is required"
    value = repr(details["input"])
    return f"{where}: {value[:80]} is not allowed: {details['msg']}"
