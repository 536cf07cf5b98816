"""What the simulated cloud holds. Nothing here knows HTTP beyond the shapes of a call and of its answer."""

import re
import secrets
import string
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

DEFAULT_DOMAIN = "simulated-domain"
ACCESS_CHARACTERS = string.ascii_uppercase + string.digits
SECRET_CHARACTERS = string.ascii_letters + string.digits
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
LIST_PROJECTS = "iam:projects:listProjects"
#: The fine-grained rights about hooks and the instances that they suspend (as_07_0210), and IAM's to list projects.
PERMISSIONS = frozenset(
    {
        LIST_PROJECTS,
        "as:lifecycleHooks:create",
        "as:lifecycleHooks:list",
        "as:lifecycleHooks:get",
        "as:lifecycleHooks:update",
        "as:lifecycleHooks:delete",
        "as:instanceHooks:list",
        "as:instanceHooks:action",
    }
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Call:
    """One request, as the services see it."""

    method: str
    origin: str
    raw_path: str
    raw_query: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    args: Mapping[str, str]


@dataclass(slots=True, frozen=True)
class Answer:
    status: int
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Operation:
    """A call of the API: the name that logs and faults use, and the function that carries it out."""

    name: str
    method: str
    path: re.Pattern[str]
    carry_out: Callable[["Cloud", Call], Answer]


@dataclass(slots=True, frozen=True)
class Project:
    id: str
    name: str
    domain: str

    @property
    def region(self) -> str:
        return self.name.partition("_")[0]


@dataclass(slots=True)
class User:
    """`permissions`: the AS actions that the user may perform; a user with none at all has no role."""

    id: str
    name: str
    password: str
    domain: str
    permissions: frozenset[str] = PERMISSIONS
    failed_logins: list[datetime] = field(default_factory=list)

    def allow(self, permissions: Iterable[str] | None) -> None:
        """Let the user perform these actions and no others; None: all."""
        allowed = PERMISSIONS if permissions is None else frozenset(permissions)
        if unknown := sorted(allowed - PERMISSIONS):
            raise ValueError(f"there are no such rights: {', '.join(unknown)}")
        self.permissions = allowed


@dataclass(slots=True, frozen=True)
class AccessKey:
    """An AK with its SK, temporary where it comes with a security token. `must_sign`: the headers that it asks for."""

    access: str
    secret: str = field(repr=False)
    user: User
    security_token: str | None = field(repr=False)
    must_sign: frozenset[str]


@dataclass(slots=True, frozen=True)
class Identity:
    """Who is calling, and in which project; None is the user's own domain."""

    user: User
    project: Project | None


@dataclass(slots=True, frozen=True)
class Token(Identity):
    issued_at: datetime
    expires_at: datetime


@dataclass(slots=True, kw_only=True)
class Hook:
    lifecycle_hook_name: str
    lifecycle_hook_type: str
    default_result: str = "ABANDON"
    default_timeout: int = 3600
    notification_topic_urn: str
    notification_metadata: str | None = None
    create_time: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"notification_topic_name": self.notification_topic_urn.rpartition(":")[2]}


@dataclass(slots=True, kw_only=True)
class HangingInstance:
    instance_id: str
    lifecycle_hook_name: str
    default_result: str
    timeout: datetime
    lifecycle_action_key: str = field(default_factory=lambda: str(uuid.uuid4()))
    lifecycle_hook_status: str = "HANGING"


@dataclass(slots=True)
class Group:
    id: str
    project_id: str
    busy: bool = False
    hooks: dict[str, Hook] = field(default_factory=dict)
    hanging: list[HangingInstance] = field(default_factory=list)


@dataclass(slots=True)
class Settings:
    latency_seconds: float = 0.0
    token_lifetime_seconds: float = 86400.0
    clock_skew_seconds: float = 0.0


@dataclass(slots=True)
class Cloud:
    settings: Settings = field(default_factory=Settings)
    projects: dict[str, Project] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    access_keys: dict[str, AccessKey] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)
    #: All that was ever secret, revoked or not, and what it is.
    secrets: dict[str, str] = field(default_factory=dict)

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.settings.clock_skew_seconds)

    def add_project(self, name: str, project_id: str | None = None, domain: str = DEFAULT_DOMAIN) -> Project:
        project = Project(project_id or uuid.uuid4().hex, name, domain)
        self.projects[project.id] = project
        return project

    def add_user(
        self, name: str, password: str, domain: str = DEFAULT_DOMAIN, permissions: list[str] | None = None
    ) -> User:
        """Add a user, or give the one of that name a new password and new permissions."""
        user = self.find_user(name, domain) or User(uuid.uuid4().hex, name, password, domain)
        user.password = password
        self.secrets[password] = "password"
        user.allow(permissions)
        self.users[user.id] = user
        return user

    def find_user(self, name: str, domain: str) -> User | None:
        return next((user for user in self.users.values() if (user.name, user.domain) == (name, domain)), None)

    def add_access_key(
        self,
        user: User,
        access: str | None = None,
        secret: str | None = None,
        security_token: str | bool | None = None,
        must_sign: Sequence[str] = ("host",),
    ) -> AccessKey:
        """Add an access key; what is not given is made up, of the security token only if it is True."""
        if security_token is True:
            security_token = secrets.token_urlsafe(192)
        key = AccessKey(
            access or "".join(secrets.choice(ACCESS_CHARACTERS) for _ in range(20)),
            secret or "".join(secrets.choice(SECRET_CHARACTERS) for _ in range(40)),
            user,
            security_token or None,
            frozenset(name.lower() for name in must_sign),
        )
        self.access_keys[key.access] = key
        self.secrets[key.secret] = "secret key"
        if key.security_token:
            self.secrets[key.security_token] = "security token"
        return key

    def add_group(self, project_id: str, group_id: str | None = None, *, busy: bool = False) -> Group:
        group = Group(group_id or str(uuid.uuid4()), project_id, busy)
        self.groups[group.id] = group
        return group

    def issue_token(self, user: User, project: Project | None) -> tuple[str, Token]:
        issued_at = self.now()
        expires_at = issued_at + timedelta(seconds=self.settings.token_lifetime_seconds)
        value = secrets.token_urlsafe(96)
        self.secrets[value] = "token"
        self.tokens[value] = token = Token(user, project, issued_at, expires_at)
        return value, token

    def find_token(self, value: str) -> Token | None:
        token = self.tokens.get(value)
        return token if token is not None and self.now() < token.expires_at else None


def domain_id(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"domain:{name}").hex
