"""The table of what to do: every combination of what is wanted, what is seen, whose it is, and the two policies."""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from lifecyclehook_operator.decision import Action, Claim, Unseen, decide
from lifecyclehook_operator.resource import Hook
from tests.unit.samples import make_hook, make_spec

OBSERVED: Mapping[str, Hook | Unseen] = {
    "unknown": Unseen.UNKNOWN,
    "absent": Unseen.ABSENT,
    "identical": make_hook(),
    "differs": make_hook(default_timeout=60),
}
CLAIMS = {
    "none": Claim(owned=False, attempted=False),
    "attempted": Claim(owned=False, attempted=True),
    "owned": Claim(owned=True, attempted=False),
    "owned+attempted": Claim(owned=True, attempted=True),
}


class Situation(NamedTuple):
    """One combination, in the words of the table. A spec is applied once the hook has been brought in line with it."""

    wanted: str
    observed: str
    claim: str
    spec: str
    drift_policy: str
    adoption_policy: str
    deletion_policy: str


VALUES = Situation(
    wanted="exists|deleted",
    observed="|".join(OBSERVED),
    claim="|".join(CLAIMS),
    spec="new|applied",
    drift_policy="Repair|Report",
    adoption_policy="Identical|Always|Never",
    deletion_policy="Delete|Retain",
)
OURS = "owned|owned+attempted"
NOT_OURS = "none|attempted"
PRESENT = "unknown|identical|differs"

# fmt: off
TABLE = {
    # wanted, observed, claim, spec, driftPolicy, adoptionPolicy, deletionPolicy: action
    Situation("exists", "unknown", "none", "*", "*", "*", "*"): Action.CREATE,
    Situation("exists", "unknown", f"attempted|{OURS}", "*", "*", "*", "*"): Action.OBSERVE,

    Situation("exists", "absent", NOT_OURS, "*", "*", "*", "*"): Action.CREATE,
    Situation("exists", "absent", OURS, "new", "*", "*", "*"): Action.CREATE,
    Situation("exists", "absent", OURS, "applied", "Repair", "*", "*"): Action.CREATE,
    Situation("exists", "absent", OURS, "applied", "Report", "*", "*"): Action.REPORT,

    Situation("exists", "identical", OURS, "*", "*", "*", "*"): Action.KEEP,
    Situation("exists", "identical", NOT_OURS, "*", "*", "Identical|Always", "*"): Action.KEEP,
    Situation("exists", "identical", NOT_OURS, "*", "*", "Never", "*"): Action.REFUSE,

    Situation("exists", "differs", OURS, "new", "*", "*", "*"): Action.MODIFY,
    Situation("exists", "differs", OURS, "applied", "Repair", "*", "*"): Action.MODIFY,
    Situation("exists", "differs", OURS, "applied", "Report", "*", "*"): Action.REPORT,
    Situation("exists", "differs", NOT_OURS, "*", "*", "Always", "*"): Action.MODIFY,
    Situation("exists", "differs", NOT_OURS, "*", "*", "Identical|Never", "*"): Action.REFUSE,

    Situation("deleted", "*", "*", "*", "*", "*", "Retain"): Action.RELEASE,
    Situation("deleted", "absent", "*", "*", "*", "*", "Delete"): Action.RELEASE,
    Situation("deleted", PRESENT, OURS, "*", "*", "*", "Delete"): Action.DELETE,
    Situation("deleted", PRESENT, "attempted", "*", "*", "*", "Delete"): Action.OBSERVE,
    Situation("deleted", PRESENT, "none", "*", "*", "*", "Delete"): Action.RELEASE,
}
# fmt: on


def expand(row: Situation) -> Iterator[Situation]:
    """Return the combinations that a row stands for."""
    cells = (every if cell == "*" else cell for cell, every in zip(row, VALUES, strict=True))
    return map(Situation._make, itertools.product(*(cell.split("|") for cell in cells)))


@pytest.mark.parametrize(("row", "action"), [pytest.param(row, TABLE[row], id=" ".join(row)) for row in TABLE])
def test_the_table_says_what_is_done(row: Situation, action: Action) -> None:
    for situation in expand(row):
        spec = make_spec(
            adoptionPolicy=situation.adoption_policy,
            deletionPolicy=situation.deletion_policy,
            driftPolicy=situation.drift_policy,
        )
        decided = decide(
            spec,
            situation.wanted == "deleted",
            OBSERVED[situation.observed],
            CLAIMS[situation.claim],
            is_applied=situation.spec == "applied",
        )
        assert decided is action, situation


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
    assert decide(make_spec(), False, hook, CLAIMS["owned"]) is Action.MODIFY


@pytest.mark.parametrize("metadata", [None, ""])
def test_no_metadata_is_the_same_as_null_and_as_empty(metadata: str | None) -> None:
    hook = make_hook(notification_metadata=metadata)
    assert decide(make_spec(), False, hook, CLAIMS["owned"]) is Action.KEEP


def test_what_cannot_be_wanted_otherwise_is_no_difference() -> None:
    hook = make_hook(notification_topic_name="renamed", create_time="2020-01-01T00:00:00Z")
    assert decide(make_spec(), False, hook, CLAIMS["owned"]) is Action.KEEP
