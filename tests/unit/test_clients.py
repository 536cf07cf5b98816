"""Who calls which project: Secrets that are protected, and what a cluster admin lets resources do."""

import asyncio
import gc
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import yaml

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.endpoints import Endpoint
from lifecyclehook_operator.cloud.errors import CallError, CredentialsError, Reason, WaitingError
from lifecyclehook_operator.controller.clients import ClientCache, ClientResolver, CredentialsPolicy
from lifecyclehook_operator.kube.errors import KubernetesError
from lifecyclehook_operator.kube.secrets import Key, Secret, SecretStore
from lifecyclehook_operator.settings import Settings
from tests.unit.samples import SPEC, make_resource

KEY = ("web", "otc")
IAM = "https://iam.eu-de.otc.t-systems.com/v3"
ENDPOINTS = Settings.model_fields["allowed_endpoints"].default
AS = "https://as.eu-de.otc.t-systems.com/autoscaling-api/v1/p-1"
AUTH = {
    "auth_url": IAM,
    "username": "operator",
    "password": "any",
    "user_domain_name": "OTC-EU-DE-1",
    "project_name": "eu-de_web",
}
OWN = Credentials.model_validate({**AUTH, "username": "own"})
BROKEN = CredentialsError(Reason.CREDENTIALS_INVALID, "cannot read /etc/clouds.yaml", operation="authenticate")


def make_secret(*, is_protected: bool = False, is_deleting: bool = False, **auth: Any) -> Secret:
    text = yaml.safe_dump({"clouds": {"otc": {"auth": {**AUTH, **auth}}}})
    return Secret({"clouds.yaml": text}, is_protected=is_protected, is_deleting=is_deleting)


class SecretApi:
    """Stands in for the API server: one Secret or none, and a record of each call."""

    def __init__(self, secret: Secret | None) -> None:
        self.secret = secret
        self.calls: list[str] = []
        self.is_out_of_order = False

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        await self._record("read", (namespace, name))
        return self.secret

    async def protect_secret(self, namespace: str, name: str) -> Secret:
        await self._record("protect", (namespace, name))
        assert self.secret is not None
        return Secret(self.secret.content, is_protected=True)

    async def unprotect_secret(self, namespace: str, name: str) -> None:
        await self._record("unprotect", (namespace, name))

    async def _record(self, call: str, key: Key) -> None:
        assert key == KEY
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.is_out_of_order:
            raise KubernetesError("out of order")


class StubClient:
    """A client of a project at an address that the test chooses."""

    def __init__(self, url: str) -> None:
        self.endpoint = Endpoint("p-1", url, project_name="eu-de_web")

    async def find_endpoint(self) -> Endpoint:
        return self.endpoint


class StubClients:
    """Keeps the credentials of the clients that were asked for."""

    def __init__(self, url: str) -> None:
        self.asked: list[Credentials] = []
        self._client = StubClient(url)

    def get(self, credentials: Credentials, source: Hashable = None) -> StubClient:
        self.asked.append(credentials)
        return self._client


class Case:
    """A ClientResolver with one Secret, and what it leads to."""

    def __init__(
        self,
        secret: Secret | None = None,
        *,
        own: Credentials | CredentialsError | None = OWN,
        namespaces: Sequence[str] = ("*",),
        endpoints: Sequence[str] = ENDPOINTS,
        as_url: str = AS,
    ) -> None:
        self.api = SecretApi(secret)
        self.clients = StubClients(as_url)
        rules = CredentialsPolicy(tuple(namespaces), tuple(endpoints))
        self.resolver = ClientResolver(SecretStore(self.api), cast("ClientCache", self.clients), own, rules)

    async def find(self, resource: LifecycleHook) -> Credentials:
        """Return the credentials of the project that a resource works in."""
        await self.resolver.resolve(resource, resource.spec())
        return self.clients.asked[-1]

    async def refuse(self, resource: LifecycleHook) -> CredentialsError:
        with pytest.raises(CredentialsError) as caught:
            await self.find(resource)
        assert caught.value.operation == "authenticate"
        return caught.value


