"""What Argo CD makes of a LifecycleHook, by a real Lua run as Argo CD runs it."""

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import lupa.lua51
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from lifecyclehook_operator.api.v1alpha1 import LifecycleHookStatus
from lifecyclehook_operator.cloud.errors import CallError, Reason, TransientError, WaitingError
from lifecyclehook_operator.controller.status import Failed, InSync, next_status
from tests.deploy.situations import SITUATIONS, Body
from tests.support.controlplane import ControlPlane
from tests.support.harness import DEPLOY, DOCS, OperatorProcess
from tests.support.simulator import Simulator
from tests.support.simulator.caller import build_go_program
from tests.support.workspace import Workspace, ready
from tests.unit.samples import make_hook

CONFIG_MAP = yaml.safe_load((DEPLOY / "argocd" / "argocd-cm.yaml").read_text())
KEY = "resource.customizations.health.as.otc.t-systems.com_LifecycleHook"
CALLBACK_KEY = "resource.customizations.health.as.otc.t-systems.com_LifecycleCallback"
NOW = datetime(2026, 3, 1, 0, 10, 30, tzinfo=UTC)
#: Beside these Argo CD has `table`, and by require("os") what is below.
WITHHELD = ("string", "math", "io", "os", "debug", "coroutine", "jit")


class ArgoOs:
    """All that Argo CD has of Lua's `os`: it reads the clock in the zone of its process, as here of the test's."""

    def __init__(self, lua: Any, now: datetime, zone: ZoneInfo) -> None:
        self.loaded = lua.table_from({"time": self.time, "date": self.date})
        self._lua, self._now, self._zone = lua, now, zone

    def time(self, fields: Any = None) -> int:
        """Return seconds since 1970, of a table in local time; its day may be one that the month does not have."""
        if fields is None:
            return int(self._now.timestamp())
        first = datetime(fields.year, fields.month, 1, fields.hour or 0, fields.min or 0, tzinfo=self._zone)
        return int((first + timedelta(days=fields.day - 1, seconds=fields.sec or 0)).timestamp())

    def date(self, format_: str, at: float | None = None) -> Any:
        """Return a text, or a table; "!" stands for UTC, but has no effect on a time that is given."""
        when = datetime.fromtimestamp(at, self._zone) if at is not None else self._now.astimezone(self._zone)
        if at is None and format_.startswith("!"):
            when = when.astimezone(UTC)
        if format_.lstrip("!").startswith("*t"):
            names = {"year": "year", "month": "month", "day": "day", "hour": "hour", "min": "minute", "sec": "second"}
            return self._lua.table_from({name: getattr(when, attribute) for name, attribute in names.items()})
        assert set(re.findall("%(.)", format_)) <= set("dFHmMSYzZ")
        return when.strftime(format_.lstrip("!"))


def find_health(body: Body, now: datetime | None = None, zone: str = "UTC", key: str = KEY) -> tuple[str, str]:
    """Return status and message as the health check does; each run has a Lua of its own."""
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.execute("getmetatable('').__index = nil")
    for name in WITHHELD:
        lua.globals()[name] = lua.globals().package.loaded[name] = None
    lua.globals().package.loaded.os = ArgoOs(lua, now or datetime.now(UTC), ZoneInfo(zone)).loaded
    lua.globals().obj = _as_lua(lua, body)
    found = lua.execute(CONFIG_MAP["data"][key])
    assert lupa.lua51.lua_type(found) == "table"
    assert set(found) <= {"status", "message"}
    return found["status"], found["message"] or ""


def _as_lua(lua: Any, value: Any) -> Any:
    match value:
        case dict():
            return lua.table_from({key: _as_lua(lua, each) for key, each in value.items() if each is not None})
        case list():
            return lua.table_from([_as_lua(lua, each) for each in value])
        case _:
            return value


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator that waits long for an answer: some situations are in the middle of a call."""
    with OperatorProcess(cluster, cloud.credentials_env(), **fast) as process:
        yield process


@pytest.fixture(scope="session")
def kstatus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks the library by which Flux waits for objects."""
    return build_go_program(".", tmp_path_factory.mktemp("kstatus"), Path(__file__).with_name("kstatus"))


def find_kstatus(program: Path, body: Body) -> str:
    """Return the status that kstatus computes: Current, InProgress, Failed or Terminating."""
    identity = {"apiVersion": "as.otc.t-systems.com/v1alpha1", "kind": "LifecycleHook"}
    named = {**identity, **body, "metadata": {"name": "hook", "namespace": "web", **body["metadata"]}}
    done = subprocess.run([program], input=json.dumps(named), capture_output=True, text=True, timeout=60, check=True)
    return str(json.loads(done.stdout)["status"])


