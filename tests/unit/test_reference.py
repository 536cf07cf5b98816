"""docs/reference.md says what the code has."""

import pytest

from lifecyclehook_operator.cloud.errors import Reason
from lifecyclehook_operator.settings import Settings
from tests.docs.reference import EVENTS, PAGE, PARTS, render_page


def test_the_page_is_as_the_code_has_it() -> None:
    assert PAGE.read_text() == render_page(PAGE.read_text()), "run `make generate`"


def test_every_part_is_on_the_page() -> None:
    for name in PARTS:
        assert PAGE.read_text().count(f"<!-- generated: {name} -->") == 1


def test_a_part_that_is_not_made_anywhere_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        render_page("<!-- generated: nothing -->\n<!-- end -->")


def test_what_has_changed_in_the_code_changes_the_page() -> None:
    text = PAGE.read_text()
    changed = text.replace("| `--health-port` | 8080 |", "| `--health-port` | 80 |")
    assert changed != text
    assert render_page(changed) == text


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_option_has_a_row(name: str) -> None:
    assert f"\n| `--{name.replace('_', '-')}` |" in PARTS["options"]()


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    (row,) = [line for line in PARTS["reasons"]().splitlines() if line.startswith(f"| `{reason}` |")]
    _, _, meaning, _, class_, stalled, _ = row.split("|")
    assert meaning.strip()
    assert not stalled.strip() or class_.strip()  # what is no failure cannot be Stalled
    assert class_.strip() or reason in ("Available", "Drifted", "Paused")


def test_every_event_that_the_code_publishes_is_explained_and_no_other() -> None:
    rows = [line for line in PARTS["events"]().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(EVENTS)
