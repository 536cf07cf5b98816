"""The Helm chart, made of what kustomize renders.

Each layer below is a way to install that deploy/ offers, under a condition on the chart's values. Where a layer renders
something else than deploy/base does, the templates have that condition. What a user may set beyond the layers is put
into their objects first.
"""

import json
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.deploy.rendering import make_overlay, only, render
from tests.deploy.values import Image, Values
from tests.support.harness import DEPLOY, OPERATOR

CHART = DEPLOY / "chart"
#: All else in the folder of the chart is generated.
BY_HAND = {"templates/NOTES.txt"}

_HEADER = "# Made by `make generate`: do not edit.\n"
#: What to render. Where several layers insert items at one place of a list, those of the later layer come first.
_LAYERS: dict[str, dict[str, list[str]]] = {
    "base": {"resources": ["base"]},
    "ca": {"resources": ["base"], "components": ["components/ca"]},
    "metrics": {"resources": ["base"], "components": ["components/metrics"]},
    "high-availability": {"resources": ["overlays/high-availability"]},
    "single-namespace": {"resources": ["overlays/single-namespace"]},
}
_CONDITIONS = {
    "ca": "$.Values.ca.configMapName",
    "metrics": "$.Values.metrics.enabled",
    "high-availability": "(gt (int $.Values.replicas) 1)",
    "single-namespace": "$.Values.namespaces",
}
#: Objects that a user may leave out.
_OPTIONAL = {
    ("ServiceMonitor", OPERATOR): "and $.Values.metrics.enabled $.Values.metrics.serviceMonitor",
    ("PrometheusRule", OPERATOR): "and $.Values.metrics.enabled $.Values.metrics.prometheusRule",
    ("ConfigMap", f"{OPERATOR}-dashboard"): "and $.Values.metrics.enabled $.Values.metrics.dashboard",
    ("ClusterRole", "lifecyclehook-viewer"): "$.Values.userRoles",
    ("ClusterRole", "lifecyclehook-editor"): "$.Values.userRoles",
    ("ClusterRole", "lifecyclecallback-caller"): "$.Values.userRoles",
}
#: Objects that there are once for each of the namespaces to serve.
_PER_NAMESPACE = {("Role", OPERATOR), ("RoleBinding", OPERATOR)}
_NAMESPACE = "the-release-namespace"

T = TypeVar("T")
Object = dict[Any, Any]
Identity = tuple[str, str]
Objects = dict[Identity, Object]
Nodes = dict[str, Any]
"""What stands at one place, by layer."""


class Template(str):
    """Text for Helm. As the value of a field it is that value; as a key, or an item of a list, it is whole lines.

    INDENT in it becomes the number of spaces before a block that belongs there.
    """

    __slots__ = ()


def render_chart(kubectl: Path) -> dict[str, str]:
    """Return the content of each generated file, by its path in the chart."""
    with tempfile.TemporaryDirectory() as folder:
        layers = {name: _render_layer(kubectl, Path(folder) / name, parts) for name, parts in _LAYERS.items()}
    values = Values.of(only(list(layers["base"].values()), "Deployment"))
    files = {
        "Chart.yaml": _HEADER + yaml.safe_dump(_description(), sort_keys=False, width=120),
        "values.yaml": _HEADER + values.as_yaml(),
        "values.schema.json": json.dumps(values.json_schema(), indent=2) + "\n",
    }
    for (kind, _), body in layers["base"].items():
        if kind == "CustomResourceDefinition":
            files[f"crds/{body['spec']['names']['plural']}.yaml"] = _HEADER + yaml.safe_dump(body, sort_keys=False)
    templates = {name: _put_values(objects) for name, objects in layers.items()}
    for identity in _merge_order(templates.values()):
        path = f"templates/{identity[0].lower()}.yaml"
        files[path] = "\n".join([files.get(path, _HEADER).rstrip("\n"), *_object_lines(identity, templates), ""])
    return files


def write_chart(kubectl: Path) -> None:
    """Bring the folder of the chart up to date."""
    files = render_chart(kubectl)
    for stale in generated_files() - files.keys():
        (CHART / stale).unlink()
    for path, content in files.items():
        (CHART / path).parent.mkdir(parents=True, exist_ok=True)
        (CHART / path).write_text(content)


