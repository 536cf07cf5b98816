"""Who owns a hook that several objects claim."""

from typing import Any

from lifecyclehook_operator.controller.claims import Claim, find_owner
from lifecyclehook_operator.controller.state import ObjectState, Report
from lifecyclehook_operator.controller.status import InSync
from tests.unit.samples import make_hook, make_resource

PROJECT_ID = "project"
OLD, YOUNG = "2026-03-01T12:00:00Z", "2026-03-01T12:00:01Z"
OWNING = {"lifecycleHook": make_hook().model_dump(by_alias=True)}


def make_claim(uid: str = "a", created: str = OLD, project_id: str = PROJECT_ID, **status: Any) -> Claim:
    return Claim(make_resource(uid=uid, creationTimestamp=created, status={"projectId": project_id, **status}))


def test_who_has_the_hook_comes_before_who_is_older_and_the_older_before_the_younger() -> None:
    owner, first = make_claim("c", YOUNG, **OWNING), make_claim("b", OLD)
    second, twin = make_claim("a", YOUNG), make_claim("b", YOUNG)
    assert sorted([twin, second, first, owner], key=lambda claim: claim.order) == [owner, first, second, twin]
    assert find_owner(twin, PROJECT_ID, [second, first, owner]) is owner.obj
    assert find_owner(owner, PROJECT_ID, [second, first, twin]) is None


def test_a_claim_that_no_call_has_proven_does_not_count() -> None:
    assert find_owner(make_claim("b"), PROJECT_ID, [make_claim("a", project_id="")]) is None
    assert find_owner(make_claim("b"), PROJECT_ID, [make_claim("a", project_id="other", **OWNING)]) is None


def test_what_as_has_answered_counts_before_the_status_says_it() -> None:
    older = make_claim("a", OLD, project_id="")
    younger = make_resource(uid="b", creationTimestamp=YOUNG)
    in_sync = InSync(make_hook(), PROJECT_ID, "group")
    claim = Claim(younger, ObjectState(report=Report(younger.trigger, in_sync, 0)))
    assert find_owner(older, PROJECT_ID, [claim]) is younger
