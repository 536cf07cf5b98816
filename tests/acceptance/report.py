"""What was assumed, whether the cloud confirmed it, and what came instead: on the terminal, and as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .assumption import Assumption
from .masking import Masking

#: Of what came instead.
_SHOWN_CHARACTERS = 300


class Result(StrEnum):
    CONFIRMED = "confirmed"
    DIFFERENT = "DIFFERENT"
    NOT_TRIED = "not tried"


@dataclass
class Row:
    assumption: Assumption
    result: Result = Result.NOT_TRIED
    #: What came instead, or why it was not tried.
    remark: str = "the run ended before"
    is_settled: bool = False


class Report:
    """A row for each assumption, from the beginning: what a run does not come to is not tried."""

    def __init__(self, assumptions: Sequence[Assumption], masking: Masking) -> None:
        self._rows = {assumption.name: Row(assumption) for assumption in assumptions}
        self._masking = masking

    @property
    def counts(self) -> Counter[Result]:
        return Counter(row.result for row in self._rows.values())

    @property
    def is_confirmed(self) -> bool:
        """Whether something was tried, and the cloud did nothing else than was assumed."""
        return bool(self.counts[Result.CONFIRMED]) and not self.counts[Result.DIFFERENT]

    def is_settled(self, assumption: Assumption) -> bool:
        """Whether an assumption has its result."""
        return self._rows[assumption.name].is_settled

    def settle(self, assumption: Assumption, result: Result, remark: str = "") -> None:
        """Take the result of an assumption, and print it."""
        row = self._rows[assumption.name] = Row(assumption, result, remark, is_settled=True)
        print(self.line(row), flush=True)

    def line(self, row: Row) -> str:
        """Return a row for the terminal."""
        instead = "instead: " if row.result is Result.DIFFERENT else ""
        remark = f"\n{'':11}{instead}{_cut(self._masking.hide_secrets(row.remark))}" if row.remark else ""
        return f"{row.result:<9}  {row.assumption.statement}{remark}"

    def summary(self) -> str:
        """Return how many assumptions have each result."""
        return ", ".join(f"{self.counts[result]} {result}" for result in Result)

    def markdown(self, facts: Mapping[str, str]) -> str:
        """Return the table for docs/acceptance.md, below facts about the run."""
        head = [*(f"- {name}: {fact}" for name, fact in facts.items()), f"- {self.summary()}", ""]
        rows = [
            (row.assumption.statement, row.assumption.source, row.result, _cut(self._masking.hide_all(row.remark)))
            for row in self._rows.values()
        ]
        titles = ("assumption", "source", "result", "what came instead, or why it was not tried")
        table = [f"| {' | '.join(map(_cell, row))} |" for row in (titles, *rows)]
        table.insert(1, "| --- | --- | --- | --- |")
        return "\n".join([*head, *table, ""])


def _cut(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN_CHARACTERS else words[: _SHOWN_CHARACTERS - 1] + "…"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
