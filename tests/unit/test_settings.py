"""Every setting by flag and by environment, the messages about invalid ones, and what explains them."""

from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

from lifecyclehook_operator.settings import ENV_PREFIX, Settings

OPTIONS = [
    ("namespace", "web", ("web",)),
    ("namespace", "web,db", ("web", "db")),
    ("namespace", "web, db ,", ("web", "db")),
    ("namespace", "", ()),
    ("allowed_endpoints", "iam.example.com, as-*.example.com:8443", ("iam.example.com", "as-*.example.com:8443")),
    ("allowed_endpoints", "127.0.0.1:*,[::1],[::1]:8080", ("127.0.0.1:*", "[::1]", "[::1]:8080")),
    ("health_port", "0", 0),
    ("health_port", "65535", 65535),
    ("log_level", "debug", "debug"),
    ("log_format", "json", "json"),
    ("resync_interval_seconds", "1", 1),
    ("backoff_min_seconds", "0.5", 0.5),
    ("backoff_max_seconds", "7", 7),
    ("slow_retry_min_seconds", "0.5", 0.5),
    ("slow_retry_max_seconds", "31", 31),
    ("cloud_timeout_seconds", "2.5", 2.5),
    ("concurrency", "1", 1),
    ("concurrency", "1000", 1000),
    ("shutdown_grace_seconds", "0", 0),
]
WRONG = [
    *[("health_port", value) for value in ("-1", "65536", "x", "8080.5")],
    *[("log_level", value) for value in ("loud", "INFO", "")],
    ("log_format", "xml"),
    *[("concurrency", value) for value in ("0", "1001", "x")],
    *[("resync_interval_seconds", value) for value in ("0.9", "x", "nan", "inf")],
    *[
        (name, value)
        for name in ("backoff_min_seconds", "backoff_max_seconds", "slow_retry_min_seconds", "slow_retry_max_seconds")
        for value in ("0", "-1", "nan", "inf")
    ],
    *[("cloud_timeout_seconds", value) for value in ("0", "-1", "nan", "inf")],
    *[("shutdown_grace_seconds", value) for value in ("-1", "nan", "inf")],
    ("all_namespaces", "perhaps"),
    *[
        ("allowed_endpoints", value)
        for value in ("https://iam.example.com", "iam.example.com/v3", "::1", "iam.example.com:", "iam.example.com:x")
    ],
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return what sets variables; none of ours is set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)
    return monkeypatch


def parse(*arguments: str) -> Settings:
    return CliApp.run(Settings, cli_args=list(arguments))


def flag(name: str, value: str) -> str:
    return f"--{name.replace('_', '-')}={value}"


@pytest.mark.parametrize(("name", "text", "value"), OPTIONS)
def test_an_option_can_be_given_by_a_flag(name: str, text: str, value: Any) -> None:
    assert getattr(parse(flag(name, text)), name) == value


@pytest.mark.parametrize(("name", "text", "value"), OPTIONS)
def test_an_option_can_be_given_by_the_environment(
    environment: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    environment.setenv(f"{ENV_PREFIX}{name.upper()}", text)
    assert getattr(parse(), name) == getattr(Settings(), name) == value


def test_a_flag_comes_before_the_environment_and_the_environment_before_the_default(
    environment: pytest.MonkeyPatch,
) -> None:
    assert parse().health_port == 8080
    environment.setenv("LIFECYCLEHOOK_OPERATOR_HEALTH_PORT", "1")
    assert parse().health_port == 1
    assert parse("--health-port=2").health_port == 2


def test_the_defaults_are_those_of_the_design() -> None:
    settings = parse()
    assert (settings.namespace, settings.all_namespaces) == ((), False)
    assert settings.resync_interval_seconds == 300
    assert (settings.backoff_min_seconds, settings.backoff_max_seconds) == (1, 300)
    assert (settings.slow_retry_min_seconds, settings.slow_retry_max_seconds) == (30, 600)


@pytest.mark.parametrize("arguments", [["--namespace=web", "--namespace=db"], ["--namespace", "web,db"]])
def test_several_namespaces_can_be_given(arguments: list[str]) -> None:
    assert parse(*arguments).namespace == ("web", "db")


def test_a_switch_needs_no_value(environment: pytest.MonkeyPatch) -> None:
    assert parse("--all-namespaces").all_namespaces
    environment.setenv("LIFECYCLEHOOK_OPERATOR_ALL_NAMESPACES", "true")
    assert parse().all_namespaces
    assert not parse("--no-all-namespaces").all_namespaces


@pytest.mark.parametrize(("name", "text"), WRONG)
@pytest.mark.parametrize("by_flag", [True, False])
def test_a_wrong_value_is_refused(environment: pytest.MonkeyPatch, name: str, text: str, by_flag: bool) -> None:
    if not by_flag:
        environment.setenv(f"{ENV_PREFIX}{name.upper()}", text)
    with pytest.raises((ValidationError, SystemExit)):
        parse(*([flag(name, text)] if by_flag else []))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--namespace=web", "--all-namespaces"], "either --namespace or --all-namespaces, not both"),
        (["--backoff-min-seconds=301"], "--backoff-min-seconds is greater than --backoff-max-seconds"),
        (["--slow-retry-max-seconds=29"], "--slow-retry-min-seconds is greater than --slow-retry-max-seconds"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse(*arguments)


@pytest.mark.parametrize("arguments", [["--backoff-min-seconds=300"], ["--slow-retry-max-seconds=30"]])
def test_least_and_longest_wait_may_be_the_same(arguments: list[str]) -> None:
    parse(*arguments)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_option_is_explained(name: str) -> None:
    assert Settings.model_fields[name].description


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith("_seconds")])
def test_a_time_says_its_unit(name: str) -> None:
    description = Settings.model_fields[name].description or ""
    assert "in seconds" in description
