"""Who we are, from clouds.yaml and from the environment; and that no password is ever shown."""

import asyncio
import base64
import contextlib
import importlib.util
import logging
import os
import subprocess
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lifecyclehook_operator.api.v1alpha1 import FINALIZER, IN_USE_LABEL
from lifecyclehook_operator.cloud import clouds_yaml
from lifecyclehook_operator.cloud.clouds_yaml import read_clouds_yaml, read_environment
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CallError, CredentialsError, transport_errors
from lifecyclehook_operator.cloud.signing import SignatureAuth
from lifecyclehook_operator.controller.clients import SecretReader
from lifecyclehook_operator.kube.secrets import Secret

PASSWORD = "pw-4c1d9"
SOURCE = "Secret web/otc"

AUTH = {
    "auth_url": "https://iam.eu-de.otc.t-systems.com/v3",
    "username": "operator",
    "password": PASSWORD,
    "user_domain_name": "OTC-EU-DE-1",
    "project_name": "eu-de_web",
}
ENVIRONMENT = {f"OS_{name.upper()}": value for name, value in AUTH.items()}


def clouds(auth: dict[str, Any] | None = None, **cloud: Any) -> str:
    return yaml.safe_dump({"clouds": {"otc": {"auth": AUTH if auth is None else auth, **cloud}}})


def without(*names: str, **others: Any) -> dict[str, Any]:
    return {name: value for name, value in {**AUTH, **others}.items() if name not in names}


def read_invalid(text: str, cloud_name: str = "otc") -> CredentialsError:
    """Return the error that a malformed clouds.yaml ends in."""
    with pytest.raises(CallError) as caught:
        read_clouds_yaml(text, cloud_name, SOURCE)
    error = caught.value
    assert isinstance(error, CredentialsError)
    assert (error.reason, error.operation) == ("CredentialsInvalid", "authenticate")
    assert SOURCE in error.message
    return error


def shown(error: BaseException) -> str:
    """Return all that is shown of an error wherever it ends up: text, repr, traceback."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return what sets the variables; none of them is set."""
    for name in os.environ:
        if name.startswith("OS_") or name == "AS_ENDPOINT":
            monkeypatch.delenv(name)
    return monkeypatch


def test_a_cloud_of_clouds_yaml_is_read_with_its_region_and_its_endpoint() -> None:
    text = clouds(region_name="eu-de", as_endpoint_override="https://as.example.com")
    credentials = read_clouds_yaml(text, "otc", SOURCE)
    assert credentials.password is not None
    assert credentials.model_dump(exclude_defaults=True) | {"password": credentials.password.get_secret_value()} == {
        **AUTH,
        "region_name": "eu-de",
        "as_endpoint": "https://as.example.com",
    }


def test_domain_and_project_may_be_given_by_their_ids() -> None:
    auth = without("user_domain_name", "project_name", user_domain_id="d-1", project_id="p-1")
    credentials = read_clouds_yaml(clouds(auth), "otc", SOURCE)
    assert (credentials.user_domain_id, credentials.project_id) == ("d-1", "p-1")


def test_what_other_clients_want_in_clouds_yaml_is_ignored() -> None:
    text = clouds({**AUTH, 7: "x", "default_domain": "x"}, interface="public", identity_api_version=3, verify=False)
    assert read_clouds_yaml(text, "otc", SOURCE) == read_clouds_yaml(clouds(), "otc", SOURCE)


def test_what_is_not_known_is_told_of_without_its_value(caplog: pytest.LogCaptureFixture) -> None:
    read_clouds_yaml(clouds({**AUTH, "default_domain": "123456"}, interface="public", verify=False), "otc", SOURCE)
    assert [record.getMessage() for record in caplog.records] == [
        f"{SOURCE}, cloud 'otc': ignoring default_domain, verify"
    ]


@pytest.mark.parametrize("place", ["auth", "cloud"])
def test_an_access_key_needs_neither_user_nor_domain(place: str) -> None:
    key = {"ak": "AK", "sk": "SK-secret", "security_token": "ST-secret"}
    auth = {"auth_url": AUTH["auth_url"], "project_name": "eu-de_web"}
    text = clouds({**auth, **key}) if place == "auth" else clouds(auth, **key)
    credentials = read_clouds_yaml(text, "otc", SOURCE)
    assert credentials.ak == "AK"
    assert "secret" not in repr(credentials)


@pytest.mark.parametrize("place", ["auth", "cloud"])
def test_an_access_key_may_be_named_as_terraform_does(place: str) -> None:
    key = {"access_key": "AK", "secret_key": "SK-secret"}
    auth = {"auth_url": AUTH["auth_url"], "project_name": "eu-de_web"}
    text = clouds({**auth, **key}) if place == "auth" else clouds(auth, **key)
    assert read_clouds_yaml(text, "otc", SOURCE) == read_clouds_yaml(
        clouds({**auth, "ak": "AK", "sk": "SK-secret"}), "otc", SOURCE
    )