def generated_files() -> set[str]:
    """Return the paths of the files that the chart has and nobody wrote by hand."""
    return {path.relative_to(CHART).as_posix() for path in CHART.rglob("*") if path.is_file()} - BY_HAND


def package_chart(helm: Path, image: Image, folder: Path) -> None:
    """Write the chart's archive into a folder, with an image in its values."""
    with tempfile.TemporaryDirectory() as work:
        copy = shutil.copytree(CHART, Path(work) / OPERATOR)
        values = Values.model_validate(yaml.safe_load((copy / "values.yaml").read_text()))
        (copy / "values.yaml").write_text(_HEADER + values.model_copy(update={"image": image}).as_yaml())
        subprocess.run([helm, "package", copy, "--destination", folder], check=True)


def _description() -> dict[str, str]:
    project = metadata(OPERATOR)
    return {
        "apiVersion": "v2",
        "name": OPERATOR,
        "description": project["Summary"],
        "type": "application",
        "version": project["Version"],
        "appVersion": project["Version"],
        "kubeVersion": ">=1.28.0-0",
    }


def _render_layer(kubectl: Path, folder: Path, parts: Mapping[str, list[str]]) -> Objects:
    folder.mkdir()
    overlay = make_overlay(folder, _NAMESPACE, **{key: [DEPLOY / path for path in parts[key]] for key in parts})
    return {(body["kind"], body["metadata"]["name"]): body for body in render(kubectl, overlay)}


# --- what a user may set ----------------------------------------------------------------------------------------------


def _put_values(objects: Objects) -> Objects:
    """Return the objects that are templates, with the chart's values where a user may set something."""
    kept = {
        identity: _put_namespace(body)
        for identity, body in objects.items()
        if identity[0] not in ("CustomResourceDefinition", "Namespace")
    }
    _put_pod_values(only(list(kept.values()), "Deployment")["spec"])
    for identity, body in kept.items():
        if identity in _PER_NAMESPACE:
            body["metadata"]["namespace"] = Template("{{ . | quote }}")
        if identity[0] in ("ServiceMonitor", "PrometheusRule"):
            labels = _block("with $.Values.metrics.labels", "{{- toYaml . | nindent INDENT }}")
            body["metadata"]["labels"][labels] = None
    return kept


def _put_namespace(node: Any) -> Any:
    match node:
        case dict():
            return {key: _put_namespace(value) for key, value in node.items()}
        case list():
            return [_put_namespace(item) for item in node]
        case _ if node == _NAMESPACE:
            return Template("{{ $.Release.Namespace | quote }}")
    return node


def _put_pod_values(deployment: Object) -> None:
    deployment["replicas"] = Template("{{ $.Values.replicas }}")
    pod = deployment["template"]["spec"]
    secrets = _block("with $.Values.imagePullSecrets", "imagePullSecrets:", "{{- toYaml . | nindent INDENT }}")
    pod[secrets] = None
    for volume in pod.get("volumes", []):
        volume["configMap"]["name"] = Template("{{ $.Values.ca.configMapName | quote }}")
    (container,) = pod["containers"]
    container["image"] = Template(
        '"{{ $.Values.image.repository }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}'
        '{{ with $.Values.image.digest }}@{{ . }}{{ end }}"'
    )
    container["resources"] = Template("{{- toYaml $.Values.resources | nindent INDENT }}")
    container["envFrom"][0]["secretRef"]["name"] = Template("{{ $.Values.credentials.secretName | quote }}")
    one = "--namespace=$(NAMESPACE)"
    if one in container["args"]:
        several = _block("range $.Values.namespaces", '- {{ printf "--namespace=%s" . | quote }}')
        container["args"][container["args"].index(one)] = several
        del container["env"]
    container["args"].append(_block("range $.Values.extraArgs", "- {{ . | quote }}"))


def _block(action: str, *lines: str) -> Template:
    return Template("\n".join([f"{{{{- {action} }}}}", *lines, "{{- end }}"]))


# --- from layers to a template ----------------------------------------------------------------------------------------


def _object_lines(identity: Identity, layers: Mapping[str, Objects]) -> Iterator[str]:
    nodes = {name: objects[identity] for name, objects in layers.items() if identity in objects}
    lines = ["---", *_map_lines(nodes, 0)]
    if identity in _PER_NAMESPACE:
        yield from ["{{- range $.Values.namespaces }}", *lines, "{{- end }}"]
    else:
        yield from _guard(_OPTIONAL.get(identity) or _condition(layers.keys(), nodes.keys()), lines, 0)


