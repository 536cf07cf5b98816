"""The operator's calls about suspended instances: exactly the documented requests, and how the answers are read."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CallError, TransientError, UnexpectedError, WaitingError
from lifecyclehook_operator.cloud.instances import Suspension, Suspensions
from tests.support.simulator import Simulator

GROUP, HOOK = "suspending", "drain"
ENTRY = {
    "instance_id": "i-1",
    "scaling_group_id": GROUP,
    "lifecycle_hook_name": HOOK,
    "lifecycle_action_key": "key-1",
    "default_result": "ABANDON",
    "timeout": "2026-11-24T10:00:00Z",
    "lifecycle_hook_status": "HANGING",
}
#: How the simulated cloud and the operator name the calls.
NAMES = {"list_hanging": "list_suspensions", "callback": "callback"}
PATH = f"scaling_instance_hook/{GROUP}"


def connect(simulator: Simulator, **changes: str) -> AutoScalingClient:
    named = {name.removeprefix("OS_").lower(): value for name, value in simulator.credentials_env().items()}
    credentials = Credentials.model_validate({**named, **changes})
    return AutoScalingClient(credentials, timeout_seconds=5, concurrency=16)


@pytest.fixture
async def client(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AutoScalingClient]:
    monkeypatch.setenv("NO_PROXY", "*")
    simulator.add_group(GROUP)
    for name in (HOOK, "other"):
        simulator.put_hook(
            GROUP, name, lifecycle_hook_type="INSTANCE_TERMINATING", notification_topic_urn="urn:smn:r:p"
        )
    client = connect(simulator)
    yield client
    await client.aclose()


async def look(client: AutoScalingClient) -> Suspensions:
    return await client.list_suspensions(GROUP, not_before=time.monotonic())


async def call(client: AutoScalingClient, operation: str) -> None:
    await (look(client) if operation == "list_hanging" else client.call_back(GROUP, "key", "CONTINUE"))


async def fail(client: AutoScalingClient, operation: str) -> CallError:
    with pytest.raises(CallError) as caught:
        await call(client, operation)
    return caught.value


def answer(simulator: Simulator, *entries: Any) -> None:
    simulator.fault("list_hanging", status=200, json={"instance_hanging_info": [*entries]})


async def test_the_list_call_asks_for_all_of_a_group_and_reads_each_hooks_own(
    client: AutoScalingClient, simulator: Simulator
) -> None:
    key = simulator.add_hanging_instance(GROUP, HOOK, "i-1")
    ended = simulator.add_hanging_instance(GROUP, HOOK, "i-2")
    simulator.update_hanging_instance(GROUP, ended, lifecycle_hook_status="CONTINUE")
    simulator.add_hanging_instance(GROUP, "other", "i-1")
    suspensions = await look(client)
    (request,) = simulator.requests("list_hanging")
    assert (request.method, request.path) == ("GET", f"/autoscaling-api/v1/{simulator.project_id}/{PATH}/list")
    assert (request.query, request.body) == ({}, None)
    first, second = suspensions.of_hook(HOOK)
    assert (first.instance_id, first.lifecycle_action_key, first.default_result) == ("i-1", key, "ABANDON")
    assert timedelta(minutes=59) < first.timeout - datetime.now(UTC) <= timedelta(hours=1)
    assert [each.is_hanging for each in (first, second)] == [True, False]
    assert [each.lifecycle_hook_name for each in suspensions.hanging()] == [HOOK, "other"]


@pytest.mark.parametrize("result", ["CONTINUE", "ABANDON", "EXTEND"])
async def test_a_callback_sends_the_key_and_the_result_and_nothing_else(
    client: AutoScalingClient, simulator: Simulator, result: str
) -> None:
    key = simulator.add_hanging_instance(GROUP, HOOK, "i-1")
    await client.call_back(GROUP, key, result)
    (request,) = simulator.requests("callback")
    assert (request.method, request.path) == ("PUT", f"/autoscaling-api/v1/{simulator.project_id}/{PATH}/callback")
    assert request.body == {"lifecycle_action_key": "***", "lifecycle_action_result": result}
    (suspension,) = (await look(client)).of_hook(HOOK)
    assert suspension.lifecycle_hook_status == ("HANGING" if result == "EXTEND" else result)


async def test_one_list_call_serves_all_who_ask_at_about_the_same_time(
    client: AutoScalingClient, simulator: Simulator
) -> None:
    begin = time.monotonic()
    await asyncio.gather(*(client.list_suspensions(GROUP, not_before=begin) for _ in range(20)))
    assert len(simulator.requests("list_hanging")) == 1
    await look(client)
    assert len(simulator.requests("list_hanging")) == 2


async def test_a_callback_for_what_does_not_hang_is_refused(client: AutoScalingClient) -> None:
    error = await fail(client, "callback")
    assert (error.code, error.operation, error.outcome_unknown) == ("AS.7042", "callback", False)


@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"code": "AS.2007"}, (WaitingError, "GroupNotFound")),
        ({"code": "AS.0001"}, (TransientError, "CloudUnavailable")),
        ({"status": 429}, (TransientError, "Throttled")),
        ({"status": 403}, (WaitingError, "Forbidden")),
        ({"status": 404}, (UnexpectedError, "UnexpectedResponse")),
        ({"code": "AS.7034"}, (UnexpectedError, "UnexpectedResponse")),
        ({"drop": True, "stage": "after", "count": 2}, (TransientError, "CloudUnavailable")),
    ],
    ids=str,
)
async def test_a_refusal_is_classed_as_for_the_hooks(
    client: AutoScalingClient, simulator: Simulator, operation: str, fault: dict[str, Any], expected: tuple[type, str]
) -> None:
    simulator.fault(operation, **fault)
    error = await fail(client, operation)
    assert (type(error), error.reason) == expected
    assert (error.operation, error.code) == (NAMES[operation], fault.get("code", ""))


@pytest.mark.parametrize(
    ("operation", "right"), [("list_hanging", "as:instanceHooks:list"), ("callback", "as:instanceHooks:action")]
)
@pytest.mark.usefixtures("client")
async def test_the_right_that_is_missing_is_named(simulator: Simulator, operation: str, right: str) -> None:
    simulator.add_user("limited", "limited-password", permissions=["as:lifecycleHooks:list"])
    limited = connect(simulator, username="limited", password="limited-password")
    error = await fail(limited, operation)
    await limited.aclose()
    assert (error.reason, error.code) == ("Forbidden", "AS.0031")
    assert error.advice == f"Grant the user the right {right} in this project."


@pytest.mark.parametrize("body", [{}, {"instance_hanging_info": None}, {"instance_hanging_info": []}], ids=str)
async def test_a_group_may_have_no_suspended_instances(
    client: AutoScalingClient, simulator: Simulator, body: dict[str, Any]
) -> None:
    simulator.fault("list_hanging", status=200, json=body)
    assert (await look(client)).of_hook(HOOK) == []


@pytest.mark.parametrize(
    "answered",
    [
        {"text": "no JSON"},
        {"text": "[" * 100_000},
        {"json": []},
        {"json": {"error": {}}},
        {"json": {"error_code": "APIGW.0101"}},
        {"json": {"instance_hanging_info": {}}},
    ],
    ids=lambda answered: str(answered)[:50],
)
async def test_an_answer_that_is_not_the_documented_one_is_no_empty_list(
    client: AutoScalingClient, simulator: Simulator, answered: dict[str, Any]
) -> None:
    simulator.fault("list_hanging", status=200, **answered)
    error = await fail(client, "list_hanging")
    assert isinstance(error, TransientError)
    assert error.reason == "UnexpectedResponse"


ODD = [
    {key: value for key, value in ENTRY.items() if key != "lifecycle_action_key"},
    ENTRY | {"timeout": "tomorrow"},
    ENTRY | {"timeout": "0001-01-01T00:00:00+14:00"},
    ENTRY | {"instance_id": ""},
    ENTRY | {"instance_id": "i" * 257},
    ENTRY | {"default_result": None},
    ENTRY | {"lifecycle_hook_name": None},
    ENTRY | {"lifecycle_hook_name": 7},
    "no entry",
    None,
]


@pytest.mark.parametrize("odd", ODD, ids=str)
async def test_an_odd_entry_is_the_trouble_of_the_hook_that_it_may_be_of(
    client: AutoScalingClient, simulator: Simulator, odd: Any
) -> None:
    answer(simulator, odd, ENTRY | {"lifecycle_hook_name": "other", "instance_id": "i-2"})
    suspensions = await look(client)
    assert [each.instance_id for each in suspensions.hanging()] == ["i-2"]
    with pytest.raises(TransientError, match=r"unexpected response: instance_hanging_info\b.*: "):
        suspensions.of_hook(HOOK)
    if isinstance(odd, dict) and odd["lifecycle_hook_name"] == HOOK:
        assert [each.instance_id for each in suspensions.of_hook("other")] == ["i-2"]


@pytest.mark.parametrize("moment", ["2026-11-24T10:00:00Z", "2026-11-24T10:00:00", "2026-11-24T12:00:00+02:00"])
async def test_a_timeout_is_in_utc(client: AutoScalingClient, simulator: Simulator, moment: str) -> None:
    answer(simulator, ENTRY | {"timeout": moment})
    (suspension,) = (await look(client)).of_hook(HOOK)
    assert suspension.timeout == datetime(2026, 11, 24, 10, tzinfo=UTC)


async def test_what_is_not_known_is_tolerated(client: AutoScalingClient, simulator: Simulator) -> None:
    answer(simulator, ENTRY | {"lifecycle_hook_status": "PAUSED", "default_result": "RETRY", "more": 1})
    (suspension,) = (await look(client)).of_hook(HOOK)
    assert (suspension.lifecycle_hook_status, suspension.is_hanging) == ("PAUSED", False)


def test_the_key_is_not_shown_where_a_suspension_is_printed() -> None:
    assert "key-1" not in repr(Suspension.model_validate(ENTRY))
