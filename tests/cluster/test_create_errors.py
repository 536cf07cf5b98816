"""Whatever goes wrong in a create call ends in one class, one reason and one entry in the status."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, condition, ready


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator that does not wait long for an answer."""
    options = {**fast, "cloud_timeout_seconds": 3, "resync_interval_seconds": 864_000}
    with OperatorProcess(cluster, cloud.credentials_env(), **options) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")

HTML = {"text": "<html><head><title>t</title></head><body><h1>Bad gateway</h1>\n</body></html>"}
GATEWAY = {"json": {"error_code": "APIGW.0301", "error_msg": "Incorrect authentication", "request_id": "r-1"}}


HEAL_BY_THEMSELVES = ("CloudUnavailable", "GroupBusy", "Throttled")


class Case(NamedTuple):
    """A fault of the cloud's, and what the status is to say."""

    fault: dict[str, Any]
    reason: str
    retry: str
    http_status: int | None = None
    code: str | None = None
    message: str = ""


def as_error(status: int, code: str = "") -> dict[str, Any]:
    return {"status": status, "json": {"error": {"code": code, "message": "as it pleases"}}}


CASES = {
    # The fourteen abnormal codes of the API page, each with no AS code.
    "400": Case(as_error(400), "UnexpectedResponse", "Slow", 400),
    "401": Case(as_error(401), "AuthenticationFailed", "Slow", 401),
    "403": Case(as_error(403), "Forbidden", "Slow", 403),
    "404": Case(as_error(404), "UnexpectedResponse", "Slow", 404),
    "405": Case(as_error(405), "UnexpectedResponse", "Slow", 405),
    "406": Case(as_error(406), "UnexpectedResponse", "Slow", 406),
    "407": Case(as_error(407), "AuthenticationFailed", "Slow", 407),
    "408": Case(as_error(408), "CloudUnavailable", "Backoff", 408),
    "409": Case(as_error(409), "CloudUnavailable", "Backoff", 409),
    "500": Case(as_error(500), "CloudUnavailable", "Backoff", 500),
    "501": Case(as_error(501), "UnexpectedResponse", "Slow", 501),
    "502": Case(as_error(502), "CloudUnavailable", "Backoff", 502),
    "503": Case(as_error(503), "CloudUnavailable", "Backoff", 503),
    "504": Case(as_error(504), "CloudUnavailable", "Backoff", 504),
    # The gateway's own.
    "429": Case(as_error(429), "Throttled", "Backoff", 429),
    "gateway-401": Case({"status": 401, **GATEWAY}, "AuthenticationFailed", "Slow", 401, "APIGW.0301", "Incorrect"),
    "html": Case({"status": 502, **HTML}, "CloudUnavailable", "Backoff", 502, message="Bad gateway"),
    "empty-body": Case(
        {"status": 500, "text": ""}, "CloudUnavailable", "Backoff", 500, message="Internal Server Error"
    ),
    # An answer that isn't the documented one.
    "200-with-invalid-json": Case({"status": 200, "text": "{"}, "UnexpectedResponse", "Backoff", 200),
    "200-with-a-field-missing": Case(
        {"status": 200, "json": {"lifecycle_hook_name": "hook"}},
        "UnexpectedResponse",
        "Backoff",
        200,
        message="Field required",
    ),
    # No answer.
    "connection-lost": Case({"drop": True}, "CloudUnavailable", "Backoff", message="connection"),
    "timeout": Case({"delay_seconds": 60}, "CloudUnavailable", "Backoff", message="in time"),
    # Codes of AS, whose HTTP status is as the error table has it.
    "AS.0001": Case({"code": "AS.0001"}, "CloudUnavailable", "Backoff", 500, "AS.0001"),
    "AS.0049": Case({"code": "AS.0049"}, "CloudUnavailable", "Backoff", 500, "AS.0049"),
    "AS.0006": Case({"code": "AS.0006"}, "AuthenticationFailed", "Slow", 401, "AS.0006"),
    "AS.0007": Case({"code": "AS.0007"}, "GroupNotFound", "Slow", 404, "AS.0007"),
    "AS.0008": Case({"code": "AS.0008"}, "CredentialsInvalid", "Slow", 400, "AS.0008"),
    "AS.0011": Case({"code": "AS.0011"}, "Forbidden", "Slow", 403, "AS.0011"),
    "AS.0022": Case({"code": "AS.0022"}, "InvalidSpec", "Never", 400, "AS.0022"),
    "AS.0031": Case({"code": "AS.0031"}, "Forbidden", "Slow", 400, "AS.0031"),
    "AS.2007": Case({"code": "AS.2007"}, "GroupNotFound", "Slow", 400, "AS.2007"),
    "AS.2020": Case({"code": "AS.2020"}, "GroupBusy", "Slow", 400, "AS.2020"),
    "AS.7030": Case({"code": "AS.7030"}, "InvalidSpec", "Never", 400, "AS.7030"),
    "AS.7038": Case({"code": "AS.7038"}, "QuotaExceeded", "Slow", 400, "AS.7038"),
    "AS.7043": Case({"code": "AS.7043"}, "TopicNotFound", "Slow", 400, "AS.7043"),
    "unknown-AS-code": Case(as_error(400, "AS.9999"), "UnexpectedResponse", "Slow", 400, "AS.9999"),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_a_failed_create_call_is_classed_shown_and_got_over(workspace: Workspace, case: Case) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.fault("create", group_id=group_id, count=None, **case.fault)
    workspace.create()
    body = workspace.wait_reason(case.reason)
    error = body["status"]["error"]
    assert (error["operation"], error.get("httpStatus"), error.get("code")) == ("create", case.http_status, case.code)
    assert error["retry"] == case.retry
    assert case.message in error["message"]
    assert "<" not in error["message"]
    assert ready(body)["status"] == "False"
    assert ready(body)["observedGeneration"] == body["status"]["observedGeneration"] == 1
    assert bool(condition(body, "Stalled")) == (case.reason not in HEAL_BY_THEMSELVES)
    if case.http_status is not None:
        assert error["requestId"]
    tries = 1 if case.retry == "Never" else 2
    cloud.wait_for_request("create", group_id, count=tries * (2 if case.http_status == 401 else 1))
    cloud.clear_faults()
    if case.retry == "Never":
        workspace.patch("hook", {"spec": {"defaultTimeout": 60}})
    recovered = workspace.wait_ready()
    assert "error" not in recovered["status"]
    assert condition(recovered, "Stalled") == {}
    assert len(cloud.hooks(group_id)) == 1
    workspace.wait_events([("Warning", case.reason), ("Normal", "Created")])
    # A failure that stays the same is written once, however often the call is tried again.
    assert workspace.writes().count("lifecyclehooks/status") == 2


@pytest.mark.parametrize("case", ["503", "timeout", "200-with-invalid-json", "connection-lost"])
def test_a_create_call_that_took_effect_although_it_failed_leaves_one_hook_and_no_error(
    workspace: Workspace, case: str
) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.fault("create", group_id=group_id, stage="after", **CASES[case].fault)
    workspace.create()
    body = workspace.wait_ready()
    assert "error" not in body["status"]
    assert len(cloud.hooks(group_id)) == 1
    assert [request.operation for request in cloud.requests(group_id=group_id)] == ["create", "list"]
    workspace.wait_events([("Normal", "Created")])
    assert workspace.writes() == ["lifecyclehooks", "lifecyclehooks/status"]


def test_retry_after_is_honoured(workspace: Workspace) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.fault("create", group_id=group_id, status=429, headers={"Retry-After": "3"}, json={})
    workspace.create()
    workspace.wait_ready()
    first, second = cloud.requests("create", group_id)
    assert second.received_at - first.received_at >= 3


def test_a_final_error_is_not_tried_again_until_the_spec_changes(workspace: Workspace) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.fault("create", group_id=group_id, code="AS.7055")
    workspace.create()
    workspace.wait_reason("InvalidSpec")
    workspace.create("marker")
    workspace.wait_ready("marker")
    workspace.patch("hook", {"spec": {"notificationMetadata": "plain"}})
    assert workspace.wait_ready()["status"]["lifecycleHook"]["notificationMetadata"] == "plain"
    assert len(cloud.requests("create", group_id, hook_name="hook")) == 2


def test_the_world_is_waited_for(workspace: Workspace) -> None:
    cloud, group_id = workspace.cloud, workspace.group_id
    cloud.delete_topic(workspace.topic_urn)
    workspace.create()
    workspace.wait_reason("TopicNotFound")
    cloud.add_topic(workspace.namespace)
    workspace.wait_ready()
    cloud.set_busy(group_id)
    workspace.create("second")
    workspace.wait_reason("GroupBusy", "second")
    cloud.set_busy(group_id, busy=False)
    workspace.wait_ready("second")
