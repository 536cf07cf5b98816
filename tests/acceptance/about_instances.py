"""What is assumed of the calls about suspended instances, as far as a group tells that suspends none."""

import secrets
import uuid
from typing import Any

import httpx

from .assumption import OUR_READING, Assumptions, expect, expect_answer, expect_refusal
from .run import Run

LIST, CALLBACK, ERRORS = "as_06_0905", "as_06_0906", "as_07_0102"
#: Of a suspension, as the list has it.
FIELDS = {
    "instance_id",
    "scaling_group_id",
    "lifecycle_hook_name",
    "lifecycle_action_key",
    "default_result",
    "timeout",
    "lifecycle_hook_status",
}

ASSUMPTIONS = Assumptions()


def call_back(run: Run, **fields: Any) -> httpx.Response:
    """Call back for a suspension that there is not."""
    body = {"lifecycle_action_result": "CONTINUE", "lifecycle_action_key": str(uuid.uuid4()), **fields}
    return run.group.call_instances("PUT", "callback", json={name: value for name, value in body.items() if value})


@ASSUMPTIONS.add(LIST)
def suspensions_are_listed(run: Run) -> None:
    """The list of suspended instances is 200 and {"instance_hanging_info": [...]}, with the seven fields of each, if
    any has ever been suspended."""
    content = expect_answer(run.group.call_instances("GET", "list"))
    listed = content.get("instance_hanging_info")
    expect(isinstance(listed, list), f"fields: {', '.join(sorted(content))}")
    for each in listed:
        expect(each.keys() >= FIELDS, f"without {', '.join(sorted(FIELDS - each.keys()))}")


@ASSUMPTIONS.add(LIST)
def suspensions_of_an_instance_are_listed(run: Run) -> None:
    """The list for an instance that is not suspended (instance_id) is 200 and empty."""
    content = expect_answer(run.group.call_instances("GET", "list", params={"instance_id": str(uuid.uuid4())}))
    expect(content.get("instance_hanging_info") == [], f"{content}")


@ASSUMPTIONS.add(ERRORS)
def a_callback_for_nothing_is_as_7042(run: Run) -> None:
    """A callback for a key that there is not is refused with 400 AS.7042."""
    expect_refusal(call_back(run), 400, "AS.7042")


@ASSUMPTIONS.add(ERRORS)
def a_callback_for_no_such_instance_is_as_7042(run: Run) -> None:
    """A callback for an instance and a hook that suspend nothing is refused with 400 AS.7042."""
    instance = {"instance_id": str(uuid.uuid4()), "lifecycle_hook_name": run.group.name(secrets.token_hex(2))}
    expect_refusal(call_back(run, lifecycle_action_key="", **instance), 400, "AS.7042")


@ASSUMPTIONS.add(ERRORS)
def a_callback_without_a_result_is_as_7039(run: Run) -> None:
    """A callback without a result is refused with 400 AS.7039."""
    expect_refusal(call_back(run, lifecycle_action_result=""), 400, "AS.7039")


@ASSUMPTIONS.add(ERRORS)
def a_callback_with_a_bad_result_is_as_7034(run: Run) -> None:
    """A callback with another result is refused with 400 AS.7034."""
    expect_refusal(call_back(run, lifecycle_action_result="RETRY"), 400, "AS.7034")


@ASSUMPTIONS.add(ERRORS)
def a_callback_without_an_object_is_as_7040(run: Run) -> None:
    """A callback with neither a key nor an instance is refused with 400 AS.7040."""
    expect_refusal(call_back(run, lifecycle_action_key=""), 400, "AS.7040")


@ASSUMPTIONS.add(OUR_READING)
def suspensions_of_a_missing_group_are_as_2007(run: Run) -> None:
    """The list and the callback of a group that does not exist are refused with 400 AS.2007."""
    group_id = str(uuid.uuid4())
    expect_refusal(run.group.call_instances("GET", "list", group_id=group_id), 400, "AS.2007", "list")
    body = {"lifecycle_action_result": "CONTINUE", "lifecycle_action_key": str(uuid.uuid4())}
    response = run.group.call_instances("PUT", "callback", group_id=group_id, json=body)
    expect_refusal(response, 400, "AS.2007", "callback")


_NEEDS_INSTANCE = "needs a suspended instance, and this run starts no scaling action"
ASSUMPTIONS.add_untried(
    CALLBACK,
    _NEEDS_INSTANCE,
    a_callback_answers_204="A callback for an instance that is HANGING is answered with 204 and no body, by its key or "
    "by instance and hook; the key wins if both are sent.",
    extend_adds_an_hour="EXTEND adds one hour to the timeout each time, and the instance goes on HANGING.",
    a_second_callback_is_as_7042="A callback for a suspension that has ended is refused with 400 AS.7042.",
)
ASSUMPTIONS.add_untried(
    LIST,
    _NEEDS_INSTANCE,
    ended_suspensions_are_listed="An entry that has ended may be listed for a while, as CONTINUE or ABANDON.",
    timeouts_are_utc="The timeout of an entry is UTC, as YYYY-MM-DDThh:mm:ssZ.",
)
ASSUMPTIONS.add_untried(
    OUR_READING,
    _NEEDS_INSTANCE,
    a_suspended_instance_makes_its_group_busy="A group with an instance that is HANGING refuses changes of its hooks "
    "with 400 AS.2020.",
    abandon_ends_all_hooks_of_an_instance="ABANDON ends all that an instance waits for, whether it is started or "
    "stopped.",
    a_timeout_has_the_default_result="An entry that has timed out is listed with the hook's default_result.",
)