def referring(cloud_name: str = "otc", **more: Any) -> LifecycleHook:
    """Return a resource that refers to the Secret."""
    reference = {"secretName": KEY[1], "cloudName": cloud_name}
    return make_resource(spec={**SPEC, "credentialsRef": reference}, **more)


async def test_a_secret_that_is_protected_is_read_once() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    secrets = await asyncio.gather(*(store.get(KEY, protect=True) for _ in range(20)))
    assert all(secret is not None and secret.is_protected for secret in secrets)
    assert api.calls == ["read", "protect"]
    assert store.protected() == [KEY]


async def test_a_secret_that_is_not_to_be_protected_is_only_read() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    for _ in range(2):
        assert await store.get(KEY, protect=False) == api.secret
    assert api.calls == ["read", "read"]


async def test_an_answer_that_the_watch_has_overtaken_does_not_bring_an_old_password_back() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    await store.get(KEY, protect=True)
    rotated = replace(make_secret(is_protected=True, password="new"), version=11)
    assert store.update(KEY, rotated)
    assert not store.update(KEY, replace(make_secret(is_protected=True), version=10))
    assert await store.get(KEY, protect=True) == rotated


async def test_a_secret_that_is_missing_is_known_to_be_until_it_is_there() -> None:
    api = SecretApi(None)
    store = SecretStore(api)
    await store.get(KEY, protect=True)
    assert store.missing() == [KEY]
    assert store.is_any_missing.is_set()
    api.secret = make_secret()
    await store.get(KEY, protect=True)
    assert store.missing() == []
    assert not store.is_any_missing.is_set()


async def test_a_secret_that_has_our_finalizer_already_can_be_unprotected() -> None:
    api = SecretApi(make_secret(is_protected=True))
    store = SecretStore(api)
    assert await store.get(KEY, protect=False) == api.secret
    await store.unprotect(KEY)
    assert api.calls == ["read", "unprotect"]


async def test_a_secret_that_is_being_deleted_is_used_but_cannot_be_protected() -> None:
    api = SecretApi(make_secret(is_deleting=True))
    assert await SecretStore(api).get(KEY, protect=True) == api.secret
    assert api.calls == ["read"]


async def test_whether_a_secret_is_being_deleted_is_known_if_it_is_protected_or_missing() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    assert store.is_being_deleted(KEY) is None
    await store.get(KEY, protect=True)
    assert store.is_being_deleted(KEY) is False
    store.update(KEY, make_secret(is_protected=True, is_deleting=True))
    assert store.is_being_deleted(KEY) is True
    store.update(KEY, None)
    assert store.is_being_deleted(KEY) is None
    api.secret = None
    await store.get(KEY, protect=True)
    assert store.is_being_deleted(KEY) is False


async def test_a_secret_that_does_not_exist_is_asked_for_again() -> None:
    api = SecretApi(None)
    store = SecretStore(api)
    assert [await store.get(KEY, protect=True) for _ in range(2)] == [None, None]
    assert api.calls == ["read", "read"]


async def test_a_secret_is_unprotected_once_and_only_if_it_is_protected() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    await store.unprotect(KEY)
    await store.get(KEY, protect=True)
    await asyncio.gather(store.unprotect(KEY), store.unprotect(KEY))
    assert api.calls == ["read", "protect", "unprotect"]
    assert store.protected() == []


async def test_a_secret_of_which_the_watch_shows_nothing_any_more_is_released_all_the_same() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    await store.get(KEY, protect=True)
    store.update(KEY, None)  # as if it were gone, when it has lost the label
    assert (store.protected(), store.perhaps_protected()) == ([], {KEY})
    for _ in range(2):
        await store.unprotect(KEY)
    assert api.calls == ["read", "protect", "unprotect"]
    assert store.perhaps_protected() == set()


async def test_only_a_secret_of_which_nothing_is_known_is_doubted() -> None:
    api = SecretApi(None)
    store = SecretStore(api)
    store.doubt(KEY)
    assert store.perhaps_protected() == {KEY}
    await store.unprotect(KEY)
    await store.get(KEY, protect=True)
    store.doubt(KEY)
    assert store.perhaps_protected() == set()
    api.secret = make_secret()
    await store.get(KEY, protect=True)
    store.doubt(KEY)
    assert store.protected() == [KEY]


