"""The table, and what is masked in it."""

import pytest
from pydantic import SecretStr

from lifecyclehook_operator.cloud.credentials import Credentials

from .__main__ import IN_CLOUD, IN_CLUSTER
from .assumption import Assumption
from .masking import Masking
from .report import Report, Result


def assumption(name: str) -> Assumption:
    return Assumption(name, f"{name} is so.", "as_06_0901", lambda _: None)


@pytest.fixture
def masking() -> Masking:
    masking = Masking()
    masking.add_credentials(
        Credentials(
            auth_url="https://iam.eu-de.otc.t-systems.com/v3",
            username="demo",
            password=SecretStr("a-password"),
            user_domain_name="OTC-1",
            project_name="eu-de_web",
        )
    )
    return masking


ONE, TWO = assumption("one"), assumption("two")


@pytest.mark.parametrize(
    ("first", "second", "is_confirmed"),
    [
        (Result.CONFIRMED, Result.CONFIRMED, True),
        (Result.CONFIRMED, Result.NOT_TRIED, True),
        (Result.CONFIRMED, Result.DIFFERENT, False),
        (Result.NOT_TRIED, Result.NOT_TRIED, False),
    ],
)
def test_all_is_confirmed_if_something_is_and_nothing_is_different(
    masking: Masking, first: Result, second: Result, is_confirmed: bool
) -> None:
    report = Report([ONE, TWO], masking)
    report.settle(ONE, first)
    report.settle(TWO, second)
    assert report.is_confirmed is is_confirmed


def test_what_a_run_did_not_come_to_is_in_the_table_as_not_tried(masking: Masking) -> None:
    report = Report([ONE, TWO], masking)
    report.settle(TWO, Result.DIFFERENT, "400 AS.7030 a|b <script>\nsecond line")
    assert report.markdown({"date": "2026-03-14"}).splitlines() == [
        "- date: 2026-03-14",
        "- 0 confirmed, 1 DIFFERENT, 1 not tried",
        "",
        "| assumption | source | result | what came instead, or why it was not tried |",
        "| --- | --- | --- | --- |",
        "| one is so. | as_06_0901 | not tried | the run ended before |",
        "| two is so. | as_06_0901 | DIFFERENT | 400 AS.7030 a\\|b &lt;script> second line |",
    ]


def test_secrets_are_hidden_everywhere_and_names_from_the_public(masking: Masking) -> None:
    masking.add_secret("token")
    masking.add_name("acceptable-group", "GROUP_ID")
    text = "demo, democracy, a-password, token, OTC-1, acceptable-group"
    assert masking.hide_secrets(text) == "demo, democracy, ***, ***, OTC-1, acceptable-group"
    assert masking.hide_all(text) == "USERNAME, democracy, ***, ***, DOMAIN, GROUP_ID"


@pytest.mark.parametrize("identifier", ["0123456789ABCDEF0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"])
def test_identifiers_that_are_not_known_are_cut(masking: Masking, identifier: str) -> None:
    assert masking.hide_all(f"(urn:smn:eu-de:{identifier}:gsh)") == "(urn:smn:eu-de:0123…:gsh)"


def test_every_assumption_has_a_name_of_its_own_a_sentence_and_a_source() -> None:
    everything = [*IN_CLOUD, *IN_CLUSTER]
    assert len({each.name for each in everything}) == len({each.statement for each in everything}) == len(everything)
    assert [each.name for each in everything if not (each.statement.endswith(".") and each.source)] == []