def test_a_user_may_be_given_by_an_id_and_then_needs_no_domain() -> None:
    credentials = read_clouds_yaml(clouds(without("username", "user_domain_name", user_id="u-1")), "otc", SOURCE)
    assert (credentials.user_id, credentials.username, credentials.user_domain_name) == ("u-1", "", "")


@pytest.mark.parametrize(
    ("auth", "name", "id_"),
    [
        (without("user_domain_name", domain_name="d"), "d", ""),
        (without("user_domain_name", domain_id="d-1"), "", "d-1"),
        (without(domain_name="d"), AUTH["user_domain_name"], ""),
        (without(domain_id="d-1"), AUTH["user_domain_name"], ""),
        (without("user_domain_name", user_domain_id="d-1", domain_name="d"), "", "d-1"),
    ],
)
def test_the_domain_of_the_user_is_that_of_the_cloud_where_none_is_given(
    auth: dict[str, Any], name: str, id_: str
) -> None:
    credentials = read_clouds_yaml(clouds(auth), "otc", SOURCE)
    assert (credentials.user_domain_name, credentials.user_domain_id) == (name, id_)


@pytest.mark.parametrize(
    ("auth", "name", "id_"),
    [
        (without("project_name", tenant_name="eu-de"), "eu-de", ""),
        (without("project_name", tenant_id="p-1"), "", "p-1"),
        (without(tenant_name="eu-de", tenant_id="p-1"), AUTH["project_name"], ""),
    ],
)
def test_a_project_may_be_called_a_tenant(auth: dict[str, Any], name: str, id_: str) -> None:
    credentials = read_clouds_yaml(clouds(auth), "otc", SOURCE)
    assert (credentials.project_name, credentials.project_id) == (name, id_)


@pytest.mark.parametrize(
    ("auth_type", "is_access_key"),
    [("", True), ("aksk", True), ("password", False), ("v3password", False)],
)
@pytest.mark.parametrize("user", [AUTH, without("username", user_id="u-1")], ids=["name", "id"])
def test_of_a_user_and_an_access_key_the_access_key_is_used_unless_auth_type_says_otherwise(
    auth_type: str, is_access_key: bool, user: dict[str, Any]
) -> None:
    text = clouds({**user, "ak": "AK", "sk": "SK", "security_token": "ST"}, auth_type=auth_type)
    credentials = read_clouds_yaml(text, "otc", SOURCE)
    assert bool(credentials.ak) == is_access_key
    if not is_access_key:
        assert credentials == read_clouds_yaml(clouds(user), "otc", SOURCE)


@pytest.mark.parametrize("auth_type", ["password", "v3password"])
def test_an_access_key_alone_is_used_whatever_kind_of_login_is_given(auth_type: str) -> None:
    auth = {"auth_url": AUTH["auth_url"], "project_name": "eu-de_web", "ak": "AK", "sk": "SK"}
    assert read_clouds_yaml(clouds(auth, auth_type=auth_type), "otc", SOURCE).ak == "AK"


UNSUPPORTED = [
    "token",
    "passcode",
    "agency_name",
    "target_agency_name",
    "delegated_project",
    "application_credential_id",
    "application_credential_secret",
    "identity_provider",
    "trust_id",
]


@pytest.mark.parametrize("place", ["auth", "cloud"])
@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.parametrize("auth", [AUTH, {"auth_url": AUTH["auth_url"], "project_name": "eu-de_web"}], ids=["user", ""])
def test_a_way_to_log_in_that_is_not_known_here_is_refused_by_its_name(
    auth: dict[str, Any], name: str, place: str
) -> None:
    error = read_invalid(clouds({**auth, name: "hidden"}) if place == "auth" else clouds(auth, **{name: "hidden"}))
    assert f"not supported: {name};" in error.message
    assert "hidden" not in shown(error)


@pytest.mark.parametrize("auth_type", ["token", "v3totp", "v3applicationcredential", "v3oidcpassword", "agency"])
def test_a_kind_of_login_that_is_not_known_here_is_refused_by_its_name(auth_type: str) -> None:
    assert f"not supported: auth_type {auth_type};" in read_invalid(clouds(auth_type=auth_type)).message


@pytest.mark.parametrize("auth_type", [["password"], {"password": "x"}])
def test_a_kind_of_login_that_is_no_text_is_refused(auth_type: object) -> None:
    assert "not supported: auth_type;" in read_invalid(clouds(auth_type=auth_type)).message


@pytest.mark.parametrize("name", ["ak", "sk"])
def test_half_an_access_key_is_refused(name: str) -> None:
    auth = {"auth_url": AUTH["auth_url"], "project_name": "eu-de_web", "ak": "AK", "sk": "SK"}
    del auth[name]
    assert f"{name} is missing" in read_invalid(clouds(auth)).message


