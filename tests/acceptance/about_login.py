"""What is assumed of IAM, by password and by access key, and of the signatures that AS takes."""

import copy
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from lifecyclehook_operator.cloud.endpoints import find_region
from lifecyclehook_operator.cloud.signing import DATE_HEADER, SECURITY_TOKEN_HEADER, SignatureAuth, canonical_request

from .assumption import (
    OUR_READING,
    Assumptions,
    NotTriedError,
    describe,
    expect,
    expect_answer,
    expect_equal,
    expect_refusal,
)
from .group import LEFT_OUT
from .project import Project, token_request
from .run import Run

IAM, SIGNING = "IAM API v3", "API signing guide"
SHORTEST_TOKEN = timedelta(minutes=15)

ASSUMPTIONS = Assumptions()


# --- by password --------------------------------------------------------------------------------------------------


@ASSUMPTIONS.add(IAM)
def a_login_answers_with_a_token(run: Run) -> None:
    """A login by password is answered with 201, the token in X-Subject-Token, and the project's ID and name."""
    project = run.require_user()
    response = project.request_token(token_request(project.credentials))
    token = expect_answer(response, 201).get("token", {})
    expect(response.headers.get("X-Subject-Token"), "without X-Subject-Token")
    expect({"id", "name"} <= token.get("project", {}).keys(), "without the project's ID and name")


@ASSUMPTIONS.add(IAM)
def a_token_says_how_long_it_lives(run: Run) -> None:
    """A token says when it was issued and when it expires, with a time zone, and lives for more than 15 minutes."""
    project = run.require_user()
    token = expect_answer(project.request_token(token_request(project.credentials)), 201)["token"]
    issued, expires = (datetime.fromisoformat(token[name]) for name in ("issued_at", "expires_at"))
    expect(issued.tzinfo and expires.tzinfo, f"without a time zone: {token['issued_at']}, {token['expires_at']}")
    expect(expires - issued > SHORTEST_TOKEN, f"it lives for {expires - issued}")


@ASSUMPTIONS.add(OUR_READING)
def the_catalog_of_a_token_has_as(run: Run) -> None:
    """The catalog of a token has AS (asv1 or as) at a public endpoint in the region of the project."""
    project = run.require_user()
    token = expect_answer(project.request_token(token_request(project.credentials)), 201)["token"]
    expect_as_in(project, token.get("catalog", []))


def expect_as_in(project: Project, catalog: list[dict[str, Any]]) -> None:
    region = find_region(project.credentials, project.endpoint.project_name)
    found = [
        (service["type"], endpoint.get("interface"), endpoint.get("region"))
        for service in catalog
        if service.get("type") in ("asv1", "as")
        for endpoint in service.get("endpoints", [])
    ]
    expect(
        any(interface == "public" and where == region for _, interface, where in found),
        f"{found or 'neither'}; all types: {', '.join(sorted(str(service.get('type')) for service in catalog))}",
    )


@ASSUMPTIONS.add(IAM)
def an_unknown_user_is_a_401(run: Run) -> None:
    """A login as a user that does not exist is refused with 401."""
    project = run.require_user()
    stranger = project.credentials.model_copy(
        update={"username": f"{run.group.prefix}{secrets.token_hex(4)}", "user_id": ""}
    )
    if not (stranger.user_domain_id or stranger.user_domain_name):
        raise NotTriedError("the user was given by an ID, and its domain is not known")
    expect_status(project.request_token(token_request(stranger)), 401)


@ASSUMPTIONS.add(OUR_READING)
def an_unknown_project_is_refused(run: Run) -> None:
    """A login to a project that does not exist is refused with 401."""
    project = run.require_user()
    nowhere = project.credentials.model_copy(update={"project_id": uuid.uuid4().hex})
    expect_status(project.request_token(token_request(nowhere)), 401)