async def test_a_secret_stays_protected_if_unprotecting_it_fails() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    await store.get(KEY, protect=True)
    api.is_out_of_order = True
    with pytest.raises(KubernetesError):
        await store.unprotect(KEY)
    assert store.protected() == [KEY]


async def test_a_protection_that_fails_is_retried() -> None:
    api = SecretApi(make_secret())
    api.is_out_of_order = True
    store = SecretStore(api)
    with pytest.raises(KubernetesError):
        await store.get(KEY, protect=True)
    api.is_out_of_order = False
    gc.collect()
    await store.get(KEY, protect=True)
    assert api.calls == ["read", "read", "protect"]


async def test_a_change_of_a_protected_secret_takes_effect_with_no_further_read() -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    await store.get(KEY, protect=True)
    changed = make_secret(is_protected=True, username="changed")
    assert store.update(KEY, changed)
    assert not store.update(KEY, make_secret(is_protected=True, username="changed"))
    assert await store.get(KEY, protect=True) == changed
    assert api.calls == ["read", "protect"]


@pytest.mark.parametrize("is_protected", [True, False])
async def test_what_is_made_of_a_content_is_kept_for_the_next_version_with_the_same(*, is_protected: bool) -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    before = await store.get(KEY, protect=is_protected)
    assert before is not None
    before.parsed.append("made")
    for username, parsed in (("operator", ["made"]), ("changed", [])):
        api.secret = make_secret(is_protected=is_protected, username=username)
        if is_protected:
            store.update(KEY, api.secret)
        after = await store.get(KEY, protect=is_protected)
        assert after is not None
        assert after.parsed == parsed


@pytest.mark.parametrize("news", [None, make_secret(is_protected=False)], ids=["deleted", "finalizer removed"])
async def test_a_secret_that_is_not_protected_any_more_is_read_again(news: Secret | None) -> None:
    api = SecretApi(make_secret())
    store = SecretStore(api)
    await store.get(KEY, protect=True)
    assert store.update(KEY, news)
    assert store.protected() == []
    await store.get(KEY, protect=True)
    assert api.calls == ["read", "protect"] * 2


async def test_a_resource_that_refers_to_no_secret_has_the_operators_own_credentials() -> None:
    case = Case()
    assert await case.find(make_resource()) == OWN
    assert case.api.calls == []


async def test_a_resource_that_refers_to_a_secret_has_those_in_it() -> None:
    case = Case(make_secret())
    assert (await case.find(referring())).username == "operator"
    assert case.api.calls == ["read", "protect"]


async def test_broken_credentials_of_the_operators_own_do_not_matter_to_a_resource_that_refers_to_a_secret() -> None:
    assert (await Case(make_secret(), own=BROKEN).find(referring())).username == "operator"


async def test_a_resource_that_is_being_deleted_does_not_protect_its_secret() -> None:
    case = Case(make_secret())
    await case.find(referring(deletionTimestamp="2026-03-01T12:00:00Z"))
    assert case.api.calls == ["read"]


@pytest.mark.parametrize(
    ("case", "resource", "reason", "message"),
    [
        (Case(own=None), make_resource(), "CredentialsNotFound", "spec.credentialsRef is not set"),
        (
            Case(own=BROKEN),
            make_resource(),
            "CredentialsInvalid",
            "the operator's own credentials: cannot read /etc/clouds.yaml",
        ),
        (Case(own=BROKEN, namespaces=["db"]), make_resource(), "CredentialsNotFound", "namespace web may not use"),
        (Case(namespaces=["db", "web-*"]), make_resource(), "CredentialsNotFound", "namespace web may not use"),
        (Case(namespaces=[]), make_resource(), "CredentialsNotFound", "namespace web may not use"),
        (Case(None), referring(), "CredentialsNotFound", "Secret web/otc does not exist"),
        (Case(Secret({}, is_protected=False)), referring(), "CredentialsInvalid", "has no key clouds.yaml"),
        (Case(make_secret()), referring("other"), "CredentialsInvalid", "no cloud named 'other'; it has: otc"),
        (Case(make_secret(username="")), referring(), "CredentialsInvalid", "username or user_id is missing"),
        (
            Case(),
            make_resource(status={"projectId": "p-2"}),
            "CredentialsInvalid",
            "the credentials are for project p-1, but the hook is in p-2",
        ),
    ],
)
async def test_what_is_wrong_with_the_credentials_is_reported(
    case: Case, resource: LifecycleHook, reason: str, message: str
) -> None:
    error = await case.refuse(resource)
    assert error.reason == reason
    assert message in error.message


