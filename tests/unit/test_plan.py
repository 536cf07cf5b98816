"""The table of what to do: every combination of what is observed, whose it is, and the two policies."""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from lifecyclehook_operator.api.v1alpha1 import Hook
from lifecyclehook_operator.controller.plan import Action, plan
from tests.unit.samples import make_hook, make_spec

OBSERVED: Mapping[str, Hook | None] = {
    "absent": None,
    "identical": make_hook(),
    "differs": make_hook(default_timeout=60),
}


class Situation(NamedTuple):
    """One combination, in the words of the table. A spec is applied once the hook has been brought in line with it."""

    observed: str
    hook: str
    spec: str
    drift_policy: str
    adoption_policy: str


VALUES = Situation(
    observed="|".join(OBSERVED),
    hook="owned|not owned",
    spec="new|applied",
    drift_policy="Repair|Report",
    adoption_policy="Identical|Always|Never",
)

# fmt: off
TABLE = {
    # observed, hook, spec, driftPolicy, adoptionPolicy: action
    Situation("absent", "not owned", "*", "*", "*"): Action.CREATE,
    Situation("absent", "owned", "new", "*", "*"): Action.CREATE,
    Situation("absent", "owned", "applied", "Repair", "*"): Action.CREATE,
    Situation("absent", "owned", "applied", "Report", "*"): Action.REPORT,

    Situation("identical", "owned", "*", "*", "*"): Action.KEEP,
    Situation("identical", "not owned", "*", "*", "Identical|Always"): Action.KEEP,
    Situation("identical", "not owned", "*", "*", "Never"): Action.REFUSE,

    Situation("differs", "owned", "new", "*", "*"): Action.MODIFY,
    Situation("differs", "owned", "applied", "Repair", "*"): Action.MODIFY,
    Situation("differs", "owned", "applied", "Report", "*"): Action.REPORT,
    Situation("differs", "not owned", "*", "*", "Always"): Action.MODIFY,
    Situation("differs", "not owned", "*", "*", "Identical|Never"): Action.REFUSE,
}
# fmt: on


def expand(row: Situation) -> Iterator[Situation]:
    """Return the combinations that a row stands for."""
    cells = (every if cell == "*" else cell for cell, every in zip(row, VALUES, strict=True))
    return map(Situation._make, itertools.product(*(cell.split("|") for cell in cells)))


@pytest.mark.parametrize(("row", "action"), [pytest.param(row, TABLE[row], id=" ".join(row)) for row in TABLE])
def test_the_table_says_what_is_done(row: Situation, action: Action) -> None:
    for situation in expand(row):
        spec = make_spec(adoptionPolicy=situation.adoption_policy, driftPolicy=situation.drift_policy)
        planned = plan(
            spec,
            OBSERVED[situation.observed],
            is_owned=situation.hook == "owned",
            is_applied=situation.spec == "applied",
        )
        assert planned is action, situation


def test_the_table_has_every_combination_once() -> None:
    in_table = [situation for row in TABLE for situation in expand(row)]
    assert sorted(in_table) == sorted(expand(Situation(*"*" * len(VALUES))))


def test_the_table_has_every_action() -> None:
    assert set(TABLE.values()) == set(Action)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lifecycle_hook_type", "INSTANCE_TERMINATING"),
        ("default_result", "CONTINUE"),
        ("default_timeout", 3601),
        ("notification_topic_urn", "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:other"),
        ("notification_metadata", "other"),
    ],
)
def test_a_difference_in_any_field_that_can_be_changed_counts(field: str, value: object) -> None:
    hook = make_hook(**{field: value})
    assert plan(make_spec(), hook, is_owned=True, is_applied=False) is Action.MODIFY


@pytest.mark.parametrize("metadata", [None, ""])
def test_no_metadata_is_the_same_as_null_and_as_empty(metadata: str | None) -> None:
    hook = make_hook(notification_metadata=metadata)
    assert plan(make_spec(), hook, is_owned=True, is_applied=False) is Action.KEEP


def test_what_cannot_be_wanted_otherwise_is_no_difference() -> None:
    hook = make_hook(notification_topic_name="renamed", create_time="2020-01-01T00:00:00Z")
    assert plan(make_spec(), hook, is_owned=True, is_applied=False) is Action.KEEP
