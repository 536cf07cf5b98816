"""AK/SK signatures: a signer of the tests' own, somebody else's signatures, and an SDK of somebody else's."""

import hashlib
import hmac
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from multidict import CIMultiDict

from tests.support.simulator import Simulator
from tests.support.simulator.caller import HOOK, build_go_program, error_of
from tests.support.simulator.cloud import Call, Cloud
from tests.support.simulator.signing import SignatureError, verify

FORMS = ("access", "chained", "derived")
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
Pairs = tuple[tuple[str, str], ...]


def encode(text: str, safe: str = "~") -> str:
    return quote(text, safe=safe)


def keyed(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


@dataclass(frozen=True)
class Order:
    """A request to sign: its path and query as they mean it, `sent_query` as it goes out where that differs."""

    method: str = "GET"
    path: str = "/"
    query: Pairs = ()
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    sent_query: str | None = None

    @property
    def raw_query(self) -> str:
        if self.sent_query is not None:
            return self.sent_query
        return "&".join(f"{encode(name)}={encode(value)}" for name, value in self.query)

    @property
    def target(self) -> str:
        return encode(self.path, "/~") + (f"?{self.raw_query}" if self.raw_query else "")

    def canonical(self) -> str:
        lines = [self.method, encode(self.path.rstrip("/") + "/", "/~")]
        lines.append("&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(self.query)))
        lower = {name.lower(): value.strip() for name, value in self.headers.items()}
        lines += [f"{name}:{lower[name]}" for name in sorted(lower)]
        lines += ["", self.signed_headers(), hashlib.sha256(self.body.encode()).hexdigest()]
        return "\n".join(lines)

    def signed_headers(self) -> str:
        return ";".join(sorted(name.lower() for name in self.headers))


@dataclass(frozen=True)
class Signer:
    access: str
    secret: str
    form: str = "access"

    def authorization(self, order: Order) -> str:
        date = order.headers["X-Sdk-Date"]
        scope = {"access": "", "chained": f"{date[:8]}///sdk_request", "derived": f"{date[:8]}/eu-de/as"}[self.form]
        algorithm = "V11-HMAC-SHA256" if self.form == "derived" else "SDK-HMAC-SHA256"
        digest = hashlib.sha256(order.canonical().encode()).hexdigest()
        text = "\n".join(filter(None, (algorithm, date, scope, digest)))
        who = f"Credential={self.access}/{scope}" if scope else f"Access={self.access}"
        signature = keyed(self._key(scope), text).hex()
        return f"{algorithm} {who}, SignedHeaders={order.signed_headers()}, Signature={signature}"

    def _key(self, scope: str) -> bytes:
        if self.form == "chained":
            date, region, service, end = scope.split("/")
            start = keyed(f"SDK{self.secret}".encode(), date)
            return keyed(keyed(keyed(start, region), service), end)
        if self.form == "derived":
            return keyed(keyed(self.access.encode(), self.secret), f"{scope}\x01").hex().encode()
        return self.secret.encode()


class SigningCaller:
    """Signs and sends. What a test changes after signing it gives to `send` as `sent` or in `headers`."""

    def __init__(self, simulator: Simulator, http: httpx.Client, signer: Signer) -> None:
        self.simulator = simulator
        self.signer = signer
        self.group = simulator.add_group()
        self.hook = {**HOOK, "notification_topic_urn": simulator.add_topic("gsh")}
        self.hooks = f"/autoscaling-api/v1/{simulator.project_id}/scaling_lifecycle_hook/{self.group}"
        self._http = http

    def sign(self, order: Order, *, date: datetime | None = None, leave_out: str = "") -> tuple[Order, str]:
        """Return the order with the headers that are signed, and its Authorization header."""
        date = date or datetime.now(UTC)
        required = {"Host": httpx.URL(self.simulator.url).netloc.decode(), "X-Sdk-Date": date.strftime(DATE_FORMAT)}
        headers = {name: value for name, value in (required | order.headers).items() if name != leave_out}
        order = replace(order, headers=headers)
        return order, self.signer.authorization(order)

    def send(self, sent: Order, authorization: str, **headers: str) -> httpx.Response:
        return self._http.request(
            sent.method,
            self.simulator.url,
            headers=sent.headers | headers | {"Authorization": authorization},
            content=sent.body.encode(),
            extensions={"target": sent.target.encode()},
        )

    def call(self, method: str = "GET", path: str | None = None, **fields: Any) -> httpx.Response:
        return self.send(*self.sign(Order(method, path or f"{self.hooks}/list", **fields)))

    def create(self, **fields: Any) -> httpx.Response:
        return self.call("POST", self.hooks, body=json.dumps(self.hook | fields, ensure_ascii=False))


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as http:
        yield http


@pytest.fixture(params=FORMS)
def caller(request: pytest.FixtureRequest, simulator: Simulator, http: httpx.Client) -> SigningCaller:
    access, secret = simulator.add_access_key()
    return SigningCaller(simulator, http, Signer(access, secret, request.param))


@pytest.fixture
def one_form(simulator: Simulator, http: httpx.Client) -> SigningCaller:
    access, secret = simulator.add_access_key()
    return SigningCaller(simulator, http, Signer(access, secret))


def refusal_of(response: httpx.Response) -> str:
    """Return the message of a refusal in the shape of the gateway."""
    assert response.status_code == 401
    body: dict[str, str] = response.json()
    assert body.keys() == {"error_code", "error_msg"}
    assert body["error_code"] == "APIGW.0301"
    start, _, message = body["error_msg"].partition(": ")
    assert start == "Incorrect IAM authentication information"
    return message


# What other programs made of the same requests at the same moment.

ACCESS, SECRET = "EXAMPLEOFANACCESSKEY", "example-of-a-secret-key-that-opens-no-door"
MOMENT = "20260314T092653Z"
HOOKS = "/autoscaling-api/v1/c0ffee/scaling_lifecycle_hook/5f1"
REQUIRED = {"Host": "as.eu-de.otc.t-systems.com", "X-Sdk-Date": MOMENT}
BODY = '{"notification_metadata": "grüße, 世界"}'
EMPTY = Order("GET", f"{HOOKS}/list", headers=REQUIRED)
QUERY = replace(
    EMPTY, query=(("name", "b c"), ("name", "a+b"), ("name", "ü/世界"), ("Z", "~-_."), ("empty", ""), ("limit", "20"))
)
PLAIN_QUERY = replace(EMPTY, query=(("name", "b c"), ("z", "~-_."), ("empty", ""), ("limit", "20")))
UNICODE = Order(
    "POST", HOOKS, headers={**REQUIRED, "X-Project-Id": "c0ffee", "X-Security-Token": "example-token"}, body=BODY
)
CHAINED_UNICODE = replace(
    UNICODE,
    headers={**REQUIRED, "X-Project-Id": "c0ffee", "Content-Type": "application/json", "User-Agent": "two spaces"},
)
SPECIAL = Order("DELETE", f"{HOOKS}/a b(ü)~*", headers=REQUIRED)
GO_SDK_SIGNATURES = [
    ("access", EMPTY, "6a04f649aac7fb8a202064d075ec22f2929c8a2297f2c915708cbf08b29342c4"),
    ("access", QUERY, "b24efa53e29d715748e907067bee7422da5622f96ab3f478ef95e0641902acbb"),
    ("access", UNICODE, "7095e8cd8336b18dc13dfbb44c47b79c155be32aac5211d0a9c1594908255690"),
    ("access", SPECIAL, "6b97b06662e572edd84d32b9ca8e5526a8203363236f2702981a537bdfa855d0"),
    ("derived", EMPTY, "32dd027f440425c2a80d8943c4b864daf6831641e8110fd838c9f51813813661"),
    ("derived", QUERY, "fa1aa0120b95bd482878397c4ad63766e7c05a39cc30f97a28668d93c3307c0f"),
    ("derived", UNICODE, "9ce9c573dac8b9e9e153bca613df66e8e3777be8fab0d509d674177df1157ff1"),
    ("derived", SPECIAL, "e9f962e022822cffb409a82be47bbf76b97b192a6df5630bb3851afa7facbc74"),
]
GOPHERTELEKOMCLOUD_SIGNATURES = [
    ("chained", EMPTY, "3c716125cfaecf36994e27216825fcf4fc8a2df2f61c00dffca03c01d1a8c212"),
    ("chained", PLAIN_QUERY, "cf79c46f65e6b710135a254fd237559f849e83bcead6e9d1fb26ce7f71e96e00"),
    ("chained", CHAINED_UNICODE, "f2c024da2977c234faa895f6e48926b7d6ae6f7c058116303991a30701124424"),
    ("chained", SPECIAL, "438d09c84086effc129f812c2fb9776afcd17b2f1c89bb32ad8ccbe7d4d55d09"),
]


def received(order: Order, authorization: str) -> tuple[Cloud, Call]:
    cloud = Cloud()
    sent_at = datetime.strptime(MOMENT, DATE_FORMAT).replace(tzinfo=UTC)
    cloud.settings.clock_skew_seconds = (sent_at - datetime.now(UTC)).total_seconds()
    token = order.headers.get("X-Security-Token")
    cloud.add_access_key(cloud.add_user("somebody", "password"), ACCESS, SECRET, token)
    raw_path, _, raw_query = order.target.partition("?")
    return cloud, Call(
        method=order.method,
        origin="https://as.eu-de.otc.t-systems.com",
        raw_path=raw_path,
        raw_query=raw_query,
        query={},
        headers=CIMultiDict(order.headers | {"Authorization": authorization}),
        body=order.body.encode(),
        args={},
    )


@pytest.mark.parametrize(("form", "order", "signature"), GO_SDK_SIGNATURES + GOPHERTELEKOMCLOUD_SIGNATURES)
def test_a_signature_by_somebody_elses_program_is_ours_and_is_good(form: str, order: Order, signature: str) -> None:
    authorization = Signer(ACCESS, SECRET, form).authorization(order)
    assert authorization.rpartition("=")[2] == signature
    assert verify(*received(order, authorization)).access == ACCESS
    wrong = authorization[:-1] + ("0" if authorization[-1] != "0" else "1")
    with pytest.raises(SignatureError, match="the signature is not"):
        verify(*received(order, wrong))


@pytest.mark.parametrize("form", FORMS)
def test_white_space_around_the_value_of_a_header_does_not_count(form: str) -> None:
    authorization = Signer(ACCESS, SECRET, form).authorization(UNICODE)
    spaced = replace(UNICODE, headers=UNICODE.headers | {"X-Project-Id": " \tc0ffee "})
    assert verify(*received(spaced, authorization))


def test_white_space_within_a_header_is_one_space_in_the_chained_form_alone() -> None:
    spaced = replace(CHAINED_UNICODE, headers=CHAINED_UNICODE.headers | {"User-Agent": "two \t spaces"})
    authorization = Signer(ACCESS, SECRET, "chained").authorization(CHAINED_UNICODE)
    assert verify(*received(spaced, authorization))
    with pytest.raises(SignatureError):
        verify(*received(spaced, Signer(ACCESS, SECRET).authorization(CHAINED_UNICODE)))


def test_every_call_of_a_hooks_life_can_be_signed(caller: SigningCaller) -> None:
    created = caller.create(notification_metadata="grüße, 世界 = 1 + 1")
    assert created.status_code == 200
    assert created.json()["notification_metadata"] == "grüße, 世界 = 1 + 1"
    assert caller.call().json() == {"lifecycle_hooks": [created.json()]}
    hook = f"{caller.hooks}/test-hook1"
    assert caller.call(path=hook).json() == created.json()
    assert caller.call("PUT", hook, body='{"default_timeout": 61}').json()["default_timeout"] == 61
    assert caller.call("DELETE", hook).status_code == 204
    assert {request.auth for request in caller.simulator.requests()} == {"signature"}
    assert caller.simulator.requests("token") == []


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ((("instance_id", "a b"),), "instance_id=a%20b"),
        ((("instance_id", "a b"),), "instance_id=a+b"),
        ((("instance_id", "a+b"),), "instance_id=a%2Bb"),
        ((("instance_id", "grüße/世界"),), None),
        ((("instance_id", "ü"),), "instance_id=%c3%bc"),
        ((("x", "2"), ("x", "10"), ("x", ""), ("X", "1")), None),
        ((("limit", ""), ("marker", "=&?")), "marker=%3D%26%3F&limit"),
        ((("~", "z"), ("é", "*()'!")), None),
    ],
)
def test_the_query_counts_decoded_sorted_and_encoded_again(
    caller: SigningCaller, query: Pairs, sent: str | None
) -> None:
    path = caller.hooks.replace("_lifecycle_", "_instance_") + "/list"
    assert caller.call(path=path, query=query, sent_query=sent).status_code == 200