#: A pause and a drift that is only reported are no failure, and Flux waits for the end of them.
KSTATUS = {"Healthy": "Current", "Progressing": "InProgress", "Degraded": "Failed", "Suspended": "InProgress"}


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_the_operator_writes_has_its_health(
    workspace: Workspace, operator: OperatorProcess, kstatus: Path, name: str
) -> None:
    bring_about, expected = SITUATIONS[name]
    body = bring_about(workspace)
    is_deleting = "deletionTimestamp" in body["metadata"]
    assert find_kstatus(kstatus, body) == ("Terminating" if is_deleting else KSTATUS[expected])
    status, message = find_health(body)
    assert status == expected
    if expected != "Progressing":
        assert message == ready(body)["message"]
    elif ready(body) and ready(body)["status"] != "True":
        assert ready(body)["message"] in message


def resource(ready_status: str = "True", reason: str = "Available", **metadata: Any) -> Body:
    condition = {"type": "Ready", "status": ready_status, "reason": reason, "message": "why", "observedGeneration": 2}
    return {"metadata": {"generation": 2, **metadata}, "status": {"observedGeneration": 2, "conditions": [condition]}}


def without_observed_generation() -> Body:
    body = resource()
    del body["status"]["conditions"][0]["observedGeneration"]
    return body


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in ("Available", "Drifted", "Paused")])
@pytest.mark.parametrize("was_ready", [True, False])
@pytest.mark.parametrize("class_", [WaitingError, TransientError])
def test_kstatus_fails_as_soon_as_argo_cd_does(
    kstatus: Path, class_: type[CallError], was_ready: bool, reason: Reason
) -> None:
    status = LifecycleHookStatus()
    if was_ready:
        status = next_status(status, InSync(make_hook(), "project", "group"), 1, NOW)
    status = next_status(status, Failed(class_(reason, "why", operation="create")), 2, NOW)
    body = {"metadata": {"generation": 2}, "status": status.as_object()}
    assert find_kstatus(kstatus, body) == KSTATUS[find_health(body, NOW)[0]]


EDGES = {
    "nothing at all": ({}, ("Progressing", "Waiting for the operator")),
    "no status": ({"metadata": {"generation": 1}}, ("Progressing", "Waiting for the operator")),
    "an empty status": ({"metadata": {"generation": 1}, "status": {}}, ("Progressing", "Waiting for the operator")),
    "a null status": ({"metadata": {}, "status": None}, ("Progressing", "Waiting for the operator")),
    "no condition": ({"status": {"conditions": []}}, ("Progressing", "Waiting for the operator")),
    "no Ready among the conditions": (
        {"status": {"conditions": [{"type": "Stalled", "status": "True"}]}},
        ("Progressing", "Waiting for the operator"),
    ),
    "Ready": (resource(), ("Healthy", "why")),
    "Ready, by the status' observedGeneration alone": (without_observed_generation(), ("Healthy", "why")),
    "a condition of the generation before": (
        resource("False", "TopicNotFound", generation=3),
        ("Progressing", "Waiting for the operator to reconcile the changed spec"),
    ),
    "Unknown": (resource("Unknown", "UnexpectedResponse"), ("Progressing", "why")),
    "a reason that is not known here": (resource("False", "Novelty"), ("Degraded", "why")),
    "no message": (
        {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        ("Healthy", ""),
    ),
    "deleting while Ready": (resource(deletionTimestamp="now"), ("Progressing", "Being deleted")),
    "deleting in vain": (
        resource("False", "AuthenticationFailed", deletionTimestamp="now"),
        ("Progressing", "Being deleted: why"),
    ),
    "deleting before the first status": (
        {"metadata": {"deletionTimestamp": "now"}},
        ("Progressing", "Being deleted"),
    ),
}


@pytest.mark.parametrize(("body", "expected"), EDGES.values(), ids=EDGES)
def test_an_edge_case_has_its_health(body: Body, expected: tuple[str, str]) -> None:
    assert find_health(body) == expected


def callback(**conditions: str) -> Body:
    shown = [{"type": type_, "status": status, "message": f"why {type_}"} for type_, status in conditions.items()]
    return {"metadata": {"generation": 1}, "status": {"conditions": shown}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"metadata": {}}, ("Progressing", "Waiting for the operator")),
        ({"metadata": {}, "status": {"target": {}}}, ("Progressing", "Waiting for the operator")),
        (callback(Complete="False"), ("Progressing", "why Complete")),
        (callback(Complete="True"), ("Healthy", "why Complete")),
        (callback(Complete="False", Failed="True"), ("Degraded", "why Failed")),
    ],
)
def test_a_callback_has_its_health(body: Body, expected: tuple[str, str]) -> None:
    assert find_health(body, key=CALLBACK_KEY) == expected