@pytest.mark.parametrize("namespaces", [["*"], ["web"], ["db", "w?b"]])
async def test_namespaces_may_be_given_by_globs(namespaces: list[str]) -> None:
    await Case(namespaces=namespaces).find(make_resource())


async def test_a_secret_of_its_own_is_for_any_namespace() -> None:
    await Case(make_secret(), namespaces=[]).find(referring())


@pytest.mark.parametrize(
    "auth_url",
    [
        "https://iam.example.com/v3",
        "https://iam.eu-de.otc.t-systems.com.example.com",
        "https://bucket.obs.eu-de.otc.t-systems.com",
        "https://iam.eu-de.otc.t-systems.com:8443",
        "https://iam.eu-de.otc.t-systems.com:80",
        "https://iam.eu-de.otc.t-systems.com:0",
        "https://example.com/iam.eu-de.otc.t-systems.com",
        "https://example.com?iam.eu-de.otc.t-systems.com",
        "https://example.com#.eu-de.otc.t-systems.com",
        "https://iam.eu-de.otc.t-systems.com@example.com",
        "https://iam.eu-de.otc.t-systems.com:443@example.com",
        "https://10.0.0.1",
        "https://[::1]",
        "https://localhost",
        "http://localhost",
    ],
)
async def test_credentials_lead_nowhere_else_than_an_admin_allows(auth_url: str) -> None:
    case = Case(make_secret(auth_url=auth_url))
    error = await case.refuse(referring())
    assert error.reason == "CredentialsInvalid"
    assert "is not in --allowed-endpoints" in error.message
    assert case.clients.asked == []


@pytest.mark.parametrize("region", ["eu-de", "eu-nl", "eu-ch2"])
async def test_iam_and_as_of_every_region_are_allowed(region: str) -> None:
    domain, iam = ("sc.otc.t-systems.com", "iam-pub") if region == "eu-ch2" else ("otc.t-systems.com", "iam")
    secret = make_secret(auth_url=f"https://{iam}.{region}.{domain}:443/v3")
    case = Case(secret, as_url=f"https://as.{region}.{domain}/autoscaling-api/v1/p-1")
    assert (await case.find(referring())).username == "operator"


@pytest.mark.parametrize(
    ("glob", "allowed", "refused"),
    [
        ("iam.example.com", "https://iam.example.com:443", "https://iam.example.com:8443"),
        ("iam.example.com:8443", "https://iam.example.com:8443", "https://iam.example.com"),
        ("iam.example.com:8443", "https://iam.example.com:8443", "https://iam.example.com:844"),
        ("iam.example.com:*", "https://iam.example.com:1", "https://iam.example.org:1"),
        ("*.example.com", "https://iam.example.com", "https://a.iam.example.com"),
        ("*.example.com", "https://iam.example.com", "https://example.com"),
        ("iam-*.example.com", "https://iam-1.example.com", "https://iam-1.b.example.com"),
        ("iam-?.example.com", "https://iam-1.example.com", "https://iam-12.example.com"),
        ("IAM.example.COM", "https://iam.EXAMPLE.com", "https://iamXexample.com"),
        ("127.0.0.1:*", "http://127.0.0.1:5000", "http://127.0.0.2:5000"),
        ("127.0.0.1:80", "http://127.0.0.1", "https://127.0.0.1"),
        ("[::1]", "https://[::1]", "https://[::2]"),
        ("[::1]:8080", "http://[::1]:8080", "http://[::1]"),
        ("*", "https://localhost", "https://iam.example.com"),
    ],
)
async def test_an_endpoint_is_allowed_by_its_labels_and_its_port(glob: str, allowed: str, refused: str) -> None:
    await Case(make_secret(auth_url=allowed), endpoints=[glob, *ENDPOINTS]).find(referring())
    error = await Case(make_secret(auth_url=refused), endpoints=[glob, *ENDPOINTS]).refuse(referring())
    assert "is not in --allowed-endpoints" in error.message