@pytest.mark.parametrize("name", ["a b", "grüße", "a+b", "~(x)*", "100%", "a;b=c", "-._~"])
def test_the_path_counts_encoded_by_rfc_3986_with_a_slash_at_its_end(caller: SigningCaller, name: str) -> None:
    assert error_of(caller.call(path=f"{caller.hooks}/{name}")) == (404, "AS.0007")


def test_a_slash_that_is_sent_already_is_not_added_again(one_form: SigningCaller) -> None:
    assert one_form.call(path="/v3/projects/").status_code == 200
    assert one_form.call(path="/v3/projects").status_code == 200


Change = Callable[[Order], Order]
OTHER_HOOK = '{"default_timeout": 62}'


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda order: replace(order, body=OTHER_HOOK), id="body"),
        pytest.param(lambda order: replace(order, body=order.body + " "), id="white space in the body"),
        pytest.param(lambda order: replace(order, body=""), id="no body"),
        pytest.param(lambda order: replace(order, method="POST", path=order.path.rpartition("/")[0]), id="method"),
        pytest.param(lambda order: replace(order, path=order.path + "2"), id="path"),
        pytest.param(lambda order: replace(order, sent_query="a=1&b=3"), id="value"),
        pytest.param(lambda order: replace(order, sent_query="a=1&B=2"), id="name"),
        pytest.param(lambda order: replace(order, sent_query="a=1"), id="parameter left out"),
        pytest.param(lambda order: replace(order, sent_query="a=1&b=2&b=2"), id="parameter twice"),
        pytest.param(lambda order: replace(order, headers=order.headers | {"X-Extra": "2"}), id="header"),
        pytest.param(lambda order: replace(order, headers=order.headers | {"Host": "elsewhere"}), id="host"),
    ],
)
def test_what_is_changed_after_signing_is_refused_and_does_nothing(caller: SigningCaller, change: Change) -> None:
    before = caller.create().json()
    order = Order(
        "PUT", f"{caller.hooks}/test-hook1", (("a", "1"), ("b", "2")), {"X-Extra": "1"}, '{"default_timeout": 61}'
    )
    signed, authorization = caller.sign(order)
    assert "the signature is not the one of this request" in refusal_of(caller.send(change(signed), authorization))
    assert caller.simulator.hooks(caller.group) == [before]
    assert caller.send(signed, authorization).status_code == 200


