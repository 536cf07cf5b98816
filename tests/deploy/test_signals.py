"""Alerts and dashboard ask for what the operator has."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.rendering import only, render
from tests.support.controlplane import ControlPlane, free_ports
from tests.support.harness import DEPLOY, OperatorProcess
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

COMPONENT = DEPLOY / "components" / "metrics"
DASHBOARD = json.loads((COMPONENT / "dashboard.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((COMPONENT / "alerts.yaml").read_text())["spec"]["groups"]
    for rule in group["rules"]
]
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for _, target in TARGETS]

HISTOGRAM = ("_bucket", "_count", "_sum")
METRICS = {
    "lifecyclehook_as_requests_total": {"operation", "code", "error_code"},
    **{f"lifecyclehook_as_request_duration_seconds{part}": {"operation"} for part in HISTOGRAM},
    "lifecyclehook_as_slots_waiting": set(),
    "lifecyclehook_token_requests_total": {"result"},
    "lifecyclehook_reconcile_total": {"result"},
    **{f"lifecyclehook_reconcile_duration_seconds{part}": set() for part in HISTOGRAM},
    "lifecyclehook_active_workers": set(),
    "lifecyclehook_workqueue_depth": {"name"},
    **{f"lifecyclehook_workqueue_queue_duration_seconds{part}": {"name"} for part in HISTOGRAM},
    "lifecyclehook_workqueue_retries_total": {"name"},
    "lifecyclehook_suspended_instances": {"namespace", "name"},
    "lifecyclehook_suspension_deadline_timestamp_seconds": {"namespace", "name"},
    "lifecyclehook_resources": {"namespace", "ready", "reason"},
    "lifecyclehook_callbacks": {"namespace", "state", "reason"},
    "lifecyclehook_drift_corrections_total": set(),
    "lifecyclehook_events_dropped_total": {"reason"},
    "lifecyclehook_leader": set(),
    "lifecyclehook_operator_build_info": {"version"},
}
VALUES = {
    "ready": {"True", "False", "Unknown", ""},
    "result": {
        *("success", "denied", "error"),
        *("drifted", "paused", "released", "cloud_error", "kubernetes_error", "internal_error"),
    },
}
METRICS = {name: labels | ({"le"} if name.endswith("_bucket") else set()) for name, labels in METRICS.items()}


def parse(expression: str) -> promql.Expr:
    """Parse an expression, with Grafana's variables filled in."""
    return promql.parse(
        expression.replace("$__rate_interval", "5m").replace("$__range", "6h").replace("$namespace", "web")
    )


def parts(expression: str) -> list[promql.Expr]:
    found: list[promql.Expr] = []
    promql.walk(parse(expression), found.append)
    return found


def selectors(expression: str) -> Iterator[promql.VectorSelector]:
    for part in parts(expression):
        if isinstance(part, promql.MatrixSelector):
            yield part.vector_selector
        elif isinstance(part, promql.VectorSelector):
            yield part


def labels_told(expression: str) -> set[str]:
    """Return the labels of what an expression returns, as far as it groups by any."""
    return {
        label
        for part in parts(expression)
        if isinstance(part, promql.AggregateExpr) and part.modifier
        for label in part.modifier.labels
    }


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    known: set[str] = set()
    for selector in selectors(expression):
        assert selector.name in METRICS
        known |= METRICS[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in METRICS[selector.name]
            assert matcher.name not in VALUES or set(matcher.value.split("|")) <= VALUES[matcher.name]
    assert known or "lifecyclehook_" in expression
    assert labels_told(expression) <= known


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        *[(" ".join(rule["annotations"].values()).replace("$labels.", "."), rule["expr"]) for rule in RULES],
        *[(target["legendFormat"].replace("{{", "{{ ."), target["expr"]) for _, target in TARGETS],
    ],
)
def test_a_text_names_labels_that_the_expression_returns(text: str, expression: str) -> None:
    named = {word.strip("{}.") for word in text.split() if word.startswith(".") and len(word) > 1}
    assert named <= labels_told(expression)


def test_what_the_operator_exposes_is_what_they_may_ask_for(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    (port,) = free_ports(1)
    with OperatorProcess(cluster, cloud.credentials_env(), metrics_port=port, **fast):
        workspace.create(suspensionPolicy="Watch")
        workspace.wait_ready()
        workspace.call_back("CONTINUE", "i-2")
        cloud.add_hanging_instance(workspace.group_id, "hook", "i-1")
        workspace.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": "now"}}})
        workspace.wait("it is shown", lambda body: body["status"].get("suspendedInstances", {}).get("count"))
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status().text
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("lifecyclehook_"):
                exposed.setdefault(sample.name, set()).update(sample.labels)
    assert exposed == METRICS


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_dashboard_has_no_two_panels_in_one_place() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    taken = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_the_dashboard_is_delivered_as_it_is(cluster: ControlPlane) -> None:
    objects: list[dict[str, Any]] = render(cluster.kubectl_path, DEPLOY / "overlays" / "metrics")
    (content,) = only(objects, "ConfigMap")["data"].values()
    assert json.loads(content) == DASHBOARD
    monitor, service = only(objects, "ServiceMonitor")["spec"], only(objects, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["endpoints"][0]["honorLabels"]  # else `namespace` is the operator's, and the hook's is renamed
