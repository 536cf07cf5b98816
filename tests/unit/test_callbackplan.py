"""What to do next about a callback: the table, and that an EXTEND never adds two hours."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecyclehook_operator.api.callback import CallbackTarget
from lifecyclehook_operator.cloud.instances import Suspension
from lifecyclehook_operator.controller.callbackplan import Action, Call, Complete, Fail, Pin, Wait, next_action

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TARGET = CallbackTarget(lifecycle_action_key="ours", timeout="2026-03-01T12:00:00Z")


def entry(key: str = "ours", status: str = "HANGING", timeout: datetime = NOON) -> Suspension:
    return Suspension(
        instance_id="i-1",
        lifecycle_hook_name="drain",
        lifecycle_action_key=key,
        default_result="ABANDON",
        timeout=timeout,
        lifecycle_hook_status=status,
    )


def describe(action: Action) -> str:
    """Return what a table says of an action."""
    name = type(action).__name__
    if isinstance(action, Pin | Call):
        return f"{name} {action.suspension.lifecycle_action_key}"
    brief = " briefly" if isinstance(action, Wait) and action.is_brief else ""
    return f"{name} {action.reason}{brief}"


@pytest.mark.parametrize("wanted", ["CONTINUE", "ABANDON", "EXTEND"])
@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], "Wait NotSuspended briefly"),
        ([entry()], "Pin ours"),
        ([entry("old", "CONTINUE"), entry()], "Pin ours"),
        ([entry("old", "CONTINUE")], "Wait SuspensionEnded briefly"),
        ([entry("a"), entry("b")], "Wait SuspensionUnclear"),
        ([entry(status="PAUSED")], "Wait SuspensionUnclear"),
        ([entry("old", "PAUSED"), entry()], "Pin ours"),
    ],
)
def test_what_is_not_pinned_yet(wanted: str, listed: list[Suspension], expected: str) -> None:
    assert describe(next_action(wanted, None, listed, may_have_acted=False)) == expected


@pytest.mark.parametrize(
    ("wanted", "listed", "if_it_may_have_acted", "if_it_has_not"),
    [
        ("CONTINUE", [entry()], "Call ours", "Call ours"),
        ("ABANDON", [entry("other"), entry()], "Call ours", "Call ours"),
        ("CONTINUE", [entry(status="CONTINUE")], "Complete Confirmed", "Complete AlreadyDone"),
        ("ABANDON", [entry(status="ABANDON")], "Complete Confirmed", "Complete AlreadyDone"),
        ("CONTINUE", [entry(status="ABANDON")], "Fail SuspensionEnded", "Fail SuspensionEnded"),
        ("ABANDON", [entry(status="CONTINUE")], "Fail SuspensionEnded", "Fail SuspensionEnded"),
        ("CONTINUE", [entry(status="PAUSED")], "Wait SuspensionUnclear", "Wait SuspensionUnclear"),
        ("CONTINUE", [entry(timeout=NOON + HOUR)], "Call ours", "Call ours"),
        ("CONTINUE", [], "Complete Presumed", "Fail SuspensionEnded"),
        ("ABANDON", [entry("old", "CONTINUE")], "Complete Presumed", "Fail SuspensionEnded"),
        ("CONTINUE", [entry("other")], "Fail SuspensionEnded", "Fail SuspensionEnded"),
        ("EXTEND", [entry()], "Call ours", "Call ours"),
        ("EXTEND", [entry(timeout=NOON + timedelta(seconds=2))], "Call ours", "Call ours"),
        ("EXTEND", [entry(timeout=NOON + HOUR)], "Complete Confirmed", "Call ours"),
        ("EXTEND", [entry(timeout=NOON + 2 * HOUR)], "Complete Confirmed", "Call ours"),
        ("EXTEND", [entry(status="ABANDON", timeout=NOON + HOUR)], "Complete Confirmed", "Fail SuspensionEnded"),
        ("EXTEND", [entry(status="ABANDON")], "Fail SuspensionEnded", "Fail SuspensionEnded"),
        ("EXTEND", [entry(status="PAUSED")], "Wait SuspensionUnclear", "Wait SuspensionUnclear"),
        ("EXTEND", [], "Fail SuspensionEnded", "Fail SuspensionEnded"),
        ("EXTEND", [entry("other")], "Fail SuspensionEnded", "Fail SuspensionEnded"),
    ],
)
def test_what_is_pinned(wanted: str, listed: list[Suspension], if_it_may_have_acted: str, if_it_has_not: str) -> None:
    assert describe(next_action(wanted, TARGET, listed, may_have_acted=True)) == if_it_may_have_acted
    assert describe(next_action(wanted, TARGET, listed, may_have_acted=False)) == if_it_has_not


def test_the_timeout_that_as_lists_is_reported() -> None:
    action = next_action("EXTEND", TARGET, [entry(timeout=NOON + HOUR)], may_have_acted=True)
    assert isinstance(action, Complete)
    assert action.timeout == NOON + HOUR


def test_what_has_ended_is_told_with_how_and_when() -> None:
    action = next_action("CONTINUE", TARGET, [entry(status="ABANDON")], may_have_acted=False)
    assert isinstance(action, Fail)
    assert "has ended with ABANDON" in action.message
    assert "2026-03-01T12:00:00Z" in action.message


#: What becomes of a call: refused, lost on the way there or back, cut short by a crash before or after it, accepted.
CALLS = st.sampled_from(["refused", "lost", "answer lost", "killed before", "killed after", "accepted"])


@given(calls=st.lists(CALLS, max_size=12), result=st.sampled_from(["EXTEND", "CONTINUE", "ABANDON"]), data=st.data())
def test_nothing_is_done_twice_whatever_becomes_of_the_calls(calls: list[str], result: str, data: Any) -> None:
    timeout, status, effects = NOON, "HANGING", 0
    target, may_have_acted = None, False
    for call in [*calls, "accepted", "accepted"]:
        action = next_action(result, target, [entry(status=status, timeout=timeout)], may_have_acted=may_have_acted)
        if isinstance(action, Pin):
            target = CallbackTarget(lifecycle_action_key="ours", timeout=timeout.strftime("%Y-%m-%dT%H:%M:%SZ"))
            if data.draw(st.booleans(), "killed after the pin"):
                may_have_acted = True
                continue
        if not isinstance(action, Pin | Call):
            assert isinstance(action, Complete)
            break
        if call in ("answer lost", "killed after", "accepted"):
            effects += 1
            timeout, status = (timeout + HOUR, status) if result == "EXTEND" else (timeout, result)
        if call == "accepted":
            break
        may_have_acted |= call != "refused"
    assert effects == 1