def test_what_the_gateway_took_for_the_request_is_told(one_form: SigningCaller) -> None:
    order, authorization = one_form.sign(Order("GET", f"{one_form.hooks}/list"))
    message = refusal_of(one_form.send(replace(order, sent_query="limit=1"), authorization))
    assert f"canonicalRequest:GET|{one_form.hooks}/list/|limit=1|host:" in message


def test_a_signed_header_that_is_not_sent_is_refused(one_form: SigningCaller) -> None:
    order, authorization = one_form.sign(Order(path=f"{one_form.hooks}/list", headers={"X-Extra": "1"}))
    del order.headers["X-Extra"]
    assert refusal_of(one_form.send(order, authorization)) == "the signed header x-extra is missing"


@pytest.mark.parametrize("name", ["Host", "X-Sdk-Date"])
def test_host_and_date_have_to_be_among_the_signed_headers(
    caller: SigningCaller, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    order, _ = caller.sign(Order(path=f"{caller.hooks}/list"))
    partial = replace(order, headers={other: value for other, value in order.headers.items() if other != name})
    monkeypatch.setattr(Order, "signed_headers", lambda _: ";".join(sorted(each.lower() for each in partial.headers)))
    authorization = caller.signer.authorization(order)
    assert refusal_of(caller.send(order, authorization)) == f"the header {name.lower()} is not signed"


def test_a_key_can_ask_for_other_headers_or_for_none(simulator: Simulator, http: httpx.Client) -> None:
    for must_sign, status in ((["host", "X-Project-Id"], 401), (["x-sdk-date"], 200), ([], 200)):
        access, secret = simulator.add_access_key(must_sign=must_sign)
        caller = SigningCaller(simulator, http, Signer(access, secret))
        assert caller.call().status_code == status
        order, authorization = caller.sign(Order(path=f"{caller.hooks}/list"), leave_out="Host")
        assert caller.send(order, authorization).status_code == status
        assert caller.call(headers={"X-Project-Id": simulator.project_id}).status_code == 200


@pytest.mark.parametrize("seconds", [-890, 0, 890])
def test_the_date_may_be_some_minutes_off(caller: SigningCaller, seconds: int) -> None:
    order = Order(path=f"{caller.hooks}/list")
    assert caller.send(*caller.sign(order, date=datetime.now(UTC) + timedelta(seconds=seconds))).status_code == 200
    caller.simulator.set_clock_skew(seconds)
    assert caller.call().status_code == 200


@pytest.mark.parametrize("seconds", [-910, 910, -86400])
def test_a_date_of_more_than_15_minutes_ago_or_ahead_is_refused(caller: SigningCaller, seconds: int) -> None:
    order = Order(path=f"{caller.hooks}/list")
    response = caller.send(*caller.sign(order, date=datetime.now(UTC) + timedelta(seconds=seconds)))
    assert "more than 15 minutes" in refusal_of(response)
    caller.simulator.set_clock_skew(seconds)
    assert "more than 15 minutes" in refusal_of(caller.call())
    caller.simulator.set_clock_skew(0)
    assert caller.call().status_code == 200


@pytest.mark.parametrize("date", ["", "yesterday", "20260231T000000Z", "2026-03-14T09:26:53Z", "20260314T092653"])
def test_a_date_that_is_none_is_refused(one_form: SigningCaller, date: str) -> None:
    order, authorization = one_form.sign(Order(path=f"{one_form.hooks}/list", headers={"X-Sdk-Date": date}))
    assert "x-sdk-date" in refusal_of(one_form.send(order, authorization))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("SDK-HMAC-SHA256", "header is not well-formed"),
        ("SDK-HMAC-SHA256 Access={key}, Signature={hex}", "header is not well-formed"),
        ("SDK-HMAC-SHA256 Access={key}, {headers}", "header is not well-formed"),
        ("SDK-HMAC-SHA256 Access={key}, {headers}, Signature=zz", "header is not well-formed"),
        ("SDK-HMAC-SHA256 Access={key}, SignedHeaders=x-sdk-date;host, Signature={hex}", "sorted"),
        ("SDK-HMAC-SHA256 Access={key}, SignedHeaders=Host;X-Sdk-Date, Signature={hex}", "lower case"),
        ("SDK-HMAC-SHA256 Access={key}, SignedHeaders=host;host;x-sdk-date, Signature={hex}", "unique"),
        ("SDK-HMAC-SHA256 Access={key}/20260314, {headers}, Signature={hex}", "credential of the Authorization header"),
        ("SDK-HMAC-SHA256 Credential={key}, {headers}, Signature={hex}", "credential of the Authorization header"),
        (
            "SDK-HMAC-SHA256 Credential={key}/20260314/eu-de/as, {headers}, Signature={hex}",
            "credential of the Authorization header",
        ),
        (
            "SDK-HMAC-SHA256 Credential={key}/20260314///aws4_request, {headers}, Signature={hex}",
            "credential of the Authorization header",
        ),
        ("V11-HMAC-SHA256 Access={key}, {headers}, Signature={hex}", "credential of the Authorization header"),
        (
            "V11-HMAC-SHA256 Credential={key}/20260314//, {headers}, Signature={hex}",
            "credential of the Authorization header",
        ),
        (
            "V11-HMAC-SHA256 Credential={key}/20260314//as, {headers}, Signature={hex}",
            "credential of the Authorization header",
        ),
        (
            "SDK-HMAC-SHA256 Credential={key}/20200314///sdk_request, {headers}, Signature={hex}",
            "date of the credential",
        ),
        ("V11-HMAC-SHA256 Credential={key}/20200314/eu-de/as, {headers}, Signature={hex}", "date of the credential"),
    ],
)
def test_an_authorization_header_that_is_none_of_the_three_forms_is_refused(
    one_form: SigningCaller, claim: str, message: str
) -> None:
    order, _ = one_form.sign(Order(path=f"{one_form.hooks}/list"))
    headers = "SignedHeaders=host;x-sdk-date"
    authorization = claim.format(key=one_form.signer.access, headers=headers, hex="0" * 64)
    assert message in refusal_of(one_form.send(order, authorization))


