"""Publishes Kubernetes Events.

They are sent in the background, so that they never delay a reconcile: those of a namespace one after another, while
namespaces take turns, so that none waits for the thousands of another. As in client-go, each object has a burst and
then one Event every five minutes; a repeated Event is counted in its series; and many Events that differ only in their
text are combined into one.
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from lifecyclehook_operator.api.callback import LifecycleCallback
from lifecyclehook_operator.api.v1alpha1 import API_VERSION, GROUP, LifecycleHook
from lifecyclehook_operator.fairness import FairLimit
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError
from lifecyclehook_operator.metrics import EVENTS_DROPPED

logger = logging.getLogger(__name__)

COMPONENT = "lifecyclehook-operator"
_NOTE_BYTES = 1024  # as events.k8s.io/v1 has it
#: Maximum number of waiting Events; 10,000 take about 10 MB.
_QUEUE_LENGTH = 10_000
#: How many are sent at a time, each of another namespace.
_SENT_AT_ONCE = 2
#: Events of an object that may be sent at once, and the time until one more may be sent.
_BURST = 25
_REFILL_SECONDS = 300.0
#: How long a series of equal Events lasts without a new one.
_SERIES_SECONDS = 600.0
#: From this number on, Events of an object that differ only in their text are combined.
_SIMILAR = 10
_COMBINED = "(combined from similar events)"
#: Maximum number of objects whose history is kept.
_OBJECTS = 4096


Subject = LifecycleHook | LifecycleCallback
"""What an Event is about."""


@dataclass(frozen=True)
class Event:
    """An Event, without the object that it is about."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class EventApi(Protocol):
    """The calls of the API server that are needed. Each raises KubernetesError."""

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event (events.k8s.io/v1), unless its namespace is being deleted."""

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        """Merge into an Event."""


@dataclass
class _Series:
    """A published Event, and how often it was recorded."""

    name: str = ""
    count: int = 0
    last: float = 0


@dataclass
class _History:
    """The recent Events of an object."""

    tokens: float = _BURST
    refilled_at: float = 0
    series: dict[Event, _Series] = field(default_factory=dict)

    def take_token(self, now: float) -> bool:
        self.tokens = min(_BURST, self.tokens + (now - self.refilled_at) / _REFILL_SECONDS)
        self.refilled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def find_series(self, event: Event, now: float) -> tuple[Event, _Series]:
        """Return the Event to publish instead of this one, and the series that it belongs to."""
        self.series = {each: series for each, series in self.series.items() if now - series.last < _SERIES_SECONDS}
        similar = [each for each in self.series if (each.type, each.reason) == (event.type, event.reason)]
        if event not in self.series and len(similar) >= _SIMILAR:
            event = next(
                (each for each in similar if each.message.startswith(_COMBINED)),
                Event(event.type, event.reason, f"{_COMBINED} {event.message}"),
            )
        return event, self.series.setdefault(event, _Series())


@dataclass(frozen=True)
class _Item:
    """A waiting Event, and the object that it is about."""

    label: str
    regarding: Mapping[str, str]
    event: Event
    #: As metav1.MicroTime.
    happened_at: str


class EventRecorder:
    """Publishes Events, those of a namespace in the order in which they were recorded."""

    def __init__(self, api: EventApi, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._turns = FairLimit(_SENT_AT_ONCE)
        #: What waits, by namespace.
        self._items: defaultdict[str, deque[_Item]] = defaultdict(deque)
        self._length = 0
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._histories: OrderedDict[str, _History] = OrderedDict()
        self._is_started = False

    def start(self) -> None:
        """Start publishing."""
        self._is_started = True
        for namespace in self._items:
            self._start(namespace)

    async def close(self, seconds: float) -> None:
        """Publish the waiting Events, for at most this many seconds."""
        if not self._workers:
            return
        _, unfinished = await asyncio.wait(self._workers.values(), timeout=seconds)
        if self._length:
            logger.warning("%s Events were not published before the shutdown", self._length)
        for worker in unfinished:
            worker.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def record(self, obj: Subject, event: Event | None) -> None:
        """Log an event, if there is one, and queue it for publishing, which may fail."""
        if event is None:
            return
        level = logging.WARNING if event.type == "Warning" else logging.INFO
        logger.log(level, "%s: %s: %s", obj.label, event.reason, event.message)
        regarding = {
            "apiVersion": API_VERSION,
            "kind": obj.kind,
            "namespace": obj.namespace,
            "name": obj.name,
            "uid": obj.uid,
            "resourceVersion": str(obj.resource_version),
        }
        self._items[obj.namespace].append(_Item(obj.label, regarding, event, _format_now()))
        self._length += 1
        if self._length > _QUEUE_LENGTH:
            self._drop_one()
        self._start(obj.namespace)

    def _drop_one(self) -> None:
        """Drop the last Event of the namespace that has the most."""
        dropped = max(reversed(self._items.values()), key=len).pop()
        self._length -= 1
        EVENTS_DROPPED.labels("queue_full").inc()
        logger.debug("%s: Dropped an Event: too many are waiting", dropped.label)

    def _start(self, namespace: str) -> None:
        if self._is_started and namespace not in self._workers:
            work = self._publish_all(namespace)
            self._workers[namespace] = asyncio.create_task(work, name=f"events of {namespace}", context=Context())

    async def _publish_all(self, namespace: str) -> None:
        items = self._items[namespace]
        try:
            while items:
                async with self._turns.turn(namespace):
                    if items:  # else it was dropped
                        await self._publish_next(items)
        finally:
            del self._items[namespace], self._workers[namespace]

    async def _publish_next(self, items: deque[_Item]) -> None:
        item = items.popleft()
        self._length -= 1
        try:
            await self._publish(item)
        except KubernetesError as error:
            logger.warning("%s: Failed to publish an Event: %s", item.label, error)
        except Exception:  # a bug: one Event must not stop the others
            logger.exception("%s: Failed to publish an Event", item.label)

    async def _publish(self, item: _Item) -> None:
        now, history = self._clock(), self._find_history(item.regarding["uid"])
        event, series = history.find_series(item.event, now)
        series.count, series.last = series.count + 1, now
        if not history.take_token(now):
            EVENTS_DROPPED.labels("rate_limited").inc()
            logger.debug("%s: Dropped an Event: too many for one object", item.label)
            return
        namespace = item.regarding["namespace"]
        counted = {"count": series.count, "lastObservedTime": item.happened_at}
        if series.name:
            try:
                await self._api.patch_event(namespace, series.name, {"series": counted})
            except GoneError:  # somebody has deleted it
                series.name, series.count = "", 1
        if not series.name:
            body = _as_body(item, event) | ({"series": counted} if series.count > 1 else {})
            await self._api.create_event(namespace, body)
            series.name = body["metadata"]["name"]

    def _find_history(self, uid: str) -> _History:
        history = self._histories.setdefault(uid, _History())
        self._histories.move_to_end(uid)
        if len(self._histories) > _OBJECTS:
            self._histories.popitem(last=False)
        return history


def _as_body(item: _Item, event: Event) -> dict[str, Any]:
    name = item.regarding["name"][:200].rstrip(".-")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{time.time_ns():x}", "namespace": item.regarding["namespace"]},
        "eventTime": item.happened_at,
        "type": event.type,
        "reason": event.reason,
        "note": event.message.encode()[:_NOTE_BYTES].decode(errors="ignore"),
        "action": "Reconcile",
        "reportingController": f"{GROUP}/{COMPONENT}",
        "reportingInstance": os.environ.get("HOSTNAME") or COMPONENT,
        "regarding": item.regarding,
    }


def _format_now() -> str:
    return f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
