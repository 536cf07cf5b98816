"""Who we are and where to call: read from a clouds.yaml in a Secret, or from the operator's own environment."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lifecyclehook_operator.errors import CredentialsError, Reason
from lifecyclehook_operator.resource import FINALIZER

SECRET_KEY = "clouds.yaml"  # noqa: S105  (the name of a key, not a secret)


@dataclass(frozen=True)
class Secret:
    """A Secret, decoded; its content is not shown where this is printed."""

    content: Mapping[str, str] = field(repr=False)
    #: Whether it has our finalizer.
    is_held: bool
    is_deleting: bool = False

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Self:
        """Read a v1 Secret."""
        data = body.get("data") or {}
        content = {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
        metadata = body["metadata"]
        return cls(
            content,
            is_held=FINALIZER in (metadata.get("finalizers") or ()),
            is_deleting=metadata.get("deletionTimestamp") is not None,
        )


_NonEmpty = Annotated[str, Field(min_length=1)]


class Credentials(BaseModel):
    """An IAM user, the project to work in, and where IAM and AS are. Equal credentials share one token."""

    model_config = ConfigDict(frozen=True)

    auth_url: Annotated[str, Field(pattern=r"^https?://[^/]+")]
    username: _NonEmpty
    password: Annotated[SecretStr, Field(min_length=1)]
    user_domain_name: str = ""
    user_domain_id: str = ""
    project_name: str = ""
    project_id: str = ""
    region_name: str = ""
    as_endpoint: Annotated[str, Field(pattern=r"^(https?://[^/]+.*)?$")] = ""

    @model_validator(mode="after")
    def _names_a_domain_and_a_project(self) -> Self:
        if not (self.user_domain_name or self.user_domain_id):
            raise ValueError("user_domain_name or user_domain_id is required")
        if not (self.project_name or self.project_id):
            raise ValueError("project_name or project_id is required")
        return self


class _Environment(BaseSettings):
    """The OS_* variables as OpenStack's clients know them, and AS_ENDPOINT. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix="OS_", env_ignore_empty=True, extra="ignore")

    auth_url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    project_name: str | None = None
    project_id: str | None = None
    region_name: str | None = None
    as_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("AS_ENDPOINT"))


def read_environment() -> Credentials | None:
    """Return the operator's own credentials, or None if OS_AUTH_URL is not set.

    Raises CredentialsError (CredentialsInvalid) if the environment has them only in part.
    """
    values = _Environment().model_dump(exclude_none=True)
    return _validate(values, "the operator's environment (OS_*)") if "auth_url" in values else None


def read_clouds_yaml(text: str, cloud_name: str, source: str) -> Credentials:
    """Return the credentials of one cloud of a clouds.yaml; keys that are not known here are ignored.

    Raises CredentialsError (CredentialsInvalid), with a message that names `source` and holds no secret.
    """
    try:
        # Everything stays text: a password of digits is one, and no scalar can fail to become a date or a number.
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (constructs nothing but text, lists, mappings)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)  # the error's own text quotes the line, which may hold the password
        where = f" in line {mark.line + 1}" if mark else ""
        raise _error(Reason.CREDENTIALS_INVALID, f"{source} is not valid YAML{where}") from None
    clouds = document.get("clouds") if isinstance(document, dict) else None
    if not isinstance(clouds, dict):
        raise _error(Reason.CREDENTIALS_INVALID, f"{source} has no mapping named clouds")
    cloud = clouds.get(cloud_name)
    if not isinstance(cloud, dict):
        known = ", ".join(sorted(map(str, clouds))) or "none"
        raise _error(Reason.CREDENTIALS_INVALID, f"{source} has no cloud named {cloud_name!r}; it has: {known}")
    auth = cloud.get("auth")
    if not isinstance(auth, dict):
        raise _error(Reason.CREDENTIALS_INVALID, f"{source}: cloud {cloud_name!r} has no mapping named auth")
    values = {**auth, "region_name": cloud.get("region_name"), "as_endpoint": cloud.get("as_endpoint_override")}
    return _validate({k: v for k, v in values.items() if v}, f"{source}, cloud {cloud_name!r}")


def _validate(values: dict[str, Any], source: str) -> Credentials:
    try:
        return Credentials.model_validate(values)
    except ValidationError as error:
        # The inputs stay out of the message: one of them is the password.
        problems = "; ".join(
            " ".join([*map(str, details["loc"]), "is missing" if details["type"] == "missing" else details["msg"]])
            for details in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise _error(Reason.CREDENTIALS_INVALID, f"{source}: {problems}") from None


def _error(reason: Reason, message: str) -> CredentialsError:
    return CredentialsError(reason, message, operation="authenticate")
