"""The generated parts of docs/reference.md: everything in them is read from the code."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from lifecyclehook_operator import metrics
from lifecyclehook_operator.__main__ import _COMMANDS
from lifecyclehook_operator.api import v1alpha1
from lifecyclehook_operator.api.crd import build_crds
from lifecyclehook_operator.cloud import errors
from lifecyclehook_operator.cloud.errors import AS_CODES, HTTP_STATUSES, CallError, Reason, WaitingError
from lifecyclehook_operator.controller import callbackplan
from lifecyclehook_operator.controller.callbackplan import CallbackReason
from lifecyclehook_operator.settings import ENV_PREFIX, Settings
from lifecyclehook_operator.versions import DISTRIBUTION

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "reference.md"
CODE = REPOSITORY / "operator" / "lifecyclehook_operator"

#: What each Event says; the code has a text with values in place of this.
EVENTS: Mapping[str, str] = {
    "Created": "The hook was created in AS.",
    "Updated": "The hook was changed as the spec was. The message has old and new values.",
    "Adopted": "An existing hook belongs to this resource now. The message says what was changed, if anything.",
    "DriftCorrected": "The hook had been changed or deleted outside Kubernetes, and was restored.",
    "Deleted": "The hook was deleted from AS.",
    "ForceFinalized": "The finalizer was removed without a call to AS, as the annotation asked. The hook may remain.",
    "Recovered": "A failure or a drift is over. The message says which.",
    "Paused": "The operator works on this resource no more, as the annotation asks. A deletion waits, too.",
    "Resumed": "The annotation is gone, and the operator works on this resource again.",
    "SecretInUse": "The Secret that the hook needs is being deleted, but stays until no hook needs it.",
    "InstanceSuspended": "The hook suspends an instance. The message says until when.",
    "InstanceReleased": "A suspension ended by a callback.",
    "InstanceTimedOut": "A suspension ended by its timeout. The message says what AS did then.",
}


def render_page(text: str) -> str:
    """Return the page with each generated part as the code has it now."""

    def fill(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{PARTS[found['name']]()}\n{found['end']}"

    return re.sub(
        r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->)\n.*?(?P<end><!-- end -->)", fill, text, flags=re.DOTALL
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with an empty line around it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(["", *(f"| {' | '.join(map(_cell, line))} |".replace("  ", " ") for line in lines), ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def doc_comments(module: ModuleType) -> dict[str, str]:
    """Return the `#:` comments of a module's names, and of those in its classes."""
    source = Path(str(module.__file__)).read_text()
    found = re.finditer(r"^(?P<lines>(?: *#: .*\n)+) *(?P<name>[A-Za-z_]+)\b", source, re.MULTILINE)
    return {
        each["name"]: " ".join(line.strip().removeprefix("#: ") for line in each["lines"].splitlines())
        for each in found
    }


# --- fields -------------------------------------------------------------------------------------------------------


def fields(plural: str, part: str) -> str:
    """Return the table of a resource's spec or status."""
    (version,) = build_crds()[plural]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"][part]
    return table(("field", "type", "default", "meaning"), _fields(schema, part))


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[Sequence[str]]:
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        inner, where = field, f"{path}.{name}"
        if field["type"] == "array":
            inner, where = field["items"], f"{where}[]"
        default = f"`{field['default']}`" if "default" in field else "required" if name in required else ""
        meaning = field.get("description", "").removesuffix(f" Defaults to {field.get('default')}.")
        if path.startswith("status"):
            default = ""
        yield f"`{where}`", _type(field), default, meaning
        if "properties" in inner:
            yield from _fields(inner, where)


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = {"array": "list", "string": "text"}.get(field["type"], field["type"])
    return "time" if field.get("format") == "date-time" else str(kind)


def columns(plural: str) -> str:
    """Return what `kubectl get` shows of a resource."""
    (version,) = build_crds()[plural]["spec"]["versions"]
    shown = version["additionalPrinterColumns"]

    def names(*, wide: bool) -> str:
        return ", ".join(f"`{each['name'].upper()}`" for each in shown if bool(each.get("priority")) == wide)

    return f"\n`kubectl get {plural}` shows `NAME`, {names(wide=False)}; `-o wide` adds {names(wide=True)}.\n"


# --- reasons ------------------------------------------------------------------------------------------------------


def reasons() -> str:
    """Return the table of the reasons of Ready."""
    meanings, classes = doc_comments(errors), _classes()

    def row(reason: Reason) -> Sequence[str]:
        codes = [code for code, rule in AS_CODES.items() if rule[1] is reason]
        statuses = [str(status) for status, rule in HTTP_STATUSES.items() if rule[1] is reason]
        is_stalled = reason in classes and WaitingError(reason, "", operation="").is_terminal
        causes = ", ".join([*codes, *statuses])
        return f"`{reason}`", meanings[reason.name], causes, classes.get(reason, ""), "yes" if is_stalled else ""

    return table(("reason", "meaning", "AS code, HTTP status", "class", "Stalled"), map(row, Reason))


