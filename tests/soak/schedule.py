"""What happens in a soak, drawn from a seed: three actors, each with steps of its own, at the same time."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.lives.scenario import Step, draw_fields
from tests.support.simulator.autoscaling import ERRORS, HOOK_TYPES

GROUPS = range(4)
TOPICS = range(2)
#: In the first, hooks use the operator's own credentials; in the second, those of a Secret.
NAMESPACES = range(2)
#: These adopt whatever they find, and may lose what the operator has written on them.
LOOSE_NAMES = tuple(f"loose-{number}" for number in range(7))
#: These adopt nothing: the operator has to know their hooks for its own, whatever happens.
STRICT_NAMES = tuple(f"strict-{number}" for number in range(7))
NAMES = (*LOOSE_NAMES, *STRICT_NAMES)
#: A user with a password, and an access key.
SECRETS = ("user", "key")
#: A hook of somebody else's in the last group, which no resource may touch.
FOREIGN = "foreign"

Draw = random.Random
Details = dict[str, Any]


def users(seed: int) -> Iterator[Step]:
    """Yield without end what users do to resources and Secrets."""
    return _draw_steps(f"users {seed}", _USERS, (0, 0, 0.02, 0.05, 0.1, 0.5))


def cloud(seed: int) -> Iterator[Step]:
    """Yield without end what somebody else does in the cloud, and what becomes of the cloud itself."""
    return _draw_steps(f"cloud {seed}", _CLOUD, (0, 0.1, 0.3, 1))


def machines(seed: int) -> Iterator[Step]:
    """Yield without end what breaks: each kind once, as short as can be, then each once again, and so on."""
    draw = _random(f"machines {seed}")
    waits: tuple[float, ...] = (0.5, 1.5)
    while True:
        for kind in draw.sample([*OUTAGES], len(OUTAGES)):
            lasts = OUTAGES[kind][: len(waits) - 1]
            yield Step(kind, draw.choice(waits), {"seconds": draw.choice(lasts)})
        waits = (0.2, 1, 4, 10)


def faults(seed: int, share: float) -> list[Details]:
    """Return what to arm in the simulated cloud so that this share of all requests meets a fault."""
    draw = _random(f"faults {seed}")
    armed: list[Details] = []
    for operation in (*_AS_OPERATIONS, *_IAM_OPERATIONS):
        effects = [*_effects(operation)]
        draw.shuffle(effects)
        weights = [_WEIGHT_OF_UNKNOWN if _leaves_unknown(effect) else 1 for effect in effects]
        for effect, weight in zip(effects, weights, strict=True):
            each = 1 - (1 - share) ** (weight / sum(weights))
            armed.append({"operation": operation, "count": None, "share": each, "seed": draw.getrandbits(32), **effect})
    return armed


def _random(seed: str) -> Draw:
    return random.Random(seed)  # noqa: S311  (no secret)


def _draw_steps(
    seed: str, kinds: Mapping[str, tuple[int, Callable[[Draw], Details]]], waits: tuple[float, ...]
) -> Iterator[Step]:
    draw = _random(seed)
    names, weights = [*kinds], [weight for weight, _ in kinds.values()]
    while True:
        (kind,) = draw.choices(names, weights)
        yield Step(kind, draw.choice(waits), kinds[kind][1](draw))


def _of_resource(draw: Draw, names: tuple[str, ...] = NAMES) -> Details:
    return {"namespace": draw.choice(NAMESPACES), "name": draw.choice(names)}


def _of_loose_resource(draw: Draw) -> Details:
    return _of_resource(draw, LOOSE_NAMES)


def _draw_spec(draw: Draw, namespace: int) -> Details:
    secret = draw.choice((*SECRETS, *SECRETS, None)) if namespace else None
    return {
        **draw_fields(draw),
        "lifecycleHookType": draw.choice(HOOK_TYPES),
        "driftPolicy": draw.choice(("Repair", "Repair", "Report")),
        "suspensionPolicy": draw.choice(("Ignore", "Watch")),
        "credentialsRef": secret and {"secretName": secret},
    }


def _create(draw: Draw) -> Details:
    where = _of_resource(draw)
    if where["name"] in LOOSE_NAMES:
        own = {"adoptionPolicy": "Always", "lifecycleHookName": draw.choice((*[None] * 9, "shared"))}
    else:  # the two namespaces do not compete for its name
        own = {"adoptionPolicy": "Never", "lifecycleHookName": f"{where['name']}-{where['namespace']}"}
    spec = {**_draw_spec(draw, where["namespace"]), **own}
    return {**where, "group": draw.choice(GROUPS), "topic": draw.choice(TOPICS), "spec": spec}


def _create_rival(draw: Draw) -> Details:
    spec = {**_draw_spec(draw, 0), "adoptionPolicy": "Never", "lifecycleHookName": FOREIGN}
    return {"namespace": 0, "name": "rival", "group": GROUPS[-1], "topic": 0, "spec": spec}


def _edit(draw: Draw, names: tuple[str, ...] = NAMES) -> Details:
    where = _of_resource(draw, names)
    spec = _draw_spec(draw, where["namespace"])
    return {**where, "topic": draw.choice((None, *TOPICS)), "spec": {key: spec[key] for key in draw.sample([*spec], 2)}}


def _call_back(draw: Draw) -> Details:
    result = draw.choice(("CONTINUE", "ABANDON", "EXTEND"))
    return {**_of_resource(draw), "result": result, "deadline_seconds": draw.choice((2, 8))}


def _of_secret(draw: Draw) -> Details:
    return {"secret": draw.choice(SECRETS)}


def _rotate(draw: Draw) -> Details:
    return {**_of_secret(draw), "is_revoked_first": draw.choice((True, False))}


def _break_secret(draw: Draw) -> Details:
    return {**_of_secret(draw), "content": draw.choice(("", "clouds: {otc: [", "clouds: {other: {auth: {}}}"))}


def _of_hook(draw: Draw) -> Details:
    strict_hooks = (f"{name}-{namespace}" for name in STRICT_NAMES for namespace in NAMESPACES)
    return {"group": draw.choice(GROUPS), "hook": draw.choice((*LOOSE_NAMES, "shared", *strict_hooks))}


def _change_hook(draw: Draw) -> Details:
    # One that is changed before the status names it is unknown from then on (docs/how-it-works.md): not strict ones.
    hook = draw.choice((*LOOSE_NAMES, "shared"))
    return {"group": draw.choice(GROUPS), "hook": hook, "timeout": draw.choice((60, 120, 3600, 7200))}


def _for_seconds(*choices: float) -> Callable[[Draw], Details]:
    return lambda draw: {"seconds": draw.choice(choices)}


def _nothing(_: Draw) -> Details:
    return {}


_USERS: Mapping[str, tuple[int, Callable[[Draw], Details]]] = {
    "create": (40, _create),
    "create_rival": (1, _create_rival),
    "edit": (30, _edit),
    "delete": (25, _of_resource),
    "wipe_status": (6, _of_loose_resource),
    "strip_finalizer": (4, _of_loose_resource),
    "replace": (4, lambda draw: _edit(draw, LOOSE_NAMES)),
    "ask": (6, _of_resource),
    "call_back": (4, _call_back),
    "rotate": (4, _rotate),
    "break_secret": (1, _break_secret),
    "recreate_secret": (1, _rotate),
    "strip_secret": (2, _of_secret),
}
_CLOUD: Mapping[str, tuple[int, Callable[[Draw], Details]]] = {
    "change_hook": (30, _change_hook),
    "delete_hook": (20, _of_hook),
    "suspend": (20, lambda draw: {**_of_hook(draw), "seconds": draw.choice((0.5, 2))}),
    "scale": (4, lambda draw: {"group": draw.choice(GROUPS), "seconds": draw.choice((0.5, 2))}),
    "drop_group": (1, lambda draw: {"group": draw.choice(GROUPS[:-1]), "seconds": draw.choice((0, 1))}),
    "drop_topic": (2, lambda draw: {"topic": draw.choice(TOPICS), "seconds": draw.choice((0.5, 2))}),
    "forbid": (2, _for_seconds(0.5, 2)),
    "revoke_tokens": (3, _nothing),
    "shift_clock": (1, lambda draw: {"seconds": draw.choice((0, 60, 240))}),
    "slow_down": (2, lambda draw: {"latency_seconds": draw.choice((0, 0, 0.05, 0.3))}),
}
#: What can break, and for how many seconds.
OUTAGES: Mapping[str, tuple[float, ...]] = {
    "kill_operator": (0, 1),
    "stop_operator": (0, 1),
    "freeze_operator": (0.5, 3),
    "restart_api_server": (0, 1),
    "freeze_api_server": (0.5, 4),
    "stop_etcd": (0.5, 3),
    "cut_connections": (0,),
    "silence_connections": (1, 5),
}

_AS_OPERATIONS = ("create", "list", "modify", "delete", "list_hanging", "callback")
_IAM_OPERATIONS = ("token", "projects", "catalog")
_PAGE = "<html><head><title>t</title></head><body><h1>Out of order</h1></body></html>"
#: After these nobody knows whether the call took effect: they come before the work and after it.
_UNKNOWN: tuple[Details, ...] = (
    {"drop": True},
    {"hold": True},
    *({"status": status, "text": _PAGE} for status in (408, 409, 500, 502, 503, 504)),
    {"status": 503, "text": ""},
)
#: Answers that are not the documented ones: neither do they tell.
_ODD: tuple[Details, ...] = (
    {"text": "{"},
    {"text": ""},
    {"json": []},
    {"json": {"lifecycle_hook_name": "another", "lifecycle_hooks": [{}], "instance_hanging_info": [{}]}},
)
#: Refusals come before the work: what is refused after it would be a lie.
_REFUSED: tuple[Details, ...] = (
    *({"status": status, "text": "refused"} for status in (400, 403, 404, 405, 406, 407, 501)),
    {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error_code": "APIGW.0308", "error_msg": "slow down"}},
)
#: How much oftener than a refusal each fault is met that leaves it unknown whether the call took effect.
_WEIGHT_OF_UNKNOWN = 4
#: With these AS says that hook or group are not there, which it alone knows: only a create call is told so in vain.
_ABSENT = {"AS.0007", "AS.2007"}


def _leaves_unknown(effect: Details) -> bool:
    return "stage" in effect


def _effects(operation: str) -> Iterator[Details]:
    """Yield each fault that an operation may meet, such that no rule of the API is broken by it."""
    yield {"delay_seconds": 0.5}
    yield from ({**effect, "stage": stage} for effect in _UNKNOWN for stage in ("before", "after"))
    yield from _REFUSED
    if operation in _IAM_OPERATIONS:
        # A login that is refused (401) is not tried again for five minutes: rotated Secrets see to that.
        status = 201 if operation == "token" else 200
        yield from ({"status": status, **odd} for odd in _ODD)
        return
    # A deletion may come true long after the client has given it up; of a hook made so late, nobody could know.
    yield {"delay_seconds": 10, "stage": "before" if operation == "delete" else "after"}
    yield {"status": 401, "text": "refused"}
    yield from ({"code": code} for code in ERRORS if operation == "create" or code not in _ABSENT)
    # These answer without a body: any success says that it is done.
    stages = ("after",) if operation in ("delete", "callback") else ("before", "after")
    yield from ({"status": 200, "stage": stage, **odd} for odd in _ODD for stage in stages)
