"""Credentials from a clouds.yaml, or from OS_* variables."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from lifecyclehook_operator.api.v1alpha1 import CA_CERTIFICATE_KEY, CLOUDS_YAML_KEY
from lifecyclehook_operator.cloud.credentials import Credentials, holds_certificates
from lifecyclehook_operator.cloud.errors import CredentialsError, Reason, sanitize

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML was built without libyaml; its own parser takes ten times as long or more
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]

logger = logging.getLogger(__name__)


#: How many fields a mapping of a clouds.yaml may have, and mappings merge in, where it has a merge key (<<).
_MERGE_LIMIT = 100
#: How long a clouds.yaml may be, and the certificates beside one in a Secret.
_LIMIT_BYTES = 64 * 1024
#: How many mappings, lists and scalars a clouds.yaml may have, enough for 100 clouds, and how deep they may be nested.
#: With these limits libyaml parses any text in 15 ms; some of 64 KiB would take it 300 ms.
_VALUE_LIMIT = 2000
_DEPTH_LIMIT = 32
_CONFIG_FILES = (
    Path("clouds.yaml"),
    Path("~/.config/openstack/clouds.yaml"),
    Path("/etc/openstack/clouds.yaml"),
)
#: Aliases of other clients of this cloud, each for the first of these fields if none of them is given.
_ALIASES = {
    "access_key": ("ak",),
    "secret_key": ("sk",),
    "tenant_name": ("project_name", "project_id"),
    "tenant_id": ("project_id", "project_name"),
    "domain_name": ("user_domain_name", "user_domain_id"),
    "domain_id": ("user_domain_id", "user_domain_name"),
}
#: Keys of a cloud next to its auth, and the fields that they set.
_CLOUD_KEYS = {
    "region_name": "region_name",
    "as_endpoint_override": "as_endpoint",
    "ak": "ak",
    "sk": "sk",
    "access_key": "access_key",
    "secret_key": "secret_key",
    "security_token": "security_token",
    "auth_type": "auth_type",
}
_PASSWORD_AUTH_TYPES = ("password", "v3password")
_ACCESS_KEY_AUTH_TYPE = "aksk"
#: Logins of other clients. If one were ignored, the login would be that of another user, or fail without a reason.
_UNSUPPORTED_KEYS = frozenset(
    {
        "agency_domain_name",
        "agency_name",
        "application_credential_id",
        "application_credential_name",
        "application_credential_secret",
        "auth_token",
        "delegated_project",
        "identity_provider",
        "passcode",
        "target_agency_name",
        "token",
        "trust_id",
    }
)
#: Keys of a cloud that have no effect on the login or the endpoints, or ask for what is done anyway.
_IGNORED_KEYS = frozenset(
    {
        "cacert",
        "identity_api_version",
        "interface",
        "endpoint_type",
        "profile",
        "regions",
        "volume_api_version",
    }
)


class _Environment(BaseSettings):
    """The OS_* variables as OpenStack's clients know them, and AS_ENDPOINT. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix="OS_", env_ignore_empty=True, extra="ignore")

    cloud: str | None = None
    client_config_file: Path | None = None
    auth_url: str | None = None
    auth_type: str | None = None
    username: str | None = None
    user_id: str | None = Field(default=None, validation_alias=AliasChoices("OS_USER_ID", "OS_USERID"))
    password: SecretStr | None = None
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    domain_name: str | None = None
    domain_id: str | None = None
    ak: str | None = Field(default=None, validation_alias=AliasChoices("OS_ACCESS_KEY", "OS_AK"))
    sk: SecretStr | None = Field(default=None, validation_alias=AliasChoices("OS_SECRET_KEY", "OS_SK"))
    security_token: SecretStr | None = None
    project_name: str | None = None
    project_id: str | None = None
    tenant_name: str | None = None
    tenant_id: str | None = None
    project_domain_name: str | None = None
    project_domain_id: str | None = None
    region_name: str | None = None
    cacert: Path | None = None
    as_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("AS_ENDPOINT"))


def read_environment(config_file: Path | None = None, cloud: str | None = None) -> Credentials | None:
    """Return the operator's own credentials, or None if it has none.

    They come from the clouds.yaml that OS_CLIENT_CONFIG_FILE or OS_CLOUD point to, or else from OS_AUTH_URL and so on.
    Raises CredentialsError if they are there only in part, or can't be read.

    Args:
        config_file: takes the place of OS_CLIENT_CONFIG_FILE.
        cloud: takes the place of OS_CLOUD.
    """
    environment = _Environment()
    config_file, cloud = config_file or environment.client_config_file, cloud or environment.cloud
    if cloud or config_file:
        return _read_config_file(config_file, cloud or "otc", environment.cacert)
    values = environment.model_dump(exclude_none=True)
    if "auth_url" not in values:
        return None
    if cacert := values.pop("cacert", None):
        values["ca_certificates"] = _read_file(cacert)
    values |= {name: os.environ.get(f"OS_{name.upper()}") for name in _UNSUPPORTED_KEYS}
    return _validate(values, "the operator's environment (OS_*)")


