"""The seven AS calls about lifecycle hooks, by the API reference (as_06_0901 to as_06_0907, errors as_07_0102).

Where the reference is silent this is our reading, and the tests in tests/contract say so:
the body is checked before the group, the group before the hooks, a taken name before the limit of five;
a wrong JSON type breaks the rule of its field; a malformed URN is a topic that does not exist;
null in a body is a field left out; a suspended instance means that its group performs a scaling action; ABANDON ends
all that an instance waits for, whether it is started or stopped; a signed request for somebody else's project lacks the
right to it (AS.0011), and one whose X-Project-Id is another than the address's is like a token of another project
(AS.0008).
"""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

from .cloud import TIME_FORMAT, Answer, Call, Cloud, Group, HangingInstance, Hook, Operation
from .iam import ForeignScopeError, auth_kind, identify

MAX_HOOKS = 5
RESULTS = ("ABANDON", "CONTINUE")
HOOK_TYPES = ("INSTANCE_TERMINATING", "INSTANCE_LAUNCHING")
HOOK_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
TOPIC_URN = re.compile(r"urn:smn:[^:\s]+:[^:\s]+:[^:\s]+")

ERRORS = {
    "AS.0001": (500, "Something went wrong inside the service, try again."),
    "AS.0002": (400, "The request has no body."),
    "AS.0005": (401, "The request carries no token."),
    "AS.0006": (401, "The token is wrong or has run out."),
    "AS.0007": (404, "There is no resource [%s]."),
    "AS.0008": (400, "The project of the address and the project of the token differ."),
    "AS.0011": (403, "The right to [%s] is missing."),
    "AS.0022": (400, "The body is no valid JSON, or [%s] is not supported."),
    "AS.0031": (400, "Policy does not allow [%s] to be performed."),
    "AS.0049": (500, "IAM could not be asked, try again."),
    "AS.2007": (400, "There is no AS group [%s]."),
    "AS.2020": (400, "The AS group [%s] is not in a status that allows this."),
    "AS.7030": (400, "The default timeout is not valid."),
    "AS.7031": (400, "The name of the hook is not valid."),
    "AS.7032": (400, "The hook has no name."),
    "AS.7033": (400, "The type of the hook is not valid."),
    "AS.7034": (400, "The result of the callback is not valid."),
    "AS.7035": (400, "The metadata of the notification is too long."),
    "AS.7036": (400, "There is no hook in the request."),
    "AS.7037": (400, "The hook has no type."),
    "AS.7038": (400, "The AS group has as many hooks as it can have."),
    "AS.7039": (400, "The callback has no result."),
    "AS.7040": (400, "The callback names no object."),
    "AS.7041": (400, "The hook's group is not known under this name."),  # misleading, as the service's own is
    "AS.7042": (400, "There is nothing that this callback could be for."),
    "AS.7043": (400, "There is no notification topic [%s]."),
    "AS.7055": (400, "The metadata of the notification has a character that is not allowed."),
}


class AsError(Exception):
    def __init__(self, code: str, subject: str = "") -> None:
        super().__init__(code)
        self.answer = error_answer(code, subject)


def error_answer(code: str, subject: str = "") -> Answer:
    status, message = ERRORS[code]
    return Answer(status, {"error": {"code": code, "message": message.replace("%s", subject)}})


def create_hook(cloud: Cloud, call: Call) -> Answer:
    project_id = _authorize(cloud, call, "as:lifecycleHooks:create")
    fields = _read_body(call, {"lifecycle_hook_name", *MODIFIABLE})
    for name in ("lifecycle_hook_name", "lifecycle_hook_type", "notification_topic_urn"):
        CHECKS[name](fields.setdefault(name, None))
    _check_fields(fields)
    group = _find_idle_group(cloud, call, project_id)
    if fields["lifecycle_hook_name"] in group.hooks:
        raise AsError("AS.7041")
    if len(group.hooks) >= MAX_HOOKS:
        raise AsError("AS.7038")
    _find_topic(cloud, fields)
    hook = Hook(**fields, create_time=cloud.now().strftime(TIME_FORMAT))
    group.hooks[hook.lifecycle_hook_name] = hook
    return Answer(200, hook.to_json())


def list_hooks(cloud: Cloud, call: Call) -> Answer:
    group = _find_group(cloud, call, _authorize(cloud, call, "as:lifecycleHooks:list"))
    return Answer(200, {"lifecycle_hooks": [hook.to_json() for hook in group.hooks.values()]})


