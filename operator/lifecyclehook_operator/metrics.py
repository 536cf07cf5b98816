"""What can be counted and timed, for Prometheus."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lifecyclehook_operator.resource import LifecycleHook

AS_REQUESTS = Counter(
    "lifecyclehook_as_requests",
    "Calls of the AS API, by operation, HTTP status (empty: no answer) and error code (empty: none).",
    ["operation", "status", "code"],
)
AS_REQUEST_DURATION = Histogram(
    "lifecyclehook_as_request_duration_seconds",
    "How long calls of the AS API took, in seconds.",
    ["operation"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
LOGINS = Counter(
    "lifecyclehook_logins", "Requests for an IAM token: ok, refused (by IAM) or failed (on the way).", ["result"]
)
PASSES = Counter(
    "lifecyclehook_passes", "Passes by what came of them: in_sync, drifted, released, failed or fault.", ["result"]
)
PASS_DURATION = Histogram(
    "lifecyclehook_pass_duration_seconds",
    "How long passes took, in seconds.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
PASSES_IN_PROGRESS = Gauge("lifecyclehook_passes_in_progress", "Passes at work, those that wait included.")
PASSES_WAITING = Gauge("lifecyclehook_passes_waiting", "Passes that wait for a turn to call AS.")
REPAIRS = Counter("lifecyclehook_repairs", "Hooks that somebody else had changed or deleted and that were repaired.")
LEADING = Gauge("lifecyclehook_leading", "1 where this process does the work, 0 where it stands by for another.")


class _ResourcesCollector(Collector):
    """Counts resources when it is asked to: what they are is kept elsewhere."""

    def __init__(self, resources: Callable[[], Iterable[LifecycleHook]]) -> None:
        self._resources = resources

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "lifecyclehook_resources",
            "Resources by status and reason of their Ready condition (empty: not written yet).",
            labels=["ready", "reason"],
        )
        for labels, number in Tally(map(_readiness, self._resources())).items():
            family.add_metric(labels, number)
        yield family


def _readiness(resource: LifecycleHook) -> tuple[str, str]:
    ready = resource.status.condition("Ready")
    return (ready.status, ready.reason) if ready is not None else ("", "")


def serve(port: int, resources: Callable[[], Iterable[LifecycleHook]]) -> Callable[[], None]:
    """Serve /metrics on a port of all addresses, and return what ends that.

    Args:
        port: where to listen.
        resources: returns the resources that are looked after, at the moment of the call.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which says nothing here
    collector = _ResourcesCollector(resources)
    REGISTRY.register(collector)
    server, thread = start_http_server(port)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        REGISTRY.unregister(collector)

    return stop
