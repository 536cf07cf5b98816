"""What is assumed of the calls about hooks (as_06_0901 to as_06_0904, and as_06_0907)."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

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
from .group import LEFT_OUT, MAX_HOOKS
from .project import TokenHeader
from .run import Run

CREATE, LIST, GET, MODIFY, DELETE = (f"as_06_090{number}" for number in (1, 2, 3, 4, 7))
ERRORS, RIGHTS, IAM = "as_07_0102", "as_07_0210", "IAM API v3"
#: Table 3 of the create page.
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
#: How far a time in an answer may be from the clock of the same answer.
CLOCK_TOLERANCE = timedelta(minutes=15)

ASSUMPTIONS = Assumptions()


def create(run: Run, **fields: Any) -> dict[str, Any]:
    """Return a hook as the answer to its create has it."""
    return expect_answer(run.group.create(**fields))


def refuse_each(run: Run, code: str, cases: Mapping[str, Mapping[str, Any]]) -> None:
    """Expect a create to be refused with 400 and a code for each of these fields."""
    for what, fields in cases.items():
        expect_refusal(run.group.create(**fields), 400, code, what)


def missing_topic(run: Run) -> str:
    return f"{run.group.topic_urn}-{run.group.prefix}none"


# --- create -------------------------------------------------------------------------------------------------------


@ASSUMPTIONS.add(CREATE)
def create_answers_with_eight_fields(run: Run) -> None:
    """A create is answered with 200 and a JSON object that has the hook's eight fields, each of its type."""
    hook = create(run)
    expect(hook.keys() >= FIELDS, f"without {', '.join(sorted(FIELDS - hook.keys()))}")
    for field in FIELDS - {"notification_metadata"}:
        expected = int if field == "default_timeout" else str
        expect(type(hook[field]) is expected, f"{field} is {hook[field]!r}")


@ASSUMPTIONS.add(OUR_READING)
def create_answers_with_no_other_fields(run: Run) -> None:
    """A hook has no fields beside the eight."""
    hook = create(run)
    expect(hook.keys() <= FIELDS, f"more: {', '.join(sorted(hook.keys() - FIELDS))}")


@ASSUMPTIONS.add(CREATE)
def create_has_defaults(run: Run) -> None:
    """Left out, default_result is ABANDON and default_timeout is 3600."""
    hook = create(run, default_result=LEFT_OUT, default_timeout=LEFT_OUT)
    expect_equal(hook["default_result"], "ABANDON", "default_result")
    expect_equal(hook["default_timeout"], 3600, "default_timeout")


@ASSUMPTIONS.add(CREATE)
def metadata_left_out_is_null(run: Run) -> None:
    """Left out, notification_metadata is null in the answer."""
    expect_equal(create(run).get("notification_metadata", "left out"), None, "notification_metadata")


@ASSUMPTIONS.add(CREATE)
def values_come_back_as_given(run: Run) -> None:
    """The values of a create come back as they were given."""
    given = run.group.body(notification_metadata="drain", default_timeout=120)
    hook = create(run, **given)
    for name, value in given.items():
        expect_equal(hook.get(name), value, name)


@ASSUMPTIONS.add(CREATE)
def topic_name_is_the_end_of_the_urn(run: Run) -> None:
    """notification_topic_name is the last part of the topic's URN."""
    expected = run.group.topic_urn.rpartition(":")[2]
    expect_equal(create(run)["notification_topic_name"], expected, "notification_topic_name")


@ASSUMPTIONS.add(CREATE)
def create_time_is_utc(run: Run) -> None:
    """create_time is the present time in UTC, as YYYY-MM-DDThh:mm:ssZ."""
    response = run.group.create()
    text = expect_answer(response)["create_time"]
    try:
        created = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        created = None
    expect(created, f"create_time is {text}")
    now = parsedate_to_datetime(response.headers["Date"])
    expect(abs(now - created) < CLOCK_TOLERANCE, f"create_time is {text}, and Date is {now}")