def _map_lines(nodes: Nodes, indent: int) -> Iterator[str]:
    for key in _merge_order(nodes.values()):
        values = {name: node[key] for name, node in nodes.items() if key in node}
        yield from _guard(_condition(nodes.keys(), values.keys()), _field_lines(key, values, indent), indent)


def _field_lines(key: str, values: Nodes, indent: int) -> Iterator[str]:
    if isinstance(key, Template):
        yield from _whole_lines(key, indent)
    elif all(value and isinstance(value, dict) for value in values.values()):
        yield f"{' ' * indent}{key}:"
        yield from _map_lines(values, indent + 2)
    elif all(value and isinstance(value, list) for value in values.values()):
        yield f"{' ' * indent}{key}:"
        yield from _list_lines(values, indent + 2)
    else:
        yield f"{' ' * indent}{key}: {_scalar(values, indent + 2)}"


def _list_lines(nodes: Nodes, indent: int) -> Iterator[str]:
    by_item = {name: {_item_key(item): item for item in node} for name, node in nodes.items()}
    for key in _merge_order(by_item.values()):
        items = {name: node[key] for name, node in by_item.items() if key in node}
        yield from _guard(_condition(nodes.keys(), items.keys()), _item_lines(items, indent), indent)


def _item_lines(items: Nodes, indent: int) -> Iterator[str]:
    first = next(iter(items.values()))
    if isinstance(first, Template):
        yield from _whole_lines(first, indent)
    elif isinstance(first, dict):
        head, *tail = _map_lines(items, indent + 2)
        if head.lstrip().startswith("{{"):
            raise ValueError(f"the first field of an item may not be conditional: {head}")
        yield f"{' ' * indent}- {head.lstrip()}"
        yield from tail
    else:
        yield f"{' ' * indent}- {_scalar(items, indent + 2)}"


def _item_key(item: Any) -> str:
    """Tell items of a list apart: those of the same name are one, in several layers."""
    return f"name {item['name']}" if isinstance(item, dict) and "name" in item else json.dumps(item, sort_keys=True)


def _merge_order(layers: Iterable[Iterable[T]]) -> list[T]:
    """Return what any of the layers has, each new thing right behind the one that it follows in its layer."""
    order: list[T] = []
    for layer in layers:
        position = 0
        for each in layer:
            if each not in order:
                order.insert(position, each)
            position = order.index(each) + 1
    return order


def _condition(scope: Iterable[str], having: Iterable[str]) -> str:
    """Return on what it depends whether there is something that some layers of those in scope have; empty: always."""
    scope, having = set(scope), set(having)
    is_default = "base" in having
    layers = [
        condition for name, condition in _CONDITIONS.items() if name in (scope - having if is_default else having)
    ]
    if scope == having:
        return ""
    either = layers[0] if len(layers) == 1 else f"(or {' '.join(layers)})"
    return f"not {either}" if is_default else either


def _guard(condition: str, lines: Iterable[str], indent: int) -> Iterator[str]:
    if condition:
        yield f"{' ' * indent}{{{{- if {condition} }}}}"
    yield from lines
    if condition:
        yield f"{' ' * indent}{{{{- end }}}}"


def _scalar(values: Nodes, indent: int) -> str:
    texts = {name: _scalar_text(value, indent) for name, value in values.items()}
    default = texts.pop("base", None) or next(iter(texts.values()))
    others = [(_CONDITIONS[name], text) for name, text in texts.items() if text != default]
    for condition, text in others:
        default = f"{{{{ if {condition} }}}}{text}{{{{ else }}}}{default}{{{{ end }}}}"
    return default


def _scalar_text(value: Any, indent: int) -> str:
    if isinstance(value, Template):
        return value.replace("INDENT", str(indent))
    if isinstance(value, str) and "\n" in value:
        text = f"|{'' if value.endswith(chr(10)) else '-'}\n{textwrap.indent(value.rstrip(chr(10)), ' ' * indent)}"
    else:
        text = yaml.safe_dump(value, width=10**9, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
    return text.replace("{{", '{{ "{{" }}')


def _whole_lines(template: Template, indent: int) -> Iterator[str]:
    yield from textwrap.indent(template.replace("INDENT", str(indent)), " " * indent).splitlines()
