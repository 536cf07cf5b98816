"""What a run works with, as its user gave it."""

from collections.abc import Mapping
from dataclasses import dataclass

from lifecyclehook_operator.cloud.credentials import Credentials

from .assumption import NotTriedError
from .group import BorrowedGroup
from .project import Project


@dataclass(frozen=True)
class Run:
    project: Project
    group: BorrowedGroup
    #: A group that performs a scaling action.
    busy_group: BorrowedGroup | None
    #: More users, by what they lack: LIMITED, ROLELESS.
    users: Mapping[str, Credentials]

    def require_user(self) -> Project:
        """Return the project of a user with a password."""
        if not self.project.has_user:
            raise NotTriedError("no user with a password was given: OS_USERNAME, OS_PASSWORD")
        return self.project

    def require_key(self) -> Project:
        """Return the project of an access key."""
        if not self.project.has_key:
            raise NotTriedError("no access key was given: OS_ACCESS_KEY, OS_SECRET_KEY")
        return self.project

    def require_room(self, hooks: int) -> None:
        """Give up what needs more hooks than the group has room for."""
        if self.group.find_room() < hooks:
            raise NotTriedError(f"the group has room for {self.group.find_room()} hooks of this run, not {hooks}")
