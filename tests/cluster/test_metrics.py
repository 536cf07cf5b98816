"""What Prometheus scrapes."""

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.controlplane import ControlPlane, free_ports
from tests.harness import OperatorProcess, eventually
from tests.simulator import Simulator
from tests.workspace import ADDRESS, PLURAL, Workspace, is_ready


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


def test_calls_logins_and_passes_are_counted(workspace: Workspace, scrape: Scrape) -> None:
    workspace.create("good")
    workspace.wait_ready("good")
    workspace.create("bad", notificationTopicUrn=workspace.topic_urn + "-absent")
    workspace.wait_reason("TopicNotFound", "bad")
    assert scrape.value("lifecyclehook_as_requests_total", operation="create", status="200", code="") >= 1
    assert scrape.value("lifecyclehook_as_requests_total", operation="create", status="400", code="AS.7043") >= 1
    assert scrape.value("lifecyclehook_as_request_duration_seconds_count", operation="create") >= 2
    assert scrape.value("lifecyclehook_logins_total", result="ok") == 1
    eventually("both passes are counted", lambda: scrape.value("lifecyclehook_passes_total", result="failed") >= 1)
    assert scrape.value("lifecyclehook_passes_total", result="in_sync") >= 1
    eventually("both are measured", lambda: scrape.value("lifecyclehook_pass_duration_seconds_count") >= 2)


def test_resources_are_counted_by_readiness_and_reason(workspace: Workspace, scrape: Scrape) -> None:
    def is_right() -> bool:
        resources = workspace.objects.list_cluster_custom_object(*ADDRESS, PLURAL)["items"]
        counted = scrape.value("lifecyclehook_resources", ready="True", reason="Available")
        return counted == sum(map(is_ready, resources))

    eventually("the count begins right", is_right)
    workspace.create()
    workspace.wait_ready()
    eventually("it is counted", is_right)
    workspace.delete()
    workspace.wait_gone()
    eventually("it is no longer counted", is_right)


def test_repairs_are_counted(workspace: Workspace, scrape: Scrape) -> None:
    workspace.create()
    workspace.wait_ready()
    before = scrape.value("lifecyclehook_repairs_total")
    workspace.cloud.update_hook(workspace.group_id, "hook", default_timeout=99)
    eventually("the repair is counted", lambda: scrape.value("lifecyclehook_repairs_total") == before + 1)


def test_a_call_without_an_answer_has_no_status(workspace: Workspace, scrape: Scrape) -> None:
    workspace.cloud.fault("create", group_id=workspace.group_id, drop=True)
    workspace.create()
    workspace.wait_ready()
    assert scrape.value("lifecyclehook_as_requests_total", operation="create", status="", code="") >= 1


def test_names_and_units_follow_the_conventions(scrape: Scrape) -> None:
    own = [
        family for family in text_string_to_metric_families(scrape.text()) if family.name.startswith("lifecyclehook_")
    ]
    assert len(own) == 10
    for family in own:
        assert family.documentation.endswith(".")
        names = {sample.name for sample in family.samples if not sample.name.endswith("_created")}
        if family.type == "counter":
            assert all(name.endswith("_total") for name in names)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
