"""What Prometheus scrapes."""

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.controlplane import ControlPlane, free_ports
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace


class Scrape:
    """Reads /metrics of an operator."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def text(self) -> str:
        return httpx.get(self._url, trust_env=False).raise_for_status().text

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def scrape(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[Scrape]:
    (port,) = free_ports(1)
    options = {**fast, "metrics_port": port, "resync_interval_seconds": 2}
    with OperatorProcess(cluster, cloud.credentials_env(), **options):
        yield Scrape(port)


def test_requests_and_reconciliations_are_counted(workspace: Workspace, scrape: Scrape) -> None:
    workspace.create("good")
    workspace.wait_ready("good")
    workspace.create("bad", notificationTopicUrn=workspace.topic_urn + "-absent")
    workspace.wait_reason("TopicNotFound", "bad")
    assert scrape.value("lifecyclehook_as_requests_total", operation="create", code="200", error_code="") >= 1
    assert scrape.value("lifecyclehook_as_requests_total", operation="create", code="400", error_code="AS.7043") >= 1
    assert scrape.value("lifecyclehook_as_request_duration_seconds_count", operation="create") >= 2
    assert scrape.value("lifecyclehook_token_requests_total", result="success") == 1
    eventually("both are counted", lambda: scrape.value("lifecyclehook_reconcile_total", result="cloud_error") >= 1)
    assert scrape.value("lifecyclehook_reconcile_total", result="success") >= 1
    eventually("both are measured", lambda: scrape.value("lifecyclehook_reconcile_duration_seconds_count") >= 2)


def test_resources_are_counted_by_namespace_readiness_and_reason(workspace: Workspace, scrape: Scrape) -> None:
    def count(**labels: str) -> float:
        return scrape.value("lifecyclehook_resources", namespace=workspace.namespace, **labels)

    assert count() == 0
    workspace.create()
    workspace.wait_ready()
    eventually("it is counted", lambda: count(ready="True", reason="Available") == count() == 1)
    workspace.delete()
    workspace.wait_gone()
    eventually("it is no longer counted", lambda: count() == 0)


def test_callbacks_are_counted_by_namespace_state_and_reason(workspace: Workspace, scrape: Scrape) -> None:
    def count(**labels: str) -> float:
        return scrape.value("lifecyclehook_callbacks", namespace=workspace.namespace, **labels)

    workspace.create()
    workspace.wait_ready()
    assert count() == 0
    workspace.call_back("CONTINUE", "i-1")
    eventually("it waits", lambda: count(state="Pending", reason="") == count() == 1)
    workspace.cloud.add_hanging_instance(workspace.group_id, "hook", "i-1")
    workspace.wait_complete()
    eventually("it is Complete", lambda: count(state="Complete", reason="Accepted") == count() == 1)
    workspace.call_back("ABANDON", "i-1", name="late", activeDeadlineSeconds=1)
    workspace.wait_failed("SuspensionEnded", "late")
    eventually("another has Failed", lambda: count(state="Failed", reason="SuspensionEnded") == count() - 1 == 1)
    workspace.delete_callbacks()
    eventually("there are none", lambda: count() == 0)


@pytest.mark.parametrize("name", ["lifecyclehook_token_requests_total", "lifecyclehook_reconcile_total"])
def test_a_first_failure_is_an_increase(name: str, scrape: Scrape) -> None:
    samples = [
        sample
        for family in text_string_to_metric_families(scrape.text())
        for sample in family.samples
        if sample.name == name
    ]
    assert 0 in [sample.value for sample in samples]


def test_drift_corrections_are_counted(workspace: Workspace, scrape: Scrape) -> None:
    workspace.create()
    workspace.wait_ready()
    before = scrape.value("lifecyclehook_drift_corrections_total")
    workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=99)
    eventually("it is counted", lambda: scrape.value("lifecyclehook_drift_corrections_total") == before + 1)


def test_a_request_without_an_answer_has_no_status_code(workspace: Workspace, scrape: Scrape) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, drop=True)
    workspace.create()
    workspace.wait_ready()
    assert scrape.value("lifecyclehook_as_requests_total", operation="create", code="", error_code="") >= 1


def test_names_and_units_follow_the_conventions(scrape: Scrape) -> None:
    own = [
        family for family in text_string_to_metric_families(scrape.text()) if family.name.startswith("lifecyclehook_")
    ]
    assert len(own) == 18
    for family in own:
        assert family.documentation.endswith(".")
        names = {sample.name for sample in family.samples if not sample.name.endswith("_created")}
        if family.type == "counter":
            assert all(name.endswith("_total") for name in names)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
