"""The AS endpoint: as configured, else from the catalog of IAM, else by region."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError

from lifecyclehook_operator.cloud.credentials import Credentials, check_address, check_name
from lifecyclehook_operator.cloud.errors import CredentialsError, Reason, sanitize

_AS_ROOT = "/autoscaling-api"
_AS_PATH = f"{_AS_ROOT}/v1"
#: Service types of AS in the catalog. The URL of `asv1` contains the project, that of `as` does not.
_AS_TYPES = ("asv1", "as")

#: Placeholders for the project ID in the URLs of a catalog.
_PROJECT_ID_IN_URL = re.compile(r"[$%]\((?:tenant|project)_id\)s")
_REGION = re.compile("[a-z]{2}-[a-z]{2}[0-9]*")
_IAM_HOST = re.compile(rf"iam[a-z-]*\.({_REGION.pattern})\.(?:[a-z]+\.)?otc\.t-systems\.com")
#: The domain of a region's hosts, if it is not the usual one.
_DOMAINS = {"eu-ch2": "sc.otc.t-systems.com"}


def _drop_malformed(model: type[BaseModel]) -> BeforeValidator:
    """Return a validator that drops malformed entries from a list: they belong to other services."""

    def parse_each(values: object) -> list[BaseModel]:
        parsed = []
        for value in values if isinstance(values, list) else ():
            try:
                parsed.append(model.model_validate(value))
            except ValidationError:
                continue
        return parsed

    return BeforeValidator(parse_each)


class _CatalogEndpoint(BaseModel):
    interface: str
    region: str | None = None
    url: str


class _Service(BaseModel):
    type: str
    endpoints: Annotated[list[_CatalogEndpoint], _drop_malformed(_CatalogEndpoint)] = []


Services = Annotated[list[_Service], _drop_malformed(_Service)]


class Project(BaseModel):
    id: Annotated[str, AfterValidator(check_name)]
    name: Annotated[str, AfterValidator(sanitize)]


@dataclass(frozen=True)
class Endpoint:
    """The AS endpoint of a project, without a trailing slash, and the headers to send to it."""

    project_id: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Empty if neither the credentials nor IAM name the project.
    project_name: str = ""


def find_url(credentials: Credentials, project: Project, catalog: list[_Service]) -> str:
    """Return the AS endpoint: as configured, else from the catalog, else by region.

    Raises CredentialsError if that needs a region and none is known, or if it is not a valid URL.
    """
    region = find_region(credentials, project.name)
    base = credentials.as_endpoint or _find_in_catalog(catalog, region)
    if not base:
        if not region:
            raise CredentialsError(
                Reason.CREDENTIALS_INVALID,
                "region_name is missing, and neither project_name nor auth_url contains a region",
                operation="authenticate",
            )
        base = f"https://as.{region}.{_DOMAINS.get(region, 'otc.t-systems.com')}"
    base = _PROJECT_ID_IN_URL.sub(project.id, base.rstrip("/"))
    if f"{_AS_PATH}/" not in base:  # else the project is in it already
        base = f"{base.partition(_AS_ROOT)[0]}{_AS_PATH}/{project.id}"
    try:
        return check_address(base)
    except ValueError as error:
        raise CredentialsError(
            Reason.CREDENTIALS_INVALID,
            f"the AS endpoint for region {region!r} {error}",
            operation="authenticate",
        ) from None


def _find_in_catalog(catalog: list[_Service], region: str) -> str:
    """Return the URL of AS in a region, empty if there is none; without a region, that of the only one.

    API v1 takes precedence, because the service type `as` may have any version.
    """
    found = [
        (service.type, endpoint)
        for service in catalog
        if service.type in _AS_TYPES
        for endpoint in service.endpoints
        if endpoint.interface == "public" and region in ("", endpoint.region)
    ]
    if len({endpoint.region for _, endpoint in found}) != 1:
        return ""
    _, best = min(found, key=lambda each: (f"{_AS_PATH}/" not in f"{each[1].url}/", _AS_TYPES.index(each[0])))
    return best.url


def find_region(credentials: Credentials, project_name: str) -> str:
    """Return the region of a project: the configured one, else the project's, else IAM's. Empty if none is known.

    A project is named after its region: eu-de, or eu-de_something.
    """
    region = project_name.partition("_")[0]
    if credentials.region_name or _REGION.fullmatch(region):
        return credentials.region_name or region
    found = _IAM_HOST.fullmatch(urlsplit(credentials.auth_url).hostname or "")
    return found[1] if found else ""