@ASSUMPTIONS.add(CREATE)
def timeout_may_be_at_its_bounds(run: Run) -> None:
    """default_timeout may be 60 and 86400."""
    for seconds in (60, 86400):
        expect_equal(create(run, default_timeout=seconds)["default_timeout"], seconds, "default_timeout")
        run.group.remove_made()


@ASSUMPTIONS.add(CREATE)
def name_may_have_32_characters(run: Run) -> None:
    """A name may have 32 characters: letters of both cases, digits, underscores and hyphens."""
    name = run.group.name("Az_09-").ljust(32, "x")
    expect_equal(create(run, lifecycle_hook_name=name)["lifecycle_hook_name"], name, "lifecycle_hook_name")


@ASSUMPTIONS.add(OUR_READING)
def names_differ_by_case(run: Run) -> None:
    """Two hooks may have names that differ only by case."""
    run.require_room(2)
    for suffix in ("hook", "HOOK"):
        name = run.group.name(suffix)
        expect_equal(create(run, lifecycle_hook_name=name)["lifecycle_hook_name"], name, "lifecycle_hook_name")


def keep_metadata(run: Run, metadata: str) -> None:
    hook = create(run, notification_metadata=metadata)
    expect_equal(hook["notification_metadata"], metadata, "notification_metadata")
    listed = run.group.find() or {}
    expect_equal(listed.get("notification_metadata"), metadata, "notification_metadata in the list")


@ASSUMPTIONS.add(CREATE)
def metadata_may_have_256_characters(run: Run) -> None:
    """notification_metadata may have 256 characters, and is kept."""
    keep_metadata(run, "x" * 256)


@ASSUMPTIONS.add(OUR_READING)
def metadata_is_kept_with_quotes_and_line_breaks(run: Run) -> None:
    """notification_metadata keeps quotes, backslashes, percent signs, spaces at the ends and line breaks."""
    keep_metadata(run, ' {"key": "100 % \\\\n"}\nsecond line\t')


@ASSUMPTIONS.add(OUR_READING)
def metadata_counts_characters(run: Run) -> None:
    """The 256 characters of notification_metadata are counted as characters, not as bytes: 256 umlauts fit."""
    keep_metadata(run, "ü" * 256)


@ASSUMPTIONS.add(OUR_READING)
def metadata_keeps_what_is_beyond_16_bits(run: Run) -> None:
    """notification_metadata keeps characters beyond 16 bits, such as an emoji."""
    keep_metadata(run, "世界 👍")


@ASSUMPTIONS.add(OUR_READING)
def null_in_a_create_is_left_out(run: Run) -> None:
    """null in a create counts as a field that is left out."""
    hook = create(run, default_result=None, default_timeout=None, notification_metadata=None)
    expect_equal((hook["default_result"], hook["default_timeout"]), ("ABANDON", 3600), "the defaults")


# --- what breaks a rule -------------------------------------------------------------------------------------------


@ASSUMPTIONS.add(ERRORS)
def no_body_is_as_0002(run: Run) -> None:
    """A create without a body is refused with 400 AS.0002."""
    expect_refusal(run.group.post(content=b""), 400, "AS.0002")


@ASSUMPTIONS.add(ERRORS)
def no_json_is_as_0022(run: Run) -> None:
    """A body that is no JSON is refused with 400 AS.0022."""
    expect_refusal(run.group.post(content=b"{"), 400, "AS.0022")


@ASSUMPTIONS.add(OUR_READING)
def no_object_is_as_0022(run: Run) -> None:
    """A body that is JSON, and no object, is refused with 400 AS.0022."""
    for body in (b"[]", b'"hook"'):
        expect_refusal(run.group.post(content=body), 400, "AS.0022", body.decode())


@ASSUMPTIONS.add(OUR_READING)
def null_is_as_7036(run: Run) -> None:
    """The body null is refused with 400 AS.7036."""
    expect_refusal(run.group.post(content=b"null"), 400, "AS.7036")


@ASSUMPTIONS.add(ERRORS)
def an_unknown_field_is_as_0022(run: Run) -> None:
    """A create with a field that is not documented is refused with 400 AS.0022."""
    refuse_each(run, "AS.0022", {"an unknown field": {"lifecycle_hook_tpye": "INSTANCE_TERMINATING"}})


