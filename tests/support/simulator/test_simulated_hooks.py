"""The five calls about hooks, by the rules and the error table of the API reference."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.simulator.caller import HOOK, Caller, error_of

FIELDS = {
    "lifecycle_hook_name",
    "lifecycle_hook_type",
    "default_result",
    "default_timeout",
    "notification_topic_urn",
    "notification_topic_name",
    "notification_metadata",
    "create_time",
}


def test_create_answers_200_with_all_eight_fields_and_the_defaults(caller: Caller) -> None:
    response = caller.create()
    assert response.status_code == 200
    hook = response.json()
    assert hook.keys() == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", hook.pop("create_time"))
    assert hook == HOOK | {
        "default_result": "ABANDON",
        "default_timeout": 3600,
        "notification_topic_urn": caller.topic,
        "notification_topic_name": "gsh",
        "notification_metadata": None,
    }


@pytest.mark.parametrize(
    "given",
    [
        {"lifecycle_hook_name": "a"},
        {"lifecycle_hook_name": "A_-9" * 8},
        {"lifecycle_hook_type": "INSTANCE_TERMINATING"},
        {"default_result": "CONTINUE"},
        {"default_timeout": 60},
        {"default_timeout": 86400},
        {"notification_metadata": ""},
        {"notification_metadata": "ü€😀" * 85 + "!"},
        {"notification_metadata": '"quoted" {json: [1, 2]} \\ / # % \n\t'},
    ],
    ids=str,
)
def test_what_the_rules_allow_is_answered_as_it_was_given(caller: Caller, given: dict[str, Any]) -> None:
    created = caller.create(**given).json()
    assert created | given == created
    name = created["lifecycle_hook_name"]
    assert caller.get(name).json() == created
    assert caller.list().json() == {"lifecycle_hooks": [created]}


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"lifecycle_hook_name": ""}, "AS.7032"),
    ({"lifecycle_hook_name": None}, "AS.7032"),
    ({"lifecycle_hook_name": "a" * 33}, "AS.7031"),
    ({"lifecycle_hook_name": "with space"}, "AS.7031"),
    ({"lifecycle_hook_name": "with.dot"}, "AS.7031"),
    ({"lifecycle_hook_name": "grün"}, "AS.7031"),
    ({"lifecycle_hook_name": "line\n"}, "AS.7031"),
    ({"lifecycle_hook_name": 7}, "AS.7031"),
    ({"lifecycle_hook_type": ""}, "AS.7037"),
    ({"lifecycle_hook_type": None}, "AS.7037"),
    ({"lifecycle_hook_type": "instance_launching"}, "AS.7033"),
    ({"lifecycle_hook_type": ["INSTANCE_LAUNCHING"]}, "AS.7033"),
    ({"default_result": "EXTEND"}, "AS.7034"),
    ({"default_result": ""}, "AS.7034"),
    ({"default_result": 1}, "AS.7034"),
    ({"default_timeout": 59}, "AS.7030"),
    ({"default_timeout": 86401}, "AS.7030"),
    ({"default_timeout": 60.5}, "AS.7030"),
    ({"default_timeout": "3600"}, "AS.7030"),
    ({"default_timeout": True}, "AS.7030"),
    ({"notification_metadata": "x" * 257}, "AS.7035"),
    ({"notification_metadata": 1}, "AS.0022"),
    *(({"notification_metadata": f"a{character}b"}, "AS.7055") for character in "<>&'()"),
    ({"notification_topic_urn": None}, "AS.0022"),
    ({"notification_topic_urn": 1}, "AS.0022"),
    ({"notification_topic_urn": ""}, "AS.7043"),
    ({"notification_topic_urn": "urn:smn:eu-de:gsh"}, "AS.7043"),
    ({"notification_topic_urn": "urn:smn:eu-de:p:missing"}, "AS.7043"),
    ({"lifecycle_hook_tpye": "INSTANCE_LAUNCHING"}, "AS.0022"),
    ({"create_time": "2026-01-01T00:00:00Z"}, "AS.0022"),
]


@pytest.mark.parametrize(("fields", "code"), BAD_FIELDS, ids=str)
def test_create_refuses_what_breaks_a_rule(caller: Caller, fields: dict[str, Any], code: str) -> None:
    assert error_of(caller.create(**fields)) == (400, code)
    assert caller.simulator.hooks(caller.group) == []


@pytest.mark.parametrize(("fields", "code"), [case for case in BAD_FIELDS if None not in case[0].values()], ids=str)
def test_modify_refuses_what_breaks_a_rule(caller: Caller, fields: dict[str, Any], code: str) -> None:
    before = caller.create().json()
    code = "AS.0022" if "lifecycle_hook_name" in fields else code
    assert error_of(caller.modify(**fields)) == (400, code)
    assert caller.get().json() == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "AS.0002"),
        (b" \r\n", "AS.0002"),
        (b"null", "AS.7036"),
        (b"{", "AS.0022"),
        (b"hook", "AS.0022"),
        (b"[]", "AS.0022"),
        (b'"hook"', "AS.0022"),
        (b'{"default_timeout": NaN}', "AS.0022"),
        (b'{"notification_metadata": "\xff"}', "AS.0022"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_that_is_no_json_object_is_refused(caller: Caller, method: str, body: bytes, code: str) -> None:
    path = f"scaling_lifecycle_hook/{caller.group}" + ("/test-hook1" if method == "PUT" else "")
    assert error_of(caller.call(method, path, content=body)) == (400, code)


def test_modify_changes_what_is_given_and_leaves_the_rest(caller: Caller) -> None:
    hook = caller.create(default_result="CONTINUE", notification_metadata="note").json()
    other = caller.simulator.add_topic("other")
    changes: list[dict[str, Any]] = [
        {"default_timeout": 120},
        {"lifecycle_hook_type": "INSTANCE_TERMINATING", "default_result": "ABANDON"},
        {"notification_topic_urn": other},
        {"notification_metadata": ""},
        {"notification_metadata": None},
        {},
    ]
    for change in changes:
        hook |= {name: value for name, value in change.items() if value is not None}
        hook["notification_topic_name"] = hook["notification_topic_urn"].rpartition(":")[2]
        response = caller.modify(**change)
        assert (response.status_code, response.json()) == (200, hook)
        assert caller.get().json() == hook


def test_modify_does_not_rename(caller: Caller) -> None:
    caller.create()
    assert error_of(caller.modify(lifecycle_hook_name="other")) == (400, "AS.0022")
    assert error_of(caller.modify("absent", default_timeout=60)) == (404, "AS.0007")


def test_delete_answers_204_with_no_body_and_the_second_time_404(caller: Caller) -> None:
    caller.create()
    response = caller.delete()
    assert (response.status_code, response.content) == (204, b"")
    assert error_of(caller.delete()) == (404, "AS.0007")
    assert error_of(caller.get()) == (404, "AS.0007")
    assert "test-hook1" in caller.get().json()["error"]["message"]
    assert caller.list().json() == {"lifecycle_hooks": []}


def test_a_group_has_five_hooks_at_most(caller: Caller) -> None:
    names = [f"hook-{number}" for number in range(5)]
    assert [caller.create(lifecycle_hook_name=name).status_code for name in names] == [200] * 5
    assert error_of(caller.create(lifecycle_hook_name="sixth")) == (400, "AS.7038")
    assert caller.create(group=caller.simulator.add_group(), lifecycle_hook_name="sixth").status_code == 200
    caller.delete("hook-2")
    assert caller.create(lifecycle_hook_name="sixth").status_code == 200
    assert [hook["lifecycle_hook_name"] for hook in caller.list().json()["lifecycle_hooks"]] == [
        *(name for name in names if name != "hook-2"),
        "sixth",
    ]


def test_a_name_is_taken_once_per_group_with_a_message_that_misleads(caller: Caller) -> None:
    first = caller.create().json()
    response = caller.create(default_timeout=60)
    assert error_of(response) == (400, "AS.7041")
    assert "exist" not in response.json()["error"]["message"]
    assert caller.get().json() == first
    assert caller.create(group=caller.simulator.add_group()).status_code == 200


def test_a_name_that_is_taken_is_told_before_the_limit(caller: Caller) -> None:
    for number in range(5):
        caller.create(lifecycle_hook_name=f"hook-{number}")
    assert error_of(caller.create(lifecycle_hook_name="hook-4")) == (400, "AS.7041")


def test_a_hook_named_list_cannot_be_read_by_the_get_call(caller: Caller) -> None:
    created = caller.create(lifecycle_hook_name="list").json()
    assert caller.get("list").json() == {"lifecycle_hooks": [created]}
    assert caller.modify("list", default_timeout=60).json()["default_timeout"] == 60
    assert caller.delete("list").status_code == 204
    assert caller.simulator.hooks(caller.group) == []


def change_calls(caller: Caller) -> list[httpx.Response]:
    return [caller.create(lifecycle_hook_name="new"), caller.modify(default_timeout=60), caller.delete()]


def read_calls(caller: Caller) -> list[httpx.Response]:
    return [caller.list(), caller.get(), caller.list_hanging()]


def test_a_busy_group_can_be_read_and_not_changed(caller: Caller) -> None:
    caller.create()
    caller.simulator.set_busy(caller.group)
    assert [error_of(response) for response in change_calls(caller)] == [(400, "AS.2020")] * 3
    assert [response.status_code for response in read_calls(caller)] == [200] * 3
    caller.simulator.set_busy(caller.group, False)
    assert [response.status_code for response in change_calls(caller)] == [200, 200, 204]


def test_a_missing_group_is_missing_for_every_call(caller: Caller) -> None:
    caller.create()
    caller.simulator.delete_group(caller.group)
    answers = [*change_calls(caller), *read_calls(caller)]
    answers.append(caller.call_back(lifecycle_action_result="CONTINUE", lifecycle_action_key="key"))
    assert [error_of(response) for response in answers] == [(400, "AS.2007")] * 7


def test_a_group_of_another_project_does_not_exist_here(caller: Caller) -> None:
    group = caller.simulator.add_group(project_id=caller.simulator.add_project("eu-de_other"))
    assert error_of(caller.create(group=group)) == (400, "AS.2007")


def test_a_topic_can_go_missing_under_a_hook_and_is_wanted_when_named(caller: Caller) -> None:
    caller.create()
    caller.simulator.delete_topic(caller.topic)
    assert error_of(caller.create(lifecycle_hook_name="new")) == (400, "AS.7043")
    assert error_of(caller.modify(notification_topic_urn=caller.topic)) == (400, "AS.7043")
    assert caller.modify(default_timeout=60).status_code == 200


def test_no_token_a_wrong_token_and_a_token_of_another_project_are_told_apart(caller: Caller) -> None:
    other = caller.simulator.add_project("eu-de_other")
    assert error_of(caller.call("GET", f"scaling_lifecycle_hook/{caller.group}/list", project_id=other)) == (
        400,
        "AS.0008",
    )
    caller.http.headers["X-Auth-Token"] = "wrong"
    assert {error_of(answer) for answer in (*change_calls(caller), *read_calls(caller))} == {(401, "AS.0006")}
    del caller.http.headers["X-Auth-Token"]
    assert {error_of(answer) for answer in (*change_calls(caller), *read_calls(caller))} == {(401, "AS.0005")}


CALLS: dict[str, Callable[[Caller], httpx.Response]] = {
    "as:lifecycleHooks:create": lambda caller: caller.create(lifecycle_hook_name="new"),
    "as:lifecycleHooks:list": lambda caller: caller.list(),
    "as:lifecycleHooks:get": lambda caller: caller.get(),
    "as:lifecycleHooks:update": lambda caller: caller.modify(default_timeout=60),
    "as:instanceHooks:list": lambda caller: caller.list_hanging(),
    "as:instanceHooks:action": lambda caller: caller.call_back(
        group="suspending", lifecycle_action_result="EXTEND", instance_id="instance-1", lifecycle_hook_name="test-hook1"
    ),
    "as:lifecycleHooks:delete": lambda caller: caller.delete(),
}


@pytest.mark.parametrize("missing", CALLS)
def test_a_user_may_do_all_but_what_the_rights_do_not_allow(caller: Caller, missing: str) -> None:
    caller.create()
    suspending = caller.simulator.add_group("suspending")
    caller.create(group=suspending)
    caller.simulator.add_hanging_instance(suspending, "test-hook1", "instance-1")
    caller.simulator.add_user("limited", "a-password", permissions=[right for right in CALLS if right != missing])
    caller.log_in(name="limited", password="a-password")
    for right, call in CALLS.items():
        response = call(caller)
        if right == missing:
            assert error_of(response) == (400, "AS.0031")
            assert f"[{missing}]" in response.json()["error"]["message"]
        else:
            assert response.is_success


def test_a_user_without_any_right_has_no_role(caller: Caller) -> None:
    caller.simulator.add_user("nobody", "a-password", permissions=[])
    caller.log_in(name="nobody", password="a-password")
    assert {error_of(call(caller)) for call in CALLS.values()} == {(403, "AS.0011")}


def test_rights_are_given_and_taken_of_one_user_or_of_all(caller: Caller) -> None:
    simulator = caller.simulator
    simulator.add_user("reader", "a-password", permissions=["as:lifecycleHooks:list"])
    simulator.set_permissions(["as:lifecycleHooks:create"])
    assert (error_of(caller.list()), caller.create().status_code) == ((400, "AS.0031"), 200)
    simulator.set_permissions(None, "reader")
    assert error_of(caller.list()) == (400, "AS.0031")
    caller.log_in(name="reader", password="a-password")
    assert caller.list().status_code == 200
    for permissions, user in ((["as:lifecycleHooks:read"], None), (None, "unknown")):
        with pytest.raises(ValueError, match="the simulator refused"):
            simulator.set_permissions(permissions, user)


def test_an_unknown_address_and_a_wrong_method_are_answered_by_the_gateway(caller: Caller) -> None:
    missing = caller.call("GET", "scaling_group")
    assert (missing.status_code, missing.json().keys()) == (404, {"error_code", "error_msg"})
    wrong = caller.call("PATCH", f"scaling_lifecycle_hook/{caller.group}/test-hook1")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "DELETE, GET, PUT")


def test_every_answer_has_a_request_id_of_its_own(caller: Caller) -> None:
    answers = [
        caller.authenticate(),
        caller.authenticate(password="wrong"),
        caller.create(),
        caller.create(),
        *read_calls(caller),
        caller.delete(),
        caller.call("GET", "nowhere"),
    ]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


def test_clients_may_keep_the_connection_or_close_it_after_each_request(caller: Caller) -> None:
    caller.simulator.clear_requests()
    for _ in range(3):
        assert caller.list().status_code == 200
    assert len({request.client for request in caller.simulator.requests("list")}) == 1
    caller.http.headers["Connection"] = "close"
    caller.simulator.clear_requests()
    for _ in range(3):
        assert caller.list().headers["Connection"] == "close"
    assert len({request.client for request in caller.simulator.requests("list")}) == 3