def get_hook(cloud: Cloud, call: Call) -> Answer:
    group = _find_group(cloud, call, _authorize(cloud, call, "as:lifecycleHooks:get"))
    return Answer(200, _find_hook(group, call).to_json())


def modify_hook(cloud: Cloud, call: Call) -> Answer:
    project_id = _authorize(cloud, call, "as:lifecycleHooks:update")
    fields = _read_body(call, MODIFIABLE)
    _check_fields(fields)
    hook = _find_hook(_find_idle_group(cloud, call, project_id), call)
    _find_topic(cloud, fields)
    for name, value in fields.items():
        setattr(hook, name, value)
    return Answer(200, hook.to_json())


def delete_hook(cloud: Cloud, call: Call) -> Answer:
    group = _find_idle_group(cloud, call, _authorize(cloud, call, "as:lifecycleHooks:delete"))
    del group.hooks[_find_hook(group, call).lifecycle_hook_name]
    return Answer(204)


def list_hanging_instances(cloud: Cloud, call: Call) -> Answer:
    group = _find_group(cloud, call, _authorize(cloud, call, "as:instanceHooks:list"))
    wanted = call.query.get("instance_id")
    found = [hanging for hanging in group.hanging if wanted in (None, hanging.instance_id)]
    return Answer(200, {"instance_hanging_info": [hanging_json(cloud, group, hanging) for hanging in found]})


def call_back(cloud: Cloud, call: Call) -> Answer:
    project_id = _authorize(cloud, call, "as:instanceHooks:action")
    fields = _read_body(call, CALLBACK_FIELDS)
    result = fields.get("lifecycle_action_result")
    if result in (None, ""):
        raise AsError("AS.7039")
    if result not in (*RESULTS, "EXTEND"):
        raise AsError("AS.7034")
    group = _find_group(cloud, call, project_id)
    hanging = _find_hanging(cloud, group, fields)
    if result == "EXTEND":
        hanging.timeout += timedelta(hours=1)
    else:
        hanging.lifecycle_hook_status = result
    if result == "ABANDON":
        for other in group.hanging:
            if other.instance_id == hanging.instance_id and _hanging_status(cloud, other) == "HANGING":
                other.lifecycle_hook_status = result
    return Answer(204)


def _authorize(cloud: Cloud, call: Call, permission: str) -> str:
    if auth_kind(call.headers) is None:
        raise AsError("AS.0005")
    try:
        identity = identify(cloud, call)
    except ForeignScopeError as error:
        raise AsError("AS.0011", permission) from error
    if identity is None:
        raise AsError("AS.0006")
    if identity.project is None or identity.project.id != call.args["project_id"]:
        raise AsError("AS.0008")
    if permission not in identity.user.permissions:
        raise AsError("AS.0031" if identity.user.permissions else "AS.0011", permission)
    return identity.project.id