def test_a_wrong_secret_and_a_key_that_is_unknown_or_revoked_are_refused(caller: SigningCaller) -> None:
    good, order = caller.signer, Order(path=f"{caller.hooks}/list")
    for signer in (replace(good, secret=f"{good.secret}x"), replace(good, access="UNKNOWN")):
        caller.signer = signer
        refusal_of(caller.send(*caller.sign(order)))
    caller.signer = good
    assert caller.call().status_code == 200
    caller.simulator.revoke_access_key(good.access)
    assert "there is no access key" in refusal_of(caller.call())
    with pytest.raises(ValueError, match="no such access key"):
        caller.simulator.revoke_access_key(good.access)


@pytest.mark.parametrize(
    ("hashed", "sent", "status"),
    [
        ("body", "body", 200),
        ("UNSIGNED-PAYLOAD", "body", 200),
        ("UNSIGNED-PAYLOAD", "another", 200),
        ("body", "another", 401),
        ("another", "body", 401),
    ],
)
def test_the_hash_of_the_body_can_come_in_a_header(
    one_form: SigningCaller, monkeypatch: pytest.MonkeyPatch, hashed: str, sent: str, status: int
) -> None:
    one_form.create()
    bodies = {"body": '{"default_timeout": 61}', "another": OTHER_HOOK}
    value = hashlib.sha256(bodies[hashed].encode()).hexdigest() if hashed in bodies else hashed
    headers = {"X-Sdk-Content-Sha256": value}
    order, _ = one_form.sign(Order("PUT", f"{one_form.hooks}/test-hook1", (), headers, bodies[sent]))
    canonical = order.canonical().rpartition("\n")[0] + f"\n{value}"
    monkeypatch.setattr(Order, "canonical", lambda _: canonical)
    assert one_form.send(order, one_form.signer.authorization(order)).status_code == status


