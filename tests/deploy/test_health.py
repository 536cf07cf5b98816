"""What Argo CD makes of a LifecycleHook, by a real Lua run as Argo CD runs it."""

import re
from collections.abc import Iterator
from typing import Any

import lupa.lua51
import pytest
import yaml

from lifecyclehook_operator.errors import Reason
from tests.controlplane import ControlPlane
from tests.deploy.situations import SITUATIONS, Body
from tests.harness import DEPLOY, OperatorProcess
from tests.simulator import Simulator
from tests.workspace import Workspace, ready

CONFIG_MAP = yaml.safe_load((DEPLOY / "argocd" / "argocd-cm.yaml").read_text())
KEY = "resource.customizations.health.as.otc.t-systems.com_LifecycleHook"
#: Beside these Argo CD has `table` and a harmless part of `os`, and nothing else of the standard libraries.
WITHHELD = ("string", "math", "io", "os", "debug", "coroutine", "jit")


def find_health(body: Body) -> tuple[str, str]:
    """Return status and message as the health check does; each run has a Lua of its own."""
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
    for name in WITHHELD:
        lua.globals()[name] = None
    lua.globals().obj = _as_lua(lua, body)
    found = lua.execute(CONFIG_MAP["data"][KEY])
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


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_the_operator_writes_has_its_health(workspace: Workspace, operator: OperatorProcess, name: str) -> None:
    bring_about, expected = SITUATIONS[name]
    body = bring_about(workspace)
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
        ("Progressing", "Waiting for the operator to act on the changed spec"),
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


def test_the_table_of_the_readme_tells_the_health_of_each_reason() -> None:
    section = (DEPLOY / "README.md").read_text().split("## Argo CD", 1)[1]
    told = {
        reason: health
        for reasons, health in re.findall(r"^\| False \| ([^|]+) \| ([A-Z][a-z]+) \|", section, re.MULTILINE)
        for reason in re.findall(r"`(\w+)`", reasons)
    }
    assert told == {reason: find_health(resource("False", reason))[0] for reason in Reason if reason != "Available"}


def test_the_health_check_merges_into_the_config_map_of_argo_cd(workspace: Workspace) -> None:
    workspace.core.create_namespaced_config_map(
        workspace.namespace, {"metadata": {"name": "argocd-cm"}, "data": {"url": "kept"}}
    )
    patch = yaml.safe_dump({**CONFIG_MAP, "metadata": {**CONFIG_MAP["metadata"], "namespace": workspace.namespace}})
    workspace.cluster.kubectl("patch", "configmap", "argocd-cm", "-n", workspace.namespace, "-p", patch)
    data = workspace.core.read_namespaced_config_map("argocd-cm", workspace.namespace).data
    assert data == {"url": "kept", **CONFIG_MAP["data"]}