@ASSUMPTIONS.add(ERRORS)
def no_name_is_as_7032(run: Run) -> None:
    """A create without a name, or with an empty one, is refused with 400 AS.7032."""
    cases = {"left out": {"lifecycle_hook_name": LEFT_OUT}, "empty": {"lifecycle_hook_name": ""}}
    refuse_each(run, "AS.7032", cases)


@ASSUMPTIONS.add(CREATE)
def a_bad_name_is_as_7031(run: Run) -> None:
    """A name of 33 characters, or with a space, a dot or an umlaut, is refused with 400 AS.7031."""
    names = {"33 characters": run.group.name().ljust(33, "x")}
    names |= {f"with {what!r}": run.group.name(f"a{what}b") for what in (" ", ".", "ü")}
    refuse_each(run, "AS.7031", {what: {"lifecycle_hook_name": name} for what, name in names.items()})


@ASSUMPTIONS.add(ERRORS)
def no_type_is_as_7037(run: Run) -> None:
    """A create without a type, or with an empty one, is refused with 400 AS.7037."""
    cases = {"left out": {"lifecycle_hook_type": LEFT_OUT}, "empty": {"lifecycle_hook_type": ""}}
    refuse_each(run, "AS.7037", cases)


@ASSUMPTIONS.add(ERRORS)
def a_bad_type_is_as_7033(run: Run) -> None:
    """Another type, or one in lower case, is refused with 400 AS.7033."""
    types = ("INSTANCE_RESTARTING", "instance_terminating")
    refuse_each(run, "AS.7033", {each: {"lifecycle_hook_type": each} for each in types})


@ASSUMPTIONS.add(ERRORS)
def a_bad_result_is_as_7034(run: Run) -> None:
    """Another default_result, such as EXTEND, or an empty one, is refused with 400 AS.7034."""
    refuse_each(run, "AS.7034", {repr(each): {"default_result": each} for each in ("EXTEND", "")})


@ASSUMPTIONS.add(ERRORS)
def a_bad_timeout_is_as_7030(run: Run) -> None:
    """A default_timeout of 59 or 86401 is refused with 400 AS.7030."""
    refuse_each(run, "AS.7030", {str(each): {"default_timeout": each} for each in (59, 86401)})


@ASSUMPTIONS.add(OUR_READING)
def a_wrong_json_type_breaks_the_rule_of_its_field(run: Run) -> None:
    """A default_timeout that is a text, or no integer, is refused with 400 AS.7030."""
    refuse_each(run, "AS.7030", {repr(each): {"default_timeout": each} for each in ("3600", 60.5)})


@ASSUMPTIONS.add(ERRORS)
def long_metadata_is_as_7035(run: Run) -> None:
    """notification_metadata of 257 characters is refused with 400 AS.7035."""
    refuse_each(run, "AS.7035", {"257 characters": {"notification_metadata": "x" * 257}})


@ASSUMPTIONS.add(ERRORS)
def bad_metadata_is_as_7055(run: Run) -> None:
    """notification_metadata with one of < > & ' ( ) is refused with 400 AS.7055."""
    refuse_each(run, "AS.7055", {each: {"notification_metadata": f"a{each}b"} for each in "<>&'()"})


@ASSUMPTIONS.add(OUR_READING)
def no_topic_is_as_0022(run: Run) -> None:
    """A create without notification_topic_urn is refused with 400 AS.0022."""
    refuse_each(run, "AS.0022", {"left out": {"notification_topic_urn": LEFT_OUT}})


@ASSUMPTIONS.add(ERRORS)
def a_missing_topic_is_as_7043(run: Run) -> None:
    """A topic that does not exist is refused with 400 AS.7043, by a create and by a modify."""
    refuse_each(run, "AS.7043", {"create": {"notification_topic_urn": missing_topic(run)}})
    create(run)
    expect_refusal(run.group.modify(notification_topic_urn=missing_topic(run)), 400, "AS.7043", "modify")