@pytest.mark.parametrize(
    "address", ["http://iam.eu-de.otc.t-systems.com/v3", "http://192.168.0.1", "http://iam.localhost"]
)
def test_no_other_machine_is_called_without_tls(address: str) -> None:
    assert "must be https" in read_invalid(clouds({**AUTH, "auth_url": address})).message


@pytest.mark.parametrize("address", ["http://127.0.0.1:8080/v3", "http://localhost", "http://[::1]:8080"])
def test_this_machine_may_be(address: str) -> None:
    assert read_clouds_yaml(clouds({**AUTH, "auth_url": address}), "otc", SOURCE).auth_url == address


@pytest.mark.parametrize(
    ("cacert", "problem"),
    [("none", "cacert is not a PEM certificate"), ("x" * (64 * 1024 + 1), "cacert may be 64 KiB long")],
)
async def test_a_cacert_that_is_none_or_too_long_is_refused(cacert: str, problem: str) -> None:
    secret = Secret({"clouds.yaml": clouds(), "cacert": cacert}, is_protected=True)
    with pytest.raises(CredentialsError, match=problem):
        await SecretReader().read(secret, "otc", SOURCE)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts that have been parsed."""
    parses: list[str] = []
    load = yaml.load
    monkeypatch.setattr(yaml, "load", lambda text, **options: parses.append(text) or load(text, **options))
    return parses


async def test_a_secret_is_parsed_once_and_a_cloud_of_it_validated_once(
    parses: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"cloud-{number}" for number in range(60)]
    document = {"clouds": {name: {"auth": {**AUTH, "username": name, "default_domain": "x"}} for name in names}}
    secret = Secret({"clouds.yaml": yaml.safe_dump(document)}, is_protected=True)
    reader = SecretReader()
    first = await asyncio.gather(*(reader.read(secret, name, SOURCE) for name in names))
    second = [await reader.read(secret, name, SOURCE) for name in names]
    assert [credentials.username for credentials in first] == names
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert (len(parses), len(caplog.records)) == (1, len(names))


async def test_a_secret_that_is_malformed_is_parsed_once_and_a_cloud_of_it_validated_once(
    parses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = []
    validate = Credentials.model_validate
    monkeypatch.setattr(Credentials, "model_validate", lambda values: validated.append(1) or validate(values))
    reader, errors = SecretReader(), []
    for text in (clouds(without("auth_url")), "}"):
        secret = Secret({"clouds.yaml": text}, is_protected=True)
        for cloud_name in ("otc", "otc", "other", "otc"):
            with pytest.raises(CredentialsError) as caught:
                await reader.read(secret, cloud_name, SOURCE)
            errors.append(caught.value)
    assert (len(parses), len(validated)) == (2, 1)
    assert len({id(error) for error in errors}) == 8
    assert [error.message for error in errors if "auth_url is missing" in error.message] == [errors[0].message] * 3
    assert {(error.reason, error.operation) for error in errors} == {("CredentialsInvalid", "authenticate")}
    assert PASSWORD not in shown(errors[0])


def fill(text: str, filling: str) -> str:
    """Return a text of 64 KiB at the most in which FILL is filled in as often as possible."""
    return text.replace("FILL", filling * ((64 * 1024 - len(text)) // len(filling)))


MAPPING = "{" + ", ".join(f"k{number}: v" for number in range(99)) + "}"
TOO_MUCH = {
    "lists": fill("a: [FILL]", "[],"),
    "mappings": fill("a: [FILL]", "{},"),
    "scalars": fill("a: [FILL]", "a,"),
    "tags": fill("a: [FILL]", "!!str a,"),
    "block": fill("FILL", "-\n"),
    "keys": fill("FILL", "? a\n: b\n"),
    "nested": fill("FILL", "["),
    "nested mappings": fill("FILL", "{"),
    "nested in blocks": fill("FILL", "- "),
    "merged": fill(f"b: &b {MAPPING}\na: [FILL]", "{<<: *b},"),
    "merged nothing": fill("b: &b {}\na: [FILL]", f"{{<<: [{'*b,' * 99}]}},"),
}
LONG = {
    "aliases": fill("a: &a a\nb: [FILL]", "*a,"),
    "comment": fill(f"{clouds()}#FILL", "#"),
    "as many values as are allowed": "a: [" + "{}," * 1990 + "]",
    "as many clouds as are allowed": "clouds: {" + "".join(f"c{number}: {{}}," for number in range(990)) + "}",
}


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_clouds_yaml_of_too_many_values_is_refused(text: str) -> None:
    message = read_invalid(text).message
    assert "has more than 2000 values" in message or "is nested more than 32 levels deep" in message


def test_a_clouds_yaml_may_have_a_hundred_clouds() -> None:
    document = {"clouds": {f"cloud-{number}": {"auth": AUTH, "region_name": "eu-de"} for number in range(100)}}
    assert read_clouds_yaml(yaml.safe_dump(document), "cloud-99", SOURCE).username == "operator"


@pytest.mark.parametrize("text", [*TOO_MUCH.values(), *LONG.values()], ids=[*TOO_MUCH, *LONG])
async def test_the_event_loop_goes_on_while_a_secret_is_parsed(text: str) -> None:
    secret = Secret({"clouds.yaml": text}, is_protected=True)
    # The garbage collector may come in once, but not each time.
    assert min([await measure_lag(replace(secret, parsed=[])) for _ in range(3)]) < 0.05


async def test_the_event_loop_goes_on_while_certificates_are_read(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    lags = []
    for number in range(3):
        text = fill(f"{number}\nFILL", certificate)
        lags.append(await measure_lag(Secret({"clouds.yaml": clouds(), "cacert": text}, is_protected=True)))
    assert min(lags) < 0.05


def make_certificate(folder: Path) -> str:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=authority", "-days", "9", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate.read_text()


async def measure_lag(secret: Secret) -> float:
    """Return for how long the event loop was held up at the most while a Secret was read, in seconds of CPU time."""
    reading = asyncio.create_task(read_anything(secret))
    longest, before = 0.0, time.process_time()
    while not reading.done():
        await asyncio.sleep(0)
        now = time.process_time()
        longest, before = max(longest, now - before), now
    await reading
    return longest


async def read_anything(secret: Secret) -> None:
    with contextlib.suppress(CredentialsError):
        await SecretReader().read(secret, "otc", SOURCE)


def test_without_libyaml_the_same_is_accepted_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader")
    spec = importlib.util.spec_from_file_location("without_libyaml", clouds_yaml.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not issubclass(module._TextLoader, yaml.cyaml.CParser)  # noqa: SLF001
    assert module.read_clouds_yaml(clouds(), "otc", SOURCE) == read_clouds_yaml(clouds(), "otc", SOURCE)
    for text in (*TOO_MUCH.values(), "}"):
        with pytest.raises(CredentialsError) as caught:
            module.read_clouds_yaml(text, "otc", SOURCE)
        assert caught.value.message == read_invalid(text).message


@pytest.mark.parametrize("is_named", [True, False], ids=["OS_CLIENT_CONFIG_FILE", "OS_CLOUD"])
def test_the_operators_own_may_be_in_a_file(environment: pytest.MonkeyPatch, tmp_path: Path, is_named: bool) -> None:
    (tmp_path / "clouds.yaml").write_text(clouds(region_name="eu-de"))
    environment.chdir(tmp_path)
    environment.setenv(*(("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml")) if is_named else ("OS_CLOUD", "otc")))
    own = read_environment()
    assert own is not None
    assert (own.username, own.region_name) == ("operator", "eu-de")


def test_a_file_that_is_not_there_is_told_of(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "absent"))
    with pytest.raises(CredentialsError, match=r"cannot read .*absent: No such file"):
        read_environment()


def test_the_environment_may_hold_an_access_key(environment: pytest.MonkeyPatch) -> None:
    for name in ("AUTH_URL", "PROJECT_NAME"):
        environment.setenv(f"OS_{name}", ENVIRONMENT[f"OS_{name}"])
    environment.setenv("OS_ACCESS_KEY", "AK")
    environment.setenv("OS_SECRET_KEY", "SK")
    own = read_environment()
    assert own is not None
    assert own.ak == "AK"


@pytest.mark.parametrize("nothing", ["", "null", "~"])
def test_a_null_is_nothing(nothing: str) -> None:
    text = clouds(region_name="REGION", as_endpoint_override="REGION").replace("REGION", nothing)
    assert read_clouds_yaml(text, "otc", SOURCE) == read_clouds_yaml(clouds(), "otc", SOURCE)


def test_what_clouds_have_in_common_may_be_merged_in() -> None:
    text = f"""
    common: &common {AUTH | {"username": "common"}}
    more: &more {{password: never, region_name: eu-de}}
    clouds:
      otc:
        auth:
          <<: [*common, *more]
          username: operator
    """
    assert read_clouds_yaml(text, "otc", SOURCE) == read_clouds_yaml(clouds(region_name="eu-de"), "otc", SOURCE)


@pytest.mark.parametrize("key", ["<<", "!!merge x", "!<tag:yaml.org,2002:merge> <<"])
def test_nested_merge_keys_do_not_grow(key: str) -> None:
    levels = "\n".join(f"a{i}: &a{i} {{{key}: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10))
    error = read_invalid(f"a0: &a0 {{k: v}}\n{levels}\nclouds: {{otc: {{auth: {{{key}: *a9}}}}}}")
    assert "merges in more than 100 fields in line 4" in error.message


@pytest.mark.parametrize(
    "merging",
    ["<<: [" + "*big, " * 200 + "]", "<<: [*big, *big, *big]", "<<: *big\n  <<: *big", "<<: &self {<<: *self}"],
)
def test_a_mapping_that_merges_in_too_much_is_refused(merging: str) -> None:
    big = "{" + ", ".join(f"k{number}: v" for number in range(60)) + "}"
    read_invalid(f"big: &big {big}\nclouds:\n  {merging}\n")


def laugh(use: str) -> str:
    """Return a clouds.yaml in which *a9 is a list that would be a billion entries long if it were walked."""
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))
    return f"a0: &a0 lol\n{levels}\n{clouds().replace('username: operator', use)}"


@pytest.mark.parametrize("use", ["username: *a9", "username: {*a9 : x}", "? *a9\n      : x"])
def test_nested_aliases_do_not_grow(use: str) -> None:
    read_invalid(laugh(use))


def test_nested_aliases_in_what_is_ignored_do_not_grow() -> None:
    text = laugh("username: operator\n      default_domain: *a9")
    assert read_clouds_yaml(text, "otc", SOURCE) == read_clouds_yaml(clouds(), "otc", SOURCE)


@pytest.mark.parametrize("cacert", ["*a9", "[a]", '"a\\0b"'])
def test_a_cacert_of_the_operators_own_that_is_no_path_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path, cacert: str
) -> None:
    text = laugh("username: operator").replace("  otc:\n", f"  otc:\n    cacert: {cacert}\n")
    (tmp_path / "clouds.yaml").write_text(text)
    environment.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    with pytest.raises(CredentialsError, match=r"cacert|cannot read"):
        read_environment()


@pytest.mark.parametrize("is_own", [False, True], ids=["Secret", "operator's own"])
def test_a_clouds_yaml_longer_than_64_kib_is_not_parsed(
    environment: pytest.MonkeyPatch, tmp_path: Path, is_own: bool
) -> None:
    longest = clouds() + "#" * (64 * 1024 - len(clouds()))
    assert read_clouds_yaml(longest, "otc", SOURCE) == read_clouds_yaml(clouds(), "otc", SOURCE)
    environment.setattr(yaml, "load", lambda *_, **__: pytest.fail("it was parsed"))
    (tmp_path / "clouds.yaml").write_text(f"{longest}#")
    environment.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    with pytest.raises(CredentialsError, match="64 KiB") as caught:
        read_environment() if is_own else read_clouds_yaml(f"{longest}#", "otc", SOURCE)
    assert caught.value.reason == "CredentialsInvalid"


def test_the_named_cloud_of_several_is_read() -> None:
    document = {"clouds": {"a": {"auth": {**AUTH, "username": "a"}}, "b": {"auth": {**AUTH, "username": "b"}}}}
    assert read_clouds_yaml(yaml.safe_dump(document), "b", SOURCE).username == "b"


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("", "has no mapping named clouds"),
        ("just text", "has no mapping named clouds"),
        ("- a list", "has no mapping named clouds"),
        ("other: {}", "has no mapping named clouds"),
        ("clouds:", "has no mapping named clouds"),
        ("clouds: [otc]", "has no mapping named clouds"),
        ("clouds: {}", "no cloud named 'otc'; it has: none"),
        ("clouds: {b: {}, a: {}, 1: {}}", "no cloud named 'otc'; it has: 1, a, b"),
        ("clouds: {otc: }", "no cloud named 'otc'"),
        ("clouds: {otc: text}", "no cloud named 'otc'"),
        ("clouds: {otc: {}}", "cloud 'otc' has no mapping named auth"),
        ("clouds: {otc: {auth: [a]}}", "cloud 'otc' has no mapping named auth"),
        ("clouds: {otc: {auth: {}}}", "auth_url is missing"),
        ("clouds: {otc: {auth: {}}}\n}", "is not valid YAML in line 2"),
        ("clouds: {otc: {auth: {a: \x01}}}", "is not valid YAML"),
        ("clouds: !!python/object:os.system {}", "is not valid YAML in line 1"),
        ("clouds: {otc: {auth: {[a]: b}}}", "is not valid YAML"),
        ("clouds: {otc: {region_name: 2026-13-45}}", "cloud 'otc' has no mapping named auth"),
        ("clouds: {otc: {region_name: !!int text}}", "is not valid YAML in line 1"),
        ("a: &a [*a]\n", "has no mapping named clouds"),
        ('clouds: {otc: {auth: {a: "\\UFFFFFFFF"}}}', "is not valid YAML"),
        (f"%YAML 1.{'9' * 5_000}\n---\nclouds: {{}}", "is not valid YAML"),
    ],
    ids=lambda value: value[:40],
)
def test_a_clouds_yaml_with_no_such_cloud_is_refused_with_a_hint(text: str, help_: str) -> None:
    assert help_ in read_invalid(text).message


def test_what_is_told_of_the_keys_is_short_and_printable(caplog: pytest.LogCaptureFixture) -> None:
    odd = rf'"\u202e\n{"x" * 900}": x'
    read_clouds_yaml(clouds().replace("username: operator", f"{odd}\n      username: operator"), "otc", SOURCE)
    for shown in (read_invalid(f"clouds: {{{odd}}}").message, caplog.messages[0]):
        assert len(shown) < 400
        assert shown.isprintable()


@pytest.mark.parametrize("name", ["auth_url", "username", "password"])
@pytest.mark.parametrize("value", ["", ["x"], {"x": "y"}])
def test_a_field_that_is_missing_or_of_a_wrong_type_is_named(name: str, value: object) -> None:
    assert name in read_invalid(clouds({**AUTH, name: value})).message


@pytest.mark.parametrize(
    ("auth", "help_"),
    [
        (without("auth_url"), "auth_url is missing"),
        (without("username"), "username or user_id is missing"),
        (without("password"), "password is missing"),
        (without("user_domain_name"), "user_domain_name or user_domain_id is missing"),
        (without("project_name"), "project_name or project_id is missing"),
        (without(auth_url="iam.eu-de.otc.t-systems.com"), "auth_url"),
        (without(auth_url="ftp://iam.eu-de.otc.t-systems.com"), "auth_url"),
        (without(auth_url="https://"), "auth_url"),
        (without("username", "password"), "username or user_id is missing; password is missing"),
    ],
)
def test_a_rule_that_is_broken_is_named(auth: dict[str, Any], help_: str) -> None:
    error = read_invalid(clouds(auth))
    assert help_ in error.message
    assert "cloud 'otc'" in error.message


@pytest.mark.parametrize(
    "address",
    [
        "https://[",
        "https://[::1",
        "https://[::1]x",
        "https://[g::1]",
        "https://[fe80::1%25eth0]",
        "https://[v1.a]",
        "https://host:99999999",
        f"https://host:{'9' * 5_000}",
        "https://host:port",
        "https://host:\uff11\uff12",
        "https://müller.de",
        "https://☃.example.com",
        "https://a\u2100b.example.com",
        "https://ho st",
        "https://ho\nst",
        "https://host%00",
        "https://.host",
        "https://XN--",
        "https://a..b",
        f"https://{'a' * 64}.example.com",
        "https://host/é",
        "http\u017f://host",
        " https://host",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["auth_url", "as_endpoint"])
def test_an_address_that_nothing_can_be_sent_to_is_refused(name: str, address: str) -> None:
    text = clouds({**AUTH, name: address})
    assert f"{name} is not a valid URL of the form https://host" in read_invalid(text).message


@pytest.mark.parametrize(
    "address",
    ["https://as.example.com:8443/a/$(x)s/", "HTTPS://Host_1", "https://[2001:db8::1]:443", "https://10.0.0.1"],
)
def test_an_address_may_have_a_port_and_a_path(address: str) -> None:
    assert read_clouds_yaml(clouds(as_endpoint_override=address), "otc", SOURCE).as_endpoint == address


NAMES = ["region_name", "project_id"]
HEADER_VALUES = ["ak", "security_token"]
ACCESS_KEY = {"auth_url": AUTH["auth_url"], "ak": "AK", "sk": "SK", "project_id": "p-1"}


@pytest.mark.parametrize("value", ["[", "eu-dé", "a b", "a/b", "a@b", "..", "a..b", "a.", "a\n", "a" * 64])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_is_refused(name: str, value: str) -> None:
    assert f"{name} may contain only letters, digits" in read_invalid(clouds({**AUTH, name: value})).message


@pytest.mark.parametrize("value", ["eu-de", "RegionOne", "eu-de.1_x", "b53e5554fad0494d96206fb84296510b"])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken(name: str, value: str) -> None:
    assert getattr(read_clouds_yaml(clouds({**AUTH, name: value}), "otc", SOURCE), name) == value


@pytest.mark.parametrize("value", ["hidden é", "hidden-é", "hidden x", "hidden\n", "hidden\x7f", "hidden\t"])
@pytest.mark.parametrize("name", HEADER_VALUES)
def test_what_no_header_can_hold_is_refused(name: str, value: str) -> None:
    error = read_invalid(clouds({**ACCESS_KEY, name: value}))
    assert f"{name} may contain only visible ASCII characters" in error.message
    assert "hidden" not in shown(error)


@pytest.mark.parametrize("name", ["username", "password", "user_domain_name", "project_name", "sk"])
def test_half_a_character_is_refused(name: str) -> None:
    text = clouds({**AUTH, "ak": "AK", "sk": "SK"} | {name: "VALUE"}).replace("VALUE", r'"hidden\ud800"')
    assert "hidden" not in shown(read_invalid(text))
    with pytest.raises(ValidationError, match="contains an invalid Unicode character"):
        Credentials.model_validate({**AUTH, "ak": "AK", "sk": "SK"} | {name: "hidden\ud800"})


ODD_TEXT = st.text("aZ0-_.:/[]@%?#\\ \n\x00é漢\u017f\u2100\ud800", max_size=12)


@given(name=st.sampled_from([*NAMES, *HEADER_VALUES, "sk", "auth_url", "as_endpoint"]), value=ODD_TEXT)
def test_whatever_is_accepted_can_be_sent(name: str, value: str) -> None:
    value = f"https://{value}" if name in ("auth_url", "as_endpoint") else value
    try:
        credentials = Credentials.model_validate({**ACCESS_KEY, name: value})
    except ValidationError:
        return
    auth = SignatureAuth(credentials.ak, credentials.sk, credentials.security_token)
    for url in (credentials.auth_url, credentials.as_endpoint, f"https://as.{credentials.region_name}.example.com"):
        urlsplit(url)
        with contextlib.suppress(CallError), transport_errors("list"):
            next(auth.sync_auth_flow(httpx.Request("GET", url, headers={"X-Project-Id": credentials.project_id})))


@given(value=ODD_TEXT)
def test_where_credentials_lead_is_where_requests_go(value: str) -> None:
    try:
        credentials = Credentials.model_validate({**ACCESS_KEY, "as_endpoint": f"https://{value}"})
    except ValidationError:
        return
    url = httpx.Request("GET", f"{credentials.as_endpoint}/list").url
    host = f"[{url.host}]" if ":" in url.host else url.host
    assert credentials.addresses[1] == f"{host}:{443 if url.port is None else url.port}"


@pytest.mark.parametrize("endpoint", ["as.example.com", "https:/as.example.com", 7])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: object) -> None:
    assert "as_endpoint" in read_invalid(clouds(as_endpoint_override=endpoint)).message


def test_the_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    for name, value in (ENVIRONMENT | {"OS_REGION_NAME": "eu-de", "AS_ENDPOINT": "https://as.example.com"}).items():
        environment.setenv(name, value)
    text = clouds(region_name="eu-de", as_endpoint_override="https://as.example.com")
    assert read_environment() == read_clouds_yaml(text, "otc", SOURCE)


def test_ids_in_the_environment_will_do(environment: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        environment.setenv(name, value)
    environment.delenv("OS_USER_DOMAIN_NAME")
    environment.delenv("OS_PROJECT_NAME")
    environment.setenv("OS_USER_DOMAIN_ID", "d-1")
    environment.setenv("OS_PROJECT_ID", "p-1")
    credentials = read_environment()
    assert credentials is not None
    assert (credentials.user_domain_id, credentials.project_id) == ("d-1", "p-1")


@pytest.mark.parametrize(
    ("variables", "auth"),
    [
        ({"OS_USERNAME": "", "OS_USER_ID": "u-1"}, without("username", user_id="u-1")),
        ({"OS_USER_DOMAIN_NAME": "", "OS_DOMAIN_NAME": "d"}, without(user_domain_name="d")),
        ({"OS_USER_DOMAIN_NAME": "", "OS_DOMAIN_ID": "d-1"}, without("user_domain_name", user_domain_id="d-1")),
        ({"OS_DOMAIN_NAME": "d"}, AUTH),
        ({"OS_TENANT_NAME": "eu-de"}, AUTH),
        ({"OS_PROJECT_NAME": "", "OS_TENANT_NAME": "eu-de"}, without(project_name="eu-de")),
        ({"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "SK", "OS_AUTH_TYPE": "password"}, AUTH),
        ({"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "SK"}, without(ak="AK", sk="SK")),
    ],
    ids=str,
)
def test_the_environment_may_name_things_as_other_clients_do(
    environment: pytest.MonkeyPatch, variables: dict[str, str], auth: dict[str, str]
) -> None:
    for name, value in {**ENVIRONMENT, **variables}.items():
        environment.setenv(name, value)
    assert read_environment() == read_clouds_yaml(clouds(auth), "otc", SOURCE)


@pytest.mark.parametrize("name", [*UNSUPPORTED, "auth_token"])
def test_a_way_to_log_in_that_is_not_known_here_is_refused_in_the_environment_too(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    for each, value in {**ENVIRONMENT, f"OS_{name.upper()}": "hidden"}.items():
        environment.setenv(each, value)
    with pytest.raises(CredentialsError, match=f"not supported: {name};") as caught:
        read_environment()
    assert "hidden" not in shown(caught.value)


def test_the_authorities_in_the_environment_serve_a_file_that_names_none(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "clouds.yaml").write_text(clouds())
    environment.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    environment.setenv("OS_CACERT", str(tmp_path / "absent.pem"))
    with pytest.raises(CredentialsError, match=r"cannot read .*absent.pem: No such file"):
        read_environment()


@pytest.mark.parametrize("auth_url", [None, ""])
def test_with_no_auth_url_in_the_environment_there_are_no_credentials(
    environment: pytest.MonkeyPatch, auth_url: str | None
) -> None:
    for name, value in ENVIRONMENT.items():
        environment.setenv(name, value)
    environment.delenv("OS_AUTH_URL") if auth_url is None else environment.setenv("OS_AUTH_URL", auth_url)
    assert read_environment() is None


@pytest.mark.parametrize(
    ("name", "help_"),
    [
        ("OS_USERNAME", "username or user_id is missing"),
        ("OS_PASSWORD", "password is missing"),
        ("OS_USER_DOMAIN_NAME", "user_domain_name or user_domain_id is missing"),
        ("OS_PROJECT_NAME", "project_name or project_id is missing"),
    ],
)
@pytest.mark.parametrize("is_empty", [False, True])
def test_an_environment_that_has_credentials_in_part_is_refused(
    environment: pytest.MonkeyPatch, name: str, help_: str, is_empty: bool
) -> None:
    for each, value in ENVIRONMENT.items():
        environment.setenv(each, value)
    environment.setenv(name, "") if is_empty else environment.delenv(name)
    with pytest.raises(CredentialsError) as caught:
        read_environment()
    assert caught.value.reason == "CredentialsInvalid"
    assert help_ in caught.value.message
    assert "OS_*" in caught.value.message
    assert PASSWORD not in shown(caught.value)


def test_equal_credentials_are_one_key_and_others_are_another() -> None:
    first, second = (read_clouds_yaml(clouds(), "otc", SOURCE) for _ in range(2))
    assert {first: 1}[second] == 1
    assert first != read_clouds_yaml(clouds({**AUTH, "password": "another"}), "otc", SOURCE)


SPOILT = {
    "no auth_url": without("auth_url"),
    "no username": without("username"),
    "no domain": without("user_domain_name"),
    "no project": without("project_name"),
    "wrong auth_url": without(auth_url="iam"),
    "wrong username": without(username=["operator"]),
}


@given(tail=st.text(max_size=20), spoilt=st.sampled_from(sorted(SPOILT)))
def test_no_error_about_a_field_shows_the_password(tail: str, spoilt: str) -> None:
    auth = {**SPOILT[spoilt], "password": PASSWORD + tail}
    assert PASSWORD not in shown(read_invalid(clouds(auth)))


@pytest.mark.parametrize(
    "line",
    [
        "password: {}: x",
        "password: [{}",
        'password: "{}',
        "password: !!int {}",
        "password: !!float {}",
        "password: !!timestamp {}",
        "password: !!binary {}é",
        "password: !!bool {}",
        "password: !{} x",
        "password: &{} *x",
        "password: [{}]",
        "password: {{a: {}}}",
        "- {}",
    ],
)
def test_no_error_about_the_yaml_shows_the_password(line: str) -> None:
    text = f"clouds:\n  otc:\n    auth:\n      username: operator\n      {line.format(PASSWORD)}\n"
    assert PASSWORD not in shown(read_invalid(text))


@given(text=st.text())
def test_any_text_is_refused_in_the_one_way(text: str) -> None:
    read_invalid(text)


@given(tail=st.text(max_size=20))
def test_credentials_do_not_show_their_password(tail: str) -> None:
    credentials = read_clouds_yaml(clouds({**AUTH, "password": PASSWORD + tail}), "otc", SOURCE)
    assert credentials.password.get_secret_value() == PASSWORD + tail
    for text in (str(credentials), repr(credentials), f"{credentials}", credentials.model_dump_json()):
        assert PASSWORD not in text


def test_credentials_that_are_logged_do_not_show_their_password(caplog: pytest.LogCaptureFixture) -> None:
    credentials = Credentials.model_validate(AUTH)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("test").debug("%s %r %s", credentials, credentials, credentials.model_dump())
    assert AUTH["username"] in caplog.text
    assert PASSWORD not in caplog.text


def test_a_secret_is_decoded_and_does_not_show_its_content() -> None:
    content = {"clouds.yaml": PASSWORD.encode(), "cacert": b"\xff", "somebody-elses": b"key"}
    data = {key: base64.b64encode(value).decode() for key, value in content.items()}
    metadata = {"resourceVersion": "7", "finalizers": [FINALIZER], "labels": {IN_USE_LABEL: "true"}}
    secret = Secret.from_object({"metadata": metadata, "data": data})
    assert secret.content == {"clouds.yaml": PASSWORD, "cacert": "\ufffd"}
    assert secret.is_protected
    assert PASSWORD not in f"{secret} {secret!r}"


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"resourceVersion": "7"}},
        {"metadata": {"resourceVersion": "7", "finalizers": None}, "data": None},
        {"metadata": {"resourceVersion": "7", "finalizers": [FINALIZER], "labels": {"other": "true"}}},
        {"metadata": {"resourceVersion": "7", "finalizers": ["other"]}, "data": {}},
    ],
)
def test_a_secret_may_be_empty_and_held_by_nobody(body: dict[str, Any]) -> None:
    assert Secret.from_object(body) == Secret({}, is_protected=False)


def test_a_password_of_digits_is_a_password() -> None:
    text = yaml.safe_dump({"clouds": {"otc": {"auth": AUTH}}}).replace(f"password: {PASSWORD}", "password: 0123")
    assert read_clouds_yaml(text, "otc", SOURCE).password.get_secret_value() == "0123"