@pytest.mark.parametrize("form", FORMS)
def test_a_temporary_key_needs_its_token_signed_or_not(simulator: Simulator, http: httpx.Client, form: str) -> None:
    access, secret, token = simulator.add_access_key(security_token=True)
    caller = SigningCaller(simulator, http, Signer(access, secret, form))
    assert "X-Security-Token is missing" in refusal_of(caller.call())
    assert "security token is not" in refusal_of(caller.call(headers={"X-Security-Token": f"{token}x"}))
    assert caller.call(headers={"X-Security-Token": token}).status_code == 200
    order, authorization = caller.sign(Order(path=f"{caller.hooks}/list"))
    assert caller.send(order, authorization, **{"X-Security-Token": token}).status_code == 200


def test_a_permanent_key_comes_with_no_token(one_form: SigningCaller) -> None:
    assert "permanent" in refusal_of(one_form.call(headers={"X-Security-Token": "made-up"}))


def test_the_project_of_the_header_has_to_be_that_of_the_address(caller: SigningCaller) -> None:
    mine, other = caller.simulator.project_id, caller.simulator.add_project("eu-de_other")
    foreign = caller.simulator.add_project("eu-de_foreign", domain="elsewhere")
    assert caller.call(headers={"X-Project-Id": mine}).status_code == 200
    assert error_of(caller.call(headers={"X-Project-Id": other})) == (400, "AS.0008")
    assert error_of(caller.call(headers={"X-Project-Id": foreign})) == (403, "AS.0011")
    elsewhere = caller.hooks.replace(mine, other) + "/list"
    assert error_of(caller.call(path=elsewhere)) == (400, "AS.2007")
    assert error_of(caller.call(path=elsewhere, headers={"X-Project-Id": mine})) == (400, "AS.0008")
    for project_id in (foreign, "unknown"):
        path = caller.hooks.replace(mine, project_id) + "/list"
        assert error_of(caller.call(path=path)) == (403, "AS.0011")
        assert error_of(caller.call(path=path, headers={"X-Project-Id": project_id})) == (403, "AS.0011")


