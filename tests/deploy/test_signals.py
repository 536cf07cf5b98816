"""Alerts and dashboard ask for what the operator has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lifecyclehook_operator.cloud.errors import Reason
from tests.deploy.rendering import make_overlay, only, render
from tests.docs.pages import find_blocks
from tests.support.controlplane import ControlPlane, free_ports
from tests.support.harness import DEPLOY, OperatorProcess
from tests.support.monitoring import DASHBOARD, GROUPS, RULES, TARGETS, fill_in
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for _, target in TARGETS]
UNIT_TESTS = Path(__file__).parent / "fixtures" / "alerts.test.yaml"

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
#: What Prometheus adds to what the operator says.
TARGET_LABELS = {"namespace", "pod"}


def parse(expression: str) -> promql.Expr:
    """Parse an expression, with Grafana's variables filled in."""
    return promql.parse(fill_in(expression))


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
    assert labels_told(expression) <= known | TARGET_LABELS


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        *[(" ".join(rule["annotations"].values()), rule["expr"]) for rule in RULES],
        *[(target["legendFormat"], target["expr"]) for _, target in TARGETS],
    ],
)
def test_a_text_names_labels_that_the_expression_returns(text: str, expression: str) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", text) + re.findall(r"{{(\w+)}}", text))
    assert named <= labels_told(expression)


def test_what_the_operator_exposes_is_what_they_may_ask_for(
    cluster: ControlPlane, cloud: Simulator, workspace: Workspace, fast: dict[str, float]
) -> None:
    (port,) = free_ports(1)
    with OperatorProcess(cluster, cloud.credentials_env(), metrics_port=port, **fast):
        workspace.create(suspensionPolicy="Watch")
        workspace.wait_ready()
        for instance_id in ("i-1", "i-2"):
            cloud.add_hanging_instance(workspace.group_id, "hook", instance_id)
        workspace.call_back("CONTINUE", "i-2")
        workspace.wait_complete()
        workspace.patch("hook", {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": "now"}}})
        workspace.wait("it is shown", lambda body: body["status"].get("suspendedInstances", {}).get("count"))
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status().text
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("lifecyclehook_"):
                exposed.setdefault(sample.name, set()).update(sample.labels)
    assert exposed == METRICS


def test_every_alert_says_how_bad_it_is_what_to_do_and_where_to_read_more() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert f"\n### {rule['alert']}\n" in (DEPLOY.parent / page).read_text()
        assert anchor == rule["alert"].lower()
        assert "namespace" in labels_told(rule["expr"])


def test_runbooks_become_urls_by_what_a_page_adds_to_an_overlay(cluster: ControlPlane, tmp_path: Path) -> None:
    if cluster.binaries.kubernetes < (1, 34):
        pytest.skip("kubectl before 1.34 has a kustomize without sourceValue")
    (snippet,) = [block.text for block in find_blocks("yaml") if block.text.startswith("replacements:")]
    overlay = make_overlay(tmp_path, "web", resources=[DEPLOY / "overlays" / "metrics"])
    with (overlay / "kustomization.yaml").open("a") as file:
        file.write(snippet)
    base = yaml.safe_load(snippet)["replacements"][0]["sourceValue"]
    groups = only(render(cluster.kubectl_path, overlay), "PrometheusRule")["spec"]["groups"]
    assert [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]] == [
        f"{base}/operations.md#{rule['alert'].lower()}" for rule in RULES
    ]


def test_promtool_accepts_the_rules_and_finds_every_text_as_expected(promtool: Path, tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    shutil.copy(UNIT_TESTS, tmp_path)
    for command in (
        ["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"],
        ["test", "rules", UNIT_TESTS.name],
    ):
        ran = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_for_promtool_each_alert_fires_and_does_not_fire() -> None:
    expected: dict[str, set[bool]] = {}
    for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            expected.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
        for series in test["input_series"]:
            (selector,) = selectors(series["series"])
            assert {matcher.name for matcher in selector.matchers.matchers} <= METRICS[selector.name] | TARGET_LABELS
    assert expected == {rule["alert"]: {True, False} for rule in RULES}


@pytest.mark.parametrize(
    ("panel", "color_of"),
    [
        (
            "Hooks by state",
            {
                "Ready": "green",
                **{f"Not Ready: {reason}": "red" for reason in Reason if reason not in ("Drifted", "Paused")},
                "Drifted": "purple",
                **{f"Unknown: {reason}": "orange" for reason in Reason if reason != "Paused"},
                "Paused": "blue",
                "Not reconciled yet": "gray",
            },
        ),
        (
            "Callbacks by state",
            {"Complete Accepted": "green", "Pending ": "orange", "Pending GroupBusy": "orange", "Failed X": "red"},
        ),
        (
            "Reconciliations by result",
            {
                "success": "green",
                "drifted": "purple",
                "paused": "blue",
                "released": "gray",
                "cloud_error": "orange",
                "kubernetes_error": "red",
                "internal_error": "dark-red",
            },
        ),
        (
            "Failed AS requests",
            {"400 AS.7043 create": "purple", "429  list": "yellow", "503  list": "red", "No response list": "orange"},
        ),
        ("Callback requests to AS", {"200 ": "green", "400 AS.7042": "purple", "503 ": "red", "No response": "orange"}),
        ("Token requests", {"success": "green", "denied": "red", "error": "orange"}),
    ],
)
def test_colors_are_fixed_by_what_they_mean(panel: str, color_of: dict[str, str]) -> None:
    (overrides,) = [each["fieldConfig"]["overrides"] for each in DASHBOARD["panels"] if each["title"] == panel]
    for legend, color in color_of.items():
        # Grafana applies all that match, so the last one decides.
        *_, override = [each for each in overrides if re.search(each["matcher"]["options"].strip("/"), legend)]
        assert override["properties"][0]["value"]["fixedColor"] == color


def test_no_color_depends_on_the_order_of_the_series() -> None:
    modes = {panel["fieldConfig"]["defaults"]["color"]["mode"] for panel in DASHBOARD["panels"]}
    assert modes == {"thresholds", "palette-classic-by-name"}


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
