"""The LifecycleCallback resource: one action on one suspended instance, and what came of it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lifecyclehook_operator.api.rules import ID, OBJECT_NAME
from lifecyclehook_operator.api.v1alpha1 import (
    Condition,
    ErrorStatus,
    InvalidResourceError,
    Model,
    Resource,
    WantedModel,
    describe_mistake,
    read_status,
)

KIND = "LifecycleCallback"
PLURAL = "lifecyclecallbacks"


class LifecycleHookRef(WantedModel):
    """Names a LifecycleHook of the same namespace."""

    name: Annotated[str, OBJECT_NAME] = Field(
        description="Name of the LifecycleHook, in the namespace of this resource."
    )


class LifecycleCallbackSpec(WantedModel):
    """What is to be done, once. It cannot be changed."""

    lifecycle_hook_ref: LifecycleHookRef = Field(
        description="The hook that suspends the instance: AS group, hook name and credentials come from it."
    )
    instance_id: Annotated[str, ID] = Field(description="ID of the suspended instance.")
    lifecycle_action_result: Literal["ABANDON", "CONTINUE", "EXTEND"] = Field(
        description="CONTINUE lets the instance go on. ABANDON terminates it: a starting one is replaced, and for a "
        "stopping one the group's other hooks end, too. EXTEND puts the timeout off by one hour."
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=600,
        description="How long to try, in seconds after the creation: 1 to 86400. Then the callback has failed.",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31536000)] = Field(
        default=86400, description="When this resource is deleted, in seconds after it has finished; 0: at once."
    )


class CallbackTarget(Model):
    """The one suspension that is acted upon."""

    lifecycle_action_key: str = Field(description="AS's key of the suspension.")
    timeout: str = Field(
        description="Its timeout before anything was done, in UTC.", json_schema_extra={"format": "date-time"}
    )


class LifecycleCallbackStatus(Model):
    """What came of it."""

    observed_generation: int | None = Field(
        default=None, description="The metadata.generation that was last acted upon."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Complete: the action has been taken. Failed: it has not, and is not tried again.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    start_time: str | None = Field(
        default=None, description="When the operator began.", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(
        default=None, description="When it was Complete or Failed.", json_schema_extra={"format": "date-time"}
    )
    target: CallbackTarget | None = Field(
        default=None, description="What is acted upon. Written before the first call, and not changed any more."
    )
    timeout: str | None = Field(
        default=None, description="The timeout after an EXTEND, in UTC.", json_schema_extra={"format": "date-time"}
    )
    error: ErrorStatus | None = Field(default=None, description="Present only while the last call failed.")

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of that type, or None."""
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Return whether the status has this condition, and it is True."""
        condition = self.condition(type_)
        return condition is not None and condition.status == "True"

    def as_object(self) -> dict[str, Any]:
        """Return the status as Kubernetes keeps it: fields that say nothing are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class LifecycleCallback(Resource):
    """A LifecycleCallback object as the API server keeps it."""

    kind = KIND

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(body)
        self.created_at = datetime.fromisoformat(self.metadata["creationTimestamp"])
        self.status = read_status(LifecycleCallbackStatus, body.get("status", {}))

    @property
    def label(self) -> str:
        """Which resource it is, and which hook it is for, as the log names them."""
        return f"{self} (LifecycleHook {self.subject[1]})"

    @property
    def subject(self) -> tuple[str, str, str]:
        """Namespace and name of the LifecycleHook, and the instance, valid or not."""
        spec = self.body.get("spec", {})
        return self.namespace, (spec.get("lifecycleHookRef") or {}).get("name", ""), spec.get("instanceId", "")

    @property
    def is_complete(self) -> bool:
        """Whether the action has been taken."""
        return self.status.is_true("Complete")

    @property
    def is_finished(self) -> bool:
        """Whether nothing is to be done any more, but to delete the object in time."""
        return self.is_complete or self.status.is_true("Failed")

    def spec(self) -> LifecycleCallbackSpec:
        """Return the spec. Raises InvalidResourceError if it breaks a rule: an older CRD may have let that pass."""
        try:
            return LifecycleCallbackSpec.model_validate(self.body.get("spec", {}))
        except ValidationError as error:
            raise InvalidResourceError("; ".join(describe_mistake(details) for details in error.errors())) from error

    def deadline(self, spec: LifecycleCallbackSpec) -> datetime:
        """Return until when it is tried."""
        return self.created_at + timedelta(seconds=spec.active_deadline_seconds)

    def expires_at(self) -> datetime:
        """Return when a finished object is to be deleted; one that can't be read is kept as long as is the default."""
        try:
            seconds = self.spec().ttl_seconds_after_finished
        except InvalidResourceError:
            seconds = LifecycleCallbackSpec.model_fields["ttl_seconds_after_finished"].default
        finished_at = self.status.completion_time
        return (datetime.fromisoformat(finished_at) if finished_at else self.created_at) + timedelta(seconds=seconds)
