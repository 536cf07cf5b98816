"""The format of the log."""

import json
import logging
from collections.abc import Iterator

import pytest

from lifecyclehook_operator.logs import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_text_line_has_time_level_whole_name_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    logging.getLogger("lifecyclehook_operator.controller").info("said")
    assert capsys.readouterr().err.split(maxsplit=2)[2] == "INFO     lifecyclehook_operator.controller: said\n"


def test_a_json_line_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logging.getLogger("lifecyclehook_operator.controller").warning("said")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp")
    assert line == {"message": "said", "severity": "warn", "logger": "lifecyclehook_operator.controller"}


@pytest.mark.parametrize(
    ("name", "message", "level"),
    [
        ("kopf._cogs.clients.watching", "Request attempt #1 failed; will retry: GET /", "WARNING"),
        ("kopf._cogs.clients.watching", "Request attempt #9 failed; escalating: GET /", "ERROR"),
        ("lifecyclehook_operator.controller", "It failed; will retry", "ERROR"),
    ],
)
def test_only_what_kopf_tries_again_is_a_warning(
    capsys: pytest.CaptureFixture[str], name: str, message: str, level: str
) -> None:
    configure_logging("info", "text")
    logging.getLogger(name).error(message)
    assert level in capsys.readouterr().err


def test_less_than_the_level_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "text")
    logging.getLogger("lifecyclehook_operator").info("left out")
    assert capsys.readouterr().err == ""
