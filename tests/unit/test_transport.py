"""From what httpx raises or returns to our own errors."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecyclehook_operator.cloud.errors import (
    CallError,
    TransientError,
    UnexpectedError,
    UnreadableError,
    WaitingError,
    error_from_response,
    transport_errors,
)

URL = "https://as.example.com/autoscaling-api/v1/project/scaling_lifecycle_hook/group"

AS_BODY = {"error": {"code": "AS.7038", "message": "too many"}}
GATEWAY_BODY = {"error_code": "APIGW.0308", "error_msg": "slow down", "request_id": "r-body"}
IAM_BODY = {"error": {"code": 401, "title": "Unauthorized", "message": "wrong password"}}
HTML_BODY = "<html><head><title>no</title></head><body><h1>502</h1>\n<p>Bad &amp; gateway</p></body></html>"

# Each way in which httpx can fail, and whether the request may have had its effect nevertheless.
TRANSPORT_ERRORS: dict[type[httpx.RequestError], bool] = {
    httpx.ConnectError: False,
    httpx.ConnectTimeout: False,
    httpx.PoolTimeout: False,
    httpx.ProxyError: False,
    httpx.UnsupportedProtocol: False,
    httpx.ReadTimeout: True,
    httpx.WriteTimeout: True,
    httpx.ReadError: True,
    httpx.WriteError: True,
    httpx.CloseError: True,
    httpx.LocalProtocolError: True,
    httpx.RemoteProtocolError: True,
    httpx.DecodingError: True,
    httpx.TooManyRedirects: True,
}


def answer(status: int, body: Any = None, **headers: str) -> CallError:
    """Return the error that an answer with this body means: JSON, text or bytes."""
    named = {name.replace("_", "-"): value.encode() for name, value in headers.items()}
    content = {"content": body} if isinstance(body, (str, bytes)) else {"json": body} if body is not None else {}
    return error_from_response(
        httpx.Response(status, headers=named, request=httpx.Request("POST", URL), **content), "create"
    )


def leaves(class_: type[Exception]) -> set[type[Exception]]:
    return set().union(*map(leaves, class_.__subclasses__())) or {class_}


async def fail_with(error: Exception) -> CallError:
    """Return what becomes of an exception that httpx raises in a request."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as http:
        with pytest.raises(CallError) as caught, transport_errors("create"):
            await http.post(URL)
    return caught.value


@pytest.mark.parametrize("class_", TRANSPORT_ERRORS, ids=lambda class_: class_.__name__)
async def test_each_failure_on_the_way_is_transient_and_tells_whether_the_call_may_have_been_done(
    class_: type[httpx.RequestError],
) -> None:
    error = await fail_with(class_("as it pleases"))
    assert isinstance(error, TransientError)
    assert error.outcome_unknown == TRANSPORT_ERRORS[class_]
    assert (error.reason, error.operation, error.http_status) == ("CloudUnavailable", "create", None)
    assert "as.example.com" in error.message


def test_there_are_no_other_failures_on_the_way() -> None:
    assert leaves(httpx.RequestError) == {*TRANSPORT_ERRORS, UnreadableError}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ReadTimeout(""), "no response from as.example.com in time"),
        (httpx.ConnectTimeout(""), "no response from as.example.com in time"),
        (httpx.ConnectError("<b>refused</b>\n"), "cannot connect to as.example.com: refused"),
        (httpx.ReadError(""), "the connection to as.example.com was lost before the response was complete"),
    ],
)
async def test_a_failure_on_the_way_is_described_in_the_same_words_each_time(error: Exception, message: str) -> None:
    assert (await fail_with(error)).message == message


async def test_an_address_that_is_none_is_an_error_of_the_call_too() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        with pytest.raises(CallError) as caught, transport_errors("create"):
            await http.post("https://as.example.com:port/")
    assert not caught.value.outcome_unknown


async def test_an_answer_that_leads_to_what_cannot_be_encoded_is_an_error_of_the_call() -> None:
    def redirect(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "https://xn--"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(redirect)) as http:
        for headers, url in (({}, URL), ({"X-Project-Id": "漢"}, URL), ({}, f"{URL}/\ud800")):
            with pytest.raises(TransientError) as caught, transport_errors("create"):
                await http.post(url, headers=headers)
            assert (caught.value.reason, caught.value.outcome_unknown) == ("UnexpectedResponse", True)


async def test_a_fault_of_ours_is_not_taken_for_one_of_the_cloud() -> None:
    with pytest.raises(ZeroDivisionError), transport_errors("create"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param(AS_BODY, "AS.7038", "too many", id="AS"),
        pytest.param(IAM_BODY, "", "wrong password", id="IAM"),
        pytest.param(GATEWAY_BODY, "APIGW.0308", "slow down", id="gateway"),
        pytest.param(HTML_BODY, "", "502 Bad &amp; gateway", id="HTML"),
        pytest.param("no healthy upstream", "", "no healthy upstream", id="text"),
        pytest.param("", "", "Bad Gateway", id="empty"),
        pytest.param(" \n", "", "Bad Gateway", id="blank"),
        pytest.param(b"\xff\xfe\x00", "", "\ufffd", id="not-UTF-8"),
        pytest.param('{"error": ', "", '{"error":', id="cut-off"),
        pytest.param(["a", "list"], "", '["a","list"]', id="JSON-list"),
        pytest.param('"text"', "", '"text"', id="JSON-string"),
        pytest.param("null", "", "null", id="JSON-null"),
        pytest.param({"detail": "other"}, "", '{"detail":"other"}', id="other-JSON"),
        pytest.param({"error": "text"}, "", '{"error":"text"}', id="error-is-text"),
        pytest.param({"error": {}}, "", '{"error":{}}', id="error-is-empty"),
        pytest.param({"error": {"code": "AS.0001"}}, "AS.0001", '{"error":{"code":"AS.0001"}}', id="no-message"),
        pytest.param({"error": {"message": "no code"}}, "", "no code", id="no-code"),
        pytest.param({"error": {"code": None, "message": "null"}}, "", "null", id="code-is-null"),
        pytest.param(
            {"error": {"code": ["AS"], "message": {"en": "x"}}},
            "",
            '{"error":{"code":["AS"],"message":{"en":"x"}}}',
            id="odd-types",
        ),
    ],
)
def test_code_and_message_are_found_in_any_body(body: Any, code: str, message: str) -> None:
    error = answer(502, body)
    assert (error.http_status, error.code, error.message) == (502, code, message)