async def test_neither_does_the_endpoint_that_is_given_beside_them() -> None:
    text = yaml.safe_dump({"clouds": {"otc": {"auth": AUTH, "as_endpoint_override": "https://as.example.com"}}})
    case = Case(Secret({"clouds.yaml": text}, is_protected=False))
    assert "host as.example.com is not in" in (await case.refuse(referring())).message
    assert case.clients.asked == []


async def test_neither_does_what_iam_says() -> None:
    case = Case(make_secret(), as_url="https://as.example.com:8443/autoscaling-api/v1/p-1")
    assert "host as.example.com:8443 is not in" in (await case.refuse(referring())).message


async def test_where_the_operators_own_credentials_lead_others_may_lead_too() -> None:
    own = Credentials.model_validate({**AUTH, "auth_url": "https://iam.example.com:8443"})
    await Case(make_secret(auth_url="https://iam.example.com:8443/v3"), own=own).find(referring())
    error = await Case(make_secret(auth_url="https://iam.example.com"), own=own).refuse(referring())
    assert "host iam.example.com is not in" in error.message


FORBIDDEN = WaitingError(Reason.FORBIDDEN, "no right", operation="create", http_status=403)
REFUSED = CredentialsError(Reason.AUTHENTICATION_FAILED, "no", operation="authenticate", http_status=401)


@pytest.mark.parametrize(
    ("case", "resource", "error", "expected"),
    [
        (
            Case(make_secret()),
            referring(),
            FORBIDDEN,
            f"Secret web/otc (cloud otc), auth_url {IAM}, project eu-de_web (p-1), region eu-de",
        ),
        (
            Case(make_secret()),
            referring(),
            REFUSED,
            f"Secret web/otc (cloud otc), auth_url {IAM}, project eu-de_web, region eu-de",
        ),
        (
            Case(),
            make_resource(),
            FORBIDDEN,
            f"the operator's own credentials, auth_url {IAM}, project eu-de_web (p-1), region eu-de",
        ),
        (
            Case(
                make_secret(auth_url="https://me:secret@iam.otc.t-systems.com:1/v3?token=secret#secret"),
                endpoints=["iam.otc.t-systems.com:1", *ENDPOINTS],
            ),
            referring(),
            REFUSED,
            "Secret web/otc (cloud otc), auth_url https://iam.otc.t-systems.com:1/v3, project eu-de_web, region eu-de",
        ),
        (
            Case(
                make_secret(project_name="", project_id="b53e", auth_url="https://iam.otc.t-systems.com"),
                endpoints=["iam.otc.t-systems.com", *ENDPOINTS],
            ),
            referring(),
            REFUSED,
            "Secret web/otc (cloud otc), auth_url https://iam.otc.t-systems.com, project b53e",
        ),
    ],
    ids=["after a login", "before a login", "the operator's own", "userinfo", "project by ID, no region"],
)
async def test_a_failed_call_is_described_by_what_it_used(
    case: Case, resource: LifecycleHook, error: CallError, expected: str
) -> None:
    await case.find(resource)
    assert case.resolver.describe(resource, error) == expected


async def test_a_description_of_a_failed_call_is_bounded() -> None:
    case = Case(make_secret(project_name="p" * 10_000, auth_url=f"{IAM}/{'x' * 10_000}"))
    await case.find(referring())
    assert len(case.resolver.describe(referring(), FORBIDDEN)) < 500


@pytest.mark.parametrize("reason", [Reason.QUOTA_EXCEEDED, Reason.GROUP_BUSY, Reason.THROTTLED, Reason.CONFLICT])
async def test_a_failure_that_has_nothing_to_do_with_credentials_is_not_described(reason: Reason) -> None:
    error = WaitingError(reason, "not now", operation="create")
    assert Case().resolver.describe(make_resource(), error) == ""


@pytest.mark.parametrize("case", [Case(None), Case(Secret({}, is_protected=False))], ids=["missing", "malformed"])
async def test_credentials_that_cannot_be_read_are_not_described(case: Case) -> None:
    error = await case.refuse(referring())
    assert case.resolver.describe(referring(), error) == ""