def test_the_domain_of_the_header_has_to_be_the_users_and_is_no_project(one_form: SigningCaller) -> None:
    domain = one_form.call(path="/v3/projects").json()["projects"][0]["domain_id"]
    project = {"X-Project-Id": one_form.simulator.project_id}
    assert error_of(one_form.call(headers={"X-Domain-Id": domain})) == (400, "AS.0008")
    assert one_form.call(headers={"X-Domain-Id": domain} | project).status_code == 200
    assert error_of(one_form.call(headers={"X-Domain-Id": "another"} | project)) == (403, "AS.0011")


def test_a_key_may_do_what_its_user_may_do(simulator: Simulator, http: httpx.Client) -> None:
    permissions = ["as:lifecycleHooks:list"]
    simulator.add_user("reader", "reader-password", permissions=permissions)
    access, secret = simulator.add_access_key("reader", "READER", "reader-secret")
    assert (access, secret) == ("READER", "reader-secret")
    caller = SigningCaller(simulator, http, Signer(access, secret))
    assert caller.call().status_code == 200
    assert error_of(caller.create()) == (400, "AS.0031")
    simulator.add_user("reader", "reader-password", permissions=[*permissions, "as:lifecycleHooks:create"])
    assert caller.create().status_code == 200


def test_a_key_of_another_domain_sees_that_domain(simulator: Simulator, http: httpx.Client) -> None:
    simulator.add_user("guest", "guest-password", domain="elsewhere")
    project_id = simulator.add_project("eu-nl_theirs", domain="elsewhere")
    caller = SigningCaller(simulator, http, Signer(*simulator.add_access_key("guest", domain="elsewhere")))
    assert [each["id"] for each in caller.call(path="/v3/projects").json()["projects"]] == [project_id]
    assert error_of(caller.call()) == (403, "AS.0011")
    with pytest.raises(ValueError, match="no such user"):
        simulator.add_access_key("guest")


