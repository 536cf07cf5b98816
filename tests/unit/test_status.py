"""From the outcome of a reconcile to the status, and from the status to a patch and Events, or none."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecyclehook_operator.api.v1alpha1 import Condition, LifecycleHook, LifecycleHookStatus, SuspendedInstances
from lifecyclehook_operator.cloud.errors import (
    CallError,
    CredentialsError,
    InvalidError,
    Reason,
    TransientError,
    UnexpectedError,
    WaitingError,
)
from lifecyclehook_operator.controller.status import (
    Drifted,
    Failed,
    InSync,
    Paused,
    describe_changes,
    find_events,
    is_only_unobserved,
    next_status,
    note_secret,
    status_patch,
)
from lifecyclehook_operator.kube.events import Event
from tests.unit.samples import make_hook, make_spec

Outcome = InSync | Drifted | Failed | Paused

NOON = datetime(2026, 3, 1, 12, 0, 0, 999999, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
AT_NOON, AT_LATER = "2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z"

SYNCED = InSync(make_hook(), "project-1", "group-1")
CORRECTED = InSync(
    make_hook(),
    "project-1",
    "group-1",
    Event("Normal", "DriftCorrected", "Reverted external change: defaultTimeout 99 -> 3600"),
)
CHANGED = Drifted(make_hook(default_timeout=60), "Changed outside Kubernetes: defaultTimeout 3600 -> 60")
PAUSED = Paused("Paused by an annotation.")
VANISHED = Drifted(None, "Deleted outside Kubernetes")


def failed(class_: type[CallError], reason: Reason, message: str = "as it pleases", **details: Any) -> Failed:
    return Failed(class_(reason, message, **{"operation": "create", **details}))


UNAVAILABLE = failed(TransientError, Reason.CLOUD_UNAVAILABLE, http_status=503, request_id="r-1")
CONNECTION_LOST = failed(TransientError, Reason.CLOUD_UNAVAILABLE, "the connection was lost")
QUOTA = failed(WaitingError, Reason.QUOTA_EXCEEDED, "too many", http_status=400, code="AS.7038", request_id="r-1")
INVALID = failed(InvalidError, Reason.INVALID_SPEC, "spec.defaultTimeout: 1 is not allowed", operation="validate")
TAKEN = failed(WaitingError, Reason.ALREADY_EXISTS, "the group has a hook of that name", operation="adopt")
NO_SECRET = failed(
    CredentialsError, Reason.CREDENTIALS_NOT_FOUND, "Secret web/otc does not exist", operation="authenticate"
)
RUBBISH = failed(UnexpectedError, Reason.UNEXPECTED_RESPONSE, http_status=404)
MALFORMED = failed(TransientError, Reason.UNEXPECTED_RESPONSE, http_status=200)
CONFLICT = failed(WaitingError, Reason.CONFLICT, "LifecycleHook web/other owns the hook", operation="claim")
FAILURES = [UNAVAILABLE, CONNECTION_LOST, QUOTA, INVALID, TAKEN, CONFLICT, NO_SECRET, RUBBISH]
EDITED = InSync(make_hook(default_timeout=60, notification_metadata="x"), "project-1", "group-1")
OUTCOMES: list[Outcome] = [SYNCED, EDITED, CORRECTED, CHANGED, VANISHED, *FAILURES]


def follow(*outcomes: Outcome, generation: int = 1, now: datetime = NOON) -> LifecycleHookStatus:
    """Return the status after these outcomes, all of one generation and time."""
    status = LifecycleHookStatus()
    for outcome in outcomes:
        status = next_status(status, outcome, generation, now)
    return status


def conditions(status: LifecycleHookStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def write(status: Mapping[str, Any] | None, wanted: LifecycleHookStatus) -> dict[str, Any]:
    """Return the status as the API server keeps and gives it back after the patch."""
    body = {} if status is None else {"status": status}
    patched = jsonpatch.apply_patch(body, [dict(operation) for operation in status_patch(status, wanted)])
    kept: dict[str, Any] = json.loads(json.dumps(patched))["status"]
    return kept


def test_a_hook_in_sync_is_ready_and_all_eight_fields_of_the_answer_are_shown() -> None:
    assert follow(SYNCED, generation=3).as_object() == {
        "observedGeneration": 3,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Available",
                "message": "The lifecycle hook is up to date.",
                "observedGeneration": 3,
                "lastTransitionTime": AT_NOON,
            }
        ],
        "appliedGeneration": 3,
        "projectId": "project-1",
        "scalingGroupId": "group-1",
        "lifecycleHook": {
            "lifecycleHookName": "test-hook1",
            "lifecycleHookType": "INSTANCE_LAUNCHING",
            "defaultResult": "ABANDON",
            "defaultTimeout": 3600,
            "notificationTopicUrn": "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh",
            "notificationTopicName": "gsh",
            "notificationMetadata": "",
            "createTime": "2019-03-18T16:00:11Z",
        },
    }


def test_a_failure_shows_what_the_cloud_answered_and_what_to_do() -> None:
    assert follow(QUOTA).as_object() == {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": type_,
                "status": status,
                "reason": "QuotaExceeded",
                "message": "create: too many (400 AS.7038). An AS group can have at most five hooks: delete one. "
                "The operator retries every few minutes.",
                "observedGeneration": 1,
                "lastTransitionTime": AT_NOON,
            }
            for type_, status in (("Ready", "False"), ("Stalled", "True"))
        ],
        "error": {
            "operation": "create",
            "httpStatus": 400,
            "code": "AS.7038",
            "message": "too many",
            "requestId": "r-1",
            "time": AT_NOON,
            "retry": "Slow",
        },
    }


def test_a_failure_with_no_answer_has_no_http_status_and_no_code() -> None:
    error = follow(CONNECTION_LOST).as_object()["error"]
    assert error == {
        "operation": "create",
        "message": "the connection was lost",
        "time": AT_NOON,
        "retry": "Backoff",
    }


@pytest.mark.parametrize(
    ("before", "outcome", "ready", "stalled"),
    [
        ([], SYNCED, ("True", "Available"), None),
        ([], UNAVAILABLE, ("False", "CloudUnavailable"), None),
        ([SYNCED], UNAVAILABLE, ("Unknown", "CloudUnavailable"), None),
        ([SYNCED], CONNECTION_LOST, ("Unknown", "CloudUnavailable"), None),
        ([SYNCED, UNAVAILABLE], UNAVAILABLE, ("Unknown", "CloudUnavailable"), None),
        ([SYNCED, UNAVAILABLE], QUOTA, ("False", "QuotaExceeded"), ("True", "QuotaExceeded")),
        ([QUOTA], UNAVAILABLE, ("False", "CloudUnavailable"), None),
        ([SYNCED], QUOTA, ("False", "QuotaExceeded"), ("True", "QuotaExceeded")),
        ([SYNCED], RUBBISH, ("False", "UnexpectedResponse"), ("True", "UnexpectedResponse")),
        ([SYNCED], MALFORMED, ("Unknown", "UnexpectedResponse"), None),
        ([], MALFORMED, ("False", "UnexpectedResponse"), ("True", "UnexpectedResponse")),
        ([SYNCED], INVALID, ("False", "InvalidSpec"), ("True", "InvalidSpec")),
        ([], TAKEN, ("False", "AlreadyExists"), ("True", "AlreadyExists")),
        ([], NO_SECRET, ("False", "CredentialsNotFound"), ("True", "CredentialsNotFound")),
        ([NO_SECRET], UNAVAILABLE, ("False", "CloudUnavailable"), None),
        ([], CONFLICT, ("False", "Conflict"), ("True", "Conflict")),
        ([SYNCED], CHANGED, ("False", "Drifted"), None),
        ([SYNCED], VANISHED, ("False", "Drifted"), None),
        ([INVALID], SYNCED, ("True", "Available"), None),
        ([CHANGED], SYNCED, ("True", "Available"), None),
        ([], PAUSED, ("Unknown", "Paused"), None),
        ([INVALID], PAUSED, ("Unknown", "Paused"), None),
        ([PAUSED], UNAVAILABLE, ("False", "CloudUnavailable"), None),
        ([SYNCED, PAUSED], UNAVAILABLE, ("Unknown", "CloudUnavailable"), None),
        ([SYNCED, PAUSED], QUOTA, ("False", "QuotaExceeded"), ("True", "QuotaExceeded")),
    ],
)
def test_ready_is_unknown_only_while_the_cloud_fails_a_hook_that_was_fine(
    before: list[Outcome], outcome: Outcome, ready: tuple[str, str], stalled: tuple[str, str] | None
) -> None:
    wanted = {"Ready": ready} | ({"Stalled": stalled} if stalled else {})
    assert conditions(follow(*before, outcome)) == wanted


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_condition_keeps_its_time_while_its_status_is_unchanged(outcome: Outcome) -> None:
    before = follow(outcome)
    after = next_status(before, outcome, 2, LATER)
    assert [condition.last_transition_time for condition in after.conditions] == [AT_NOON] * len(after.conditions)
    assert [condition.observed_generation for condition in after.conditions] == [2] * len(after.conditions)


@pytest.mark.parametrize(
    ("before", "after", "time"),
    [
        (SYNCED, QUOTA, AT_LATER),
        (SYNCED, UNAVAILABLE, AT_LATER),
        (UNAVAILABLE, SYNCED, AT_LATER),
        (UNAVAILABLE, QUOTA, AT_NOON),
        (QUOTA, INVALID, AT_NOON),
    ],
)
def test_a_condition_gets_a_new_time_only_with_a_new_status(before: Outcome, after: Outcome, time: str) -> None:
    ready = next_status(follow(before), after, 1, LATER).condition("Ready")
    assert ready is not None
    assert ready.last_transition_time == time


def test_stalled_gets_a_time_of_its_own() -> None:
    status = next_status(follow(UNAVAILABLE), INVALID, 1, LATER)
    assert {condition.type: condition.last_transition_time for condition in status.conditions} == {
        "Ready": AT_NOON,
        "Stalled": AT_LATER,
    }


def test_times_are_utc_in_whole_seconds() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert follow(SYNCED, now=local) == follow(SYNCED)


@pytest.mark.parametrize(
    "again",
    [
        failed(TransientError, Reason.CLOUD_UNAVAILABLE, "another text", http_status=503, request_id="r-2"),
        failed(TransientError, Reason.CLOUD_UNAVAILABLE, http_status=503, retry_after_seconds=7),
    ],
)
def test_a_failure_of_the_cloud_that_repeats_changes_nothing(again: Failed) -> None:
    before = follow(UNAVAILABLE)
    assert next_status(before, again, 1, LATER) == before


def test_no_answer_in_one_way_and_then_in_another_is_the_same_failure() -> None:
    before = follow(failed(TransientError, Reason.CLOUD_UNAVAILABLE, "no answer in time"))
    assert next_status(before, CONNECTION_LOST, 1, LATER) == before


@pytest.mark.parametrize(
    "other",
    [
        failed(TransientError, Reason.CLOUD_UNAVAILABLE, http_status=503, operation="list"),
        failed(TransientError, Reason.CLOUD_UNAVAILABLE, http_status=502),
        failed(TransientError, Reason.CLOUD_UNAVAILABLE, http_status=503, code="AS.0001"),
        failed(UnexpectedError, Reason.UNEXPECTED_RESPONSE, http_status=503),
        CONNECTION_LOST,
    ],
)
def test_another_operation_status_or_code_is_another_failure(other: Failed) -> None:
    error = next_status(follow(UNAVAILABLE), other, 1, LATER).error
    assert error is not None
    assert error.time == AT_LATER
    assert error.operation == other.error.operation


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (INVALID, failed(InvalidError, Reason.INVALID_SPEC, "spec.defaultTimeout is 2", operation="validate")),
        (TAKEN, failed(WaitingError, Reason.ALREADY_EXISTS, "it differs in defaultResult", operation="adopt")),
        (
            NO_SECRET,
            failed(CredentialsError, Reason.CREDENTIALS_INVALID, "Secret web/otc has no key", operation="authenticate"),
        ),
    ],
    ids=["InvalidSpec", "AlreadyExists", "Credentials"],
)
def test_our_own_messages_are_always_current(before: Failed, after: Failed) -> None:
    status = next_status(follow(before), after, 1, LATER)
    assert status.error is not None
    assert status.error.message == after.error.message
    assert status.error.time == AT_NOON
    for condition in status.conditions:
        assert condition.reason == after.error.reason
        assert after.error.message in condition.message


def test_another_right_that_is_missing_is_another_failure() -> None:
    first, second = (
        failed(WaitingError, Reason.FORBIDDEN, f"Policy does not allow [{right}]", http_status=400, code="AS.0031")
        for right in ("as:lifecycleHooks:create", "smn:topic:list")
    )
    assert next_status(follow(first), first, 1, LATER) == follow(first)
    status = next_status(follow(first), second, 1, LATER)
    ready = status.condition("Ready")
    assert status.error is not None
    assert ready is not None
    assert (status.error.message, status.error.time) == (second.error.message, AT_LATER)
    assert "create]" not in ready.message
    assert "Grant the user the right smn:topic:list in this project." in ready.message


@pytest.mark.parametrize("failure", FAILURES)
def test_a_success_leaves_nothing_of_a_failure(failure: Failed) -> None:
    status = write(write(None, follow(failure)), next_status(follow(failure), SYNCED, 1, NOON))
    assert status == follow(SYNCED).as_object()


@pytest.mark.parametrize("failure", [failure for failure in FAILURES if failure is not CONFLICT])
def test_a_failure_leaves_in_place_what_is_known_of_the_hook(failure: Failed) -> None:
    status = next_status(follow(SYNCED), failure, 2, LATER)
    assert (status.observed_generation, status.applied_generation) == (2, 1)
    assert (status.lifecycle_hook, status.project_id, status.scaling_group_id) == (SYNCED.hook, "project-1", "group-1")


def test_who_loses_a_conflict_does_not_have_the_hook_any_more() -> None:
    status = next_status(follow(SYNCED), CONFLICT, 2, LATER)
    assert (status.lifecycle_hook, status.applied_generation) == (None, None)


def test_a_drift_that_is_only_reported_shows_the_hook_as_it_is() -> None:
    status = next_status(follow(SYNCED, UNAVAILABLE), CHANGED, 1, LATER)
    ready = status.condition("Ready")
    assert ready is not None
    assert ready.message == CHANGED.message
    assert status.lifecycle_hook == CHANGED.hook
    assert status.error is None
    assert status.applied_generation == 1


def test_a_hook_that_vanished_and_is_only_reported_is_shown_as_it_last_was() -> None:
    assert follow(SYNCED, VANISHED).lifecycle_hook == SYNCED.hook


def test_metadata_that_is_not_as_the_spec_has_it_is_shown_as_foreign_text() -> None:
    metadata = "two\nlines\x1b[31m"
    assert (hook := follow(SYNCED, Drifted(make_hook(notification_metadata=metadata), "changed")).lifecycle_hook)
    assert hook.notification_metadata == "two lines\ufffd[31m"
    assert (hook := follow(replace(SYNCED, hook=make_hook(notification_metadata=metadata))).lifecycle_hook)
    assert hook.notification_metadata == metadata


def test_a_drift_correction_is_reported_until_the_next_change_or_failure() -> None:
    def message(status: LifecycleHookStatus) -> str:
        ready = status.condition("Ready")
        assert ready is not None
        return ready.message

    corrected = follow(SYNCED, CORRECTED)
    correction = "Reverted external change: defaultTimeout 99 -> 3600."
    assert message(corrected) == f"The lifecycle hook is up to date. {correction}"
    assert next_status(corrected, SYNCED, 1, LATER) == corrected
    assert message(next_status(corrected, EDITED, 2, LATER)) == message(follow(SYNCED))
    assert message(follow(CORRECTED, UNAVAILABLE, SYNCED)) == message(follow(SYNCED))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_message_says_what_the_call_used_and_ends_in_what_happens_next(failure: Failed) -> None:
    used = "Secret web/otc (cloud otc), auth_url https://iam, project eu-de_web, region eu-de"
    ready = follow(replace(failure, context=used)).condition("Ready")
    without = follow(failure).condition("Ready")
    assert ready is not None
    assert without is not None
    assert ready.message.replace(f" Used {used}.", "") == without.message != ready.message
    ends = {
        "Never": "Correct the spec.",
        "Slow": "The operator retries every few minutes.",
        "Backoff": "The operator retries automatically.",
    }
    assert ready.message.endswith(ends[failure.error.retry])


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], None),
        ([SYNCED], None),
        ([CORRECTED], None),
        ([SYNCED, UNAVAILABLE], "CloudUnavailable, create: as it pleases (503)"),
        ([QUOTA], "QuotaExceeded, create: too many (400 AS.7038)"),
        ([CHANGED], "Drifted"),
    ],
)
def test_a_recovery_is_an_event_that_names_the_failure(outcomes: list[Outcome], expected: str | None) -> None:
    obj = make_object(follow(*outcomes))
    events = find_events(obj, SYNCED, next_status(obj.status, SYNCED, 1, LATER))
    message = f"The lifecycle hook is up to date again. Before: {expected}."
    assert events == ([Event("Normal", "Recovered", message)] if expected else [])


def test_what_was_done_is_the_only_event_of_a_recovery() -> None:
    obj = make_object(follow(UNAVAILABLE))
    assert find_events(obj, CORRECTED, next_status(obj.status, CORRECTED, 1, LATER)) == [CORRECTED.event]


def test_a_pause_has_an_event_at_either_end() -> None:
    obj = make_object(follow(SYNCED))
    status = next_status(obj.status, PAUSED, 1, LATER)
    assert find_events(obj, PAUSED, status) == [Event("Normal", "Paused", PAUSED.message)]
    obj = make_object(status)
    assert find_events(obj, PAUSED, next_status(obj.status, PAUSED, 1, LATER)) == []
    resumed = Event("Normal", "Resumed", "The operator works on this resource again")
    for outcome, event in ((SYNCED, None), (CORRECTED, CORRECTED.event)):
        expected = [resumed, event] if event else [resumed]
        assert find_events(obj, outcome, next_status(obj.status, outcome, 1, LATER)) == expected
    _, failure = find_events(obj, QUOTA, next_status(obj.status, QUOTA, 1, LATER))
    assert (failure.type, failure.reason) == ("Warning", "QuotaExceeded")


def test_a_pause_shows_what_is_known_of_the_hook_and_no_failure() -> None:
    status = follow(SYNCED, QUOTA, PAUSED)
    assert status.error is None
    assert status.lifecycle_hook == SYNCED.hook
    assert status.suspended_instances is None


def test_what_fails_at_the_end_of_a_pause_is_told_even_if_only_the_login_fails() -> None:
    error = failed(TransientError, Reason.CLOUD_UNAVAILABLE, operation="authenticate").error
    assert is_only_unobserved(make_object(follow(SYNCED)), error)
    assert not is_only_unobserved(make_object(follow(SYNCED, PAUSED)), error)


def test_changes_show_old_and_new_values() -> None:
    old = make_hook(default_timeout=60, default_result="CONTINUE", notification_metadata="x" * 256)
    assert describe_changes(old, make_spec()) == (
        f'defaultResult CONTINUE -> ABANDON, defaultTimeout 60 -> 3600, notificationMetadata {"x" * 99}… -> ""'
    )


def test_the_first_status_is_written_whole() -> None:
    wanted = follow(SYNCED)
    operation = {"op": "add", "path": "/status", "value": wanted.as_object()}
    assert status_patch(None, wanted) == status_patch({}, wanted) == [operation]
    assert write(None, wanted) == write({}, wanted) == wanted.as_object()


def test_a_change_is_written_with_the_changed_parts_only() -> None:
    before = follow(UNAVAILABLE)
    wanted = next_status(before, SYNCED, 1, LATER)
    operations = status_patch(before.as_object(), wanted)
    assert sorted((operation["op"], operation["path"]) for operation in operations) == [
        ("add", "/status/appliedGeneration"),
        ("add", "/status/conditions"),
        ("add", "/status/lifecycleHook"),
        ("add", "/status/projectId"),
        ("add", "/status/scalingGroupId"),
        ("remove", "/status/error"),
    ]
    assert write(before.as_object(), wanted) == wanted.as_object()


def test_what_an_older_version_wrote_and_this_one_does_not_know_is_removed() -> None:
    wanted = follow(SYNCED)
    assert write({**wanted.as_object(), "bygone": {"a": 1}}, wanted) == wanted.as_object()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(OUTCOMES), st.integers(1, 3), st.integers(0, 10_000)), min_size=1, max_size=6
    )
)
def test_whatever_happens_the_patch_leads_to_the_wanted_status_and_is_empty_when_it_is_reached(
    steps: list[tuple[Outcome, int, int]],
) -> None:
    kept: dict[str, Any] | None = None
    for outcome, generation, seconds in steps:
        previous = LifecycleHookStatus.model_validate(kept or {})
        wanted = next_status(previous, outcome, generation, NOON + timedelta(seconds=seconds))
        kept = write(kept, wanted)
        assert kept == wanted.as_object()
        read_back = LifecycleHookStatus.model_validate(kept)
        again = next_status(read_back, outcome, generation, LATER + timedelta(days=1))
        assert status_patch(kept, again) == []


def make_object(status: LifecycleHookStatus) -> LifecycleHook:
    """Return an object with this status that needs a Secret with the longest name there is."""
    metadata = {"name": "hook", "namespace": "n" * 63, "uid": "1", "resourceVersion": "1", "generation": 1}
    spec = {"credentialsRef": {"secretName": "s" * 253}}
    return LifecycleHook({"metadata": metadata, "spec": spec, "status": status.as_object()})


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_secret_that_is_being_deleted_is_noted_on_ready_and_by_one_event(outcome: Outcome) -> None:
    status = follow(outcome)
    obj = make_object(status)
    noted = note_secret(obj, status, is_being_deleted=True)
    (patch,) = status_patch(status.as_object(), noted)
    before, after = status.condition("Ready"), noted.condition("Ready")
    assert patch["path"] == "/status/conditions"
    assert before is not None
    assert after is not None
    note = after.message.removeprefix(before.message)
    assert after == before.model_copy(update={"message": before.message + note})
    assert len(note) < 600
    found = [event for event in find_events(obj, outcome, noted) if event.reason == "SecretInUse"]
    assert found == [Event("Warning", "SecretInUse", note.strip())]
    noted_obj = make_object(noted)
    again = next_status(noted, outcome, 1, LATER)
    for is_being_deleted in (True, None):  # None: not known
        assert note_secret(noted_obj, again, is_being_deleted=is_being_deleted) == noted
    assert "SecretInUse" not in {event.reason for event in find_events(noted_obj, outcome, noted)}
    assert note_secret(noted_obj, again, is_being_deleted=False) == status


def test_a_note_has_no_place_before_the_first_condition() -> None:
    status = LifecycleHookStatus()
    assert note_secret(make_object(status), status, is_being_deleted=True) == status


@pytest.mark.parametrize("outcome", OUTCOMES, ids=str)
def test_what_is_known_of_suspended_instances_stays(outcome: Outcome) -> None:
    known = Condition(
        type="SuspensionsKnown", status="True", reason="Listed", message="m", last_transition_time=AT_NOON
    )
    before = LifecycleHookStatus(
        conditions=(known,), suspended_instances=SuspendedInstances(count=0, truncated=False, items=())
    )
    after = next_status(before, outcome, 1, LATER)
    assert after.condition("SuspensionsKnown") == known
    assert after.suspended_instances == before.suspended_instances
    assert after.as_object()["suspendedInstances"] == {"count": 0, "truncated": False, "items": []}
