"""A cloud that answers as no cloud should: no memory is filled, no call held, nothing is taken for what it is not."""

import asyncio
import gc
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from lifecyclehook_operator.cloud.auth import LoginLimits
from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CallError, TransientError
from tests.contract.hostile import (
    ANSWERS,
    HOOK,
    MIB,
    HostileServer,
    answers,
    delayed,
    memory,
    response,
    run_hostile_server,
    with_hook,
)

TIMEOUT_SECONDS = 1.5
#: For an answer that something else than the deadline ends, on a busy machine too.
LONG_TIMEOUT_SECONDS = 15
#: Beyond the deadline, on a busy machine.
SLACK_SECONDS = 2
MEMORY_LIMIT_BYTES = 50 * MIB
FIELDS = {name: value for name, value in HOOK.items() if name != "lifecycle_hook_name"}


def forget_peak() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with run_hostile_server() as server:
        yield server


@pytest.fixture(scope="module")
def memory_before() -> Iterator[int]:
    """Return how much memory is in use before the first of these tests. After all of them it is about the same."""
    gc.collect()
    before = memory("VmRSS")
    yield before
    gc.collect()
    assert memory("VmRSS") - before < MEMORY_LIMIT_BYTES


@asynccontextmanager
async def connect(
    url: str, *, limits: LoginLimits | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> AsyncIterator[AutoScalingClient]:
    values = {"username": "u", "password": "p", "user_domain_name": "d", "project_name": "eu-de", "auth_url": url}
    credentials = Credentials.model_validate(values)
    client = AutoScalingClient(credentials, timeout_seconds=timeout_seconds, concurrency=4, login_limits=limits)
    try:
        yield client
    finally:
        await client.aclose()


async def list_hook(client: AutoScalingClient) -> object:
    return (await client.list_hooks("group", not_before=math.inf)).find("hook")


CALLS: dict[str, Callable[[AutoScalingClient], Coroutine[Any, Any, object]]] = {
    "create": lambda client: client.create_hook("group", "hook", {**FIELDS, "notification_metadata": ""}),
    "list": list_hook,
    "token": AutoScalingClient.get_project_id,
}


async def fail(client: AutoScalingClient, operation: str) -> CallError | None:
    """Return the error that a call ends in, or None."""
    try:
        await CALLS[operation](client)
    except CallError as error:
        return error
    return None


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("kind", ANSWERS)
async def test_no_answer_fills_the_memory_holds_a_call_or_is_taken_for_what_it_is_not(
    server: HostileServer, memory_before: int, kind: str, operation: str
) -> None:
    answer, reasons = ANSWERS[kind]
    timeout_seconds = TIMEOUT_SECONDS if reasons[operation] == "CloudUnavailable" else LONG_TIMEOUT_SECONDS
    forget_peak()
    async with connect(server.url, timeout_seconds=timeout_seconds) as client:
        if operation != "token":
            await client.get_project_id()
        server.answer, server.is_iam_hostile = answer, True
        begin = time.monotonic()
        error = await fail(client, operation)
        assert time.monotonic() - begin < timeout_seconds + SLACK_SECONDS
    assert (error.reason if error else "") == reasons[operation]
    if error is not None:
        assert error.operation == ("authenticate" if operation == "token" else operation)
        assert error.message.isprintable()
        assert error.outcome_unknown == (isinstance(error, TransientError))
    assert memory("VmHWM") - memory_before < MEMORY_LIMIT_BYTES
    assert len(server.requests) <= 2


def test_there_are_at_least_nineteen_kinds() -> None:
    assert len(ANSWERS) >= 19


async def test_a_compressed_body_is_not_asked_for(server: HostileServer) -> None:
    server.answer = answers(response({"lifecycle_hooks": []}))
    async with connect(server.url) as client:
        await list_hook(client)
    assert [request.headers["accept-encoding"] for request in server.requests] == ["identity", "identity"]


async def test_what_a_body_is_compressed_with_is_no_matter_if_there_is_none(server: HostileServer) -> None:
    server.answer = answers(response("", status="204 None", headers={"Content-Encoding": "gzip"}))
    async with connect(server.url) as client:
        await client.delete_hook("group", "hook")


async def test_cookies_are_not_kept(server: HostileServer) -> None:
    server.answer = answers(response({"lifecycle_hooks": []}, headers={"Set-Cookie": "a=b; Path=/"}))
    async with connect(server.url) as client:
        await list_hook(client)
        await list_hook(client)
    assert len(server.requests) == 3
    assert not any("cookie" in request.headers for request in server.requests)


async def test_a_redirect_is_not_followed(server: HostileServer) -> None:
    server.answer = answers(response("", status="307 Elsewhere", headers={"Location": f"{server.url}/elsewhere"}))
    async with connect(server.url) as client:
        for operation in ("list", "create"):
            assert await fail(client, operation)
    assert "/elsewhere" not in [request.path for request in server.requests]
    assert len(server.requests) == 3


@pytest.mark.parametrize("operation", ["create", "list"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_call_that_could_not_connect_before_the_deadline_has_had_no_effect_for_sure(
    server: HostileServer, scheme: str, operation: str
) -> None:
    """The queue of a listening socket is full (http), or nobody answers the TLS handshake (https)."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, socket.socket() as first:
        address = listening.getsockname()
        if scheme == "http":
            first.connect(address)
        server.catalog_url = "{}://{}:{}".format(scheme, *address)
        async with connect(server.url) as client:
            await client.get_project_id()
            begin = time.monotonic()
            error = await fail(client, operation)
            assert time.monotonic() - begin < TIMEOUT_SECONDS + SLACK_SECONDS
    assert isinstance(error, TransientError)
    assert (error.reason, error.outcome_unknown) == ("CloudUnavailable", False)


async def test_the_renewal_of_a_token_has_a_deadline_of_its_own(server: HostileServer) -> None:
    """Each answer takes more than a third of the time that a call has: a login between them does not count."""
    seconds = 0.4 * TIMEOUT_SECONDS
    refused = response({"error": {"code": "AS.0006"}}, status="401 No")
    server.answer = delayed(seconds, refused, response({"lifecycle_hooks": [HOOK]}))
    async with connect(server.url) as client:
        await client.get_project_id()
        server.login_seconds = 0.9 * TIMEOUT_SECONDS
        assert await list_hook(client) is not None
    assert [request.method for request in server.requests] == ["POST", "GET", "POST", "GET"]


async def test_a_call_does_not_outlast_its_deadline_for_having_renewed_a_token(server: HostileServer) -> None:
    refused = response({"error": {"code": "AS.0006"}}, status="401 No")
    server.answer = delayed(0.6 * TIMEOUT_SECONDS, refused, response({"lifecycle_hooks": [HOOK]}))
    async with connect(server.url) as client:
        await client.get_project_id()
        server.login_seconds = 0.6 * TIMEOUT_SECONDS
        error = await fail(client, "list")
    assert error is not None
    assert (error.reason, error.operation, error.outcome_unknown) == ("CloudUnavailable", "list", True)


async def test_a_call_whose_token_is_not_renewed_in_time_fails_for_the_login(server: HostileServer) -> None:
    server.answer = answers(response({"error": {"code": "AS.0006"}}, status="401 No"))
    async with connect(server.url) as client:
        await client.get_project_id()
        server.login_seconds = 60
        begin = time.monotonic()
        error = await fail(client, "create")
        assert time.monotonic() - begin < TIMEOUT_SECONDS + SLACK_SECONDS
    assert isinstance(error, TransientError)
    assert (error.reason, error.operation) == ("CloudUnavailable", "authenticate")


async def test_logins_of_a_user_do_not_wait_for_one_that_hangs_for_longer_than_a_login_may_take(
    server: HostileServer,
) -> None:
    server.login_seconds = 60
    limits = LoginLimits()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server.url, limits=limits)) for _ in range(10)]
        begin = time.monotonic()
        errors = await asyncio.gather(*(fail(client, "token") for client in clients))
        assert time.monotonic() - begin < 2 * TIMEOUT_SECONDS + SLACK_SECONDS
    assert {type(error) for error in errors} == {TransientError}


@pytest.mark.parametrize("operation", ["create", "list"])
async def test_what_is_kept_of_a_hook_can_be_shown(server: HostileServer, operation: str) -> None:
    server.answer = with_hook(
        lifecycle_hook_type="INSTANCE_LAUNCHING\u200b",
        default_result="\x1b[31mABANDON",
        notification_topic_urn="urn:" + "x" * 10_000,
        notification_topic_name="one\nline\u202e",
        notification_metadata="two\nlines" + "!" * 600,
        create_time="2019\0-03",
    )
    async with connect(server.url) as client:
        hook: Any = await CALLS[operation](client)
    assert hook.lifecycle_hook_type == "INSTANCE_LAUNCHING\ufffd"
    assert hook.default_result == "\ufffd[31mABANDON"
    assert hook.notification_topic_urn == "urn:" + "x" * 507 + "…"
    assert hook.notification_topic_name == "one line\ufffd"
    assert hook.notification_metadata == "two lines" + "!" * 502 + "…"
    assert hook.create_time == "2019\ufffd-03"


async def test_metadata_that_a_spec_may_ask_for_stays_as_it_is(server: HostileServer) -> None:
    metadata = "two\nlines\u200d" + "!" * 246
    server.answer = with_hook(notification_metadata=metadata)
    async with connect(server.url) as client:
        hook: Any = await list_hook(client)
    assert hook.notification_metadata == metadata


async def test_a_name_is_not_taken_for_another_because_it_looks_like_it(server: HostileServer) -> None:
    server.answer = with_hook(lifecycle_hook_name="hook\u200b")
    async with connect(server.url) as client:
        assert await list_hook(client) is None
        error = await fail(client, "create")
    assert error is not None
    assert (error.reason, error.outcome_unknown) == ("UnexpectedResponse", True)


async def test_what_iam_calls_a_project_is_one_line_of_the_log(
    server: HostileServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.project_name = "eu-de_web\nERROR\u202e\x1b[31m" + "x" * 1000
    async with connect(server.url) as client:
        await client.get_project_id()
    (line,) = (each for each in caplog.messages if "Logged in" in each)
    assert line.startswith("Logged in to project eu-de_web ERROR\ufffd[31mxxx")
    assert line.isprintable()
    assert len(line) < 400


async def test_codes_that_are_made_up_are_one_in_the_metrics(server: HostileServer) -> None:
    async with connect(server.url) as client:
        for number in range(3):
            body = {"error": {"code": f"AS.{number}", "message": "no"}}
            server.answer = answers(response(body, status="444 No"))
            error = await fail(client, "list")
            assert error is not None
            assert error.code == f"AS.{number}"
    series = {"operation": "list", "code": "444"}
    assert REGISTRY.get_sample_value("lifecyclehook_as_requests_total", {**series, "error_code": "other"}) == 3
    assert REGISTRY.get_sample_value("lifecyclehook_as_requests_total", {**series, "error_code": "AS.0"}) is None


@pytest.mark.parametrize(
    "date",
    ["", "soon", "Wed, 21 Oct 9999999999999999999 07:28:00 GMT", "9" * 5000],
    ids=["empty", "text", "year", "digits"],
)
async def test_a_clock_that_shows_no_time_is_not_read(server: HostileServer, date: str) -> None:
    server.answer = answers(response({"instance_hanging_info": []}, headers={"Date": date}))
    async with connect(server.url) as client:
        suspensions = await client.list_suspensions("group", not_before=math.inf)
    assert abs(suspensions.listed_at - datetime.now(UTC)) < timedelta(minutes=1)
