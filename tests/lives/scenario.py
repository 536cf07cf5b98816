"""What happens in a life, drawn from a seed. The same steps are played in memory and on a real API server and cloud."""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta")
OPERATIONS = ("create", "modify", "delete", "list")
WRITES = ("finalizer", "release", "status", "event")
#: What a call of AS may meet, as the simulated cloud takes it.
CLOUD_EFFECTS: Sequence[dict[str, Any]] = (
    {"status": 503},
    {"status": 500, "stage": "after"},
    {"status": 404, "text": "no such page"},
    {"drop": True},
    {"drop": True, "stage": "after"},
    {"status": 429, "headers": {"Retry-After": "1"}, "json": {}},
    {"status": 200, "text": "{", "stage": "after"},
    {"code": "AS.0001"},
    {"code": "AS.2020"},
    {"code": "AS.0006"},
)
#: What only a call in memory can meet: the process dies before or after the call's effect, which may come late, too.
IN_MEMORY_EFFECTS: Sequence[dict[str, Any]] = (
    {"crash": True},
    {"crash": True, "stage": "after"},
    {"late_seconds": 40},
    {"slow_seconds": 20},
)
WRITE_EFFECTS: Sequence[dict[str, Any]] = (
    {"refuse": True},
    {"drop": True},
    {"drop": True, "stage": "after"},
    {"conflict": True},
    *IN_MEMORY_EFFECTS,
)
#: These kinds of steps cannot be played on a real API server, or only in memory is it known what has been seen.
IN_MEMORY_KINDS = frozenset({"write_fault", "relist", "lag", "pause", "resume"})
_SHARE_OF_PLOTS = 0.1
#: Right after something else, in the middle of what follows from it, or when that is over.
_WAITS = (0, 0, 0.05, 0.3, 1, 3, 15, 60, 150)


@dataclass(frozen=True)
class Step:
    """Something happens, so many seconds after what happened before."""

    kind: str
    after_seconds: float = 0
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        details = ", ".join(f"{name}={value!r}" for name, value in self.details.items())
        return f"+{self.after_seconds:g}s {self.kind}({details})"


def make_life(seed: int, *, in_memory: bool = True) -> list[Step]:
    """Return the steps of a life; without `in_memory`, only those that a real API server and cloud can play."""
    draw = random.Random(seed)  # noqa: S311  (no secret)
    names = draw.sample(NAMES, draw.choice((1, 1, 1, 2, 2, 3, 7)))
    groups = range(draw.choice((1, 1, 2)))
    hook_names = {name: draw.choice((*[None] * 3, names[0])) for name in names}
    weights = {kind: weight * draw.choice((0, 1, 1, 2)) for kind, weight in _WEIGHTS.items()}
    weights["create"] = _WEIGHTS["create"]
    if not in_memory:
        weights = {kind: weight for kind, weight in weights.items() if kind not in IN_MEMORY_KINDS}

    def make_step(kind: str) -> Step:
        name, group = draw.choice(names), draw.choice(groups)
        details = _DETAILS[kind](draw, name, group, hook_names, in_memory)
        return Step(kind, draw.choice(_WAITS), details)

    first = [make_step("create") for _ in names]
    kinds = draw.choices([*weights], [*weights.values()], k=draw.randint(3, 14))
    steps = first + [make_step(kind) for kind in kinds]
    if in_memory and draw.random() < _SHARE_OF_PLOTS:
        # Two crashes, each right after the effect of a call: chance alone hardly ever brings them about in a row.
        crash = {"effect": {"crash": True, "stage": "after"}, "count": 1}
        calls = [(operation, group) for operation in ("create", "modify") for group in groups]
        faults = [Step("cloud_fault", 0, {"operation": each, "group": group, **crash}) for each, group in calls]
        steps[:0] = [*faults, first[0], Step("edit", 1, _edit(draw, first[0].details["name"]))]
    return steps


def draw_fields(draw: random.Random) -> dict[str, Any]:
    """Return fields of a spec that can be edited; None: not given."""
    return {
        "defaultTimeout": draw.choice((60, 120, 3600)),
        "defaultResult": draw.choice(("ABANDON", "CONTINUE")),
        "notificationMetadata": draw.choice((None, "", "text")),
    }


