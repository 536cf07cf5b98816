"""How failures are classed: the tables of the API reference, written down again as section 3 of the design has them."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecyclehook_operator.cloud.errors import (
    CallError,
    CredentialsError,
    InvalidError,
    Reason,
    TransientError,
    UnexpectedError,
    WaitingError,
    classify,
    sanitize,
)

INVALID = (InvalidError, "InvalidSpec")
CLOUD = (TransientError, "CloudUnavailable")
LOGIN = (CredentialsError, "AuthenticationFailed")
FORBIDDEN = (WaitingError, "Forbidden")
UNEXPECTED = (UnexpectedError, "UnexpectedResponse")

# as_07_0102, all of it that a hook call can meet; the last three and AS.0002 could only come from a fault of ours.
AS_CODES = {
    "AS.0001": (500, CLOUD),
    "AS.0049": (500, CLOUD),
    "AS.0005": (401, LOGIN),
    "AS.0006": (401, LOGIN),
    "AS.0007": (404, (WaitingError, "GroupNotFound")),
    "AS.0008": (400, (CredentialsError, "CredentialsInvalid")),
    "AS.0011": (403, FORBIDDEN),
    "AS.0022": (400, INVALID),
    "AS.0031": (400, FORBIDDEN),
    "AS.2007": (400, (WaitingError, "GroupNotFound")),
    "AS.2020": (400, (WaitingError, "GroupBusy")),
    "AS.7030": (400, INVALID),
    "AS.7031": (400, INVALID),
    "AS.7032": (400, INVALID),
    "AS.7033": (400, INVALID),
    "AS.7034": (400, INVALID),
    "AS.7035": (400, INVALID),
    "AS.7036": (400, INVALID),
    "AS.7037": (400, INVALID),
    "AS.7038": (400, (WaitingError, "QuotaExceeded")),
    "AS.7041": (400, (WaitingError, "AlreadyExists")),
    "AS.7043": (400, (WaitingError, "TopicNotFound")),
    "AS.7055": (400, INVALID),
    "AS.0002": (400, UNEXPECTED),
    "AS.7039": (400, UNEXPECTED),
    "AS.7040": (400, UNEXPECTED),
    "AS.7042": (400, UNEXPECTED),
}

# The abnormal codes of as_06_0901, then the gateway's 429, then what nobody has documented.
HTTP_STATUSES = {
    400: UNEXPECTED,
    401: LOGIN,
    403: FORBIDDEN,
    404: UNEXPECTED,
    405: UNEXPECTED,
    406: UNEXPECTED,
    407: LOGIN,
    408: CLOUD,
    409: CLOUD,
    500: CLOUD,
    501: UNEXPECTED,
    502: CLOUD,
    503: CLOUD,
    504: CLOUD,
    429: (TransientError, "Throttled"),
    302: UNEXPECTED,
    418: UNEXPECTED,
    505: UNEXPECTED,
}

RETRIES = {
    InvalidError: "Never",
    WaitingError: "Slow",
    CredentialsError: "Slow",
    TransientError: "Backoff",
    UnexpectedError: "Slow",
}

REASONS_OF_THE_DESIGN = {
    *("Available", "Creating", "Updating", "Deleting", "InvalidSpec", "Conflict", "AlreadyExists", "Drifted", "Paused"),
    *("CredentialsNotFound", "CredentialsInvalid", "AuthenticationFailed", "Forbidden", "GroupNotFound", "GroupBusy"),
    *("TopicNotFound", "QuotaExceeded", "Throttled", "CloudUnavailable", "UnexpectedResponse"),
}
REASONS_THAT_ARE_NO_FAILURE = {"Available", "Creating", "Updating", "Deleting", "Drifted", "Paused"}
FAILURES = [reason for reason in Reason if reason not in REASONS_THAT_ARE_NO_FAILURE]
HEAL_BY_THEMSELVES = {"GroupBusy", "Throttled", "CloudUnavailable"}


@pytest.mark.parametrize("code", AS_CODES)
def test_a_code_of_as_is_classed_as_the_design_says(code: str) -> None:
    status, expected = AS_CODES[code]
    assert classify(status, code, "create") == expected


@pytest.mark.parametrize("status", HTTP_STATUSES)
def test_an_http_status_with_no_code_is_classed_as_the_design_says(status: int) -> None:
    assert classify(status, "", "create") == HTTP_STATUSES[status]


@pytest.mark.parametrize("code", [code for code, (_, rule) in AS_CODES.items() if rule != UNEXPECTED])
@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_known_code_decides_whatever_the_http_status(code: str, status: int) -> None:
    assert classify(status, code, "create") == AS_CODES[code][1]


@pytest.mark.parametrize("code", ["AS.9999", "AS.", "as.0001", "AS.00011", "APIGW.0301"])
@pytest.mark.parametrize("status", [400, 404, 405, 406])
def test_an_unknown_code_of_a_4xx_is_nothing_that_we_foresaw(status: int, code: str) -> None:
    assert classify(status, code, "create") == UNEXPECTED


@pytest.mark.parametrize("status", HTTP_STATUSES)
def test_a_gateways_code_leaves_the_decision_to_the_http_status(status: int) -> None:
    assert classify(status, "APIGW.0308", "create") == HTTP_STATUSES[status]


INVALID_CODES = [code for code, (_, (class_, _)) in AS_CODES.items() if class_ is InvalidError]


@pytest.mark.parametrize("code", INVALID_CODES)
def test_what_no_spec_goes_into_cannot_fail_by_the_spec(code: str) -> None:
    assert classify(400, code, "modify") == AS_CODES[code][1]
    for operation in ("list", "delete", "authenticate"):
        assert classify(400, code, operation) == UNEXPECTED


@given(status=st.integers(100, 599), code=st.text(max_size=10))
def test_every_answer_has_one_class_and_a_reason_that_is_a_failure(status: int, code: str) -> None:
    class_, reason = classify(status, code, "create")
    assert class_ in RETRIES
    assert reason in FAILURES


@pytest.mark.parametrize("class_", RETRIES, ids=lambda class_: class_.__name__)
def test_the_class_says_when_the_call_is_tried_again(class_: type[CallError]) -> None:
    assert class_.retry == RETRIES[class_]


@pytest.mark.parametrize("operation", ["create", "list", "modify", "delete"])
def test_a_missing_right_is_waited_for_whatever_the_call(operation: str) -> None:
    assert classify(400, "AS.0031", operation) == FORBIDDEN


@pytest.mark.parametrize(
    ("operation", "message", "right"),
    [
        ("create", "Policy does not allow [as:lifecycleHooks:create] to be performed.", "as:lifecycleHooks:create"),
        ("create", "policy doesn't allow as:lifecycleHooks:get to be performed", "as:lifecycleHooks:get"),
        ("create", "Policy does not allow [smn:topic:list] to be performed.", "smn:topic:list"),
        ("create", "as:lifecycleHooks:list, as:lifecycleHooks:get", "as:lifecycleHooks:list"),
        ("create", "Policy does not allow [] to be performed.", "as:lifecycleHooks:create"),
        ("list", "", "as:lifecycleHooks:list"),
        ("modify", "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh", "as:lifecycleHooks:update"),
        ("delete", "a:b", "as:lifecycleHooks:delete"),
        ("list_suspensions", "", "as:instanceHooks:list"),
        ("callback", "", "as:instanceHooks:action"),
        ("delete", "as:" + "x" * 65 + ":create", "as:lifecycleHooks:delete"),
        ("delete", "\u0430s:lifecycleHooks:create", "as:lifecycleHooks:delete"),
    ],
)
def test_the_right_that_is_missing_is_named(operation: str, message: str, right: str) -> None:
    error = WaitingError(Reason.FORBIDDEN, message, operation=operation, code="AS.0031")
    assert error.advice == f"Grant the user the right {right} in this project."


@pytest.mark.parametrize(
    ("operation", "rights"),
    [
        ("create", "as:lifecycleHooks"),
        ("list_suspensions", "as:instanceHooks"),
        ("callback", "as:instanceHooks"),
    ],
)
def test_a_user_without_a_role_is_not_told_of_one_right_alone(operation: str, rights: str) -> None:
    message = "no right to as:lifecycleHooks:create"
    error = WaitingError(Reason.FORBIDDEN, message, operation=operation, code="AS.0011")
    assert error.advice == f"Grant the user the {rights} permissions in this project."


def test_there_are_no_other_classes() -> None:
    assert set(CallError.__subclasses__()) == set(RETRIES)


def test_the_reasons_are_those_of_the_design() -> None:
    assert {*Reason} <= REASONS_OF_THE_DESIGN


@pytest.mark.parametrize("reason", FAILURES)
def test_every_failure_says_what_to_do_and_whether_only_a_human_can(reason: Reason) -> None:
    error = UnexpectedError(reason, "as it pleases", operation="create")
    assert error.advice.endswith(".") or reason is Reason.CLOUD_UNAVAILABLE  # only waiting helps
    assert error.is_terminal == (reason not in HEAL_BY_THEMSELVES)


def test_an_error_shows_its_message_and_keeps_the_details() -> None:
    error = TransientError(Reason.THROTTLED, "slow down", operation="list", http_status=429, retry_after_seconds=7)
    assert str(error) == "slow down"
    assert (error.code, error.request_id, error.outcome_unknown) == ("", "", False)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("plain words: a > b, [c] & ~d!", "plain words: a > b, [c] & ~d!"),
        ("two  words", "two words"),
        (" plain", "plain"),
        ("plain ", "plain"),
        ("plain\n", "plain"),
        ("  two \r\n\t lines\n", "two lines"),
        ("", ""),
        ("<html><body><h1>502</h1><p>Bad gateway</p></body></html>", "502 Bad gateway"),
        ("<head><title>no</title></head><style>h1 {color: red}</style><script>alert(1)</script>yes", "yes"),
        ("<STYLE>\n.x{}\n</STYLE>yes", "yes"),
        ("<header>yes</header>", "yes"),
        ("cut off <in the middle of a tag", "cut off <in the middle of a tag"),
        ("\x00\x1b[31mred\x7f", "\ufffd[31mred\ufffd"),
        ("right\u202eleft\u200bnext\u2028line", "right\ufffdleft\ufffdnext line"),
        ("größer", "größer"),
        ("x" * 256, "x" * 256),
        ("x" * 257, "x" * 255 + "…"),
    ],
)
def test_foreign_text_is_made_fit_for_a_status(text: str, cleaned: str) -> None:
    assert sanitize(text) == cleaned


INVISIBLE = (
    "\0\x1b\x7f\x85\xad\u034f\u061c\u115f\u180e\u200b\u200d\u200f\u2028\u202e\u2060\u2066\u3164\ufe0f\ufeff"
    "\U000e0041\U000e0100"
)


@given(text=st.text(st.characters() | st.sampled_from(f"{INVISIBLE}<>\r\n\t")), limit=st.integers(1, 50))
def test_clean_text_is_one_line_of_visible_characters_within_its_limit(text: str, limit: int) -> None:
    cleaned = sanitize(text, limit)
    assert len(cleaned) <= limit
    assert cleaned.isprintable()
    assert set(cleaned).isdisjoint(INVISIBLE)
    assert {unicodedata.category(character) for character in cleaned}.isdisjoint(
        {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    )
    assert cleaned == cleaned.strip()
    assert sanitize(cleaned, limit) == cleaned


@pytest.mark.parametrize("text", ["<head " * 6_000, "<script>" * 4_000, "<" * 40_000])
def test_a_malformed_page_is_cleaned_in_no_time(text: str) -> None:
    begin = time.process_time()
    sanitize(text)
    assert time.process_time() - begin < 0.1