@ASSUMPTIONS.add(OUR_READING)
def a_malformed_topic_is_as_7043(run: Run) -> None:
    """A URN that is malformed, or empty, is a topic that does not exist: 400 AS.7043."""
    refuse_each(run, "AS.7043", {repr(each): {"notification_topic_urn": each} for each in ("urn:smn:gsh", "")})


# --- what is there already, and what is not -----------------------------------------------------------------------


@ASSUMPTIONS.add(ERRORS)
def a_taken_name_is_as_7041(run: Run) -> None:
    """A name that is taken is refused with 400 AS.7041, and the hook that has it stays as it is."""
    hook = create(run)
    expect_refusal(run.group.create(default_timeout=600), 400, "AS.7041")
    expect_equal(run.group.find(), hook, "the hook")


@ASSUMPTIONS.add(DELETE)
def a_name_can_be_used_again(run: Run) -> None:
    """The name of a hook that was deleted can be used again at once."""
    create(run)
    run.group.delete()
    create(run)


@ASSUMPTIONS.add(CREATE)
def the_sixth_hook_is_as_7038(run: Run) -> None:
    """A group has up to five hooks; one more is refused with 400 AS.7038."""
    fill(run)
    expect_refusal(run.group.create(), 400, "AS.7038")


@ASSUMPTIONS.add(OUR_READING)
def a_taken_name_is_told_before_the_limit(run: Run) -> None:
    """In a group with five hooks, a name that is taken is refused with AS.7041, not with AS.7038."""
    fill(run)
    expect_refusal(run.group.create(lifecycle_hook_name=run.group.name("0")), 400, "AS.7041")


def fill(run: Run) -> None:
    """Fill the group with hooks."""
    run.require_room(1)
    for number in range(run.group.find_room()):
        create(run, lifecycle_hook_name=run.group.name(str(number)))


@ASSUMPTIONS.add(OUR_READING)
def a_taken_name_is_told_before_a_missing_topic(run: Run) -> None:
    """A create with a name that is taken and a topic that does not exist is refused with AS.7041."""
    create(run)
    refuse_each(run, "AS.7041", {"create": {"notification_topic_urn": missing_topic(run)}})


@ASSUMPTIONS.add(ERRORS)
def a_missing_group_is_as_2007(run: Run) -> None:
    """Every call about the hooks of a group that does not exist is refused with 400 AS.2007."""
    group_id = str(uuid.uuid4())
    expect_refusal(run.group.create(group_id=group_id), 400, "AS.2007", "create")
    expect_refusal(run.group.list(group_id=group_id), 400, "AS.2007", "list")
    expect_refusal(run.group.get(group_id=group_id), 400, "AS.2007", "get")
    expect_refusal(run.group.modify(group_id=group_id, default_timeout=60), 400, "AS.2007", "modify")
    expect_refusal(run.group.delete(group_id=group_id), 400, "AS.2007", "delete")


@ASSUMPTIONS.add(OUR_READING)
def a_bad_body_is_told_before_a_missing_group(run: Run) -> None:
    """A create that breaks a rule, for a group that does not exist, is refused for the rule: AS.7030."""
    expect_refusal(run.group.create(group_id=str(uuid.uuid4()), default_timeout=59), 400, "AS.7030")


@ASSUMPTIONS.add(OUR_READING)
def a_missing_group_is_told_before_a_missing_topic(run: Run) -> None:
    """A create for a group and a topic that do not exist is refused for the group: AS.2007."""
    response = run.group.create(group_id=str(uuid.uuid4()), notification_topic_urn=missing_topic(run))
    expect_refusal(response, 400, "AS.2007")


@ASSUMPTIONS.add(ERRORS)
def a_missing_hook_is_as_0007(run: Run) -> None:
    """Get, modify and delete of a hook that does not exist are refused with 404 AS.0007."""
    absent = run.group.name("absent")
    expect_refusal(run.group.get(absent), 404, "AS.0007", "get")
    expect_refusal(run.group.modify(absent, default_timeout=60), 404, "AS.0007", "modify")
    expect_refusal(run.group.delete(absent), 404, "AS.0007", "delete")