def test_iam_finds_projects_by_name_for_a_signed_request(caller: SigningCaller) -> None:
    caller.simulator.add_project("eu-de_with space+plus")
    named = {name: caller.call(path="/v3/projects", query=(("name", name),)) for name in ("eu-de_demo", "eu-de_none")}
    (project,) = named["eu-de_demo"].json()["projects"]
    assert project["id"] == caller.simulator.project_id
    assert named["eu-de_none"].json()["projects"] == []
    (spaced,) = caller.call(path="/v3/projects", query=(("name", "eu-de_with space+plus"),)).json()["projects"]
    assert spaced["name"] == "eu-de_with space+plus"
    domain = {"X-Domain-Id": project["domain_id"]}
    assert len(caller.call(path="/v3/projects", headers=domain).json()["projects"]) == 2


def test_the_catalog_has_as_for_the_project_of_the_header_alone(caller: SigningCaller) -> None:
    project_id = caller.simulator.add_project("eu-nl_other")

    def catalog(**headers: str) -> dict[str, str]:
        entries = caller.call(path="/v3/auth/catalog", headers=headers).json()["catalog"]
        return {entry["type"]: entry["endpoints"][0]["url"] for entry in entries}

    assert catalog(**{"X-Project-Id": project_id})["asv1"] == caller.simulator.as_endpoint(project_id)
    assert catalog().keys() == {"identity", "iam"}


@pytest.mark.parametrize("path", ["/v3/projects", "/v3/auth/catalog"])
def test_iam_refuses_wrong_signatures_and_scopes_that_are_not_the_users(one_form: SigningCaller, path: str) -> None:
    order, authorization = one_form.sign(Order(path=path))
    refusal_of(one_form.send(replace(order, sent_query="name=eu-de_demo"), authorization))
    foreign = one_form.simulator.add_project("eu-de_foreign", domain="elsewhere")
    for headers in ({"X-Project-Id": foreign}, {"X-Project-Id": "unknown"}, {"X-Domain-Id": "unknown"}):
        response = one_form.call(path=path, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, 403)


def test_a_token_goes_before_a_signature(one_form: SigningCaller) -> None:
    assert error_of(one_form.call(headers={"X-Auth-Token": "wrong"})) == (401, "AS.0006")
    assert [request.auth for request in one_form.simulator.requests()] == ["token"]


