"""Prometheus metrics."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib.metadata import version

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lifecyclehook_operator.api.callback import LifecycleCallback
from lifecyclehook_operator.api.v1alpha1 import LifecycleHook

AS_REQUESTS = Counter(
    "lifecyclehook_as_requests",
    "Requests to the AS API, by operation, HTTP status code (empty: no response) and AS error code (empty: none; "
    "other: not documented for hooks).",
    ["operation", "code", "error_code"],
)
AS_REQUEST_DURATION = Histogram(
    "lifecyclehook_as_request_duration_seconds",
    "Duration of requests to the AS API, in seconds.",
    ["operation"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
AS_SLOTS_WAITING = Gauge("lifecyclehook_as_slots_waiting", "Reconciliations that are waiting for a slot to call AS.")
TOKEN_REQUESTS = Counter(
    "lifecyclehook_token_requests",
    "Requests for an IAM token, by result: success, denied (by IAM) or error (no usable response).",
    ["result"],
)
RECONCILES = Counter(
    "lifecyclehook_reconcile",
    "Reconciliations, by result: success, drifted, paused, released, cloud_error, kubernetes_error or internal_error.",
    ["result"],
)
RECONCILE_DURATION = Histogram(
    "lifecyclehook_reconcile_duration_seconds",
    "Duration of reconciliations, in seconds.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WORKQUEUE_DEPTH = Gauge(
    "lifecyclehook_workqueue_depth", "Objects that are due and waiting for a worker, by work queue.", ["name"]
)
WORKQUEUE_DURATION = Histogram(
    "lifecyclehook_workqueue_queue_duration_seconds",
    "Time that objects were waiting for a worker after they were due, in seconds.",
    ["name"],
    buckets=(0.001, 0.01, 0.1, 1, 10, 60, 600),
)
WORKQUEUE_RETRIES = Counter(
    "lifecyclehook_workqueue_retries",
    "Objects that were requeued after an error of the API server or an internal error.",
    ["name"],
)
ACTIVE_WORKERS = Gauge(
    "lifecyclehook_active_workers", "Reconciliations in progress, including those that are waiting for a slot."
)
DRIFT_CORRECTIONS = Counter(
    "lifecyclehook_drift_corrections", "Hooks restored after they had been changed or deleted outside Kubernetes."
)
EVENTS_DROPPED = Counter(
    "lifecyclehook_events_dropped",
    "Events that were not published, by reason: rate_limited (too many for one object) or queue_full.",
    ["reason"],
)
# 0 from the start, so that the first one is an increase.
for _counter, _values in (
    (TOKEN_REQUESTS, ("success", "denied", "error")),
    (RECONCILES, ("success", "drifted", "paused", "released", "cloud_error", "kubernetes_error", "internal_error")),
    (EVENTS_DROPPED, ("rate_limited", "queue_full")),
):
    for _value in _values:
        _counter.labels(_value)
LEADER = Gauge("lifecyclehook_leader", "1 on the leader, which reconciles; 0 on a standby replica.")
BUILD_INFO = Gauge(
    "lifecyclehook_operator_build_info", "Always 1; the label is the version of the operator.", ["version"]
)
BUILD_INFO.labels(version("lifecyclehook-operator")).set(1)


class _ResourcesCollector(Collector):
    """Counts the objects at each scrape."""

    def __init__(
        self, resources: Callable[[], Iterable[LifecycleHook]], callbacks: Callable[[], Iterable[LifecycleCallback]]
    ) -> None:
        self._resources = resources
        self._callbacks = callbacks

    def collect(self) -> Iterator[GaugeMetricFamily]:
        hooks = GaugeMetricFamily(
            "lifecyclehook_resources",
            "LifecycleHooks by namespace, and by status and reason of the Ready condition (empty: not reconciled yet).",
            labels=["namespace", "ready", "reason"],
        )
        for labels, number in Tally(map(_labels, self._resources())).items():
            hooks.add_metric(labels, number)
        yield hooks
        callbacks = GaugeMetricFamily(
            "lifecyclehook_callbacks",
            "LifecycleCallbacks that exist by namespace, state (Pending, Complete or Failed) and reason.",
            labels=["namespace", "state", "reason"],
        )
        for labels, number in Tally(map(_callback_labels, self._callbacks())).items():
            callbacks.add_metric(labels, number)
        yield callbacks
        yield from self._collect_suspensions()

    def _collect_suspensions(self) -> Iterator[GaugeMetricFamily]:
        labels = ["namespace", "name"]
        numbers = GaugeMetricFamily(
            "lifecyclehook_suspended_instances", "Instances that a watched LifecycleHook suspends.", labels=labels
        )
        deadlines = GaugeMetricFamily(
            "lifecyclehook_suspension_deadline_timestamp_seconds",
            "When the next of them times out, as a Unix timestamp; absent if there are none.",
            labels=labels,
        )
        for resource in self._resources():
            if (suspended := resource.status.suspended_instances) is None:
                continue
            names = (resource.namespace, resource.name)
            numbers.add_metric(names, suspended.count)
            if suspended.items:
                deadlines.add_metric(names, datetime.fromisoformat(suspended.items[0].timeout).timestamp())
        yield numbers
        yield deadlines


def _labels(resource: LifecycleHook) -> tuple[str, str, str]:
    ready = resource.status.condition("Ready")
    return (resource.namespace, ready.status, ready.reason) if ready is not None else (resource.namespace, "", "")


def _callback_labels(callback: LifecycleCallback) -> tuple[str, str, str]:
    state = next((each for each in ("Complete", "Failed") if callback.status.is_true(each)), "Pending")
    condition = callback.status.condition("Failed" if state == "Failed" else "Complete")
    return callback.namespace, state, condition.reason if condition is not None else ""


def serve(
    port: int,
    resources: Callable[[], Iterable[LifecycleHook]],
    callbacks: Callable[[], Iterable[LifecycleCallback]],
) -> Callable[[], None]:
    """Serve /metrics on a port of all addresses, and return the function that stops it.

    Args:
        port: the port to listen on.
        resources: returns the LifecycleHooks that are managed at the time of the call.
        callbacks: the same for LifecycleCallbacks.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series
    collector = _ResourcesCollector(resources, callbacks)
    REGISTRY.register(collector)
    server, thread = start_http_server(port)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        REGISTRY.unregister(collector)

    return stop
