"""What the pages say of files, links, alerts and rights is there; tests/docs runs their commands."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import AliasChoices

from lifecyclehook_operator.cloud.clouds_yaml import _Environment, read_clouds_yaml
from lifecyclehook_operator.cloud.errors import _RIGHTS
from lifecyclehook_operator.settings import Settings
from tests.docs.pages import (
    PAGES,
    REPOSITORY,
    Block,
    find_anchors,
    find_blocks,
    find_inline_code,
    find_links,
    matches,
)
from tests.docs.recording import SCRIPT
from tests.docs.reference import PARTS

DOCS = REPOSITORY / "docs"
#: Options of kubectl, kopf and argocd, and of our command beside `run`.
OPTIONS_OF_OTHERS = {
    "--cloud",
    "--create-namespace",
    "--credentials",
    "--liveness",
    "--log-format",
    "--timeout",
    "--verbose",
    "--version",
    "--wait",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in find_links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(REPOSITORY)
        if parts.fragment:
            assert parts.fragment in find_anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_named_in_passing_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    options = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    reference = PARTS["metrics"]() + PARTS["keys"]()
    for code in find_inline_code(page):
        word, *rest = code.split()
        if word == "make" and rest:
            assert rest[0] in targets, code
        elif re.match(r"(crds|deploy|docs|operator|tests)/", word) and "*" not in word:
            assert (REPOSITORY / word.partition("#")[0]).exists(), code
        elif match := re.match(r"--[a-z-]+", word):
            assert match[0] in options | OPTIONS_OF_OTHERS, code
        elif match := re.match(r"(lifecyclehook_[a-z_]+|as\.otc\.t-systems\.com/[a-z-]+)(?=$|[{=:])", word):
            assert f"`{match[0]}`" in reference, code


def test_every_module_is_explained() -> None:
    explained = find_inline_code(DOCS / "how-it-works.md")
    for path in (REPOSITORY / "operator" / "lifecyclehook_operator").rglob("*.py"):
        name = path.relative_to(REPOSITORY / "operator" / "lifecyclehook_operator")
        assert path.name == "__init__.py" or {str(name), f"{name.parent}/"} & explained, f"{name} is not explained"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {REPOSITORY / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        linked = {(page.parent / urlsplit(link).path).resolve() for link in find_links(page)}
        new |= {each for each in linked if each.suffix == ".md"} - reached
    assert set(PAGES) <= reached | {REPOSITORY / "CONTRIBUTING.md"}  # GitHub shows that one


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) < 150


def test_the_policy_has_the_rights_that_the_calls_need() -> None:
    (block,) = find_blocks("json")
    (statement,) = json.loads(block.text)["Statement"]
    assert statement["Effect"] == "Allow"
    assert sorted(statement["Action"]) == sorted(_RIGHTS.values())


def test_the_credentials_that_are_shown_can_be_read() -> None:
    (secret,) = [block.text for block in find_blocks("yaml") if "\nkind: Secret\n" in block.text]
    text = yaml.safe_load(secret)["stringData"]["clouds.yaml"]
    assert read_clouds_yaml(text, "otc", "the page").username == "hooks"
    (by_key,) = [block.text for block in find_blocks("yaml") if "auth:\n" in block.text and "sk: " in block.text]
    cloud = yaml.safe_load(text)
    cloud["clouds"]["otc"] |= yaml.safe_load(by_key)
    assert read_clouds_yaml(yaml.safe_dump(cloud), "otc", "the page").ak == "..."


@pytest.mark.parametrize("name", _Environment.model_fields)
def test_every_variable_of_the_credentials_is_explained(name: str) -> None:
    alias = _Environment.model_fields[name].validation_alias
    names = [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else [f"OS_{name.upper()}"]
    page = (DOCS / "reference.md").read_text().split("\n## Credentials\n", 1)[1]
    for each in names:
        is_id = each.endswith("_ID") and f"`{each.removesuffix('_ID')}_NAME` (or `_ID`)" in page
        assert is_id or f"`{each}`" in page or f"`{name}`" in page  # the latter: a name of other clients


def test_every_alert_has_a_section_and_no_other() -> None:
    rules = yaml.safe_load((REPOSITORY / "deploy" / "components" / "metrics" / "alerts.yaml").read_text())
    alerts = [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    section = (DOCS / "operations.md").read_text().split("\n## Alerts\n", 1)[1].split("\n## ", 1)[0]
    assert [line.removeprefix("### ") for line in section.splitlines() if line.startswith("### ")] == alerts


@pytest.mark.parametrize("block", find_blocks("yaml"), ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    assert all(isinstance(each, dict) for each in yaml.safe_load_all(block.text))


def test_a_remote_folder_is_one_of_the_repository() -> None:
    (block,) = [block for block in find_blocks("yaml") if "https://github.com/OWNER/REPO//" in block.text]
    paths = re.findall(r"OWNER/REPO//(.*)\?ref=", block.text)
    assert paths
    assert all((REPOSITORY / path / "kustomization.yaml").is_file() for path in paths)


def test_the_recording_is_small_and_shows_what_is_recorded_now() -> None:
    recorded = (DOCS / "demo.svg").read_text()
    assert len(recorded) < 300_000
    for line in SCRIPT:
        shown = line[:60].replace("&", "&amp;").replace("<", "&lt;")
        assert shown in recorded, "run `make recording`"


@pytest.mark.parametrize(
    ("shown", "output", "expected"),
    [
        (("NAME   AGE", "one    1s"), "NAME AGE\none 42s\n", True),
        (("NAME   AGE", "one    1s"), "NAME AGE\ntwo 42s\n", False),
        (("a", "...", "d"), "a\nb\nc\nd\n", True),
        (("a", "...", "d"), "a\nb\nc\n", False),
        (("a",), "a\nb\n", False),
        (("* a", "* b", "c"), "* b\n* a\nc\n", True),
        (("a", "b"), "b\na\n", False),
    ],
)
def test_an_output_is_compared_but_for_what_is_other_each_time(
    shown: tuple[str, ...], output: str, expected: bool
) -> None:
    assert matches(shown, output) == expected