def failed(ago: timedelta, ready_status: str = "False", reason: str = "CloudUnavailable", now: datetime = NOW) -> Body:
    body = resource(ready_status, reason)
    body["status"]["error"] = {"operation": "create", "time": f"{now - ago:%Y-%m-%dT%H:%M:%SZ}"}
    return body


@pytest.mark.parametrize(
    ("ready_status", "reason"),
    [
        ("False", "CloudUnavailable"),
        ("False", "Throttled"),
        ("Unknown", "CloudUnavailable"),
        ("Unknown", "Throttled"),
        ("Unknown", "UnexpectedResponse"),
    ],
)
def test_what_does_not_heal_within_15_minutes_does_not_heal_by_itself(ready_status: str, reason: str) -> None:
    assert find_health(failed(timedelta(minutes=15), ready_status, reason), NOW) == ("Progressing", "why")
    late = failed(timedelta(minutes=15, seconds=1), ready_status, reason)
    assert find_health(late, NOW) == ("Degraded", "Since 2026-02-28T23:55:29Z: why")


def test_a_scaling_action_may_take_its_time() -> None:
    assert find_health(failed(timedelta(days=1), reason="GroupBusy"), NOW) == ("Progressing", "why")


def test_an_error_of_a_former_spec_tells_nothing_of_this_one() -> None:
    body = failed(timedelta(days=1))
    body["metadata"]["generation"] = 3
    assert find_health(body, NOW)[0] == "Progressing"


EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def seconds_to(*moment: int) -> int:
    year, month, day, hour, minute = (*moment, 0, 0)[:5]
    return int((datetime(year, month, day, hour, minute, tzinfo=UTC) - EPOCH).total_seconds())


ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Auckland", "Etc/GMT+12", "Etc/GMT-14"]


@given(
    seconds=st.integers(0, 10 * 366 * 24 * 3600),
    ago=st.integers(0, 3600) | st.integers(0, 10**8),
    zone=st.sampled_from(ZONES),
)
@example(seconds=300, ago=900, zone="America/St_Johns")  # of the new year
@example(seconds=seconds_to(2028, 3, 1), ago=901, zone="Pacific/Auckland")  # after a leap day
@example(seconds=seconds_to(2026, 3, 29, 2, 30), ago=901, zone="Europe/Berlin")  # as an hour that Berlin does not have
@example(seconds=seconds_to(2026, 10, 25, 1, 5), ago=900, zone="Europe/Berlin")  # in an hour that Berlin has twice
def test_15_minutes_are_the_same_in_any_time_zone(seconds: int, ago: int, zone: str) -> None:
    now = EPOCH + timedelta(seconds=seconds)
    expected = "Degraded" if ago > 15 * 60 else "Progressing"
    assert find_health(failed(timedelta(seconds=ago), now=now), now, zone)[0] == expected


def test_the_documented_table_has_the_health_of_each_reason() -> None:
    section = (DOCS / "user-guide.md").read_text().split("\n## GitOps with Argo CD", 1)[1]
    documented = {
        reason: health
        for reasons, health in re.findall(r"^\| (?:False|Unknown) \| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE)
        for reason in re.findall(r"`(\w+)`", reasons)
    }

    def healths(reason: Reason) -> str:
        first, later = (find_health(failed(timedelta(minutes=ago), reason=reason), NOW)[0] for ago in (1, 16))
        return first if first == later else f"{first}, after 15 minutes {later}"

    assert documented == {reason: healths(reason) for reason in Reason if reason != "Available"}


def test_the_health_check_merges_into_the_config_map_of_argo_cd(workspace: Workspace) -> None:
    workspace.core.create_namespaced_config_map(
        workspace.namespace, {"metadata": {"name": "argocd-cm"}, "data": {"url": "kept"}}
    )
    patch = yaml.safe_dump({**CONFIG_MAP, "metadata": {**CONFIG_MAP["metadata"], "namespace": workspace.namespace}})
    workspace.cluster.kubectl("patch", "configmap", "argocd-cm", "-n", workspace.namespace, "-p", patch)
    data = workspace.core.read_namespaced_config_map("argocd-cm", workspace.namespace).data
    assert data == {"url": "kept", **CONFIG_MAP["data"]}