def test_the_phrase_of_a_status_is_cleaned_and_cut() -> None:
    phrase = b"\x1b[31mNo\tway" + b"!" * 1000
    response = httpx.Response(502, request=httpx.Request("POST", URL), extensions={"reason_phrase": phrase})
    error = error_from_response(response, "create")
    assert error.message.startswith("\ufffd[31mNo way!!!")
    assert len(error.message) == 256


def test_an_answer_with_neither_body_nor_a_known_phrase_still_says_something() -> None:
    assert answer(599, "").message == "empty response"


@pytest.mark.parametrize("body", ["<p>" + "x" * 10_000, {"error": {"code": "A" * 10_000, "message": "x" * 10_000}}])
def test_what_is_shown_of_an_answer_is_bounded(body: Any) -> None:
    error = answer(502, body, X_Request_Id="r" * 20)
    assert len(error.message) <= 256
    assert len(error.code) <= 64


@pytest.mark.parametrize("charset", ["undefined", "utf-16", "idna", "rot13", "zlib", "hex", "no-such"])
def test_whatever_charset_a_body_claims_it_is_read(charset: str) -> None:
    error = answer(502, "no healthy upstream", Content_Type=f"text/plain; charset={charset}")
    assert error.message == "no healthy upstream"


def test_a_deeply_nested_body_is_an_error_like_any_other() -> None:
    assert isinstance(answer(502, "[" * 100_000), TransientError)


@pytest.mark.parametrize(
    ("headers", "body", "request_id"),
    [
        ({"X-Request-Id": "r-header"}, AS_BODY, "r-header"),
        ({"x-openstack-request-id": "r-openstack"}, IAM_BODY, "r-openstack"),
        ({"X-Request-Id": "r-header"}, GATEWAY_BODY, "r-header"),
        ({}, GATEWAY_BODY, "r-body"),
        ({}, {**AS_BODY, "request_id": "r-body"}, "r-body"),
        ({}, {**GATEWAY_BODY, "request_id": None}, ""),
        ({}, AS_BODY, ""),
        ({}, HTML_BODY, ""),
        ({}, "", ""),
        ({"X-Request-Id": "r\u200b-<b>1"}, AS_BODY, "r\ufffd- 1"),
        ({"X-Request-Id": "r" * 65}, AS_BODY, "r" * 63 + "…"),
        ({}, {**AS_BODY, "request_id": "r\n1"}, "r 1"),
        ({}, {**AS_BODY, "request_id": ["r"]}, ""),
    ],
)
def test_the_request_id_is_that_of_a_header_or_else_of_the_body(
    headers: dict[str, str], body: Any, request_id: str
) -> None:
    assert answer(503, body, **headers).request_id == request_id


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("7 seconds", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Wed, 32 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 9999999999999999999 07:28:00 GMT", None),
        ("Wed, 99999999999999999999 Oct 2015 07:28:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
        ("Mon, 01 Jan 2024 00:00:00 -99999999999999", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("1e400", None),
        ("inf", None),
        ("120, 60", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_and_garbage_is_ignored(
    value: str | None, seconds: float | None
) -> None:
    assert answer(503, AS_BODY, **({} if value is None else {"Retry_After": value})).retry_after_seconds == seconds


def test_retry_after_as_a_date_to_come_is_the_time_until_then() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = answer(503, AS_BODY, Retry_After=date).retry_after_seconds
    assert seconds is not None
    assert 80 < seconds <= 90


@pytest.mark.parametrize(
    "value",
    [
        "601",
        "3600",
        "999999999999999999",
        "9" * 5_000,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
    ],
)
def test_no_retry_after_stops_a_hook_for_longer_than_ten_minutes(value: str) -> None:
    assert answer(503, AS_BODY, Retry_After=value).retry_after_seconds == 600


@given(
    value=st.lists(
        st.sampled_from(["Mon,", "01", "Jan", "-1", "2024", "9" * 20, "00:00:00", "GMT", "+", "-", ".", ":", "", "("])
    ).map(" ".join)
)
def test_no_retry_after_is_a_fault(value: str) -> None:
    assert 0 <= (answer(503, AS_BODY, Retry_After=value).retry_after_seconds or 0) <= 600


@pytest.mark.parametrize(
    ("status", "body", "class_", "outcome_unknown"),
    [
        (500, "", TransientError, True),
        (502, HTML_BODY, TransientError, True),
        (503, "", TransientError, True),
        (504, "", TransientError, True),
        (408, "", TransientError, True),
        (409, "", TransientError, True),
        (429, GATEWAY_BODY, TransientError, False),
        (400, AS_BODY, WaitingError, False),
        (404, "", UnexpectedError, False),
    ],
)
def test_an_answer_tells_whether_the_call_may_have_been_done(
    status: int, body: Any, class_: type[CallError], outcome_unknown: bool
) -> None:
    error = answer(status, body)
    assert isinstance(error, class_)
    assert error.outcome_unknown == outcome_unknown
