"""The operator's login: how often it asks IAM for a token, and what becomes of each way in which that can fail."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Iterable
from types import SimpleNamespace
from typing import Any, Self

import httpx
import pytest
from prometheus_client import REGISTRY

from lifecyclehook_operator.cloud import auth, singleflight
from lifecyclehook_operator.cloud.auth import LoginLimits
from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import (
    CallError,
    CredentialsError,
    TransientError,
    UnexpectedError,
    WaitingError,
)
from lifecyclehook_operator.cloud.transport import Http1Transport
from lifecyclehook_operator.controller.clients import ClientCache
from tests.support.simulator import Simulator

DEADLINE_SECONDS = 20
TOKEN = {"X-Subject-Token": "a-token-made-up-on-request"}
TIMES = {"issued_at": "2026-03-01T12:00:00.000000Z", "expires_at": "2026-03-02T12:00:00.000000Z"}


class Clock:
    """Our own clock, to be put forward by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


class Client:
    """A AutoScalingClient and the group that it is asked about."""

    def __init__(self, simulator: Simulator, limits: LoginLimits | None = None, **changes: Any) -> None:
        self.simulator = simulator
        self.group = simulator.add_group()
        self.project = AutoScalingClient(
            make_credentials(simulator, **changes), timeout_seconds=30, concurrency=16, login_limits=limits
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.project.aclose()

    async def list(self) -> list[Any]:
        """Make one call, never one that serves several."""
        return (await self.project.list_hooks(self.group, not_before=math.inf)).entries

    @property
    def logins(self) -> int:
        return len(self.simulator.requests("token"))


def make_credentials(simulator: Simulator, **changes: Any) -> Credentials:
    named = {name.removeprefix("OS_").lower(): value for name, value in simulator.credentials_env().items()}
    return Credentials.model_validate({**named, **changes})


async def gather_errors(calls: Iterable[Awaitable[Any]]) -> list[CallError]:
    """Make all calls at once, and return the errors that each of them ends in."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        assert isinstance(result, CallError), result
    return results  # type: ignore[return-value]


async def in_a_thread(call: Any, *arguments: Any, **named: Any) -> Any:
    """Ask the simulator without keeping our own requests from going on."""
    return await asyncio.to_thread(call, *arguments, **named)


def project_json(simulator: Simulator) -> dict[str, Any]:
    return {"id": simulator.project_id, "name": "eu-de_demo"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (auth, singleflight):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
async def client(simulator: Simulator, clock: Clock) -> AsyncIterator[Client]:
    async with Client(simulator) as client:
        yield client


@pytest.fixture
async def intruder(simulator: Simulator, clock: Clock) -> AsyncIterator[Client]:
    """A client that has a wrong password."""
    async with Client(simulator, password="wrong") as client:
        yield client


async def test_the_login_asks_for_a_token_of_the_project_with_the_password(client: Client) -> None:
    assert await client.project.get_project_id() == client.simulator.project_id
    (request,) = client.simulator.requests("token")
    assert (request.method, request.path, request.auth) == ("POST", "/v3/auth/tokens", None)
    domain = {"name": client.simulator.credentials_env()["OS_USER_DOMAIN_NAME"]}
    assert request.body == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "demo", "password": "***", "domain": domain}},
            },
            "scope": {"project": {"name": "eu-de_demo", "domain": domain}},
        }
    }


async def test_a_project_given_by_its_id_is_asked_for_by_it_alone(simulator: Simulator) -> None:
    project_id = simulator.add_project("eu-de_other")
    async with Client(simulator, project_id=project_id) as client:
        assert await client.project.get_project_id() == project_id
    (request,) = simulator.requests("token")
    assert request.body["auth"]["scope"] == {"project": {"id": project_id}}


@pytest.mark.parametrize("project", [{}, {"project_domain_name": "simulated-domain"}])
async def test_a_user_given_by_an_id_needs_no_domain(simulator: Simulator, project: dict[str, str]) -> None:
    user_id = simulator.add_user("by-id", "password-of-id")
    changes = {"user_id": user_id, "username": "nobody", "password": "password-of-id", "user_domain_name": ""}
    async with Client(simulator, **changes, **project) as client:
        assert await client.project.get_project_id() == simulator.project_id
    (request,) = simulator.requests("token")
    auth = request.body["auth"]
    assert auth["identity"]["password"]["user"] == {"id": user_id, "password": "***"}
    domain = {"domain": {"name": "simulated-domain"}} if project else {}
    assert auth["scope"] == {"project": {"name": "eu-de_demo", **domain}}


@pytest.mark.parametrize("suffix", ["/v3", "/v3/", "", "/"])
async def test_the_address_of_iam_may_be_given_with_and_without_its_version(simulator: Simulator, suffix: str) -> None:
    async with Client(simulator, auth_url=f"{simulator.url}{suffix}") as client:
        assert await client.project.get_project_id() == simulator.project_id


async def test_a_hundred_callers_at_once_wait_for_one_login(client: Client) -> None:
    assert await asyncio.gather(*(client.list() for _ in range(100))) == [[]] * 100
    assert client.logins == 1
    assert len(client.simulator.requests("list")) == 100


async def test_a_token_serves_call_after_call(client: Client, clock: Clock) -> None:
    for _ in range(5):
        await client.list()
        clock.advance(3600)
    assert client.logins == 1


async def test_equal_credentials_share_a_token_and_others_do_not(simulator: Simulator) -> None:
    simulator.add_user("other", "other-password")
    projects = ClientCache(timeout_seconds=5, concurrency=4)
    first, second = (projects.get(make_credentials(simulator)) for _ in range(2))
    other = projects.get(make_credentials(simulator, username="other", password="other-password"))
    await asyncio.gather(*(project.get_project_id() for project in (first, second, other)))
    assert len(simulator.requests("token")) == 2
    await projects.aclose()


@pytest.mark.parametrize(
    ("lifetime", "margin"),
    [(86400, 300), (3600, 300), (400, 100), (40, 10)],
)
@pytest.mark.parametrize("skew", [-600, 0, 600])
async def test_a_token_is_renewed_shortly_before_it_expires_however_wrong_a_clock_is(
    client: Client, clock: Clock, lifetime: float, margin: float, skew: float
) -> None:
    client.simulator.set_clock_skew(skew)
    client.simulator.set_token_lifetime(lifetime)
    await client.list()
    for seconds, logins in ((lifetime - margin - 1, 1), (lifetime - margin + 1, 2)):
        clock.advance(1000 + seconds - clock.now)
        client.simulator.set_clock_skew(skew + seconds)
        await client.list()
        assert client.logins == logins
    assert {request.status for request in client.simulator.requests("list")} == {200}


async def test_a_token_that_never_serves_for_long_does_not_keep_calls_from_being_made(client: Client) -> None:
    answer = {"token": {"project": project_json(client.simulator), **TIMES, "expires_at": TIMES["issued_at"]}}
    client.simulator.fault("token", status=201, json=answer, headers=TOKEN)
    assert await client.project.get_project_id() == client.simulator.project_id


async def test_a_refused_token_leads_to_one_new_token_and_one_repeat(client: Client) -> None:
    await client.list()
    client.simulator.revoke_tokens()
    await client.list()
    assert [(request.operation, request.status) for request in client.simulator.requests()] == [
        ("token", 201),
        ("list", 200),
        ("list", 401),
        ("token", 201),
        ("list", 200),
    ]


async def test_a_call_is_repeated_with_its_body(client: Client) -> None:
    await client.list()
    client.simulator.revoke_tokens()
    topic = client.simulator.add_topic("gsh")
    fields = {"lifecycle_hook_type": "INSTANCE_LAUNCHING", "notification_topic_urn": topic, "notification_metadata": ""}
    await client.project.create_hook(client.group, "h", fields)
    refused, repeated = client.simulator.requests("create")
    assert (refused.status, repeated.status) == (401, 200)
    assert refused.body == repeated.body


async def test_many_calls_that_are_refused_at_once_lead_to_one_new_token(client: Client) -> None:
    await client.list()
    client.simulator.revoke_tokens()
    assert await asyncio.gather(*(client.list() for _ in range(50))) == [[]] * 50
    assert client.logins == 2


@pytest.mark.parametrize("at_once", [200, 10, 1])
async def test_a_service_that_refuses_every_token_does_not_lead_to_a_flood_of_logins(
    client: Client, at_once: int
) -> None:
    client.simulator.fault("list", code="AS.0006", count=None)
    for _ in range(200 // at_once):
        for error in await gather_errors(client.list() for _ in range(at_once)):
            assert isinstance(error, CredentialsError)
            assert (error.reason, error.code) == ("AuthenticationFailed", "AS.0006")
    assert client.logins <= 2
    assert len(client.simulator.requests("list")) <= 200 + at_once


async def test_a_service_that_refuses_one_kind_of_call_and_answers_others_does_not_lead_to_a_flood_of_logins_either(
    client: Client,
) -> None:
    client.simulator.fault("list", code="AS.0006", count=None)
    for _ in range(50):
        refused, answered = await gather_errors([client.list(), client.project.delete_hook(client.group, "absent")])
        assert (refused.code, answered.code) == ("AS.0006", "AS.0007")
    assert client.logins <= 5


async def test_tokens_that_are_revoked_one_after_another_are_replaced_each_time(client: Client) -> None:
    for logins in (1, 2, 3):
        await client.list()
        assert client.logins == logins
        client.simulator.revoke_tokens()


async def test_a_service_that_takes_tokens_again_is_tried_with_a_new_one_after_a_minute(
    client: Client, clock: Clock
) -> None:
    await client.list()
    client.simulator.fault("list", code="AS.0006", count=2)
    await gather_errors([client.list()])
    client.simulator.revoke_tokens()
    await gather_errors([client.list()])
    assert client.logins == 2
    clock.advance(61)
    assert await client.list() == []
    assert client.logins == 3


async def test_a_login_that_is_refused_is_not_repeated_for_each_who_waits_for_it(
    intruder: Client, clock: Clock
) -> None:
    for _ in range(4):
        for error in await gather_errors(intruder.list() for _ in range(50)):
            assert isinstance(error, CredentialsError)
            assert (error.reason, error.operation, error.http_status) == ("AuthenticationFailed", "authenticate", 401)
            assert error.request_id
            assert "the login is tried again after 5 minutes, or at once when the credentials change" in error.message
            assert error.retry_after_seconds == pytest.approx(300 - (clock.now - 1000))
        clock.advance(74)
    assert intruder.logins == 1
    assert intruder.simulator.requests("list") == []
    clock.advance(5)
    await gather_errors([intruder.list()])
    assert intruder.logins == 2


async def test_a_login_goes_well_again_once_the_user_has_the_password(intruder: Client, clock: Clock) -> None:
    await gather_errors([intruder.list()])
    intruder.simulator.add_user("demo", "wrong")
    clock.advance(301)
    assert await intruder.list() == []


async def test_a_wrong_password_that_is_tried_again_and_again_does_not_lock_the_user(
    intruder: Client, clock: Clock
) -> None:
    for second in range(0, 3600, 30):
        clock.now = 1000.0 + second
        intruder.simulator.set_clock_skew(second)
        await gather_errors([intruder.list()])
    assert 10 <= intruder.logins <= 12
    async with Client(intruder.simulator) as client:
        assert await client.list() == []


async def test_credentials_that_change_are_tried_at_once_and_those_that_change_back_only_when_it_is_their_time(
    simulator: Simulator, clock: Clock
) -> None:
    projects = ClientCache(timeout_seconds=30, concurrency=4)
    wrong, right = make_credentials(simulator, password="wrong"), make_credentials(simulator)
    for credentials, logins in ((wrong, 1), (make_credentials(simulator, password="wrong"), 1), (right, 2), (right, 2)):
        is_right = credentials == right
        results = await asyncio.gather(projects.get(credentials).get_project_id(), return_exceptions=True)
        assert isinstance(results[0], str) == is_right
        assert len(simulator.requests("token")) == logins
    (error,) = await gather_errors([projects.get(wrong).get_project_id()])
    assert error.reason == "AuthenticationFailed"
    assert await projects.get(right).get_project_id() == simulator.project_id
    assert len(simulator.requests("token")) == 2
    await projects.aclose()


async def test_however_many_credentials_a_user_has_a_wrong_password_in_all_of_them_does_not_lock_the_user(
    simulator: Simulator, clock: Clock
) -> None:
    projects = ClientCache(timeout_seconds=30, concurrency=4)
    for number in range(10):
        simulator.add_project(f"eu-de_{number}")
    wrong = [make_credentials(simulator, password="wrong", project_name=f"eu-de_{number}") for number in range(10)]
    errors = await gather_errors(projects.get(credentials).get_project_id() for credentials in wrong)
    assert len(simulator.requests("token")) == 4
    assert {error.reason for error in errors} == {"AuthenticationFailed"}
    kept_back = [error for error in errors if error.http_status is None]
    assert len(kept_back) == 6
    for error in kept_back:
        assert "IAM has refused 4 logins of this user within 15 minutes" in error.message
        assert error.retry_after_seconds == 900
    simulator.add_user("other", "other-password")
    other = make_credentials(simulator, username="other", password="other-password")
    assert await projects.get(other).get_project_id() == simulator.project_id
    clock.advance(901)
    simulator.set_clock_skew(901)
    right = make_credentials(simulator)
    assert await projects.get(right).get_project_id() == simulator.project_id
    await projects.aclose()


@pytest.mark.parametrize(
    "body",
    [
        {"error_code": "IAM.0061", "error_msg": "The account is locked."},
        {"error": {"code": "IAM.0061", "message": "The account is locked."}},
        {"error": {"code": 401, "error_code": "IAM.0061", "message": "The account is locked."}},
    ],
)
async def test_a_locked_user_gets_its_own_advice(client: Client, body: dict[str, Any]) -> None:
    client.simulator.fault("token", status=401, json=body)
    (error,) = await gather_errors([client.list()])
    assert (error.reason, error.http_status) == ("AuthenticationFailed", 401)
    assert error.message.startswith("The account is locked; the login is tried again after 5 minutes")
    assert error.advice.startswith("By default, IAM locks a user for 15 minutes after 5 refused logins")


async def test_a_user_whom_somebody_else_locks_logs_in_again_when_the_lock_is_over(
    client: Client, clock: Clock
) -> None:
    simulator = client.simulator
    for _ in range(5):
        async with Client(simulator, password="wrong") as intruder:  # as another operator: it shares no limit
            await gather_errors([intruder.list()])
    (error,) = await gather_errors([client.list()])
    assert error.code == "IAM.0061"
    clock.advance(901)
    simulator.set_clock_skew(901)
    assert await client.list() == []


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (503, {}, 0.5),
        (503, {"Retry-After": "3"}, 3),
        (503, {"Retry-After": "3600"}, 5),
        (429, {"Retry-After": "3600"}, 5),
        (400, {}, 30),
        (403, {"Retry-After": "3600"}, 30),
        (404, {"Retry-After": "60"}, 60),
    ],
)
async def test_an_iam_that_fails_fails_all_who_wait_for_it_with_one_login_and_is_asked_again_soon(
    client: Client, clock: Clock, status: int, headers: dict[str, str], pause: float
) -> None:
    client.simulator.fault("token", status=status, headers=headers)
    for left in (float(headers.get("Retry-After", 0)), 0.1 * pause):
        for error in await gather_errors(client.list() for _ in range(50)):
            assert (error.operation, error.http_status) == ("authenticate", status)
            assert error.retry_after_seconds == (pytest.approx(min(left, 600)) if headers else None)
        clock.advance(0.9 * pause)
    assert client.logins == 1
    clock.advance(0.2 * pause)
    assert await client.list() == []
    assert client.logins == 2


async def test_a_login_that_is_held_back_is_not_counted_as_one_that_iam_denies(
    simulator: Simulator, clock: Clock
) -> None:
    def count(result: str) -> float:
        return REGISTRY.get_sample_value("lifecyclehook_token_requests_total", {"result": result}) or 0

    limits, before = LoginLimits(), count("denied")
    for number in range(6):
        simulator.add_project(f"eu-de_{number}")
        async with Client(simulator, limits, password="wrong", project_name=f"eu-de_{number}") as client:
            await gather_errors([client.list()])
    assert count("denied") - before == len(simulator.requests("token")) == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"password": "wrong"}, "AuthenticationFailed"),
        ({"username": "nobody"}, "AuthenticationFailed"),
        ({"user_domain_name": "nowhere"}, "AuthenticationFailed"),
        ({"project_name": "eu-de_nothing"}, "AuthenticationFailed"),
        ({"project_id": "nothing"}, "AuthenticationFailed"),
    ],
)
async def test_what_iam_does_not_know_is_a_matter_of_the_credentials(
    simulator: Simulator, changes: dict[str, str], reason: str
) -> None:
    async with Client(simulator, **changes) as client:
        (error,) = await gather_errors([client.list()])
    assert isinstance(error, CredentialsError)
    assert (error.reason, error.operation) == (reason, "authenticate")


@pytest.mark.parametrize(
    ("fault", "class_", "reason"),
    [
        ({"status": 400, "json": {"error": {"code": 400, "message": "bad scope"}}}, CredentialsError, "Credentials"),
        ({"status": 404, "json": {"error": {"code": 404, "message": "no project"}}}, CredentialsError, "Credentials"),
        ({"status": 401, "json": {"error": {"code": 401, "message": "no"}}}, CredentialsError, "Authentication"),
        ({"status": 403, "text": "no"}, WaitingError, "Forbidden"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, TransientError, "Throttled"),
        ({"status": 500}, TransientError, "CloudUnavailable"),
        ({"status": 502, "text": "<h1>no</h1>"}, TransientError, "CloudUnavailable"),
        ({"drop": True}, TransientError, "CloudUnavailable"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, UnexpectedError, "UnexpectedResponse"),
        ({"status": 200, "json": {}}, UnexpectedError, "UnexpectedResponse"),
    ],
    ids=str,
)
async def test_each_failure_of_iam_has_its_class(
    client: Client, fault: dict[str, Any], class_: type[CallError], reason: str
) -> None:
    client.simulator.fault("token", **fault)
    (error,) = await gather_errors([client.list()])
    assert isinstance(error, class_)
    assert error.reason.startswith(reason)
    assert error.operation == "authenticate"
    assert error.retry_after_seconds == {401: 300, 429: 7}.get(fault.get("status", 0))


async def test_a_refusal_of_iams_that_is_no_refusal_of_the_password_says_what_iam_said(client: Client) -> None:
    body = {"error": {"code": 404, "title": "Not Found", "message": "no such project"}}
    client.simulator.fault("token", status=404, json=body, headers={"X-Request-Id": "r-1"})
    (error,) = await gather_errors([client.list()])
    assert "no such project" in error.message
    assert "{" not in error.message
    assert error.request_id == "r-1"


@pytest.mark.parametrize("auth_url", ["http://127.0.0.1:1/v3", "https://127.0.0.1:1/v3"])
async def test_an_iam_that_cannot_be_reached_is_transient(simulator: Simulator, auth_url: str) -> None:
    async with Client(simulator, auth_url=auth_url) as client:
        (error,) = await gather_errors([client.list()])
    assert isinstance(error, TransientError)
    assert (error.reason, error.operation, error.http_status) == ("CloudUnavailable", "authenticate", None)
    assert "127.0.0.1" in error.message


GOOD_TOKEN = {"project": {"id": "p", "name": "eu-de_demo"}, **TIMES}


@pytest.mark.parametrize(
    "fault",
    [
        {"text": ""},
        {"text": "<html>"},
        {"text": '{"token": '},
        {"json": []},
        {"json": {}},
        {"json": {"token": None}},
        {"json": {"token": TIMES}},
        {"json": {"token": {**TIMES, "domain": {"id": "d", "name": "d"}}}},
        {"json": {"token": {**GOOD_TOKEN, "expires_at": "tomorrow"}}},
        {"json": {"token": {**GOOD_TOKEN, "expires_at": "2026-03-02T12:00:00"}}},
        {"json": {"token": {**GOOD_TOKEN, "issued_at": None}}},
        {"json": {"token": {**GOOD_TOKEN, "project": {"id": "p\u00e9", "name": "eu-de_demo"}}}},
        {"json": {"token": GOOD_TOKEN}, "headers": {}},
    ],
    ids=str,
)
async def test_a_token_that_is_not_the_documented_one_is_an_unexpected_response_and_is_not_shown(
    client: Client, clock: Clock, fault: dict[str, Any]
) -> None:
    client.simulator.fault("token", **{"status": 201, "headers": TOKEN, **fault})
    (error,) = await gather_errors([client.list()])
    assert isinstance(error, TransientError)
    assert (error.reason, error.operation, error.http_status) == ("UnexpectedResponse", "authenticate", 201)
    assert TOKEN["X-Subject-Token"] not in error.message
    clock.advance(1)
    assert await client.list() == []


@pytest.mark.parametrize(
    "url",
    [
        *("as", "https://[", "https://as:99999999", "https://xn--a", "http://as.example.com", "ftp://127.0.0.1"),
        pytest.param(f"https://as.example.com/{'a' * 70_000}", id="long"),
    ],
)
async def test_an_address_of_as_that_cannot_be_called_is_not_called(client: Client, url: str) -> None:
    services = [{"type": "asv1", "endpoints": [{"interface": "public", "region": "eu-de", "url": url}]}]
    token = {**GOOD_TOKEN, "catalog": services}
    client.simulator.fault("token", status=201, headers=TOKEN, json={"token": token})
    (error,) = await gather_errors([client.list()])
    assert isinstance(error, CredentialsError)
    assert (error.reason, error.operation) == ("CredentialsInvalid", "authenticate")
    assert "the AS endpoint for region 'eu-de' " in error.message


async def test_one_who_stops_waiting_does_not_take_the_login_from_the_others(client: Client) -> None:
    held = client.simulator.fault("token", hold=True)
    first, second = (asyncio.create_task(client.list()) for _ in range(2))
    await in_a_thread(client.simulator.wait_for_request, "token", state="held")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    client.simulator.release(held)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await second == []
    assert client.logins == 1


async def test_a_login_that_nobody_waits_for_any_more_serves_the_next(client: Client) -> None:
    held = client.simulator.fault("token", hold=True)
    task = asyncio.create_task(client.list())
    await in_a_thread(client.simulator.wait_for_request, "token", state="held")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    client.simulator.release(held)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await client.list() == []
    assert client.logins == 1


async def test_neither_token_nor_password_is_ever_logged(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {"a-wrong-password", "the-users-password"}
    send = Http1Transport.handle_async_request

    async def note(self: Http1Transport, request: httpx.Request) -> httpx.Response:
        response = await send(self, request)
        secrets.update(filter(None, [response.headers.get("X-Subject-Token")]))
        return response

    monkeypatch.setattr(Http1Transport, "handle_async_request", note)
    simulator.add_user("demo", "the-users-password")
    async with (
        Client(simulator, password="the-users-password") as client,
        Client(simulator, password="a-wrong-password") as intruder,
    ):
        await client.list()
        simulator.revoke_tokens()
        await client.list()
        simulator.fault("list", code="AS.0006", count=None)
        for each in (client, intruder):
            (error,) = await gather_errors([each.list()])
            logging.getLogger("test").error("%r", each.project, exc_info=error)
    assert len(secrets) >= 4
    assert "Logged in to project eu-de_demo" in caplog.text
    for record in caplog.records:
        shown = f"{record.getMessage()} {record.args} {record.exc_text}"
        assert [secret for secret in secrets if secret in shown] == [], record.name


async def test_the_connection_to_iam_is_verified(simulator: Simulator) -> None:
    async with Client(simulator, auth_url=simulator.url.replace("http://", "https://")) as client:
        (error,) = await gather_errors([client.list()])
    assert isinstance(error, TransientError)
    assert isinstance(error.__cause__, httpx.ConnectError)
