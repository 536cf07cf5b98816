"""The command: what it prints, where, and its exit status."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lifecyclehook_operator import manager
from lifecyclehook_operator.__main__ import main
from lifecyclehook_operator.settings import ENV_PREFIX, Settings

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Return the settings that the operator is started with; it is not really."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)
    started: list[Settings] = []

    def run(options: Settings) -> int:
        started.append(options)
        return 0

    monkeypatch.setattr(manager, "run", run)
    return started


def end(*arguments: str) -> int | str | None:
    """Run the command and return its exit status."""
    try:
        return main(arguments)
    except SystemExit as exit_:
        return exit_.code


def test_run_starts_the_operator_with_the_options_given(started: list[Settings]) -> None:
    assert end("run", "--namespace", "web", "--health-port=0") == 0
    assert started == [Settings(namespace=("web",), health_port=0)]


def test_run_alone_takes_no_option_from_what_else_is_on_the_command_line(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--health-port=1"])
    assert end("run") == 0
    assert started == [Settings()]


def test_the_exit_status_of_the_operator_is_that_of_the_command(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "run", lambda options: 1)
    assert end("run") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required"),
        (["walk"], "invalid choice: 'walk'"),
        (["run", "--health-port=x"], "--health-port: Input should be a valid integer"),
        (["run", "--log-level=loud"], "--log-level: Input should be 'debug', 'info', 'warning' or 'error'"),
        (["run", "--concurrency=0"], "--concurrency: Input should be greater than or equal to 1"),
        (["run", "--unknown=1"], "--unknown"),
        (["run", "stray"], "stray"),
        (["run", "--namespace=a", "--all-namespaces"], "either --namespace or --all-namespaces, not both"),
        (["crd", "--unknown"], "--unknown"),
        (["crd", "stray"], "stray"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_reported_on_stderr_with_exit_status_2(
    started: list[Settings], capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert end(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in captured.err
    assert "Traceback" not in captured.err
    assert started == []


def test_all_that_is_wrong_is_told_a_line_each(started: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    assert end("run", "--health-port=x", "--concurrency=x") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[:2] for line in lines] == [
        ["lifecyclehook-operator", " --health-port"],
        ["lifecyclehook-operator", " --concurrency"],
    ]
    assert started == []


def test_what_is_wrong_with_the_environment_is_told_too(
    started: list[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFECYCLEHOOK_OPERATOR_HEALTH_PORT", "x")
    assert end("run") == 2
    assert "health-port" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_help_of_run_names_every_option_with_its_explanation(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert end("run", "--help") == 0
    _, *options = capsys.readouterr().out.partition("options:")[2].split("\n  -")
    (text,) = (text for text in options if text.startswith(f"-{name.replace('_', '-')}"))
    assert str(Settings.model_fields[name].description) in text


@pytest.mark.parametrize(
    "words",
    [
        "--namespace NAMESPACE Namespace to serve; repeatable. By default, all namespaces are served. --all-namespaces",
        "glob; repeatable. (default: *) --allowed-endpoints ENDPOINT",
        "always allowed. (default: iam.eu-de.otc.t-systems.com, as.eu-de.otc.t-systems.com, ",
        "--metrics-port PORT Port of the Prometheus metrics, /metrics; 0 disables them. (default: 0) --leader-elect",
        "--log-format {text,json} ",
        "--resync-interval-seconds SECONDS ",
        "--concurrency N ",
    ],
)
def test_the_help_of_run_has_the_words_of_a_user(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert end("run", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert words in text
    assert not re.search(r"tuple|float|False|\(\)|\bint\b|\bstr\b", text)


def test_the_help_of_run_fits_a_terminal_and_breaks_no_host_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert end("run", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith("-") for line in lines)


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("export", "--help"), ("version",), ("crd",)])
def test_what_only_prints_does_not_wait_for_heavy_imports(arguments: tuple[str, ...]) -> None:
    lines = (
        "import sys, contextlib",
        "from lifecyclehook_operator.__main__ import main",
        "with contextlib.suppress(SystemExit): main(sys.argv[1:])",
        "sys.exit(' '.join({'kopf', 'kubernetes', 'aiohttp', 'httpx'} & set(sys.modules)))",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr == "\n"


def test_the_help_of_run_tells_of_the_environment_and_of_the_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    assert end("run", "--help") == 0
    text = capsys.readouterr().out
    for word in ("LIFECYCLEHOOK_OPERATOR_HEALTH_PORT", "KUBECONFIG", "OS_AUTH_URL", "OS_PASSWORD", "AS_ENDPOINT"):
        assert word in text


def test_the_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert end("--help") == 0
    text = capsys.readouterr().out
    for command in ("run", "crd", "export", "version"):
        assert f"\n  {command} " in text


@pytest.mark.parametrize("plural", ["lifecyclehooks", "lifecyclecallbacks"])
def test_crd_prints_what_is_in_crds(capsys: pytest.CaptureFixture[str], plural: str) -> None:
    assert end("crd", plural) == 0
    assert capsys.readouterr().out == (CRDS / f"{plural}.yaml").read_text()


def test_crd_alone_prints_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert end("crd") == 0
    files = [(CRDS / f"{plural}.yaml").read_text() for plural in ("lifecyclehooks", "lifecyclecallbacks")]
    assert capsys.readouterr().out == "---\n".join(files)


def test_version_prints_what_is_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert end("version") == 0
    first = f"lifecyclehook-operator {version('lifecyclehook-operator')}"
    python = ".".join(map(str, sys.version_info[:3]))
    rest = f"(Python {python}, kopf {version('kopf')}, kubernetes {version('kubernetes')})"
    assert capsys.readouterr().out == f"{first} {rest}\n"


def test_the_option_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert end("--version") == 0
    assert capsys.readouterr().out == f"lifecyclehook-operator {version('lifecyclehook-operator')}\n"