def _read_body(call: Call, allowed: set[str]) -> dict[str, Any]:
    if not call.body.strip():
        raise AsError("AS.0002")
    try:
        body = json.loads(call.body, parse_constant=_refuse_constant)
    except ValueError as error:
        raise AsError("AS.0022") from error
    if body is None:
        raise AsError("AS.7036")
    if not isinstance(body, dict):
        raise AsError("AS.0022")
    for name in sorted(body.keys() - allowed):
        raise AsError("AS.0022", name)
    return {name: value for name, value in body.items() if value is not None}


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _check_fields(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        CHECKS[name](value)


def _check_name(value: Any) -> None:
    if value is None or value == "":
        raise AsError("AS.7032")
    if not isinstance(value, str) or not HOOK_NAME.fullmatch(value):
        raise AsError("AS.7031")


def _check_type(value: Any) -> None:
    if value is None or value == "":
        raise AsError("AS.7037")
    if value not in HOOK_TYPES:
        raise AsError("AS.7033")


def _check_result(value: Any) -> None:
    if value not in RESULTS:
        raise AsError("AS.7034")


def _check_timeout(value: Any) -> None:
    if type(value) is not int or not 60 <= value <= 86400:
        raise AsError("AS.7030")


def _check_urn(value: Any) -> None:
    if not isinstance(value, str):
        raise AsError("AS.0022", "notification_topic_urn")
    if not TOPIC_URN.fullmatch(value):
        raise AsError("AS.7043", value)


def _check_metadata(value: Any) -> None:
    if not isinstance(value, str):
        raise AsError("AS.0022", "notification_metadata")
    if len(value) > 256:
        raise AsError("AS.7035")
    if set(value) & set("<>&'()"):
        raise AsError("AS.7055")


CHECKS: dict[str, Callable[[Any], None]] = {
    "lifecycle_hook_name": _check_name,
    "lifecycle_hook_type": _check_type,
    "default_result": _check_result,
    "default_timeout": _check_timeout,
    "notification_topic_urn": _check_urn,
    "notification_metadata": _check_metadata,
}
MODIFIABLE = CHECKS.keys() - {"lifecycle_hook_name"}
CALLBACK_FIELDS = {"lifecycle_action_result", "lifecycle_action_key", "instance_id", "lifecycle_hook_name"}


def _find_group(cloud: Cloud, call: Call, project_id: str) -> Group:
    group = cloud.groups.get(call.args["group_id"])
    if group is None or group.project_id != project_id:
        raise AsError("AS.2007", call.args["group_id"])
    return group


def _find_idle_group(cloud: Cloud, call: Call, project_id: str) -> Group:
    """Hooks are added, modified and deleted only while the group performs no scaling action."""
    group = _find_group(cloud, call, project_id)
    if group.busy or any(_hanging_status(cloud, hanging) == "HANGING" for hanging in group.hanging):
        raise AsError("AS.2020", group.id)
    return group


def _find_hook(group: Group, call: Call) -> Hook:
    hook = group.hooks.get(call.args["hook_name"])
    if hook is None:
        raise AsError("AS.0007", call.args["hook_name"])
    return hook


def _find_topic(cloud: Cloud, fields: dict[str, Any]) -> None:
    urn = fields.get("notification_topic_urn")
    if urn is not None and urn not in cloud.topics:
        raise AsError("AS.7043", urn)


def _find_hanging(cloud: Cloud, group: Group, fields: dict[str, Any]) -> HangingInstance:
    """Find what a callback is for: by its key, which wins, or by the instance and the hook, and that hangs."""
    key = fields.get("lifecycle_action_key")
    instance, hook = fields.get("instance_id"), fields.get("lifecycle_hook_name")
    if not key and not (instance and hook):
        raise AsError("AS.7040")
    for hanging in group.hanging:
        is_meant = key == hanging.lifecycle_action_key if key else (instance, hook) == _instance_and_hook(hanging)
        if is_meant and _hanging_status(cloud, hanging) == "HANGING":
            return hanging
    raise AsError("AS.7042")


def _instance_and_hook(hanging: HangingInstance) -> tuple[str, str]:
    return hanging.instance_id, hanging.lifecycle_hook_name


def _hanging_status(cloud: Cloud, hanging: HangingInstance) -> str:
    timed_out = hanging.lifecycle_hook_status == "HANGING" and hanging.timeout <= cloud.now()
    return hanging.default_result if timed_out else hanging.lifecycle_hook_status


def hanging_json(cloud: Cloud, group: Group, hanging: HangingInstance) -> dict[str, str]:
    return {
        "instance_id": hanging.instance_id,
        "scaling_group_id": group.id,
        "lifecycle_hook_name": hanging.lifecycle_hook_name,
        "lifecycle_action_key": hanging.lifecycle_action_key,
        "default_result": hanging.default_result,
        "timeout": hanging.timeout.strftime(TIME_FORMAT),
        "lifecycle_hook_status": _hanging_status(cloud, hanging),
    }


_PROJECT = "/autoscaling-api/v1/(?P<project_id>[^/]+)"
_HOOKS = f"{_PROJECT}/scaling_lifecycle_hook/(?P<group_id>[^/]+)"
_INSTANCES = f"{_PROJECT}/scaling_instance_hook/(?P<group_id>[^/]+)"
_HOOK = re.compile(f"{_HOOKS}/(?P<hook_name>[^/]+)")

# The list call comes before the get call: a hook named `list` cannot be read by the latter.
OPERATIONS = (
    Operation("create", "POST", re.compile(_HOOKS), create_hook),
    Operation("list", "GET", re.compile(f"{_HOOKS}/list"), list_hooks),
    Operation("get", "GET", _HOOK, get_hook),
    Operation("modify", "PUT", _HOOK, modify_hook),
    Operation("delete", "DELETE", _HOOK, delete_hook),
    Operation("list_hanging", "GET", re.compile(f"{_INSTANCES}/list"), list_hanging_instances),
    Operation("callback", "PUT", re.compile(f"{_INSTANCES}/callback"), call_back),
)
