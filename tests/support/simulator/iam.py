"""IAM, as far as a client needs it to reach AS: versions, password tokens, projects and the catalog (Keystone v3).

A signed request (see `signing`) is for the project of X-Project-Id, else for the domain of X-Domain-Id, else for the
project of its address, and where there is none (IAM itself) for the user's own domain. Both must be the user's.

Five wrong passwords within 15 minutes lock a user for 15 minutes, for whoever has the right one too.
"""

import json
import re
from datetime import datetime, timedelta
from typing import Any

from . import signing
from .cloud import LIST_PROJECTS, Answer, Call, Cloud, Identity, Operation, Project, Token, User, domain_id

LOCK_AFTER = 5
LOCK_PERIOD = timedelta(minutes=15)
WRONG_CREDENTIALS = "The user name, the password or the scope is not right."


class IamError(Exception):
    def __init__(self, status: int, title: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(status, {"error": {"code": status, "title": title, "message": message}})


class LockedError(IamError):
    """The user is locked."""

    def __init__(self) -> None:
        super().__init__(401, "Unauthorized", "The account is locked.")
        self.answer = Answer(401, {"error_code": "IAM.0061", "error_msg": "The account is locked."})


class ForeignScopeError(IamError):
    """A signed request is for a domain or project that its user has nothing to do with."""

    def __init__(self) -> None:
        super().__init__(403, "Forbidden", "The domain or the project is not the user's.")


def auth_kind(headers: Any) -> str | None:
    if headers.get("X-Auth-Token"):
        return "token"
    return "signature" if signing.is_signed(headers) else None


def identify(cloud: Cloud, call: Call) -> Identity | None:
    """Who is calling, by a token or by a signature."""
    if auth_kind(call.headers) != "signature":
        return cloud.find_token(call.headers.get("X-Auth-Token", ""))
    user = signing.verify(cloud, call).user
    return Identity(user, _find_project_of_signed(cloud, call, user))


def _find_project_of_signed(cloud: Cloud, call: Call, user: User) -> Project | None:
    domain, project_id = call.headers.get("X-Domain-Id"), call.headers.get("X-Project-Id")
    if domain and domain != domain_id(user.domain):
        raise ForeignScopeError
    if not domain and not project_id:
        project_id = call.args.get("project_id")
    if not project_id:
        return None
    project = cloud.projects.get(project_id)
    if project is None or project.domain != user.domain:
        raise ForeignScopeError
    return project


def show_versions(_: Cloud, call: Call) -> Answer:
    return Answer(300, {"versions": {"values": [_version(call)]}})


def show_v3(_: Cloud, call: Call) -> Answer:
    return Answer(200, {"version": _version(call)})


def create_token(cloud: Cloud, call: Call) -> Answer:
    try:
        auth = json.loads(call.body)["auth"]
        methods, scope = auth["identity"]["methods"], auth.get("scope") or {}
        if methods != ["password"]:
            raise IamError(401, "Unauthorized", "Only the method 'password' is known here.")
        claimed = auth["identity"]["password"]["user"]
        user = _find_user(cloud, claimed)
        if user is None:
            raise IamError(401, "Unauthorized", WRONG_CREDENTIALS)
        _check_password(cloud, user, claimed["password"])
        project = _find_scope(cloud, user, scope)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IamError(400, "Bad Request", "The request is not a well-formed token request.") from error
    value, token = cloud.issue_token(user, project)
    return Answer(201, {"token": _token_json(token, call.origin)}, {"X-Subject-Token": value})


def _check_password(cloud: Cloud, user: User, password: str) -> None:
    """Let nobody in while the user is locked. A lock ends with its period, and so do the failures that led to it."""
    now = cloud.now()
    user.failed_logins = [failed for failed in user.failed_logins if now - failed < LOCK_PERIOD]
    if len(user.failed_logins) >= LOCK_AFTER:
        raise LockedError
    if user.password != password:
        user.failed_logins.append(now)
        if len(user.failed_logins) == LOCK_AFTER:
            user.failed_logins = [now] * LOCK_AFTER
        raise IamError(401, "Unauthorized", WRONG_CREDENTIALS)


def list_projects(cloud: Cloud, call: Call) -> Answer:
    permissions = _require_identity(cloud, call).user.permissions
    if LIST_PROJECTS not in permissions:
        raise IamError(403, "Forbidden", "You are not authorized to perform the requested action: list_projects")
    return list_own_projects(cloud, call)


def list_own_projects(cloud: Cloud, call: Call) -> Answer:
    """Answer with the projects that the caller can have a token for, which needs no right."""
    user = _require_identity(cloud, call).user
    found = [
        {"id": project.id, "name": project.name, "domain_id": domain_id(project.domain), "enabled": True}
        for project in cloud.projects.values()
        if project.domain == user.domain and call.query.get("name", project.name) == project.name
    ]
    return Answer(200, {"projects": found, "links": {"self": f"{call.origin}{call.raw_path}", "next": None}})


def list_own_domains(cloud: Cloud, call: Call) -> Answer:
    domain = _domain_json(_require_identity(cloud, call).user.domain) | {"enabled": True}
    return Answer(200, {"domains": [domain], "links": {"self": f"{call.origin}{call.raw_path}", "next": None}})


def show_catalog(cloud: Cloud, call: Call) -> Answer:
    catalog = _catalog(_require_identity(cloud, call).project, call.origin)
    return Answer(200, {"catalog": catalog, "links": {"self": f"{call.origin}/v3/auth/catalog"}})


def _require_identity(cloud: Cloud, call: Call) -> Identity:
    identity = identify(cloud, call)
    if identity is None:
        raise IamError(401, "Unauthorized", "The request needs a valid token.")
    return identity


def _find_user(cloud: Cloud, claimed: dict[str, Any]) -> User | None:
    if "id" in claimed:
        return cloud.users.get(claimed["id"])
    return next(
        (u for u in cloud.users.values() if u.name == claimed["name"] and _is_domain(claimed["domain"], u.domain)), None
    )


def _find_scope(cloud: Cloud, user: User, scope: dict[str, Any]) -> Project | None:
    """Return the project of a project scope, None for the scope of the user's own domain."""
    if "project" not in scope:
        if scope and not _is_domain(scope["domain"], user.domain):
            raise IamError(401, "Unauthorized", WRONG_CREDENTIALS)
        return None
    wanted = scope["project"]
    for project in cloud.projects.values():
        same = project.id == wanted["id"] if "id" in wanted else project.name == wanted["name"]
        if same and project.domain == user.domain and _is_domain(wanted.get("domain"), project.domain):
            return project
    raise IamError(401, "Unauthorized", WRONG_CREDENTIALS)


def _is_domain(reference: dict[str, str] | None, name: str) -> bool:
    if reference is None:
        return True
    return reference["id"] == domain_id(name) if "id" in reference else reference["name"] == name


def _token_json(token: Token, origin: str) -> dict[str, Any]:
    user, project = token.user, token.project
    domain = _domain_json(user.domain)
    scope = {"project": _project_json(project)} if project else {"domain": domain}
    return scope | {
        "methods": ["password"],
        "issued_at": _rfc3339(token.issued_at),
        "expires_at": _rfc3339(token.expires_at),
        "user": {"id": user.id, "name": user.name, "domain": domain, "password_expires_at": ""},
        "roles": [{"id": "0", "name": "te_admin"}],
        "catalog": _catalog(project, origin),
    }


def _catalog(project: Project | None, origin: str) -> list[dict[str, Any]]:
    """The entries of a token: AS only in a project, whose ID is in the address of the one and not in the other's."""
    region = project.region if project else "*"
    entries = [("keystone", "identity", f"{origin}/v3"), ("iam", "iam", f"{origin}/v3")]
    if project:
        entries.append(("asv1", "asv1", f"{origin}/autoscaling-api/v1/{project.id}"))
        entries.append(("autoscaling", "as", f"{origin}/autoscaling-api/v1"))
    return [
        {
            "id": f"service-{kind}",
            "name": name,
            "type": kind,
            "endpoints": [
                {
                    "id": f"endpoint-{kind}",
                    "interface": "public",
                    "region": region,
                    "region_id": region,
                    "url": url,
                }
            ],
        }
        for name, kind, url in entries
    ]


def _project_json(project: Project) -> dict[str, Any]:
    return {"id": project.id, "name": project.name, "domain": _domain_json(project.domain)}


def _domain_json(name: str) -> dict[str, str]:
    return {"id": domain_id(name), "name": name}


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": "v3.6",
        "status": "stable",
        "updated": "2016-04-04T00:00:00Z",
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
        "links": [{"rel": "self", "href": f"{call.origin}/v3/"}],
    }


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


OPERATIONS = (
    Operation("versions", "GET", re.compile("/"), show_versions),
    Operation("versions", "GET", re.compile("/v3/?"), show_v3),
    Operation("token", "POST", re.compile("/v3/auth/tokens/?"), create_token),
    Operation("projects", "GET", re.compile("/v3/projects/?"), list_projects),
    Operation("auth_projects", "GET", re.compile("/v3/auth/projects/?"), list_own_projects),
    Operation("auth_domains", "GET", re.compile("/v3/auth/domains/?"), list_own_domains),
    Operation("catalog", "GET", re.compile("/v3/auth/catalog/?"), show_catalog),
)
