"""The client with an access key, against a service that verifies each signature."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CredentialsError, WaitingError
from lifecyclehook_operator.cloud.transport import Http1Transport
from tests.support.simulator import Simulator

FIELDS = {
    "lifecycle_hook_type": "INSTANCE_LAUNCHING",
    "default_result": "ABANDON",
    "default_timeout": 3600,
    "notification_metadata": "Größe: 漢字",
}


@asynccontextmanager
async def sign_in(simulator: Simulator, *, temporary: bool = False, **changes: Any) -> AsyncIterator[AutoScalingClient]:
    environment = simulator.credentials_env()
    access, secret, *token = simulator.add_access_key(
        environment["OS_USERNAME"], security_token=uuid.uuid4().hex if temporary else None
    )
    values = {
        "auth_url": environment["OS_AUTH_URL"],
        "project_name": environment["OS_PROJECT_NAME"],
        "ak": access,
        "sk": SecretStr(secret),
        "security_token": SecretStr(token[0]) if token else None,
    }
    project = AutoScalingClient(Credentials.model_validate(values | changes), timeout_seconds=5, concurrency=4)
    try:
        yield project
    finally:
        await project.aclose()


@pytest.mark.parametrize("temporary", [False, True])
async def test_a_hook_lives_its_life_and_no_token_is_asked_for(simulator: Simulator, temporary: bool) -> None:
    group, topic = simulator.add_group(), simulator.add_topic("signed")
    fields = {**FIELDS, "notification_topic_urn": topic}
    before = len(simulator.requests())
    async with sign_in(simulator, temporary=temporary) as project:
        hook = await project.create_hook(group, "hook", fields)
        assert hook.notification_metadata == "Größe: 漢字"
        assert (await project.list_hooks(group, not_before=0)).find("hook") == hook
        changed = await project.modify_hook(group, "hook", {"default_timeout": 60})
        assert changed.default_timeout == 60
        await project.delete_hook(group, "hook")
        assert await project.get_project_id() == simulator.project_id
    requests = simulator.requests()[before:]
    assert {request.auth for request in requests} == {"signature"}
    assert [request.operation for request in requests] == ["projects", "catalog", "create", "list", "modify", "delete"]
    assert all(request.headers["x-project-id"] == simulator.project_id for request in requests[1:])


async def test_a_project_given_by_its_id_is_not_asked_for(simulator: Simulator) -> None:
    async with sign_in(simulator, project_name="", project_id=simulator.project_id) as project:
        before = len(simulator.requests())
        await project.list_hooks(simulator.add_group(), not_before=0)
    assert [request.operation for request in simulator.requests()[before:]] == ["catalog", "list"]


async def test_with_id_and_endpoint_given_iam_is_not_asked_at_all(simulator: Simulator) -> None:
    changes = {"project_id": simulator.project_id, "as_endpoint": simulator.url}
    async with sign_in(simulator, **changes) as project:
        before = len(simulator.requests())
        await project.list_hooks(simulator.add_group(), not_before=0)
    assert [request.operation for request in simulator.requests()[before:]] == ["list"]


ADDRESS_OF_AS = "https://as.{}.otc.t-systems.com/autoscaling-api/v1"
ID = "b53e5554fad0494d96206fb84296510b"


async def find_url(monkeypatch: pytest.MonkeyPatch, auth_url: str, regions: list[str], **changes: Any) -> str:
    """Return where AS is, for an access key and an IAM whose catalog has AS in these regions."""

    async def answer(_: Http1Transport, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v3/auth/catalog"
        endpoints = [
            {"interface": "public", "region": region, "url": f"{ADDRESS_OF_AS.format(region)}/$(tenant_id)s"}
            for region in regions
        ]
        return httpx.Response(200, json={"catalog": [{"type": "asv1", "endpoints": endpoints}]}, request=request)

    monkeypatch.setattr(Http1Transport, "handle_async_request", answer)
    values = {"auth_url": auth_url, "ak": "AK", "sk": SecretStr("SK"), "project_id": ID, **changes}
    project = AutoScalingClient(Credentials.model_validate(values), timeout_seconds=5, concurrency=4)
    try:
        return (await project.find_endpoint()).url
    finally:
        await project.aclose()


@pytest.mark.parametrize(
    ("auth_url", "regions", "changes", "region"),
    [
        ("https://iam.eu-de.otc.t-systems.com/v3", ["eu-nl", "eu-de"], {}, "eu-de"),
        ("https://iam.eu-nl.otc.t-systems.com:443/v3", ["eu-de", "eu-nl"], {}, "eu-nl"),
        ("https://IAM.EU-DE.otc.t-systems.com", ["eu-nl", "eu-de"], {}, "eu-de"),
        ("https://iam.eu-de.otc.t-systems.com/v3", ["eu-nl"], {}, "eu-de"),
        ("https://iam-pub.eu-ch2.sc.otc.t-systems.com/v3", ["eu-de"], {}, "eu-ch2.sc"),
        ("https://iam-pub.eu-ch2.sc.otc.t-systems.com/v3", [], {}, "eu-ch2.sc"),
        ("https://iam.eu-de.otc.t-systems.com/v3", ["eu-de", "eu-nl"], {"region_name": "eu-nl"}, "eu-nl"),
        ("https://iam.eu-de.otc.t-systems.com/v3", ["eu-de", "eu-nl"], {"project_name": "eu-nl_web"}, "eu-nl"),
        ("https://iam.eu-de.otc.t-systems.com/v3", ["eu-nl", "eu-de"], {"project_name": "web"}, "eu-de"),
        ("https://iam.example.com/v3", ["eu-nl"], {}, "eu-nl"),
    ],
)
async def test_the_region_is_the_one_given_or_the_projects_or_that_of_iam_and_no_other(
    monkeypatch: pytest.MonkeyPatch, auth_url: str, regions: list[str], changes: dict[str, str], region: str
) -> None:
    assert await find_url(monkeypatch, auth_url, regions, **changes) == f"{ADDRESS_OF_AS.format(region)}/{ID}"


@pytest.mark.parametrize("auth_url", ["https://iam.example.com/v3", "https://iam.otc.t-systems.com.example.com/v3"])
@pytest.mark.parametrize("regions", [[], ["eu-nl", "eu-de"]])
async def test_where_nothing_tells_the_region_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, auth_url: str, regions: list[str]
) -> None:
    with pytest.raises(CredentialsError, match="region_name is missing") as caught:
        await find_url(monkeypatch, auth_url, regions)
    assert caught.value.reason == "CredentialsInvalid"


@asynccontextmanager
async def sign_in_limited(simulator: Simulator, **changes: Any) -> AsyncIterator[AutoScalingClient]:
    """Sign in as a user who may use hooks and nothing else."""
    simulator.add_user("limited", "limited-password", permissions=["as:lifecycleHooks:list"])
    access, secret = simulator.add_access_key("limited")
    async with sign_in(simulator, ak=access, sk=SecretStr(secret), **changes) as project:
        yield project


async def test_a_user_who_may_not_list_projects_is_told_to_give_the_projects_id(simulator: Simulator) -> None:
    async with sign_in_limited(simulator) as project:
        with pytest.raises(WaitingError) as caught:
            await project.get_project_id()
    assert (caught.value.reason, caught.value.http_status) == ("Forbidden", 403)
    assert caught.value.advice.startswith("Give project_id instead of project_name, and as_endpoint_override")
    async with sign_in_limited(simulator, project_id=simulator.project_id) as project:
        assert (await project.list_hooks(simulator.add_group(), not_before=0)).entries == []


async def test_a_user_who_may_not_read_the_catalog_is_told_to_give_the_endpoint(simulator: Simulator) -> None:
    simulator.fault("catalog", status=403, json={"error": {"code": 403, "message": "no"}})
    async with sign_in(simulator, project_id=simulator.project_id) as project:
        with pytest.raises(WaitingError) as caught:
            await project.get_project_id()
    assert caught.value.advice.startswith("Give as_endpoint_override")


async def test_an_unknown_project_is_told_of(simulator: Simulator) -> None:
    async with sign_in(simulator, project_name="eu-de_absent") as project:
        with pytest.raises(CredentialsError, match="IAM knows 0 projects named 'eu-de_absent'"):
            await project.get_project_id()


async def test_a_wrong_secret_key_is_refused_and_not_repeated(simulator: Simulator) -> None:
    before = len(simulator.requests())
    async with sign_in(simulator, temporary=True, sk=SecretStr("wrong")) as project:
        with pytest.raises(CredentialsError) as caught:
            await project.list_hooks("any", not_before=0)
    assert caught.value.reason == "AuthenticationFailed"
    assert simulator.find_secrets(str(caught.value)) == []
    assert len(simulator.requests()) == before + 1


async def test_a_refusal_is_not_repeated_for_each_who_waits_for_it(simulator: Simulator) -> None:
    before = len(simulator.requests())
    async with sign_in(simulator, sk=SecretStr("wrong")) as project:
        for _ in range(2):
            errors = await asyncio.gather(*(project.get_project_id() for _ in range(50)), return_exceptions=True)
            assert all(isinstance(error, CredentialsError) for error in errors)
    assert len(simulator.requests()) == before + 1


async def test_a_temporary_key_without_its_token_is_refused(simulator: Simulator) -> None:
    async with sign_in(simulator, temporary=True, security_token=None) as project:
        with pytest.raises(CredentialsError):
            await project.get_project_id()


@pytest.mark.parametrize("seconds", [-600, 600])
async def test_a_clock_that_is_ten_minutes_off_does_no_harm(simulator: Simulator, seconds: int) -> None:
    async with sign_in(simulator) as project:
        simulator.set_clock_skew(seconds)
        try:
            await project.list_hooks(simulator.add_group(), not_before=0)
        finally:
            simulator.set_clock_skew(0)


async def test_an_unknown_group_is_the_same_error_as_with_a_token(simulator: Simulator) -> None:
    async with sign_in(simulator) as project:
        with pytest.raises(WaitingError) as caught:
            await project.list_hooks(str(uuid.uuid4()), not_before=0)
    assert (caught.value.code, caught.value.reason) == ("AS.2007", "GroupNotFound")