@ASSUMPTIONS.add(IAM)
def a_malformed_login_is_a_400(run: Run) -> None:
    """A login without a password is refused with 400."""
    project = run.require_user()
    body = copy.deepcopy(token_request(project.credentials))
    del body["auth"]["identity"]["password"]
    expect_status(project.request_token(body), 400)


@ASSUMPTIONS.add(IAM)
def iam_refuses_a_wrong_token(run: Run) -> None:
    """IAM refuses a request for the catalog with a token that is none, with 401."""
    response = run.project.send("GET", f"{run.project.iam_url}/auth/catalog", headers={"X-Auth-Token": "wrong"})
    expect_status(response, 401)


ASSUMPTIONS.add_untried(
    "IAM login_authentication_policy",
    "it would lock the user for everybody",
    the_fifth_wrong_password_locks_the_user="Five wrong passwords within 15 minutes lock a user for 15 minutes, with "
    "401 IAM.0061.",
)


# --- by access key ------------------------------------------------------------------------------------------------


class ChangedSignature(httpx.Auth):
    """Has a request signed by the operator's signer, and changes it afterwards."""

    requires_request_body = True

    def __init__(self, signature: SignatureAuth, change: Callable[[httpx.Request], None]) -> None:
        self._signature = signature
        self._change = change

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        next(self._signature.auth_flow(request))
        self._change(request)
        yield request


@ASSUMPTIONS.add(SIGNING)
def a_signed_request_is_taken(run: Run) -> None:
    """AS takes a request signed by SDK-HMAC-SHA256 Access=..., over host, content type, X-Sdk-Date and X-Project-Id."""
    expect_answer(run.group.list(auth=run.require_key().signature()))


@ASSUMPTIONS.add(SIGNING)
def a_signed_create_is_taken(run: Run) -> None:
    """AS takes a signed create, with characters beyond ASCII in its body."""
    hook = expect_answer(run.group.create(auth=run.require_key().signature(), notification_metadata="grün"))
    expect_equal(hook["notification_metadata"], "grün", "notification_metadata")


@ASSUMPTIONS.add("golangsdk, gophertelekomcloud")
def the_chained_signature_is_taken(run: Run) -> None:
    """AS takes the form of golangsdk: Credential=AK/date///sdk_request, signed by a chain of HMACs."""
    expect_answer(run.group.list(auth=_scoped(run.require_key(), "SDK-HMAC-SHA256", "///sdk_request")))


@ASSUMPTIONS.add("SDKs, derived keys")
def the_derived_signature_is_taken(run: Run) -> None:
    """AS takes the form of the newer SDKs: V11-HMAC-SHA256 Credential=AK/date/region/as, signed by a derived key."""
    project = run.require_key()
    region = find_region(project.credentials, project.endpoint.project_name) or "eu-de"
    expect_answer(run.group.list(auth=_scoped(project, "V11-HMAC-SHA256", f"/{region}/as")))


