"""Credentials: a user or an access key, the project, and the endpoints of IAM and AS, all validated."""

import re
import ssl
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

#: As long as a host can be.
_NAME_CHARACTERS = 253
_LABEL = "[a-z0-9_-]{1,63}"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII | re.IGNORECASE)
#: Not a host in Punycode: httpx decodes it, which may fail.
_NETWORK_LOCATION = re.compile(rf"(.*@)?((?!xn--){_NAME.pattern}|\[[0-9a-f:.]+\])(:[0-9]*)?", re.ASCII | re.IGNORECASE)
_VISIBLE = re.compile("[!-~]*")


def check_address(value: str) -> str:
    """Return a URL to which requests can be sent, unchanged.

    Raises ValueError, with a message that does not contain it.
    """
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
        httpx.URL(value)
    except (ValueError, httpx.InvalidURL):
        host = ""
    is_sendable = host and _NETWORK_LOCATION.fullmatch(parts.netloc) and _VISIBLE.fullmatch(value)
    if not is_sendable or parts.scheme not in ("https", "http"):
        raise ValueError("is not a valid URL of the form https://host")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("must be https: only loopback addresses may be called without TLS")
    return value


@lru_cache(maxsize=256)
def get_address(url: str) -> str:
    """Return host and port of a URL as host:port, in lower case."""
    parts = httpx.URL(url)  # as the requests are sent, so that what is checked is what is called
    port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    return f"[{parts.host}]:{port}" if ":" in parts.host else f"{parts.host}:{port}"


def check_name(value: str) -> str:
    """Return a name that can be part of a host, a path and a header, unchanged.

    Raises ValueError, with a message that does not contain it.
    """
    if len(value) > _NAME_CHARACTERS or not _NAME.fullmatch(value):
        raise ValueError("may contain only letters, digits, - and _, at most 63 of them, and single dots in between")
    return value


@lru_cache(maxsize=64)
def holds_certificates(text: str) -> bool:
    """Return whether a text contains PEM certificates, and none that is malformed."""
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _check_header_value(value: str | SecretStr) -> str | SecretStr:
    if not _VISIBLE.fullmatch(_reveal(value)):
        raise ValueError("may contain only visible ASCII characters and no spaces")
    return value


def _reveal(value: str | SecretStr | None) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value or ""


_NonEmptySecret = Annotated[SecretStr, Field(min_length=1)]
_Address = Annotated[str, AfterValidator(lambda value: value and check_address(value))]
_Name = Annotated[str, AfterValidator(lambda value: value and check_name(value))]
_HeaderValue = AfterValidator(_check_header_value)


class Credentials(BaseModel):
    """A user with a password, or an access key (ak, sk), which may be temporary (security_token); project; endpoints.

    If both are given, the access key is used; of a user's ID and name, the ID. Equal credentials share a client.
    """

    model_config = ConfigDict(frozen=True)

    auth_url: _Address = ""
    username: str = ""
    user_id: str = ""
    password: _NonEmptySecret | None = None
    user_domain_name: str = ""
    user_domain_id: str = ""
    ak: Annotated[str, _HeaderValue] = ""
    sk: _NonEmptySecret | None = None
    security_token: Annotated[_NonEmptySecret, _HeaderValue] | None = None
    project_name: str = ""
    project_id: _Name = ""
    project_domain_name: str = ""
    project_domain_id: str = ""
    region_name: _Name = ""
    as_endpoint: _Address = ""
    ca_certificates: str = Field(default="", repr=False)

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        try:
            _reveal(value).encode()
        except UnicodeEncodeError:  # an escape may stand for one half of a surrogate pair
            raise ValueError("contains an invalid Unicode character") from None
        return value

    @field_validator("ca_certificates")
    @classmethod
    def _holds_certificates(cls, value: str) -> str:
        if value and not holds_certificates(value):
            raise ValueError("is not a PEM certificate")
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        missing = []
        if not self.auth_url:
            missing.append("auth_url")
        if self.ak or self.sk:
            missing += [name for name in ("ak", "sk") if not getattr(self, name)]
        else:
            if not (self.username or self.user_id):
                missing.append("username or user_id")
            if not self.password:
                missing.append("password")
            if not (self.user_id or self.user_domain_name or self.user_domain_id):
                missing.append("user_domain_name or user_domain_id")
        if not (self.project_name or self.project_id):
            missing.append("project_name or project_id")
        if missing:
            raise ValueError("; ".join(f"{name} is missing" for name in missing))
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """Host and port of each endpoint, as host:port."""
        return tuple(get_address(url) for url in (self.auth_url, self.as_endpoint) if url)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
