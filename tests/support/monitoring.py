"""The alerts and the dashboard of deploy/, and a real Prometheus to try them with."""

import json
import re
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.support.controlplane import free_ports, start_process, stop_process
from tests.support.harness import DEPLOY, OPERATOR, eventually, log_tail

COMPONENT = DEPLOY / "components" / "metrics"
DASHBOARD: dict[str, Any] = json.loads((COMPONENT / "dashboard.json").read_text())
GROUPS: list[dict[str, Any]] = yaml.safe_load((COMPONENT / "alerts.yaml").read_text())["spec"]["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]
#: What a rate is calculated from here: long enough for some scrapes on a busy machine.
WINDOW = "10s"
_INTERVAL = "500ms"


def fill_in(expression: str, window: str = WINDOW, namespace: str = ".*") -> str:
    """Return a query of the dashboard with Grafana's variables filled in."""
    for variable, value in (("$__rate_interval", window), ("$__range", window), ("$namespace", namespace)):
        expression = expression.replace(variable, value)
    return expression


def shorten(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule that looks back for seconds instead of up to an hour, and fires at once."""
    expression = re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", rule["expr"])
    return {**{key: value for key, value in rule.items() if key != "for"}, "expr": expression}


class Prometheus:
    """Prometheus, which scrapes one operator as servicemonitor.yaml says, with the alerts shortened."""

    def __init__(self, program: Path, folder: Path, metrics_port: int) -> None:
        self._program = program
        self._folder = folder
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        endpoint = yaml.safe_load((COMPONENT / "servicemonitor.yaml").read_text())["spec"]["endpoints"][0]
        config = {
            "global": {"scrape_interval": _INTERVAL, "scrape_timeout": _INTERVAL, "evaluation_interval": _INTERVAL},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [
                {
                    "job_name": OPERATOR,
                    "honor_labels": endpoint["honorLabels"],
                    "metrics_path": endpoint["path"],
                    "static_configs": [
                        {
                            "targets": [f"127.0.0.1:{metrics_port}"],
                            "labels": {"namespace": OPERATOR, "pod": f"{OPERATOR}-0"},
                        }
                    ],
                }
            ],
        }
        groups = [{**group, "rules": [shorten(rule) for rule in group["rules"]]} for group in GROUPS]
        folder.mkdir()
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        (folder / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))

    def __enter__(self) -> Self:
        log = self._folder / "prometheus.log"
        command = [
            str(self._program),
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self._address}",
        ]
        self._process = start_process(command, log=log)

        def is_ready() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"Prometheus has ended:\n{log_tail(log)}")
            try:
                return httpx.get(f"http://{self._address}/-/ready", trust_env=False).is_success
            except httpx.TransportError:
                return False

        try:
            eventually("Prometheus is ready", is_ready)
        except BaseException:
            stop_process(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop_process(self._process)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression evaluates to now."""
        result: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return result

    def alerts(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the alerts that are firing, or those of them with a name."""
        found = self._get("alerts")["alerts"]
        return [each for each in found if name in (None, each["labels"]["alertname"]) and each["state"] == "firing"]

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, each with what came of its last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **params: str) -> Any:
        response = httpx.get(f"http://{self._address}/api/v1/{path}", params=params, trust_env=False, timeout=30)
        assert response.is_success, response.text
        return response.json()["data"]
