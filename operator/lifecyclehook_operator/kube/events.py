"""Kubernetes Events: what users are told of."""

import logging
from dataclasses import dataclass
from typing import Literal, Protocol

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.kube.errors import KubernetesError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that users are told of."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Publisher(Protocol):
    """What is needed of the API server."""

    async def publish_event(self, obj: LifecycleHook, event: Event) -> None:
        """Publish an Event about an object. Raises KubernetesError."""


async def record_event(publisher: Publisher, obj: LifecycleHook, event: Event | None) -> None:
    """Log an event, if there is one, and publish it; what it tells of has been done even if that fails."""
    if event is None:
        return
    level = logging.WARNING if event.type == "Warning" else logging.INFO
    logger.log(level, "%s: %s: %s", obj.label, event.reason, event.message)
    try:
        await publisher.publish_event(obj, event)
    except KubernetesError as error:
        logger.warning("%s: Failed to publish an Event: %s", obj.label, error)