def _read_config_file(given: Path | None, cloud_name: str, default_cacert: Path | None) -> Credentials:
    candidates = [given] if given else [path.expanduser() for path in _CONFIG_FILES]
    for path in candidates:
        if given or path.is_file():
            text = _read_file(path)
            cacert = Clouds(text, str(path)).find(cloud_name).get("cacert") or ""
            if not isinstance(cacert, str):
                raise _error(Reason.CREDENTIALS_INVALID, f"{path}, cloud {cloud_name!r}: cacert must be a path")
            bundle = path.parent / cacert if cacert else default_cacert
            return read_clouds_yaml(text, cloud_name, str(path), _read_file(bundle) if bundle else "")
    raise _error(Reason.CREDENTIALS_INVALID, f"OS_CLOUD is set, but there is no {' or '.join(map(str, candidates))}")


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: it is not UTF-8, or the path contains a null
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise _error(Reason.CREDENTIALS_INVALID, f"cannot read {path}: {reason}") from None


def read_clouds_yaml(text: str, cloud_name: str, source: str, ca_certificates: str = "") -> Credentials:
    """Return the credentials of one cloud of a clouds.yaml. Raises CredentialsError, as Clouds does."""
    return Clouds(text, source, ca_certificates).read(cloud_name)


class Clouds:
    """The clouds of a clouds.yaml: parsed once, and each validated once, when it is first asked for.

    Every method raises CredentialsError (CredentialsInvalid), with a message that names the source and holds no secret.
    """

    def __init__(self, text: str, source: str, ca_certificates: str = "") -> None:
        """Parse a text; the certificates, in PEM form, are those of all its clouds."""
        if ca_certificates and not holds_certificates(ca_certificates):
            raise _error(Reason.CREDENTIALS_INVALID, f"{source}: {CA_CERTIFICATE_KEY} is not a PEM certificate")
        document = _parse(text, source)
        clouds = document.get("clouds") if isinstance(document, dict) else None
        if not isinstance(clouds, dict):
            raise _error(Reason.CREDENTIALS_INVALID, f"{source} has no mapping named clouds")
        self._source = source
        self._ca_certificates = ca_certificates
        self._clouds: dict[Any, Any] = clouds
        self._names = sanitize(", ".join(sorted(map(str, clouds)))) or "none"
        self._read: dict[str, Credentials | str] = {}

    @classmethod
    def from_secret(cls, content: Mapping[str, str], source: str) -> Self:
        """Parse the content of a Secret."""
        if CLOUDS_YAML_KEY not in content:
            raise _error(Reason.CREDENTIALS_INVALID, f"{source} has no key {CLOUDS_YAML_KEY}")
        ca_certificates = content.get(CA_CERTIFICATE_KEY, "")
        _check_length(ca_certificates, CA_CERTIFICATE_KEY, source)
        return cls(content[CLOUDS_YAML_KEY], source, ca_certificates)

    def find(self, cloud_name: str) -> dict[str, Any]:
        """Return a cloud as it is written."""
        cloud = self._clouds.get(cloud_name)
        if not isinstance(cloud, dict):
            message = f"{self._source} has no cloud named {cloud_name!r}; it has: {self._names}"
            raise _error(Reason.CREDENTIALS_INVALID, message)
        return cloud

    def read(self, cloud_name: str) -> Credentials:
        """Return the credentials of a cloud; keys that are not known here are ignored, with a warning."""
        cloud = self.find(cloud_name)
        if cloud_name not in self._read:
            try:
                self._read[cloud_name] = self._validate(cloud, f"{self._source}, cloud {cloud_name!r}")
            except CredentialsError as error:
                self._read[cloud_name] = error.message
        read = self._read[cloud_name]
        if isinstance(read, str):
            raise _error(Reason.CREDENTIALS_INVALID, read)
        return read

    def _validate(self, cloud: dict[str, Any], source: str) -> Credentials:
        auth = cloud.get("auth")
        if not isinstance(auth, dict):
            raise _error(Reason.CREDENTIALS_INVALID, f"{source} has no mapping named auth")
        values = auth | {name: cloud[key] for key, name in _CLOUD_KEYS.items() if key in cloud}
        values |= {name: cloud[name] for name in _UNSUPPORTED_KEYS if name in cloud}
        known = {"auth", *_CLOUD_KEYS} | _IGNORED_KEYS
        unknown = sorted({*map(str, auth)} - {*Credentials.model_fields, *_ALIASES, "auth_type"} - _UNSUPPORTED_KEYS)
        unknown += sorted({*map(str, cloud)} - known - _UNSUPPORTED_KEYS)
        if unknown:
            logger.warning("%s: ignoring %s", source, sanitize(", ".join(unknown)))
        return _validate(values | {"ca_certificates": self._ca_certificates}, source)


