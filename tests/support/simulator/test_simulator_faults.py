"""Faults on request: what they answer, what the service has done by then, and which requests they meet."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.harness import eventually
from tests.support.simulator.caller import Caller, error_of


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def names(caller: Caller) -> list[str]:
    return [hook["lifecycle_hook_name"] for hook in caller.simulator.hooks(caller.group)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 407, 408, 409, 429, 500, 501, 502, 503, 504])
@pytest.mark.parametrize(("stage", "created"), [("before", []), ("after", ["test-hook1"])])
def test_any_status_can_be_answered_before_or_after_the_work(
    caller: Caller, status: int, stage: str, created: list[str]
) -> None:
    caller.simulator.fault("create", status=status, stage=stage)
    response = caller.create()
    assert (response.status_code, response.content) == (status, b"")
    assert names(caller) == created
    (logged,) = caller.simulator.requests("create")
    assert (logged.status, logged.state, logged.processed) == (status, "answered", stage == "after")
    assert caller.delete().status_code == (204 if created else 404)


def test_what_is_refused_is_not_said_to_have_succeeded(caller: Caller) -> None:
    caller.create()
    caller.simulator.set_busy(caller.group)
    caller.simulator.fault("delete", status=200, text="{", stage="after")
    response = caller.delete()
    assert error_of(response) == (400, "AS.2020")
    assert names(caller) == ["test-hook1"]


@pytest.mark.parametrize(
    ("fault", "content_type", "content"),
    [
        ({"json": {"error_code": "APIGW.0308", "error_msg": "slow down"}}, "application/json", None),
        ({"text": "<html><body>502</body></html>", "headers": {"content-type": "text/html"}}, "text/html", None),
        ({"text": '{"lifecycle_hook_name": ', "headers": {"Content-Type": "application/json"}}, "application/json", 24),
        ({"text": ""}, "text/plain", 0),
        ({"json": []}, "application/json", 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [200, 502])
def test_any_body_can_be_answered(
    caller: Caller, fault: dict[str, Any], content_type: str, content: int | None, status: int
) -> None:
    caller.simulator.fault("create", status=status, **fault)
    response = caller.create()
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith(content_type)
    assert response.json() == fault["json"] if "json" in fault else response.text == fault["text"]
    assert content in (None, len(response.content))
    assert response.headers["X-Request-Id"]


def test_headers_can_be_answered(caller: Caller) -> None:
    caller.simulator.fault("create", status=429, headers={"Retry-After": "7", "X-Request-Id": "mine"})
    response = caller.create()
    assert (response.headers["Retry-After"], response.headers["X-Request-Id"]) == ("7", "mine")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"code": "AS.0001"}, 500),
        ({"code": "AS.0031"}, 400),
        ({"code": "AS.0049"}, 500),
        ({"code": "AS.0011"}, 403),
        ({"code": "AS.9999", "status": 418}, 418),
    ],
    ids=str,
)
def test_an_as_code_brings_its_status_and_shape(caller: Caller, fault: dict[str, Any], status: int) -> None:
    caller.simulator.fault("create", **fault)
    assert error_of(caller.create()) == (status, fault["code"])
    assert caller.simulator.requests("create")[0].code == fault["code"]


@pytest.mark.parametrize(("stage", "created"), [("before", []), ("after", ["test-hook1"])])
def test_an_answer_can_be_lost_before_or_after_the_work(caller: Caller, stage: str, created: list[str]) -> None:
    caller.simulator.fault("create", drop=True, stage=stage)
    with pytest.raises(httpx.RemoteProtocolError):
        caller.create()
    assert names(caller) == created
    (logged,) = caller.simulator.requests("create")
    assert (logged.state, logged.status, logged.processed) == ("lost", None, stage == "after")


@pytest.mark.parametrize("operation", ["modify", "delete"])
def test_the_answer_of_a_change_can_be_lost_though_it_was_made(caller: Caller, operation: str) -> None:
    caller.create()
    caller.simulator.fault(operation, drop=True, stage="after")
    with pytest.raises(httpx.RemoteProtocolError):
        _ = caller.delete() if operation == "delete" else caller.modify(default_timeout=60)
    assert [hook["default_timeout"] for hook in caller.simulator.hooks(caller.group)] == [60] * (operation == "modify")


@pytest.mark.parametrize("stage", ["before", "after"])
def test_a_delay_makes_a_client_time_out(caller: Caller, stage: str) -> None:
    fault = caller.simulator.fault("create", delay_seconds=30, stage=stage)
    with pytest.raises(httpx.ReadTimeout):
        caller.call(
            "POST", f"scaling_lifecycle_hook/{caller.group}", json=caller.hook(), timeout=httpx.Timeout(5, read=0.1)
        )
    caller.simulator.wait_for_request("create", fault=fault)
    expected = ["test-hook1"] if stage == "after" else []
    eventually(f"there is {expected}", lambda: names(caller) == expected)


def test_a_delay_ends_when_the_faults_are_cleared(caller: Caller, background: ThreadPoolExecutor) -> None:
    fault = caller.simulator.fault("create", delay_seconds=60)
    answer = background.submit(caller.create)
    caller.simulator.wait_for_request("create", fault=fault)
    caller.simulator.clear_faults()
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result(10)
    assert names(caller) == []


def test_latency_is_for_each_as_call_and_not_for_iam(caller: Caller) -> None:
    caller.simulator.set_latency(0.5)
    caller.list()
    caller.authenticate()
    (listed,) = caller.simulator.requests("list")
    token = caller.simulator.requests("token")[-1]
    assert listed.answered_at is not None
    assert token.answered_at is not None
    assert listed.answered_at - listed.received_at >= 0.5
    assert token.answered_at - token.received_at < 0.5


@pytest.mark.parametrize(("stage", "while_held"), [("before", []), ("after", ["test-hook1"])])
def test_a_held_request_waits_for_its_release(
    caller: Caller, background: ThreadPoolExecutor, stage: str, while_held: list[str]
) -> None:
    fault = caller.simulator.fault("create", hold=True, stage=stage)
    answer = background.submit(caller.create)
    (held,) = caller.simulator.wait_for_request("create", state="held")
    assert (held.fault, held.status, held.processed) == (fault, None, stage == "after")
    assert names(caller) == while_held
    assert not answer.done()
    caller.simulator.release(fault)
    assert answer.result(10).status_code == 200
    assert names(caller) == ["test-hook1"]


@pytest.mark.parametrize(("stage", "created"), [("before", []), ("after", ["test-hook1"])])
@pytest.mark.parametrize("how", ["release", "clear_faults", "reset"])
def test_a_held_request_can_be_let_go_without_an_answer(
    caller: Caller, background: ThreadPoolExecutor, stage: str, created: list[str], how: str
) -> None:
    fault = caller.simulator.fault("create", hold=True, stage=stage)
    answer = background.submit(caller.create)
    caller.simulator.wait_for_request("create", state="held")
    if how == "release":
        caller.simulator.release(fault, drop=True)
    else:
        getattr(caller.simulator, how)()
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result(10)
    if how != "reset":
        assert names(caller) == created


def test_a_request_whose_client_has_gone_is_carried_out_when_it_is_released(caller: Caller) -> None:
    fault = caller.simulator.fault("create", hold=True)
    with pytest.raises(httpx.ReadTimeout):
        caller.call(
            "POST", f"scaling_lifecycle_hook/{caller.group}", json=caller.hook(), timeout=httpx.Timeout(5, read=0.1)
        )
    caller.simulator.wait_for_request("create", state="held")
    assert names(caller) == []
    caller.simulator.release(fault)
    (logged,) = caller.simulator.wait_for_request("create", state="lost")
    assert (logged.status, logged.processed) == (None, True)
    assert names(caller) == ["test-hook1"]


def test_a_fault_counts_the_requests_that_it_meets(caller: Caller) -> None:
    caller.simulator.fault("list", status=503, count=2)
    assert [caller.list().status_code for _ in range(4)] == [503, 503, 200, 200]
    caller.simulator.fault("list", status=503, count=None)
    assert [caller.list().status_code for _ in range(4)] == [503] * 4
    assert [fault["left"] for fault in caller.simulator.faults()] == [0, None]
    caller.simulator.clear_faults()
    assert caller.list().status_code == 200


def test_faults_are_met_in_the_order_in_which_they_were_armed(caller: Caller) -> None:
    caller.simulator.fault("list")
    caller.simulator.fault("list", status=429)
    caller.simulator.fault("list", status=503)
    assert [caller.list().status_code for _ in range(4)] == [200, 429, 503, 200]


@pytest.mark.parametrize(
    "matcher",
    [
        {"operation": "get"},
        {"method": "GET", "path": "/test-hook1$"},
        {"hook_name": "test-hook1", "method": "GET"},
        {"path": "^/autoscaling-api/.*hook1"},
    ],
    ids=str,
)
def test_a_fault_meets_what_matches_and_nothing_else(caller: Caller, matcher: dict[str, Any]) -> None:
    caller.create()
    caller.simulator.fault(status=503, count=None, **matcher)
    assert caller.get().status_code == 503
    assert caller.list().status_code == 200
    assert caller.create(lifecycle_hook_name="other").status_code == 200
    assert caller.authenticate().status_code == 201


def test_a_fault_can_be_for_one_group_or_for_one_hook_by_the_name_in_the_body(caller: Caller) -> None:
    caller.simulator.fault(group_id=caller.group, status=503, count=None)
    caller.simulator.fault("create", hook_name="bad", status=504, count=None)
    other = caller.simulator.add_group()
    assert caller.create().status_code == 503
    assert caller.create(group=other).status_code == 200
    assert caller.create(group=other, lifecycle_hook_name="bad").status_code == 504


def test_a_fault_can_meet_a_share_of_what_matches_by_chance_and_the_same_for_the_same_seed(caller: Caller) -> None:
    def statuses(seed: int) -> list[int]:
        caller.simulator.clear_faults()
        caller.simulator.fault("list", status=503, count=None, share=0.3, seed=seed)
        return [caller.list().status_code for _ in range(100)]

    assert 15 < statuses(1).count(503) < 45
    assert statuses(1) == statuses(1) != statuses(2)


def test_iam_has_faults_as_well(caller: Caller) -> None:
    caller.simulator.fault("token", status=503)
    assert [caller.authenticate().status_code for _ in range(2)] == [503, 201]
    caller.simulator.fault("token", drop=True, stage="after")
    with pytest.raises(httpx.RemoteProtocolError):
        caller.authenticate()


@pytest.mark.parametrize(
    "fault",
    [
        {"code": "AS.9999"},
        {"status": 503, "drop": True},
        {"text": "no status"},
        {"path": "("},
        {"staeg": "after"},
        {"stage": "between"},
        {"count": 0},
        {"share": 0},
    ],
    ids=str,
)
def test_a_fault_that_makes_no_sense_is_refused(caller: Caller, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the simulator refused POST"):
        caller.simulator.fault("create", **fault)