# --- list and get -------------------------------------------------------------------------------------------------


@ASSUMPTIONS.add(LIST)
def no_hooks_are_an_empty_list(run: Run) -> None:
    """The list of a group without hooks is 200 and {"lifecycle_hooks": []}."""
    run.require_room(MAX_HOOKS)
    expect_equal(expect_answer(run.group.list()), {"lifecycle_hooks": []}, "the list")


@ASSUMPTIONS.add(LIST)
def a_new_hook_is_listed_at_once(run: Run) -> None:
    """The list that follows a create has the new hook, with the values of the create's answer."""
    hook = create(run)
    expect_equal(run.group.find(), hook, "the hook")


@ASSUMPTIONS.add(LIST)
def a_list_has_all_hooks(run: Run) -> None:
    """One list has all five hooks of a group: there are no pages."""
    fill(run)
    hooks = expect_answer(run.group.list())["lifecycle_hooks"]
    expect_equal(len(hooks), MAX_HOOKS, "hooks in the list")


@ASSUMPTIONS.add(GET)
def get_answers_with_the_hook(run: Run) -> None:
    """A get is answered with 200 and the hook as the create's answer had it."""
    hook = create(run)
    expect_equal(expect_answer(run.group.get()), hook, "the hook")


# --- modify and delete --------------------------------------------------------------------------------------------


def modify(run: Run, before: Mapping[str, Any], **changes: Any) -> None:
    """Expect that a modify changes this and nothing else, and that the next list shows it."""
    after = {**before, **changes}
    answered = expect_answer(run.group.modify(**changes))
    expect_equal(answered, after, "the answer")
    expect_equal(run.group.find(), after, "the list")


@ASSUMPTIONS.add(MODIFY)
def modify_changes_what_is_given(run: Run) -> None:
    """A modify with one field is answered with 200 and the hook, of which only that field has changed."""
    hook = create(run, notification_metadata="before")
    modify(run, hook, default_timeout=120)


@ASSUMPTIONS.add(MODIFY)
def modify_changes_every_field_but_the_name(run: Run) -> None:
    """Type, result, timeout and metadata can be changed together, and so can the type of a hook alone."""
    hook = create(run)
    changes = {"default_result": "ABANDON", "default_timeout": 120, "notification_metadata": "after"}
    modify(run, hook, **changes, lifecycle_hook_type="INSTANCE_TERMINATING")
    modify(run, hook | changes, lifecycle_hook_type="INSTANCE_LAUNCHING", default_result="CONTINUE")


@ASSUMPTIONS.add(OUR_READING)
def modify_accepts_the_same_values(run: Run) -> None:
    """A modify with the values that the hook has already is answered with 200 and the hook."""
    hook = create(run)
    modify(run, hook, default_timeout=60, notification_topic_urn=run.group.topic_urn)


@ASSUMPTIONS.add(OUR_READING)
def empty_metadata_removes_it(run: Run) -> None:
    """A modify with empty notification_metadata removes it: it is empty or null from then on."""
    create(run, notification_metadata="before")
    answered = expect_answer(run.group.modify(notification_metadata=""))
    for where, hook in (("the answer", answered), ("the list", run.group.find() or {})):
        metadata = hook.get("notification_metadata", "left out")
        expect(metadata in ("", None), f"{where}: {metadata!r}")


@ASSUMPTIONS.add(OUR_READING)
def null_in_a_modify_is_left_out(run: Run) -> None:
    """null in a modify counts as a field that is left out, and a modify without any field changes nothing."""
    hook = create(run, notification_metadata="before")
    for fields in ({"notification_metadata": None}, {}):
        expect_equal(expect_answer(run.group.modify(**fields)), hook, "the answer")


@ASSUMPTIONS.add(MODIFY)
def modify_does_not_rename(run: Run) -> None:
    """A modify with a name is refused with 400 AS.0022."""
    create(run)
    run.group.expect_hook(run.group.name("other"))
    expect_refusal(run.group.modify(lifecycle_hook_name=run.group.name("other")), 400, "AS.0022")