def test_keys_are_made_up_and_end_with_a_reset(simulator: Simulator, http: httpx.Client) -> None:
    permanent, temporary = simulator.add_access_key(), simulator.add_access_key(security_token=True)
    assert [len(part) for part in permanent] == [20, 40]
    assert [len(part) for part in temporary] == [20, 40, 256]
    assert len({*permanent, *temporary}) == 5
    caller = SigningCaller(simulator, http, Signer(*permanent))
    assert caller.call().status_code == 200
    simulator.reset()
    refusal_of(caller.call())


def test_no_key_signature_or_token_gets_into_the_log(simulator: Simulator, http: httpx.Client) -> None:
    access, secret, token = simulator.add_access_key(security_token=True)
    hidden = [access, secret, token]
    for form in FORMS:
        caller = SigningCaller(simulator, http, Signer(access, secret, form))
        order, authorization = caller.sign(Order(path=f"{caller.hooks}/list", headers={"X-Security-Token": token}))
        hidden.append(authorization.rpartition("=")[2])
        assert caller.send(order, authorization).status_code == 200
        refusal_of(caller.send(replace(order, sent_query="limit=1"), authorization))
    requests = simulator.requests()
    log = "".join(request.model_dump_json() for request in requests)
    assert [secret for secret in hidden if secret in log] == []
    assert [request.auth for request in requests] == ["signature"] * 6
    assert [request.status for request in requests] == [200, 401] * 3


# Somebody else's SDK, built here: where Go's cache is cold, its modules are to be had first.
BUILD_TIMEOUT = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_go_program("./signed", tmp_path_factory.mktemp("gosdk"))


def run(program: Path, *arguments: str, given: Any = None, environment: dict[str, str] | None = None) -> Any:
    ended = subprocess.run(
        [program, *arguments],
        input=json.dumps(given),
        env=environment or {},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


@BUILD_TIMEOUT
def test_the_sdk_still_signs_as_the_fixed_vectors_say(program: Path) -> None:
    orders = [
        {
            "derived": form == "derived",
            "access": ACCESS,
            "secret": SECRET,
            "region": "eu-de",
            "service": "as",
            "method": order.method,
            "endpoint": f"https://{order.headers['Host']}",
            "path": order.path,
            "query": {name: [value for other, value in order.query if other == name] for name, _ in order.query},
            "headers": order.headers,
            "body": order.body,
        }
        for form, order, _ in GO_SDK_SIGNATURES
    ]
    ours = [Signer(ACCESS, SECRET, form).authorization(order) for form, order, _ in GO_SDK_SIGNATURES]
    assert run(program, "sign", given=orders) == ours


@BUILD_TIMEOUT
@pytest.mark.parametrize("derived", ["", "yes"])
@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize("project", ["given", "found"])
def test_the_sdk_works_with_a_hook(
    program: Path, simulator: Simulator, derived: str, temporary: bool, project: str
) -> None:
    # This SDK signs no Host.
    access, secret, *token = simulator.add_access_key(security_token=temporary, must_sign=[])
    environment = {
        "CLOUD_URL": simulator.url,
        "ACCESS_KEY": access,
        "SECRET_KEY": secret,
        "SECURITY_TOKEN": "".join(token),
        "DERIVED": derived,
        "REGION": simulator.credentials_env()["OS_PROJECT_NAME"],
        "PROJECT_ID": simulator.project_id if project == "given" else "",
    }
    group, topic = simulator.add_group(), simulator.add_topic("gsh")
    report = run(program, "use", group, topic, environment=environment)
    assert report.pop("wrong_secret").items() >= {"status": 401, "code": "APIGW.0301"}.items()
    assert report.pop("duplicate").items() >= {"status": 400, "code": "AS.7041"}.items()
    assert report == {
        "project": simulator.project_id,
        "created": "from-go",
        "metadata": "grüße, 世界 = 1 + 1",
        "listed": ["from-go"],
        "timeout": 120,
        "left": [],
    }
    assert {request.auth for request in simulator.requests()} == {"signature"}
    assert len(simulator.requests("projects")) == (1 if project == "found" else 0)