def _scoped(project: Project, algorithm: str, scope_end: str) -> ChangedSignature:
    """Return a signature in a form with a scope, which is the date and this end."""
    key = project.credentials
    secret = key.sk.get_secret_value() if key.sk else ""

    def sign(request: httpx.Request) -> None:
        date = request.headers[DATE_HEADER]
        scope = f"{date[:8]}{scope_end}"
        if algorithm.startswith("V11"):  # HKDF, of which 32 bytes are one round
            signing_key = _keyed(_keyed(key.ak.encode(), secret), f"{scope}\x01").hex().encode()
        else:
            signing_key = f"SDK{secret}".encode()
            for part in scope.split("/"):
                signing_key = _keyed(signing_key, part)
        names = request.headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        digest = hashlib.sha256(canonical_request(request, names).encode()).hexdigest()
        signature = _keyed(signing_key, f"{algorithm}\n{date}\n{scope}\n{digest}").hex()
        request.headers["Authorization"] = (
            f"{algorithm} Credential={key.ak}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    return ChangedSignature(project.signature(), sign)


def _keyed(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


@ASSUMPTIONS.add(SIGNING)
def a_wrong_secret_is_a_401(run: Run) -> None:
    """A request signed with a wrong secret is refused with 401, in the shape of the gateway: error_code, error_msg."""
    response = run.group.list(auth=run.require_key().signature(secret=secrets.token_hex(20)))
    expect(expect_answer(response, 401).keys() >= {"error_code", "error_msg"}, describe(response))


@ASSUMPTIONS.add(SIGNING)
def an_old_signature_is_a_401(run: Run) -> None:
    """A signature of 20 minutes ago is refused with 401."""
    key = run.require_key().credentials
    if key.sk is None:
        raise NotTriedError("no secret key was given")
    before = datetime.now(UTC) - timedelta(minutes=20)
    old = SignatureAuth(key.ak, key.sk, key.security_token, now=lambda: before)
    expect_status(run.group.list(auth=old), 401)


@ASSUMPTIONS.add(SIGNING)
def a_changed_request_is_a_401(run: Run) -> None:
    """A request whose X-Project-Id was changed after it was signed is refused with 401."""

    def change(request: httpx.Request) -> None:
        request.headers["X-Project-Id"] = uuid.uuid4().hex

    expect_status(run.group.list(auth=ChangedSignature(run.require_key().signature(), change)), 401)


@ASSUMPTIONS.add(OUR_READING)
def the_project_of_a_signed_request_is_checked(run: Run) -> None:
    """A signed request whose X-Project-Id is another project than that of its address is refused with 400 AS.0008."""
    project = run.require_key()
    response = run.group.list(auth=project.signature(), project_id=uuid.uuid4().hex)
    expect_refusal(response, 400, "AS.0008")


@ASSUMPTIONS.add(OUR_READING)
def a_signed_request_for_no_project_of_the_user_is_as_0011(run: Run) -> None:
    """A signed request, by X-Project-Id and address, for a project that is not the user's is refused with 403
    AS.0011."""
    project, other = run.require_key(), uuid.uuid4().hex
    response = run.group.list(auth=project.signature(), project_id=other, headers={"X-Project-Id": other})
    expect_refusal(response, 403, "AS.0011")


@ASSUMPTIONS.add(SIGNING)
def a_temporary_key_needs_its_token(run: Run) -> None:
    """A temporary key is taken with its security token sent and not signed, and refused with 401 without it."""
    project = run.require_key()
    if project.credentials.security_token is None:
        raise NotTriedError("no temporary access key was given: OS_SECURITY_TOKEN")

    def forget(request: httpx.Request) -> None:
        del request.headers[SECURITY_TOKEN_HEADER]

    expect_answer(run.group.list(auth=project.signature()))
    expect_status(run.group.list(auth=ChangedSignature(project.signature(), forget)), 401)


@ASSUMPTIONS.add(IAM)
def a_project_is_found_by_its_name(run: Run) -> None:
    """A signed GET /v3/projects?name=... is answered with 200 and one project of that name, with its ID."""
    project = run.require_key()
    name = project.credentials.project_name or project.endpoint.project_name
    if not name:
        raise NotTriedError("the project's name is not known")
    response = project.send(
        "GET", f"{project.iam_url}/projects", params={"name": name}, headers={}, auth=project.signature()
    )
    if response.status_code == 403:
        raise NotTriedError("the user may not list projects: 403, as assumed for that case")
    found = expect_answer(response).get("projects", LEFT_OUT)
    expect([each.get("id") for each in found] == [project.endpoint.project_id], f"{len(found)} projects: {found}")


@ASSUMPTIONS.add(IAM)
def the_catalog_is_read_by_key(run: Run) -> None:
    """A signed GET /v3/auth/catalog with X-Project-Id is answered with 200 and the catalog, which has AS in it."""
    project = run.require_key()
    response = project.send(
        "GET", f"{project.iam_url}/auth/catalog", headers=project.project_header, auth=project.signature()
    )
    expect_as_in(project, expect_answer(response).get("catalog", []))


def expect_status(response: httpx.Response, status: int) -> None:
    expect(response.status_code == status, describe(response))