def _draw_policies(draw: random.Random) -> dict[str, Any]:
    return {
        "adoptionPolicy": draw.choice(("Identical", "Always", "Never", "Never")),
        "driftPolicy": draw.choice(("Repair", "Repair", "Report")),
        "deletionPolicy": draw.choice(("Delete", "Delete", "Delete", "Retain")),
    }


def _create(draw: random.Random, name: str, group: int, hook_names: dict[str, str | None], _: bool) -> dict[str, Any]:
    spec = {"lifecycleHookName": hook_names[name], **draw_fields(draw), **_draw_policies(draw)}
    return {"name": name, "group": group, "spec": {key: value for key, value in spec.items() if value is not None}}


def _edit(draw: random.Random, name: str, *_: object) -> dict[str, Any]:
    changes = {**draw_fields(draw), **_draw_policies(draw)}
    kept = draw.sample([*changes], draw.choice((1, 1, 2)))
    return {"name": name, "spec": {key: changes[key] for key in kept}}


def _of_resource(_: random.Random, name: str, *__: object) -> dict[str, Any]:
    return {"name": name}


def _of_hook(draw: random.Random, name: str, group: int, hook_names: dict[str, str | None], _: bool) -> dict[str, Any]:
    return {"group": group, "hook": hook_names[name] or name, "timeout": draw.choice((60, 120, 3600, 7200))}


def _cloud_fault(draw: random.Random, _: str, group: int, __: object, in_memory: bool) -> dict[str, Any]:
    effects = (*CLOUD_EFFECTS, *IN_MEMORY_EFFECTS * 2) if in_memory else CLOUD_EFFECTS
    operation = draw.choice((*OPERATIONS, "create"))
    return {"operation": operation, "group": group, "effect": draw.choice(effects), "count": draw.choice((1, 1, 2, 3))}


def _write_fault(draw: random.Random, *_: object) -> dict[str, Any]:
    operation = draw.choice((*WRITES, "status", "finalizer"))
    return {"operation": operation, "effect": draw.choice(WRITE_EFFECTS), "count": draw.choice((1, 1, 2, 7))}


#: How often each kind of step is drawn, before the seed's own likings.
_WEIGHTS = {
    "create": 4,
    "edit": 6,
    "delete": 3,
    "put_hook": 2,
    "change_hook": 3,
    "delete_hook": 2,
    "cloud_fault": 8,
    "write_fault": 5,
    "scale": 2,
    "crash": 3,
    "wipe_status": 2,
    "replace": 2,
    "look": 1,
    "pause": 2,
    "resume": 2,
    "relist": 2,
    "lag": 2,
}
_DETAILS: dict[str, Callable[..., dict[str, Any]]] = {
    "create": _create,
    "edit": _edit,
    "delete": _of_resource,
    "put_hook": _of_hook,
    "change_hook": _of_hook,
    "delete_hook": _of_hook,
    "cloud_fault": _cloud_fault,
    "write_fault": _write_fault,
    "scale": lambda draw, _, group, *__: {"group": group, "is_busy": draw.choice((True, False))},
    "crash": lambda draw, *_: {"down_seconds": draw.choice((1, 10, 100))},
    "wipe_status": _of_resource,
    "replace": _edit,
    "look": _of_resource,
    "pause": _of_resource,
    "resume": _of_resource,
    "relist": lambda *_: {},
    "lag": lambda draw, *_: {"seconds": draw.choice((0.5, 2, 10, 150))},
}


def shrink(life: Sequence[Step], fails: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """Return a life that still fails and has no step that it could do without, nor a wait that it could."""
    steps = list(life)
    size = max(1, len(steps) // 2)
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
            else:
                start += size
        size //= 2
    for index, step in enumerate(steps):
        for shorter in _shorten(step):
            if fails(candidate := [*steps[:index], shorter, *steps[index + 1 :]]):
                steps = candidate
                break
    return steps


def _shorten(step: Step) -> Iterator[Step]:
    for seconds in (150, 0):
        if step.after_seconds != seconds:
            yield dataclasses.replace(step, after_seconds=seconds)
    if step.details.get("count", 1) > 1:
        yield dataclasses.replace(step, details={**step.details, "count": 1})
