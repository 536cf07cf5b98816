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


@pytest.mark.parametrize(
    ("wanted", "listed", "expected"),
    [
        ("CONTINUE", [entry()], "Call ours"),
        ("EXTEND", [entry()], "Wait OutcomeUnknown"),
        ("EXTEND", [entry(timeout=NOON + HOUR)], "Complete Confirmed"),
        ("EXTEND", [entry(status="ABANDON")], "Fail SuspensionEnded"),
        ("EXTEND", [], "Fail SuspensionEnded"),
    ],
)
def test_what_may_take_effect_yet(wanted: str, listed: list[Suspension], expected: str) -> None:
    assert describe(next_action(wanted, TARGET, listed, may_have_acted=True, may_act_yet=True)) == expected


def test_the_timeout_that_as_lists_is_reported() -> None:
    action = next_action("EXTEND", TARGET, [entry(timeout=NOON + HOUR)], may_have_acted=True)
    assert isinstance(action, Complete)
    assert action.timeout == NOON + HOUR


def test_what_has_ended_is_told_with_how_and_when() -> None:
    action = next_action("CONTINUE", TARGET, [entry(status="ABANDON")], may_have_acted=False)
    assert isinstance(action, Fail)
    assert "has ended with ABANDON" in action.message
    assert "2026-03-01T12:00:00Z" in action.message


#: What becomes of a call: refused, lost on the way there or back, acted on only after the next list, cut short by a
#: crash before or after it, accepted.
CALLS = st.sampled_from(["refused", "lost", "answer lost", "late", "killed before", "killed after", "accepted"])


class HangingInstance:
    """A suspended instance, and how often a callback has taken effect on it."""

    def __init__(self, result: str) -> None:
        self.result = result
        self.timeout, self.status, self.effects = NOON, "HANGING", 0
        self.has_late_call = False

    def listed(self) -> list[Suspension]:
        return [entry(status=self.status, timeout=self.timeout)]

    def take_effect(self) -> None:
        if self.status == "HANGING":  # else AS refuses the key
            self.effects += 1
            if self.result == "EXTEND":
                self.timeout += HOUR
            else:
                self.status = self.result

    def catch_up(self) -> None:
        if self.has_late_call:
            self.take_effect()
        self.has_late_call = False


@given(calls=st.lists(CALLS, max_size=12), result=st.sampled_from(["EXTEND", "CONTINUE", "ABANDON"]), data=st.data())
def test_nothing_is_done_twice_whatever_becomes_of_the_calls(calls: list[str], result: str, data: Any) -> None:
    instance = HangingInstance(result)
    target, may_have_acted, may_act_yet = None, False, False
    for call in [*calls, *["accepted"] * 3]:
        action = next_action(result, target, instance.listed(), may_have_acted=may_have_acted, may_act_yet=may_act_yet)
        instance.catch_up()
        may_act_yet = False
        if isinstance(action, Pin):
            target = TARGET
            if data.draw(st.booleans(), "killed after the pin"):
                may_have_acted = may_act_yet = True
                continue
        if isinstance(action, Complete):
            break
        if isinstance(action, Wait):
            continue
        if call in ("answer lost", "killed after", "accepted"):
            instance.take_effect()
        if call == "accepted":
            break
        instance.has_late_call = call == "late"
        if call != "refused":
            may_have_acted = may_act_yet = True
    assert instance.effects == 1
