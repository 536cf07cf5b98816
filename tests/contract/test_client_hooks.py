"""The operator's calls of AS: exactly the documented requests, where they go, and how the answers are read."""

import asyncio
import gc
import json
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import pytest
from pydantic.alias_generators import to_camel

from lifecyclehook_operator.api.v1alpha1 import Hook
from lifecyclehook_operator.cloud.client import AutoScalingClient, Listing
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CallError, TransientError, UnexpectedError, WaitingError
from lifecyclehook_operator.cloud.transport import Http1Transport
from tests.support.simulator import Simulator

DEADLINE_SECONDS = 20
ANSWER = {
    "lifecycle_hook_name": "test-hook1",
    "lifecycle_hook_type": "INSTANCE_LAUNCHING",
    "default_result": "ABANDON",
    "default_timeout": 3600,
    "notification_topic_urn": "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh",
    "notification_topic_name": "gsh",
    "notification_metadata": None,
    "create_time": "2019-03-18T16:00:11Z",
}
OPERATIONS = ["create", "list", "modify", "delete"]


class Client:
    """A AutoScalingClient, a group with room for hooks, and a topic."""

    def __init__(self, simulator: Simulator, *, timeout_seconds: float = 5, **changes: Any) -> None:
        named = {name.removeprefix("OS_").lower(): value for name, value in simulator.credentials_env().items()}
        credentials = Credentials.model_validate({**named, **changes})
        self.simulator = simulator
        self.project = AutoScalingClient(credentials, timeout_seconds=timeout_seconds, concurrency=16)
        self.group = simulator.add_group()
        self.topic = simulator.add_topic("gsh")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.project.aclose()

    @property
    def path(self) -> str:
        """The path of the group's hooks, as the reference has it."""
        return f"/autoscaling-api/v1/{self.simulator.project_id}/scaling_lifecycle_hook/{self.group}"

    def fields(self, **changes: Any) -> dict[str, Any]:
        return {
            "lifecycle_hook_type": "INSTANCE_LAUNCHING",
            "default_result": "ABANDON",
            "default_timeout": 3600,
            "notification_topic_urn": self.topic,
            "notification_metadata": "",
            **changes,
        }

    async def create(self, name: str = "test-hook1", **changes: Any) -> Hook:
        return await self.project.create_hook(self.group, name, self.fields(**changes))

    async def list(self) -> Listing:
        """Make one call, never one that serves several."""
        return await self.project.list_hooks(self.group, not_before=math.inf)

    async def find(self, name: str = "test-hook1") -> Hook | None:
        return (await self.list()).find(name)

    async def call(self, operation: str) -> Any:
        calls = {
            "create": self.create,
            "list": self.find,
            "modify": lambda: self.project.modify_hook(self.group, "test-hook1", {"default_timeout": 60}),
            "delete": lambda: self.project.delete_hook(self.group, "test-hook1"),
        }
        return await calls[operation]()

    async def fail(self, operation: str) -> CallError:
        with pytest.raises(CallError) as caught:
            await self.call(operation)
        return caught.value


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Client]:
    async with Client(simulator) as client:
        yield client


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that are called; none outside the loopback interface is really."""
    called: list[str] = []
    send = Http1Transport.handle_async_request

    async def note(self: Http1Transport, request: httpx.Request) -> httpx.Response:
        called.append(str(request.url))
        if request.url.host != "127.0.0.1":
            raise httpx.ConnectError("not in a test", request=request)
        return await send(self, request)

    monkeypatch.setattr(Http1Transport, "handle_async_request", note)
    return called


async def test_create_sends_what_the_reference_says_and_reads_all_that_is_answered(client: Client) -> None:
    hook = await client.create()
    (request,) = client.simulator.requests("create")
    assert (request.method, request.path, request.query, request.auth) == ("POST", client.path, {}, "token")
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "lifecycle_hook_name": "test-hook1",
        "lifecycle_hook_type": "INSTANCE_LAUNCHING",
        "default_result": "ABANDON",
        "default_timeout": 3600,
        "notification_topic_urn": client.topic,
    }
    (stored,) = client.simulator.hooks(client.group)
    assert hook == Hook.model_validate(stored)
    assert (hook.notification_topic_name, hook.notification_metadata) == ("gsh", "")


async def test_create_sends_metadata_where_there_is_some(client: Client) -> None:
    metadata = 'größer, "quoted", 100 %\n👍'
    assert (await client.create(notification_metadata=metadata)).notification_metadata == metadata
    (request,) = client.simulator.requests("create")
    assert request.body["notification_metadata"] == metadata


async def test_list_asks_for_the_hooks_of_the_group_and_reads_them_all(client: Client) -> None:
    created = [await client.create(name) for name in ("a", "list")]
    listing = await client.list()
    assert [listing.find(name) for name in ("a", "list", "b")] == [*created, None]
    (request,) = client.simulator.requests("list")
    assert (request.method, request.path, request.query) == ("GET", f"{client.path}/list", {})
    assert request.body is None
    assert "content-type" not in request.headers


async def test_a_group_may_have_no_hooks(client: Client) -> None:
    assert (await client.list()).entries == []


@pytest.mark.parametrize(
    "changes",
    [{"default_timeout": 60}, {"default_result": "CONTINUE", "notification_metadata": ""}],
)
async def test_modify_sends_the_changed_fields_alone_and_reads_the_answer(
    client: Client, changes: dict[str, Any]
) -> None:
    await client.create(notification_metadata="before")
    hook = await client.project.modify_hook(client.group, "test-hook1", changes)
    (request,) = client.simulator.requests("modify")
    assert (request.method, request.path) == ("PUT", f"{client.path}/test-hook1")
    assert request.body == changes
    assert hook.hook_fields() == client.fields(notification_metadata="before") | changes


async def test_delete_sends_nothing_but_the_name(client: Client) -> None:
    await client.create()
    await client.project.delete_hook(client.group, "test-hook1")
    (request,) = client.simulator.requests("delete")
    assert (request.method, request.path, request.status) == ("DELETE", f"{client.path}/test-hook1", 204)
    assert request.body is None
    assert client.simulator.hooks(client.group) == []


async def test_a_call_is_one_request_besides_the_login(client: Client) -> None:
    for operation in OPERATIONS:
        await client.call(operation)
    assert [request.operation for request in client.simulator.requests()] == ["token", *OPERATIONS]


async def test_connections_are_kept_and_few(client: Client) -> None:
    await asyncio.gather(*(client.list() for _ in range(100)))
    assert len({request.client for request in client.simulator.requests()}) <= 33


async def test_a_listing_serves_all_who_ask_at_about_the_same_time(client: Client) -> None:
    await client.create()
    begin = time.monotonic()
    listings = await asyncio.gather(*(client.project.list_hooks(client.group, not_before=begin) for _ in range(20)))
    assert await client.project.list_hooks(client.group, not_before=begin) is listings[0]
    assert len(client.simulator.requests("list")) == 1


async def test_a_listing_does_not_serve_who_must_see_what_came_after_it(client: Client) -> None:
    await client.project.list_hooks(client.group, not_before=time.monotonic())
    await client.create()
    assert (await client.project.list_hooks(client.group, not_before=time.monotonic())).find("test-hook1")


async def test_a_listing_of_one_group_does_not_serve_another(client: Client) -> None:
    await client.create()
    other = client.simulator.add_group()
    begin = time.monotonic()
    groups = (client.group, other)
    listings = await asyncio.gather(*(client.project.list_hooks(group, not_before=begin) for group in groups))
    assert [len(listing.entries) for listing in listings] == [1, 0]


async def test_a_listing_that_fails_fails_all_who_wait_for_it_and_is_made_again_for_the_next(client: Client) -> None:
    client.simulator.fault("list", status=503)
    begin = time.monotonic()
    calls = (client.project.list_hooks(client.group, not_before=begin) for _ in range(5))
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, TransientError)
    assert len(client.simulator.requests("list")) == 1
    assert (await client.project.list_hooks(client.group, not_before=time.monotonic())).entries == []


async def test_one_who_stops_waiting_does_not_take_the_listing_from_the_others(client: Client) -> None:
    held = client.simulator.fault("list", hold=True)
    begin = time.monotonic()
    first, second = (asyncio.create_task(client.project.list_hooks(client.group, not_before=begin)) for _ in range(2))
    await asyncio.to_thread(client.simulator.wait_for_request, "list", state="held")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    client.simulator.release(held)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await second).entries == []
    assert len(client.simulator.requests("list")) == 1


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({}, "{simulator}/autoscaling-api/v1/{project}"),
        ({"region_name": ""}, "{simulator}/autoscaling-api/v1/{project}"),
        ({"region_name": "eu-nl"}, "https://as.eu-nl.otc.t-systems.com/autoscaling-api/v1/{project}"),
        ({"region_name": "eu-ch2"}, "https://as.eu-ch2.sc.otc.t-systems.com/autoscaling-api/v1/{project}"),
        ({"as_endpoint": "https://as.example.com"}, "https://as.example.com/autoscaling-api/v1/{project}"),
        ({"as_endpoint": "https://as.example.com/"}, "https://as.example.com/autoscaling-api/v1/{project}"),
        ({"as_endpoint": "https://as.example.com:8443/as"}, "https://as.example.com:8443/as/autoscaling-api/v1/{project}"),
        ({"as_endpoint": "https://as.example.com/autoscaling-api/v1"}, "https://as.example.com/autoscaling-api/v1/{project}"),
        ({"as_endpoint": "https://as.example.com/autoscaling-api/v1/"}, "https://as.example.com/autoscaling-api/v1/{project}"),
        ({"as_endpoint": "https://as.example.com/autoscaling-api/v1/p-1"}, "https://as.example.com/autoscaling-api/v1/p-1"),
        ({"as_endpoint": "https://as.example.com/autoscaling-api/v1/p-1/"}, "https://as.example.com/autoscaling-api/v1/p-1"),
        ({"as_endpoint": "https://as.example.com/autoscaling-api/v1/%(project_id)s"}, "https://as.example.com/autoscaling-api/v1/{project}"),
    ],
)  # fmt: skip
async def test_as_is_called_where_the_override_or_the_catalog_or_the_region_says(
    simulator: Simulator, called: list[str], changes: dict[str, str], address: str
) -> None:
    async with Client(simulator, **changes) as client:
        if address.startswith("{simulator}"):
            await client.list()
        else:
            error = await client.fail("list")
            assert (error.reason, error.outcome_unknown) == ("CloudUnavailable", False)
    expected = address.format(simulator=simulator.url, project=simulator.project_id)
    assert called[-1] == f"{expected}/scaling_lifecycle_hook/{client.group}/list"


@pytest.mark.parametrize(
    ("catalog", "region_name", "address"),
    [
        (None, "", "https://as.eu-de.otc.t-systems.com/autoscaling-api/v1/p-1"),
        ([], "eu-nl", "https://as.eu-nl.otc.t-systems.com/autoscaling-api/v1/p-1"),
        ([("ecs", "public", "eu-de")], "", "https://as.eu-de.otc.t-systems.com/autoscaling-api/v1/p-1"),
        ([("asv1", "internal", "eu-de")], "", "https://as.eu-de.otc.t-systems.com/autoscaling-api/v1/p-1"),
        ([("asv1", "public", "eu-de")], "eu-de", "https://asv1.eu-de.example.com/autoscaling-api/v1/p-1"),
        ([("as", "public", "eu-de")], "", "https://as.eu-de.example.com/autoscaling-api/v1/p-1"),
        (
            [("asv1", "public", "eu-nl"), ("asv1", "public", "eu-de")],
            "eu-de",
            "https://asv1.eu-de.example.com/autoscaling-api/v1/p-1",
        ),
        (
            [("asv1", "public", "eu-nl"), ("asv1", "public", "eu-de")],
            "",
            "https://asv1.eu-de.example.com/autoscaling-api/v1/p-1",
        ),
    ],
)
async def test_the_catalog_is_searched_for_the_public_address_in_the_region(
    simulator: Simulator,
    called: list[str],
    catalog: list[tuple[str, str, str]] | None,
    region_name: str,
    address: str,
) -> None:
    services = [
        {
            "type": kind,
            "endpoints": [
                {
                    "interface": interface,
                    "region": region,
                    "url": f"https://{kind}.{region}.example.com/autoscaling-api/v1/p-1",
                }
            ],
        }
        for kind, interface, region in catalog or ()
    ]
    token = {
        "issued_at": "2026-03-01T12:00:00.000000Z",
        "expires_at": "2026-03-02T12:00:00.000000Z",
        "project": {"id": "p-1", "name": "eu-de_demo"},
    }
    answer = {"token": token if catalog is None else {**token, "catalog": services}}
    simulator.fault("token", status=201, json=answer, headers={"X-Subject-Token": "made-up"})
    async with Client(simulator, region_name=region_name) as client:
        await client.fail("list")
    assert called[-1] == f"{address}/scaling_lifecycle_hook/{client.group}/list"


AS = "https://as.eu-de.otc.t-systems.com/autoscaling-api"
OTHER = "https://other.example.com/autoscaling-api"


def service(kind: str, *urls: str, region: str = "eu-de") -> dict[str, Any]:
    """Return an entry of the catalog."""
    return {"type": kind, "endpoints": [{"interface": "public", "region": region, "url": url} for url in urls]}


@pytest.mark.parametrize(
    ("catalog", "address"),
    [
        ([service("asv1", f"{AS}/v1/$(tenant_id)s")], f"{AS}/v1/p-1"),
        ([service("asv1", f"{AS}/v1/$(project_id)s/")], f"{AS}/v1/p-1"),
        ([service("asv1", f"{AS}/v1/%(project_id)s")], f"{AS}/v1/p-1"),
        ([service("as", f"{AS}/v1")], f"{AS}/v1/p-1"),
        ([service("as", f"{AS}/v2/$(tenant_id)s")], f"{AS}/v1/p-1"),
        ([service("as", AS)], f"{AS}/v1/p-1"),
        ([service("asv1", f"{AS}/v1/p-1"), service("as", f"{OTHER}/v1")], f"{AS}/v1/p-1"),
        ([service("as", f"{OTHER}/v1"), service("asv1", f"{AS}/v1/p-1")], f"{AS}/v1/p-1"),
        ([service("asv1", OTHER), service("as", f"{AS}/v1")], f"{AS}/v1/p-1"),
        ([service("as", f"{OTHER}/v2", f"{AS}/v1")], f"{AS}/v1/p-1"),
        ([service("asv1", "https://as.eu-nl.example.com", region="eu-nl")], f"{AS}/v1/p-1"),
        ([None, "odd", {}, {"type": 7}, service("asv1", "https://as.example.com")], "https://as.example.com/autoscaling-api/v1/p-1"),
        ([{"type": "as", "endpoints": None}, service("asv1", "https://as.example.com")], "https://as.example.com/autoscaling-api/v1/p-1"),
        (
            [{"type": "asv1", "endpoints": [None, {}, {"interface": "public", "url": 7}, *service("asv1", "https://as.example.com")["endpoints"]]}],
            "https://as.example.com/autoscaling-api/v1/p-1",
        ),
        ("odd", f"{AS}/v1/p-1"),
        (None, f"{AS}/v1/p-1"),
    ],
)  # fmt: skip
async def test_what_a_catalog_holds_leads_to_the_v1_api_of_the_project(
    simulator: Simulator, called: list[str], catalog: object, address: str
) -> None:
    token = {
        "issued_at": "2026-03-01T12:00:00.000000Z",
        "expires_at": "2026-03-02T12:00:00.000000Z",
        "project": {"id": "p-1", "name": "eu-de_demo"},
        "catalog": catalog,
    }
    simulator.fault("token", status=201, json={"token": token}, headers={"X-Subject-Token": "made-up"})
    async with Client(simulator, region_name="") as client:
        await client.fail("list")
    assert called[-1] == f"{address}/scaling_lifecycle_hook/{client.group}/list"


@pytest.mark.parametrize("operation", ["create", "modify"])
async def test_fields_that_we_do_not_know_are_tolerated(client: Client, operation: str) -> None:
    client.simulator.fault(operation, status=200, json={**ANSWER, "something_new": {"a": 1}})
    hook = await client.call(operation)
    assert hook == Hook.model_validate(ANSWER)
    assert hook.notification_metadata == ""


async def test_fields_that_we_do_not_know_are_tolerated_in_a_list(client: Client) -> None:
    body = {"lifecycle_hooks": [{**ANSWER, "something_new": 1}], "something_new": 1}
    client.simulator.fault("list", status=200, json=body)
    assert await client.find() == Hook.model_validate(ANSWER)


OPTIONAL = ["notification_topic_name", "notification_metadata", "create_time"]


@pytest.mark.parametrize("field", OPTIONAL)
@pytest.mark.parametrize("is_null", [False, True])
async def test_what_the_resource_does_not_need_may_be_missing(client: Client, field: str, is_null: bool) -> None:
    answer = {name: value for name, value in ANSWER.items() if name != field} | ({field: None} if is_null else {})
    for operation, body in (("create", answer), ("modify", answer), ("list", {"lifecycle_hooks": [answer]})):
        client.simulator.fault(operation, status=200, json=body)
        assert await client.call(operation) == Hook.model_validate({**ANSWER, field: ""})


@pytest.mark.parametrize(
    "body", [{}, {"lifecycle_hooks": None}, {"lifecycle_hooks": []}, {"something_new": 1}], ids=str
)
async def test_a_list_of_nothing_may_be_left_out(client: Client, body: dict[str, Any]) -> None:
    client.simulator.fault("list", status=200, json=body)
    assert await client.find() is None


@pytest.mark.parametrize("field", [name for name in ANSWER if name not in OPTIONAL])
async def test_a_field_that_is_missing_is_an_unexpected_response_that_names_it(client: Client, field: str) -> None:
    answer = {name: value for name, value in ANSWER.items() if name != field}
    listed = {"lifecycle_hooks": [answer]}
    for operation, body in (("create", answer), ("modify", answer), ("list", listed)):
        client.simulator.fault(operation, status=200, json=body)
        error = await client.fail(operation)
        assert isinstance(error, TransientError)
        assert (error.reason, error.operation, error.http_status) == ("UnexpectedResponse", operation, 200)
        named = "no name that can be read" if body is listed and field == "lifecycle_hook_name" else to_camel(field)
        assert named in error.message
        assert error.request_id
        assert error.outcome_unknown


@pytest.mark.parametrize(
    "fault",
    [
        {"text": ""},
        {"text": "{"},
        {"text": "<html>"},
        {"text": "[" * 100_000},
        {"json": []},
        {"json": None, "text": "null"},
        {"json": {"lifecycle_hooks": None, "error": {"code": "AS.0001"}}},
        {"json": {"error_code": "APIGW.0301", "error_msg": "made up"}},
        {"json": {"lifecycle_hooks": {}}},
        {"json": {"lifecycle_hooks": [None]}},
        {"json": {**ANSWER, "default_timeout": "soon"}},
        {"json": {**ANSWER, "lifecycle_hook_name": None}},
    ],
    ids=str,
)
@pytest.mark.parametrize("operation", ["create", "list", "modify"])
async def test_an_answer_that_is_not_the_documented_one_is_an_unexpected_response(
    client: Client, operation: str, fault: dict[str, Any]
) -> None:
    client.simulator.fault(operation, status=200, **fault)
    error = await client.fail(operation)
    assert isinstance(error, TransientError)
    assert (error.reason, error.http_status, error.outcome_unknown) == ("UnexpectedResponse", 200, True)
    assert "unexpected response: " in error.message


ODD_ENTRIES = [
    *({**ANSWER, "lifecycle_hook_name": "odd", field: None} for field in [*ANSWER][1:5]),
    {"lifecycle_hook_name": "odd"},
    {**ANSWER, "lifecycle_hook_name": "odd", "default_timeout": "soon"},
    {**ANSWER, "lifecycle_hook_name": "odd", "create_time": {"year": 2019}},
]
NAMELESS_ENTRIES = [
    *(None, 7, "test-hook1", [], ["test-hook1"], {}),
    *({**ANSWER, "lifecycle_hook_name": name} for name in (None, "", 7, ["test-hook1"])),
    {name: value for name, value in ANSWER.items() if name != "lifecycle_hook_name"},
]


@pytest.mark.parametrize("odd", [*ODD_ENTRIES, *NAMELESS_ENTRIES], ids=str)
@pytest.mark.parametrize("is_first", [True, False])
async def test_an_odd_hook_does_not_keep_another_from_being_found(client: Client, odd: Any, is_first: bool) -> None:
    entries = [odd, ANSWER] if is_first else [ANSWER, odd]
    client.simulator.fault("list", status=200, json={"lifecycle_hooks": entries})
    assert await client.find() == Hook.model_validate(ANSWER)


async def test_a_text_that_was_cut_within_a_character_does_not_keep_another_hook_from_being_found(
    client: Client,
) -> None:
    odd = json.dumps({**ANSWER, "lifecycle_hook_name": "odd", "notification_metadata": "\ud83d"})
    text = f'{{"lifecycle_hooks": [{odd}, {json.dumps(ANSWER)}]}}'
    client.simulator.fault("list", status=200, text=text)
    listing = await client.list()
    assert listing.find("test-hook1") == Hook.model_validate(ANSWER)
    with pytest.raises(TransientError, match="unexpected response: "):
        listing.find("odd")


@pytest.mark.parametrize("odd", ODD_ENTRIES, ids=str)
async def test_an_odd_hook_is_the_trouble_of_who_looks_for_it_alone(client: Client, odd: dict[str, Any]) -> None:
    client.simulator.fault("list", status=200, json={"lifecycle_hooks": [odd]})
    listing = await client.list()
    assert listing.find("test-hook1") is None
    with pytest.raises(TransientError, match="unexpected response: ") as caught:
        listing.find("odd")
    (request,) = client.simulator.requests("list")
    assert (caught.value.reason, caught.value.request_id) == ("UnexpectedResponse", request.request_id)


@pytest.mark.parametrize("odd", NAMELESS_ENTRIES, ids=str)
async def test_who_is_not_found_beside_a_hook_without_a_name_is_not_known_to_be_absent(
    client: Client, odd: Any
) -> None:
    other = {**ANSWER, "lifecycle_hook_name": "other"}
    client.simulator.fault("list", status=200, json={"lifecycle_hooks": [other, odd]})
    error = await client.fail("list")
    assert isinstance(error, TransientError)
    assert (error.reason, error.operation, error.http_status) == ("UnexpectedResponse", "list", 200)
    assert "no name that can be read" in error.message


@pytest.mark.parametrize("operation", ["create", "modify"])
@pytest.mark.parametrize("name", ["other", "Test-Hook1", "", "x" * 1000, "<b>\n"])
async def test_an_answer_about_another_hook_is_not_taken_for_the_one_that_was_named(
    client: Client, operation: str, name: str
) -> None:
    client.simulator.fault(operation, status=200, json={**ANSWER, "lifecycle_hook_name": name})
    error = await client.fail(operation)
    assert isinstance(error, TransientError)
    assert (error.reason, error.operation, error.http_status) == ("UnexpectedResponse", operation, 200)
    assert error.outcome_unknown
    assert "'test-hook1'" in error.message
    assert len(error.message) < 200
    assert "<" not in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize("operation", ["create", "list", "modify"])
async def test_values_that_we_do_not_know_are_tolerated(client: Client, operation: str) -> None:
    answer = {**ANSWER, "lifecycle_hook_type": "INSTANCE_RESTARTING", "default_result": "RETRY"}
    client.simulator.fault(operation, status=200, json={"lifecycle_hooks": [answer]} if operation == "list" else answer)
    assert await client.call(operation) == Hook.model_validate(answer)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("fault", "class_", "reason"),
    [
        ({"code": "AS.2007"}, WaitingError, "GroupNotFound"),
        ({"code": "AS.0001"}, TransientError, "CloudUnavailable"),
        ({"status": 404}, UnexpectedError, "UnexpectedResponse"),
        ({"status": 301, "headers": {"Location": "/elsewhere"}}, UnexpectedError, "UnexpectedResponse"),
    ],
    ids=str,
)
async def test_a_refusal_is_classed_and_names_the_call(
    client: Client, operation: str, fault: dict[str, Any], class_: type[CallError], reason: str
) -> None:
    client.simulator.fault(operation, **fault)
    error = await client.fail(operation)
    assert isinstance(error, class_)
    assert (error.reason, error.operation, error.code) == (reason, operation, fault.get("code", ""))
    assert error.request_id == client.simulator.requests(operation)[-1].request_id


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stage", ["before", "after"])
async def test_a_connection_that_is_lost_leaves_open_whether_the_call_was_done(
    client: Client, operation: str, stage: str
) -> None:
    await client.list()
    client.simulator.fault(operation, drop=True, stage=stage)
    error = await client.fail(operation)
    assert isinstance(error, TransientError)
    assert (error.reason, error.http_status, error.outcome_unknown) == ("CloudUnavailable", None, True)
    assert len(client.simulator.requests(operation, fault=None)) <= 2


async def test_an_answer_that_does_not_come_in_time_leaves_open_whether_the_call_was_done(
    simulator: Simulator,
) -> None:
    async with Client(simulator, timeout_seconds=1) as client:
        await client.project.get_project_id()
        simulator.fault("list", hold=True)
        error = await client.fail("list")
        assert "in time" in error.message
        assert (error.reason, error.outcome_unknown) == ("CloudUnavailable", True)
        simulator.clear_faults()


async def test_what_the_token_may_not_do_is_told_by_as(simulator: Simulator) -> None:
    simulator.add_user("reader", "reader-password", permissions=["as:lifecycleHooks:list"])
    async with Client(simulator, username="reader", password="reader-password") as client:
        assert (await client.list()).entries == []
        error = await client.fail("create")
    assert isinstance(error, WaitingError)
    assert (error.reason, error.code, error.http_status) == ("Forbidden", "AS.0031", 400)
    assert "as:lifecycleHooks:create" in error.message


@pytest.mark.parametrize("operation", ["token", "list"])
async def test_a_failure_that_nobody_waits_for_any_more_is_not_told_as_a_fault_of_ours(
    client: Client, caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    caplog.set_level(logging.WARNING)
    held = client.simulator.fault(operation, hold=True)
    tasks = [asyncio.create_task(client.list()) for _ in range(2)]
    await asyncio.to_thread(client.simulator.wait_for_request, operation, state="held")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    left = asyncio.all_tasks()
    client.simulator.release(held, drop=True)
    await asyncio.wait(left, timeout=DEADLINE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    del left
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []
