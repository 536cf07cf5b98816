"""Every command of every page: run on the control plane where that is possible, else checked for what it names."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import kopf.cli
import pytest
import yaml
from pydantic_settings import CliApp

from lifecyclehook_operator.settings import Settings
from tests.demo.scene import GROUP_ID, SAMPLES, Scene, set_scene
from tests.docs.pages import ELLIPSIS, REPOSITORY, Block, Command, find_blocks, find_commands, matches
from tests.docs.recording import record
from tests.support.harness import DEPLOY, OPERATOR
from tests.support.simulator import run_simulator

COMMANDS = find_commands()
#: Commands of programs that are not here. Each was read with the program's documentation at hand.
ELSEWHERE = {
    "argocd app wait NAME --health --timeout 600",
    (
        "cosign verify ghcr.io/OWNER/lifecyclehook-operator:0.1.0 --certificate-identity "
        "https://github.com/OWNER/REPO/.github/workflows/release.yaml@refs/tags/v0.1.0 --certificate-oidc-issuer "
        "https://token.actions.githubusercontent.com"
    ),
    "docker push REGISTRY/lifecyclehook-operator:0.1.0",
    "git push origin v0.1.0",
    "git tag v0.1.0",
    "terraform state list",
    "terraform state rm opentelekomcloud_as_lifecycle_hook_v1.drain",
}
#: What kubectl may change here, and what only a dry run may.
READS = ("api-resources", "auth", "describe", "diff", "explain", "get", "kustomize", "wait")
CHANGES = ("annotate", "apply", "create", "delete", "label", "patch", "scale")
INSTANCE = yaml.safe_load((SAMPLES / "callbacks" / "continue.yaml").read_text())["spec"]["instanceId"]
CALLBACK = "continue-x7k2p"
OTHER_GROUP_ID = "another-group"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """The cluster of the pages: the operator with its Deployment, the samples, Argo CD's ConfigMap, a suspension."""
    with set_scene(lambda _line: None) as running:
        kubectl = running.control_plane.kubectl
        kubectl("apply", "-f", DEPLOY / "install.yaml")
        kubectl("create", "namespace", "argocd")
        kubectl("create", "configmap", "argocd-cm", "-n", "argocd")
        kubectl("apply", "-k", SAMPLES)
        # In a group of its own, which the suspension below does not make busy.
        running.cloud.add_group(OTHER_GROUP_ID)
        refused = (SAMPLES / "refused-by-as.yaml").read_text().replace(GROUP_ID, OTHER_GROUP_ID)
        kubectl("apply", "-f", "-", input=refused)
        kubectl("create", "secret", "generic", "otc", "-n", "web", "--from-literal=clouds.yaml=")
        kubectl("wait", "--for=condition=Ready", "-n", "web", "lch/on-launch", "lch/drain-before-terminate")
        kubectl("wait", "--for=jsonpath={.status.error.code}=AS.7043", "-n", "web", "lch/no-such-topic")
        running.cloud.add_hanging_instance(GROUP_ID, "drain-before-terminate", INSTANCE)
        watch = '{"spec":{"suspensionPolicy":"Watch"}}'
        kubectl("patch", "lch/drain-before-terminate", "-n", "web", "--type=merge", "-p", watch)
        kubectl(
            "wait", "--for=jsonpath={.status.suspendedInstances.count}=1", "-n", "web", "lch/drain-before-terminate"
        )
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who follows the pages: a clone, and the files that they tell to write."""
    path = tmp_path_factory.mktemp("clone")
    for name in ("deploy", "crds"):
        (path / name).symlink_to(REPOSITORY / name)
    (overlay,) = [block.text for block in find_blocks("yaml") if block.text.startswith("# kustomization.yaml")]
    (path / "kustomization.yaml").write_text(overlay)
    (path / "dist").mkdir()
    (path / "dist" / "install.yaml").symlink_to(DEPLOY / "install.yaml")
    (path / "otc.env").write_text("OS_USERNAME=hooks\n")
    (path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (path / "hooks.yaml").write_text((SAMPLES / "on-launch.yaml").read_text())
    (path / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: otc, namespace: web}\n")
    return path


# --- what needs the cluster ---------------------------------------------------------------------------------------


def is_for_cluster(command: Command) -> bool:
    return command.text.startswith(("kubectl ", "helm ", f"{OPERATOR} export "))


@pytest.mark.parametrize("command", [each for each in COMMANDS if is_for_cluster(each)], ids=str)
def test_what_a_page_does_with_cluster_and_cloud_works(
    scene: Scene, folder: Path, helm: Path, command: Command
) -> None:
    if CALLBACK in command.text:
        ensure_callback(scene)
    run = partial(run_in, folder, scene)
    stdin, status, stderr = "", 0, ""
    for part in command.text.split(" | "):
        program, *words = shlex.split(part, comments=True)
        path = {
            "kubectl": scene.control_plane.kubectl_path,
            "helm": helm,
            OPERATOR: Path(sys.executable).with_name(OPERATOR),
        }[program]
        result = run([path, *PREPARE[program](words)], stdin)
        stdin, status, stderr = result.stdout, result.returncode, result.stderr
    if "refused-by-kubernetes" in command.text:
        assert status == 1
    elif words[0] == "logs":
        assert "no pods" in stderr or "timed out waiting for the condition" in stderr, stderr
    else:
        assert status == 0, stderr
    if command.output:
        output = (stdin + stderr).replace(" (server dry run)", "")
        assert matches(command.output, output), output


def prepare_kubectl(words: list[str]) -> list[str]:
    """Return the arguments as they are run here."""
    name = "otc" if "secret" in words else "on-launch"
    words = [{"NAME": name, "NAMESPACE": "web"}.get(word, word) for word in words]
    if words[0] == "delete":
        return [*words, "--dry-run=server", "--ignore-not-found"]
    if words[:2] == ["create", "namespace"]:
        return [*words, "--dry-run=client"]  # the cluster of the pages has it
    if words[0] in CHANGES:
        return [*words, "--dry-run=server"]
    if words[0] == "logs":
        return [*words, "--pod-running-timeout=1s"]  # there are no pods here
    assert words[0] in READS or words[:2] == ["rollout", "restart"], f"how is kubectl {words[0]} to be checked?"
    return words


def prepare_helm(words: list[str]) -> list[str]:
    """Return the arguments as they are run here: there is no release to upgrade, and nothing is to be installed."""
    if words[0] in ("install", "upgrade"):
        return ["template", *(word for word in words[1:] if word != "--reset-then-reuse-values")]
    assert words[0] == "show", f"how is helm {words[0]} to be checked?"
    return words


def prepare_export(words: list[str]) -> list[str]:
    """Return the arguments as they are run here: what is printed goes to no file."""
    assert words[-2] == ">"
    return [GROUP_ID if word == "GROUP_ID" else word for word in words[:-2]]


PREPARE = {"kubectl": prepare_kubectl, "helm": prepare_helm, OPERATOR: prepare_export}


def run_in(folder: Path, scene: Scene, command: list[str | Path], stdin: str = "") -> subprocess.CompletedProcess[str]:
    plane = scene.control_plane
    paths = {"PATH": os.environ["PATH"], "HOME": str(plane.work_dir), "KUBECONFIG": str(plane.kubeconfig)}
    environment = paths | scene.cloud.credentials_env()
    return subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


def ensure_callback(scene: Scene) -> None:
    """Have the callback that the pages name, for an instance of its own."""
    scene.cloud.add_hanging_instance(GROUP_ID, "test-hook1", "another")
    body = yaml.safe_load((SAMPLES / "callbacks" / "continue.yaml").read_text())
    body["metadata"] = {"name": CALLBACK, "namespace": "web"}
    body["spec"] |= {"instanceId": "another", "lifecycleHookRef": {"name": "on-launch"}}
    scene.control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(body))


# --- YAML ---------------------------------------------------------------------------------------------------------


def shows_an_object(block: Block) -> bool:
    return block.text.startswith("# kubectl get ")


@pytest.mark.parametrize("block", [each for each in find_blocks("yaml") if shows_an_object(each)], ids=str)
def test_a_status_is_as_a_page_shows_it(scene: Scene, block: Block) -> None:
    words = shlex.split(block.text.splitlines()[0].removeprefix("# "))[1:]
    actual = yaml.safe_load(scene.control_plane.kubectl(*words).stdout)
    assert_is_part(yaml.safe_load(block.text), actual)


def assert_is_part(shown: Any, actual: Any, path: str = "") -> None:
    """Assert that all that is shown is there, but for times, request IDs, and what names the cloud of the test."""
    match shown:
        case dict():
            assert shown.keys() <= actual.keys(), path
            for key, value in shown.items():
                assert_is_part(value, actual[key], f"{path}.{key}")
        case list():
            assert len(shown) <= len(actual), path
            for number, value in enumerate(shown):
                assert_is_part(value, actual[number], f"{path}[{number}]")
        case str() if re.search(r"(Time|time|timeout|requestId)$", path):
            assert actual, path
        case str():
            assert general(shown) == general(actual), path
        case _:
            assert shown == actual, path


def general(text: str) -> str:
    text = re.sub(r"https?://[\w.:-]+/v3", "IAM", text)
    return re.sub(r"eu-de_\w+", "PROJECT", text)


def is_an_object(block: Block) -> bool:
    return block.text.startswith("apiVersion:") and "kustomize" not in block.text and "fluxcd" not in block.text


@pytest.mark.parametrize("block", [each for each in find_blocks("yaml") if is_an_object(each)], ids=str)
def test_the_api_server_takes_an_object_of_a_page(scene: Scene, block: Block) -> None:
    body = yaml.safe_load(block.text)
    if "name" in body["metadata"]:
        body["metadata"]["name"] += "-shown"  # those of the samples are there already
    created = scene.control_plane.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(body))
    assert "created (server dry run)" in created.stdout


def test_the_kustomization_for_flux_names_a_folder_that_is_there() -> None:
    (block,) = [block for block in find_blocks("yaml") if "fluxcd" in block.text]
    assert (REPOSITORY / yaml.safe_load(block.text)["spec"]["path"] / "kustomization.yaml").is_file()


# --- other programs -----------------------------------------------------------------------------------------------


def check_make(words: list[str], output: tuple[str, ...]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    target, *variables = words
    (recipe,) = re.findall(rf"^{target}: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    for variable in variables:
        name = variable.partition("=")[0]
        assert f"$({name})" in recipe or f"{name}=" in makefile.splitlines()[0] + makefile.splitlines()[1], variable
    if target == "simulator":
        check_simulator(shlex.split(variables[0].partition("=")[2]), output)
    else:
        assert not output, f"nobody compares the output of make {target}"


def check_simulator(options: list[str], output: tuple[str, ...]) -> None:
    """Compare the first lines, but for the port."""
    shown = "\n".join(output[: output.index(ELLIPSIS)])
    command = [sys.executable, "-m", "tests.support.simulator", *options]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            actual = "".join(process.stdout.readline() for _ in range(shown.count("\n") + 1))
        finally:
            process.terminate()
    assert re.sub(r":\d{5}\b", ":PORT", actual.rstrip("\n")) == re.sub(r":\d{5}\b", ":PORT", shown)


def check_command(words: list[str], _output: tuple[str, ...]) -> None:
    program = Path(sys.executable).with_name(OPERATOR)
    name, *options = words
    if name == "run":
        CliApp.run(Settings, cli_args=options)
        return
    subprocess.run([program, name, "--help"], check=True, capture_output=True, timeout=60)


def check_kopf(words: list[str], _output: tuple[str, ...]) -> None:
    run = kopf.cli.main.commands["run"]
    with click.Context(kopf.cli.main) as context, suppress(click.exceptions.Exit):
        run.make_context("run", words[1:], parent=context)


def check_pytest(words: list[str], _output: tuple[str, ...]) -> None:
    assert words[:2] == ["-m", "pytest"]
    subprocess.run(
        [sys.executable, *words, "--collect-only", "-q"], cwd=REPOSITORY, check=True, capture_output=True, timeout=120
    )


def check_docker(words: list[str], _output: tuple[str, ...]) -> None:
    assert words[0] == "build"
    assert (REPOSITORY / words[-1] / "Dockerfile").is_file()


def check_pip(words: list[str], _output: tuple[str, ...]) -> None:
    assert words == ["install", "."]
    assert (REPOSITORY / "pyproject.toml").is_file()


def check_curl(words: list[str], _output: tuple[str, ...]) -> None:
    """Send the request to a simulated cloud, on the port that it has here."""
    body = words[words.index("--json") + 1] if "--json" in words else None
    (url,) = [word for word in words if word.startswith("http")]
    with run_simulator() as cloud:
        path = re.sub(r"^http://127.0.0.1:\d+", cloud.url, url)
        method = "POST" if body else "GET"
        response = httpx.request(
            method, path, content=body, headers={"Content-Type": "application/json"}, trust_env=False
        )
        response.raise_for_status()


def check_export(words: list[str], _output: tuple[str, ...]) -> None:
    documented = (REPOSITORY / "docs" / "reference.md").read_text()
    assert words
    assert all(f"`{word.partition('=')[0]}`" in documented for word in words)


CHECKS: dict[str, Callable[[list[str], tuple[str, ...]], None]] = {
    "make": check_make,
    OPERATOR: check_command,
    "kopf": check_kopf,
    ".venv/bin/python": check_pytest,
    "docker": check_docker,
    "pip": check_pip,
    "curl": check_curl,
    "export": check_export,
}


@pytest.mark.parametrize("command", [each for each in COMMANDS if not is_for_cluster(each)], ids=str)
def test_another_program_is_called_as_it_can_be(command: Command) -> None:
    if command.text in ELSEWHERE:
        return
    program, *words = shlex.split(command.text, comments=True)
    CHECKS[program](words, command.output)


def test_none_is_excused_that_no_page_has() -> None:
    assert {command.text for command in COMMANDS} >= ELSEWHERE


def test_the_recording_can_be_made_anew(tmp_path: Path) -> None:
    with set_scene(lambda _line: None) as own:
        record(own).write(tmp_path / "demo.cast")
    assert "continue-" in (tmp_path / "demo.cast").read_text()
