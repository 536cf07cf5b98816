"""Each alert is provoked once, with a real operator and a real Prometheus; only its times are shortened."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lifecyclehook_operator.api.v1alpha1 import PAUSED_ANNOTATION, RECONCILE_AT_ANNOTATION
from tests.support.controlplane import ControlPlane, free_ports
from tests.support.harness import OPERATOR, OperatorProcess, eventually
from tests.support.monitoring import DASHBOARD, RULES, Prometheus, fill_in
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

IsFiring = Callable[[], bool]
RefuseChanges = Callable[[str, str, list[str]], Callable[[], None]]
#: Longer than what alerts look back for, so that a request that hangs is not given up before.
CLOUD_TIMEOUT_SECONDS = 60

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def metrics_port() -> int:
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="module")
def operator(
    cluster: ControlPlane, cloud: Simulator, fast: dict[str, float], metrics_port: int
) -> Iterator[OperatorProcess]:
    """An operator that compares hooks with AS only when it is told to."""
    options = {
        **fast,
        "metrics_port": metrics_port,
        "cloud_timeout_seconds": CLOUD_TIMEOUT_SECONDS,
        "resync_interval_seconds": 864_000,
    }
    with OperatorProcess(cluster, cloud.credentials_env(), **options) as process:
        yield process


@pytest.fixture(scope="module")
def monitor(
    operator: OperatorProcess, prometheus: Path, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    with Prometheus(prometheus, tmp_path_factory.mktemp("monitor") / "prometheus", metrics_port) as running:
        yield running


@dataclass
class Stage:
    """What a provocation works with: a hook that is Ready, and who is to act on it."""

    workspace: Workspace
    operator: OperatorProcess
    refuse_changes: RefuseChanges

    @property
    def cloud(self) -> Simulator:
        return self.workspace.cloud

    def look(self, name: str = "hook") -> None:
        """Have the operator compare a hook with AS."""
        poke = {RECONCILE_AT_ANNOTATION: str(next(_numbers))}
        self.workspace.patch(name, {"metadata": {"annotations": poke}})

    def fault(self, operation: str | None, **fields: Any) -> None:
        self.cloud.fault(operation, group_id=self.workspace.group_id, count=None, **fields)


@pytest.fixture
def stage(workspace: Workspace, operator: OperatorProcess, refuse_changes: RefuseChanges) -> Iterator[Stage]:
    workspace.create()
    workspace.wait_ready()
    yield Stage(workspace, operator, refuse_changes)
    if not operator.is_running:
        operator.start()


def leave_a_topic_out(stage: Stage, _: IsFiring) -> None:
    stage.workspace.create("no-topic", notificationTopicUrn=f"{stage.workspace.topic_urn}-absent")


def change_what_is_only_reported(stage: Stage, _: IsFiring) -> None:
    stage.workspace.patch("hook", {"spec": {"driftPolicy": "Report"}})
    stage.workspace.wait_ready()
    stage.cloud.update_hook(stage.workspace.group_id, "hook", default_timeout=99)
    stage.look()


def have_the_cloud_fail(stage: Stage, _: IsFiring) -> None:
    stage.fault("list", status=503)
    stage.look()


def leave_a_create_without_an_answer(stage: Stage, _: IsFiring) -> None:
    stage.fault("create", hold=True)
    stage.workspace.create("waiting")


def suspend(stage: Stage, instance_id: str, timeout_seconds: int) -> None:
    stage.workspace.patch("hook", {"spec": {"suspensionPolicy": "Watch"}})
    stage.cloud.add_hanging_instance(stage.workspace.group_id, "hook", instance_id, timeout_seconds=timeout_seconds)
    stage.look()
    stage.workspace.wait("it is shown", lambda body: instance_id in str(body["status"].get("suspendedInstances")))


def suspend_for_nine_minutes(stage: Stage, _: IsFiring) -> None:
    suspend(stage, "i-1", timeout_seconds=540)


def end_the_operator(stage: Stage, _: IsFiring) -> None:
    stage.operator.stop()


def leave_all_requests_without_an_answer(stage: Stage, _: IsFiring) -> None:
    stage.fault(None, hold=True)
    stage.look()


def refuse_to_write_a_status(stage: Stage, _: IsFiring) -> None:
    change = '--patch={"status":{"projectId":"x"}}'
    command = ["patch", "lifecyclehook", "hook", "--subresource=status", "--type=merge", change]
    stage.refuse_changes("as.otc.t-systems.com", "lifecyclehooks/status", command)
    stage.workspace.patch("hook", {"spec": {"defaultTimeout": 99}})


def give_a_wrong_password(stage: Stage, _: IsFiring) -> None:
    stage.workspace.put_secret("wrong", stage.workspace.clouds_yaml(password="wrong"))
    stage.workspace.create("denied", credentialsRef={"secretName": "wrong"})


def fail_late(stage: Stage, _: IsFiring) -> None:
    stage.fault(None, delay_seconds=6, status=503)
    stage.look()


def change_the_hook_again_and_again(stage: Stage, is_firing: IsFiring) -> None:
    for timeout in range(100, 200):
        stage.cloud.update_hook(stage.workspace.group_id, "hook", default_timeout=timeout)
        stage.look()
        eventually("it is repaired", lambda: stage.cloud.hooks(stage.workspace.group_id)[0]["default_timeout"] == 3600)
        if is_firing():
            return


#: How each alert is provoked, and whose namespace it has: the hook's, or else the operator's.
PROVOCATIONS: dict[str, tuple[Callable[[Stage, IsFiring], None], bool]] = {
    "LifecycleHooksNotReady": (leave_a_topic_out, True),
    "LifecycleHooksDrifted": (change_what_is_only_reported, True),
    "LifecycleHooksUnknown": (have_the_cloud_fail, True),
    "LifecycleHooksNotActedUpon": (leave_a_create_without_an_answer, True),
    "LifecycleHookInstanceTimesOutSoon": (suspend_for_nine_minutes, True),
    "LifecycleHookOperatorAbsent": (end_the_operator, False),
    "LifecycleHookOperatorStuck": (leave_all_requests_without_an_answer, False),
    "LifecycleHookOperatorErrors": (refuse_to_write_a_status, False),
    "LifecycleHookTokenRequestsDenied": (give_a_wrong_password, False),
    "LifecycleHookCallsFailing": (have_the_cloud_fail, False),
    "LifecycleHookCallsSlow": (fail_late, False),
    "LifecycleHookDriftRepeated": (change_the_hook_again_and_again, False),
}


def test_there_is_a_provocation_of_each_alert() -> None:
    assert list(PROVOCATIONS) == [rule["alert"] for rule in RULES]


def test_hooks_that_are_well_or_paused_fire_nothing(stage: Stage, monitor: Prometheus) -> None:
    stage.workspace.create("paused")
    stage.workspace.patch("paused", {"metadata": {"annotations": {PAUSED_ANNOTATION: "true"}}})
    stage.workspace.wait_reason("Paused", "paused")
    suspend(stage, "i-1", timeout_seconds=3600)
    namespace = f'namespace="{stage.workspace.namespace}"'
    seen = (
        f"lifecyclehook_suspended_instances{{{namespace}}} == 1 "
        f'and on() lifecyclehook_resources{{{namespace}, reason="Paused"}} == 1'
    )
    eventually("Prometheus has both", lambda: monitor.query(seen))
    evaluated = {rule["name"]: rule["lastEvaluation"] for rule in monitor.rules()}
    eventually(
        "all is evaluated again, and nothing fires",
        lambda: (
            all(rule["lastEvaluation"] > evaluated[rule["name"]] for rule in monitor.rules()) and not monitor.alerts()
        ),
    )
    assert {rule["name"]: rule["health"] for rule in monitor.rules()} == dict.fromkeys(PROVOCATIONS, "ok")


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_an_alert_fires_with_its_texts_and_where_to_send_it(name: str, stage: Stage, monitor: Prometheus) -> None:
    eventually("what was before is over", lambda: not monitor.alerts(name))
    provoke, is_about_hooks = PROVOCATIONS[name]
    namespace = stage.workspace.namespace if is_about_hooks else OPERATOR

    def find() -> list[dict[str, Any]]:
        return [alert for alert in monitor.alerts(name) if alert["labels"].get("namespace") == namespace]

    provoke(stage, lambda: bool(find()))
    (alert,) = eventually(f"{name} fires", find)
    assert alert["labels"]["severity"] in ("info", "warning")
    for text in alert["annotations"].values():
        assert text
        assert re.search(r"{{|<|%!|NaN", text) is None


def test_every_panel_shows_something(stage: Stage, monitor: Prometheus) -> None:
    workspace, cloud = stage.workspace, stage.cloud
    workspace.create("no-topic", notificationTopicUrn=f"{workspace.topic_urn}-absent")
    groups = {name: cloud.add_group() for name in ("drifted", "unknown")}
    for name, group_id in groups.items():
        workspace.create(name, scalingGroupId=group_id, driftPolicy="Report")
        workspace.wait_ready(name)
    cloud.update_hook(groups["drifted"], "drifted", default_timeout=99)
    cloud.fault("list", group_id=groups["unknown"], count=None, drop=True)
    for name in groups:
        stage.look(name)
    for instance_id in ("i-1", "i-2"):
        suspend(stage, instance_id, timeout_seconds=3600)
    workspace.call_back("CONTINUE", "i-1")
    workspace.wait_complete()
    workspace.call_back("ABANDON", "i-1", name="failed", activeDeadlineSeconds=1)
    workspace.wait_failed("SuspensionEnded", "failed")
    for panel in DASHBOARD["panels"]:
        queries = [fill_in(target["expr"], namespace=workspace.namespace) for target in panel["targets"]]
        eventually(f"{panel['title']} shows something", lambda: any([*map(monitor.query, queries)]))  # noqa: B023
