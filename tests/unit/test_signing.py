"""Requests signed with an access key: the canonical form letter by letter, and what is done with it."""

import hashlib
import hmac
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import SecretStr

from lifecyclehook_operator.cloud.signing import SignatureAuth, canonical_request

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def sign(request: httpx.Request, security_token: str | None = None) -> httpx.Request:
    token = SecretStr(security_token) if security_token else None
    auth = SignatureAuth("AK", SecretStr("SK"), token, now=lambda: NOW)
    return next(auth.sync_auth_flow(request))


def test_a_request_without_a_body_letter_by_letter() -> None:
    request = sign(httpx.Request("GET", "https://as.example.com:8443/autoscaling-api/v1/p-1/hook/list"))
    assert canonical_request(request, ["host", "x-sdk-date"]) == (
        "GET\n"
        "/autoscaling-api/v1/p-1/hook/list/\n"
        "\n"
        "host:as.example.com:8443\n"
        "x-sdk-date:20260301T120005Z\n"
        "\n"
        "host;x-sdk-date\n"
        f"{EMPTY_SHA256}"
    )


def test_the_authorization_is_an_hmac_of_algorithm_time_and_hash() -> None:
    request = sign(httpx.Request("GET", "https://as.example.com/a"))
    canonical = f"GET\n/a/\n\nhost:as.example.com\nx-sdk-date:20260301T120005Z\n\nhost;x-sdk-date\n{EMPTY_SHA256}"
    text = f"SDK-HMAC-SHA256\n20260301T120005Z\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(b"SK", text.encode(), "sha256").hexdigest()
    assert request.headers["Authorization"] == (
        f"SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature={signature}"
    )


def test_a_known_vector() -> None:
    """The signature was computed once with openssl: sha256 of the canonical request, then hmac of the text above."""
    request = sign(httpx.Request("GET", "https://as.example.com/a"))
    assert request.headers["Authorization"].endswith(
        "Signature=cb52f18d89b819b94dc20c596593d286574ca1c80ad648e95019bce3ce2b78e8"
    )


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("https://h/", "/", ""),
        ("https://h", "/", ""),
        ("https://h/a/", "/a/", ""),
        ("https://h/a b/ü", "/a%20b/%C3%BC/", ""),
        ("https://h/a%2Fb~_.-", "/a%2Fb~_.-/", ""),
        ("https://h/a?b=2&a=1", "/a/", "a=1&b=2"),
        ("https://h/a?b=2&b=1&b=", "/a/", "b=&b=1&b=2"),
        ("https://h/a?name=eu-de demo&x=ü*", "/a/", "name=eu-de%20demo&x=%C3%BC%2A"),
        ("https://h/a?a=1%2B1&A=2", "/a/", "A=2&a=1%2B1"),
    ],
)
def test_path_and_query_are_canonical(url: str, path: str, query: str) -> None:
    lines = canonical_request(sign(httpx.Request("GET", url)), ["host"]).split("\n")
    assert lines[1:3] == [path, query]


def test_the_body_is_signed_whatever_is_in_it() -> None:
    request = sign(httpx.Request("POST", "https://h/a", json={"notification_metadata": "Größe: 漢字"}))
    assert canonical_request(request, ["host"]).endswith(hashlib.sha256(request.content).hexdigest())
    assert "content-type;host;x-sdk-date" in request.headers["Authorization"]


def test_headers_of_ours_are_signed_and_others_are_not() -> None:
    headers = {"X-Project-Id": " p-1 ", "Accept": "*/*", "User-Agent": "x"}
    request = sign(httpx.Request("GET", "https://h/a", headers=headers), security_token="ST")
    assert "SignedHeaders=host;x-project-id;x-sdk-date," in request.headers["Authorization"]
    assert request.headers["X-Security-Token"] == "ST"
    assert "x-project-id:p-1\n" in canonical_request(request, ["x-project-id"])


def test_the_secret_key_is_not_sent() -> None:
    request = sign(httpx.Request("GET", "https://h/a"))
    assert "SK" not in str(request.headers).replace("SDK", "")