@ASSUMPTIONS.add(MODIFY)
def modify_refuses_as_create_does(run: Run) -> None:
    """A modify that breaks a rule is refused with the code of the create, and changes nothing."""
    hook = create(run)
    for code, fields in {
        "AS.7030": {"default_timeout": 59},
        "AS.7033": {"lifecycle_hook_type": "INSTANCE_RESTARTING"},
        "AS.7034": {"default_result": "EXTEND"},
        "AS.7035": {"notification_metadata": "x" * 257},
        "AS.7055": {"notification_metadata": "<"},
    }.items():
        expect_refusal(run.group.modify(**fields), 400, code)
    expect_equal(run.group.find(), hook, "the hook")


@ASSUMPTIONS.add(DELETE)
def delete_answers_204(run: Run) -> None:
    """A delete is answered with 204 and no body, and the next list does not have the hook."""
    create(run)
    response = run.group.delete()
    expect((response.status_code, response.content) == (204, b""), describe(response))
    expect(run.group.find() is None, "the list has it still")


# --- who may do what ----------------------------------------------------------------------------------------------


@ASSUMPTIONS.add(ERRORS)
def no_token_is_as_0005(run: Run) -> None:
    """A request without a token is refused with 401 AS.0005."""
    expect_refusal(run.group.list(auth=None), 401, "AS.0005")


@ASSUMPTIONS.add(ERRORS)
def a_wrong_token_is_as_0006(run: Run) -> None:
    """A request with a token that is none is refused with 401 AS.0006."""
    expect_refusal(run.group.list(auth=TokenHeader("wrong")), 401, "AS.0006")


@ASSUMPTIONS.add(ERRORS)
def another_project_is_as_0008(run: Run) -> None:
    """A token used for another project than its own is refused with 400 AS.0008."""
    run.require_user()
    expect_refusal(run.group.list(project_id=uuid.uuid4().hex), 400, "AS.0008")


@ASSUMPTIONS.add(RIGHTS)
def a_missing_right_is_as_0031(run: Run) -> None:
    """A user who may only list hooks (as:lifecycleHooks:list) lists them; a create is refused with 400 AS.0031, and
    the message names as:lifecycleHooks:create."""
    token = log_in_as(run, "LIMITED", "who may only list hooks")
    expect_answer(run.group.list(auth=token))
    response = run.group.create(auth=token)
    expect_refusal(response, 400, "AS.0031")
    expect("as:lifecycleHooks:create" in response.text, f"the message does not name it: {describe(response)}")


@ASSUMPTIONS.add(OUR_READING)
def a_missing_right_is_told_first(run: Run) -> None:
    """For that user, every other call is refused with 400 AS.0031, which names the right that the call needs, even if
    the hook or the suspension does not exist."""
    token = log_in_as(run, "LIMITED", "who may only list hooks")
    hook = f"scaling_lifecycle_hook/{run.group.id}/{run.group.name('absent')}"
    instances = f"scaling_instance_hook/{run.group.id}"
    callback = {"lifecycle_action_result": "CONTINUE", "lifecycle_action_key": str(uuid.uuid4())}
    for right, method, path, body in (
        ("as:lifecycleHooks:get", "GET", hook, {}),
        ("as:lifecycleHooks:update", "PUT", hook, {"json": {"default_timeout": 60}}),
        ("as:lifecycleHooks:delete", "DELETE", hook, {}),
        ("as:instanceHooks:list", "GET", f"{instances}/list", {}),
        ("as:instanceHooks:action", "PUT", f"{instances}/callback", {"json": callback}),
    ):
        response = run.project.call(method, path, auth=token, **body)
        expect_refusal(response, 400, "AS.0031", right)
        expect(right in response.text, f"the message does not name {right}: {describe(response)}")


@ASSUMPTIONS.add(IAM)
def who_may_not_list_projects_gets_a_403(run: Run) -> None:
    """That user, who may not list projects either, is refused GET /v3/projects?name=... with 403."""
    token = log_in_as(run, "LIMITED", "who may only list hooks")
    name = {"name": run.project.endpoint.project_name}
    response = run.project.send("GET", f"{run.project.iam_url}/projects", params=name, auth=token)
    expect(response.status_code == 403, describe(response))