def _classes() -> dict[Reason, str]:
    """Return the classes of failure that each reason has, by the tables and by what the code raises itself."""
    found: dict[Reason, set[str]] = {}
    for class_, reason in [*AS_CODES.values(), *HTTP_STATUSES.values(), *_raised()]:
        found.setdefault(reason, set()).add(class_.__name__.removesuffix("Error"))
    return {reason: ", ".join(sorted(names)) for reason, names in found.items()}


def _raised() -> Iterator[tuple[type[CallError], Reason]]:
    """Yield class and reason of each error that the code makes, by its class or by a function that returns one."""
    classes = {each.__name__: each for each in CallError.__subclasses__()}
    for tree in _trees():
        made = classes | {
            node.name: classes[node.returns.id]
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id in classes
        }
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Name(id=maker), args=[ast.Attribute(value=ast.Name(id="Reason"), attr=reason), *_]
                ) if maker in made:
                    yield made[maker], Reason[reason]


def _trees() -> Iterator[ast.Module]:
    for path in sorted(CODE.rglob("*.py")):
        yield ast.parse(path.read_text())


def callback_reasons() -> str:
    """Return the table of the reasons of Complete and Failed."""
    return _enum_table("reason", CallbackReason, callbackplan)


def _enum_table(what: str, enum: type[StrEnum], module: ModuleType) -> str:
    meanings = doc_comments(module)
    return table((what, "meaning"), ((f"`{each}`", meanings[each.name]) for each in enum))


def events() -> str:
    """Return the table of the Events, beside those that report a failure under its reason."""
    return table(("reason", "type", "meaning"), ((f"`{reason}`", type_, EVENTS[reason]) for reason, type_ in _events()))


def _events() -> list[tuple[str, str]]:
    """Return reason and type of the Events that the code names, in the order of their explanations."""
    published = set()
    for node in (node for tree in _trees() for node in ast.walk(tree)):
        match node:
            case ast.Call(func=ast.Name(id="Event"), args=[ast.Constant(value=type_), reason, _]):
                match reason:
                    case ast.Constant(value=str(text)):
                        published.add((text, str(type_)))
                    case ast.Name(id="DRIFT_CORRECTED"):
                        published.add(("DriftCorrected", str(type_)))
    order = list(EVENTS)
    return sorted(published, key=lambda each: (order.index(each[0]), each[1]))


# --- the rest -----------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return the table of the commands."""
    return table(("command", "what it does"), ((f"`{DISTRIBUTION} {name}`", text) for name, text in _COMMANDS.items()))


def options() -> str:
    """Return the table of the options of `lifecyclehook-operator run`."""
    return table(("option", "default", "description"), map(_option, Settings.model_fields))


def _option(name: str) -> Sequence[str]:
    field = Settings.model_fields[name]
    default = field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif isinstance(default, tuple):
        default = ", ".join(default)
    return f"`--{name.replace('_', '-')}`", str(default), field.description or ""


def environment() -> str:
    """Return how an option is given by a variable."""
    return (
        f"\nEach option can also be set by an environment variable, for example `--health-port` by "
        f"`{ENV_PREFIX}HEALTH_PORT`.\nSeparate several values by commas there. A flag overrides the variable.\n"
    )


def metric_table() -> str:
    """Return the table of the metrics."""
    own = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    counted = metrics._ResourcesCollector(list, list).collect()  # noqa: SLF001
    # There is no public way to the names of the labels.
    families: list[tuple[Metric, Any]] = [
        *((next(iter(each.describe())), each._labelnames) for each in own),  # noqa: SLF001
        *((each, each._labelnames) for each in counted),  # noqa: SLF001
    ]
    return table(
        ("metric", "type", "labels", "meaning"),
        (
            (f"`{_exposed(each)}`", each.type, ", ".join(f"`{label}`" for label in labels), each.documentation)
            for each, labels in sorted(families, key=lambda family: family[0].name)
        ),
    )


def _exposed(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def keys() -> str:
    """Return the table of the annotations, labels and finalizers."""
    kinds = {"_ANNOTATION": "annotation", "_LABEL": "label", "FINALIZER": "finalizer"}
    rows = []
    for name, meaning in doc_comments(v1alpha1).items():
        kind = next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), None)
        if kind is not None and not name.startswith("_"):
            rows.append((f"`{getattr(v1alpha1, name)}`", kind, meaning))
    return table(("key", "kind", "meaning"), rows)


PARTS = {
    "hook-spec": lambda: fields("lifecyclehooks", "spec"),
    "hook-status": lambda: fields("lifecyclehooks", "status"),
    "hook-columns": lambda: columns("lifecyclehooks"),
    "callback-spec": lambda: fields("lifecyclecallbacks", "spec"),
    "callback-status": lambda: fields("lifecyclecallbacks", "status"),
    "callback-columns": lambda: columns("lifecyclecallbacks"),
    "reasons": reasons,
    "callback-reasons": callback_reasons,
    "events": events,
    "commands": commands,
    "options": options,
    "environment": environment,
    "metrics": metric_table,
    "keys": keys,
}
"""What a part of the page is made by, by the name in its marker."""