class _TextLoader(_BaseLoader):
    """Reads every scalar but null as text: a password of digits is one, and no date can be out of range."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0

    def descend_resolver(self, current_node: yaml.Node | None, current_index: object) -> None:
        """Take note that a value begins; the base class would choose a tag by its path here, and no path has one."""
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise _LimitError(problem=f"is nested more than {_DEPTH_LIMIT} levels deep")
        self._count(1)

    def ascend_resolver(self) -> None:
        """Take note that a value has ended."""
        self._depth -= 1

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge in what merge keys stand for, as far as that is little: a few nested ones can fill all memory."""
        merged = [value for key, value in node.value if key.tag.rpartition(":")[2] == "merge"]
        too_much = _LimitError(problem=f"merges in more than {_MERGE_LIMIT} fields", problem_mark=node.start_mark)
        if len(merged) > 1 or any(len(each.value) > _MERGE_LIMIT for each in merged):
            raise too_much
        super().flatten_mapping(node)
        if merged:
            self._count(len(merged[0].value) + len(node.value))
            if len(node.value) > _MERGE_LIMIT:
                raise too_much

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > _VALUE_LIMIT:
            raise _LimitError(problem=f"has more than {_VALUE_LIMIT} values")


class _LimitError(yaml.MarkedYAMLError):
    """The text is longer than it takes to name clouds, or stands for more."""


def _parse(text: str, source: str) -> Any:  # noqa: ANN401
    _check_length(text, f"a {CLOUDS_YAML_KEY}", source)
    try:
        return yaml.load(text, Loader=_TextLoader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:  # the latter two: numbers in escapes
        mark = getattr(error, "problem_mark", None)  # the error's own text quotes the line, which may hold the password
        where = f" in line {mark.line + 1}" if mark else ""
        what = error.problem if isinstance(error, _LimitError) else "is not valid YAML"
        raise _error(Reason.CREDENTIALS_INVALID, f"{source} {what}{where}") from None


def _check_length(text: str, what: str, source: str) -> None:
    if len(text.encode()) > _LIMIT_BYTES:
        limit = f"{_LIMIT_BYTES // 1024} KiB"
        raise _error(Reason.CREDENTIALS_INVALID, f"{source}: {what} may be {limit} long at the most")


def _settle(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Return what is given, under the names of the fields of Credentials.

    Raises CredentialsError (CredentialsInvalid) if it is for a way to log in that is not known here.
    """
    given = {name: value for name, value in values.items() if value}
    unsupported = sorted(_UNSUPPORTED_KEYS & given.keys())
    auth_type = given.pop("auth_type", None)
    if auth_type not in (None, _ACCESS_KEY_AUTH_TYPE, *_PASSWORD_AUTH_TYPES):
        unsupported.append(f"auth_type {sanitize(auth_type, 64)}" if isinstance(auth_type, str) else "auth_type")
    if unsupported:
        raise _error(
            Reason.CREDENTIALS_INVALID,
            f"{source}: not supported: {', '.join(unsupported)}; give a user with a password, or an access key",
        )
    settled = {name: value for name, value in given.items() if name not in _ALIASES}
    for alias, fields in _ALIASES.items():
        if alias in given and not given.keys() & set(fields):
            settled[fields[0]] = given[alias]
    if auth_type in _PASSWORD_AUTH_TYPES and settled.keys() & {"username", "user_id"}:
        settled = {name: value for name, value in settled.items() if name not in ("ak", "sk", "security_token")}
    return settled


def _validate(values: dict[str, Any], source: str) -> Credentials:
    try:
        return Credentials.model_validate(_settle(values, source))
    except ValidationError as error:
        # The inputs stay out of the message: one of them is the password.
        problems = "; ".join(
            " ".join([*map(str, details["loc"]), details["msg"].removeprefix("Value error, ")])
            for details in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise _error(Reason.CREDENTIALS_INVALID, f"{source}: {problems}") from None


def _error(reason: Reason, message: str) -> CredentialsError:
    return CredentialsError(reason, message, operation="authenticate")