ASSUMPTIONS.add_untried(
    ERRORS,
    "a token lives for a day",
    an_expired_token_is_as_0006="A token that has expired is refused as a wrong one is, with 401 AS.0006.",
)


@ASSUMPTIONS.add(ERRORS)
def no_role_is_as_0011(run: Run) -> None:
    """A user without any right on AS is refused with 403 AS.0011."""
    token = log_in_as(run, "ROLELESS", "without any right on AS")
    expect_refusal(run.group.list(auth=token), 403, "AS.0011", "list")
    expect_refusal(run.group.create(auth=token), 403, "AS.0011", "create")


def log_in_as(run: Run, user: str, description: str) -> TokenHeader:
    credentials = run.users.get(user)
    if credentials is None:
        raise NotTriedError(f"no user {description} was given: {user}_USERNAME, {user}_PASSWORD")
    try:
        return run.project.log_in(credentials)
    except httpx.HTTPStatusError as error:
        raise NotTriedError(f"the user {description} can't log in: {describe(error.response)}") from error


@ASSUMPTIONS.add(ERRORS)
def a_busy_group_is_as_2020(run: Run) -> None:
    """A group that performs a scaling action refuses a create with 400 AS.2020, and can be listed."""
    if run.busy_group is None:
        raise NotTriedError("no group that performs a scaling action was given: BUSY_GROUP_ID")
    expect_answer(run.busy_group.list())
    expect_refusal(run.busy_group.create(), 400, "AS.2020")


ASSUMPTIONS.add_untried(
    DELETE,
    "it would cost the group",
    a_deleted_group_takes_its_hooks_along="A group that is deleted deletes its hooks.",
)
ASSUMPTIONS.add_untried(
    OUR_READING,
    "a name of this run begins with a prefix of its own",
    a_hook_named_list_cannot_be_read_by_get="A get of a hook named list is answered with the list.",
)
ASSUMPTIONS.add_untried(
    OUR_READING,
    "it would take a flood of requests",
    too_many_requests_are_a_429="The gateway refuses requests beyond its rate with 429, at times with Retry-After.",
)
ASSUMPTIONS.add_untried(
    ERRORS,
    "needs a second project",
    a_group_of_another_project_is_as_2007="The group of another project is refused as one that does not exist.",
)


# --- all answers --------------------------------------------------------------------------------------------------


def answers(run: Run) -> Iterable[tuple[str, httpx.Response]]:
    yield "a success", run.group.list()
    yield "a refusal", run.group.get(run.group.name("absent"))


@ASSUMPTIONS.add(OUR_READING)
def answers_have_a_request_id(run: Run) -> None:
    """Every answer has a request ID, in the header X-Request-Id or X-Openstack-Request-Id."""
    for what, response in answers(run):
        names = ("X-Request-Id", "X-Openstack-Request-Id")
        expect(any(response.headers.get(name) for name in names), f"{what} has none")


@ASSUMPTIONS.add(OUR_READING)
def answers_have_the_time(run: Run) -> None:
    """Every answer has the time of the cloud, in the header Date."""
    for what, response in answers(run):
        expect(response.headers.get("Date"), f"{what} has none")


@ASSUMPTIONS.add(OUR_READING)
def answers_are_not_compressed(run: Run) -> None:
    """What asks for it by Accept-Encoding gets a body that is not compressed."""
    response = run.group.list(headers={"Accept-Encoding": "identity"})
    expect_answer(response)
    encoding = response.headers.get("Content-Encoding", "identity")
    expect(encoding == "identity", f"Content-Encoding: {encoding}")


@ASSUMPTIONS.add(OUR_READING)
def an_unknown_address_is_a_404_without_a_code_of_as(run: Run) -> None:
    """An address that AS does not offer is answered with 404, and with no code of AS: it is not a missing hook."""
    response = run.project.call("GET", "scaling_lifecycle_hook_of_nothing/x/list")
    expect(response.status_code == 404 and '"AS.' not in response.text, describe(response))
