"""The AS group that a run borrows: what the run makes in it has a name of its own, and is removed again."""

import secrets
import time
from contextlib import suppress
from typing import Any

import httpx

from .assumption import code_of, describe
from .project import Project, quoted

#: What the names of all runs' hooks begin with; each run adds its own part.
NAME_PREFIX = "acceptance-"
MAX_HOOKS = 5
#: Marks a field that a request does not have; None is a null.
LEFT_OUT = object()
RETRY_SECONDS = 2.0
#: Refusals after which there is no hook.
_REFUSED = (400, 401, 403, 404)
_HOOKS = "scaling_lifecycle_hook"


class UnusableGroupError(Exception):
    """The run can't use the group, or not any more; the message says why."""


class BorrowedGroup:
    """The calls about the hooks of a group, and the hooks that the run has made there, or may have."""

    def __init__(self, project: Project, group_id: str, topic_urn: str, *, removal_seconds: float) -> None:
        """
        Args:
            project: that has the group.
            group_id: of the AS group.
            topic_urn: of the SMN topic for the hooks.
            removal_seconds: how long a hook is tried again that can't be removed, for example from a busy group.
        """
        self.project = project
        self.id = group_id
        self.topic_urn = topic_urn
        self.prefix = f"{NAME_PREFIX}{secrets.token_hex(3)}-"
        #: A hook may appear later than a list shows: a create has had no answer.
        self.is_in_doubt = False
        self._removal_seconds = removal_seconds
        self._made: set[str] = set()
        self._foreign: set[str] = set()

    # --- before and after ----------------------------------------------------------------------------------------

    def find_foreign(self) -> set[str]:
        """Return the names of the hooks that are not this run's. Raises UnusableGroupError if they can't be listed."""
        response = self.list()
        hooks = _hooks_in(response)
        if hooks is None:
            raise UnusableGroupError(f"the hooks of the group can't be listed: {describe(response)}")
        self._foreign = {str(hook.get("lifecycle_hook_name")) for hook in hooks if isinstance(hook, dict)}
        return self._foreign

    def find_room(self) -> int:
        """Return how many hooks the run may make."""
        return MAX_HOOKS - len(self._foreign)

    def name(self, suffix: str = "hook") -> str:
        """Return a name of the run's own."""
        return f"{self.prefix}{suffix}"

    def expect_hook(self, name: str) -> None:
        """Have a hook removed that somebody else makes for the run."""
        self._made.add(name)

    def remove_made(self) -> None:
        """Remove the hooks that calls of the run have made, so that the next check finds the group as it was.

        Raises UnusableGroupError if that is not possible.
        """
        for name in sorted(self._made):
            self._try_delete(name)
        if self._made and (left := self.remove_all(0)):
            raise UnusableGroupError(f"the run ends here, because hooks can't be removed: {', '.join(left)}")

    def remove_all(self, settle_seconds: float) -> list[str]:
        """Remove everything that the run has made, or may have, and return the names of what is left.

        After a call without an answer, the group is watched for `settle_seconds` for what may still appear.
        """
        begin = time.monotonic()
        settled_at = begin + settle_seconds if self.is_in_doubt else begin
        left = set(self._made)  # whether they are listed or not
        while True:
            for name in sorted(left | self._find_left()):
                self._try_delete(name)
            left, now = self._find_left(), time.monotonic()
            self._made &= left
            if (not left and now >= settled_at) or now > begin + self._removal_seconds:
                return sorted(left)
            time.sleep(RETRY_SECONDS)

    def _find_left(self) -> set[str]:
        """Return which hooks of the run the group has; those that it may have if they can't be listed."""
        try:
            hooks = _hooks_in(self.list())
        except httpx.HTTPError:
            hooks = None
        if hooks is None:
            return set(self._made)
        names = {str(hook.get("lifecycle_hook_name")) for hook in hooks if isinstance(hook, dict)}
        return {name for name in names if name in self._made or name.startswith(self.prefix)}

    def _try_delete(self, name: str) -> None:
        with suppress(httpx.HTTPError):
            self.delete(name)

    # --- the calls ------------------------------------------------------------------------------------------------

    def body(self, **fields: Any) -> dict[str, Any]:
        """Return the body of a create that does the least harm if the group is scaled meanwhile.

        An instance that is removed then waits for a minute, and goes as it would have without the hook.
        """
        body = {
            "lifecycle_hook_name": self.name(),
            "lifecycle_hook_type": "INSTANCE_TERMINATING",
            "default_result": "CONTINUE",
            "default_timeout": 60,
            "notification_topic_urn": self.topic_urn,
            **fields,
        }
        return {name: value for name, value in body.items() if value is not LEFT_OUT}

    def create(self, *, group_id: str = "", auth: Any = "own", **fields: Any) -> httpx.Response:
        """Create a hook, and remember it."""
        body = self.body(**fields)
        return self.post(body.get("lifecycle_hook_name"), group_id=group_id, auth=auth, json=body)

    def post(self, name: object = None, *, group_id: str = "", **request: Any) -> httpx.Response:
        """Send a create of any kind, and remember what it may have made."""
        was_made = name in self._made
        if isinstance(name, str) and name:
            self._made.add(name)
        try:
            response = self.project.call("POST", f"{_HOOKS}/{group_id or self.id}", **request)
        except httpx.HTTPError:
            self.is_in_doubt = True
            raise
        if response.status_code in _REFUSED and not was_made:
            self._made.discard(str(name))
        self.is_in_doubt |= response.is_server_error
        if response.is_success:
            self._remember(response)
        return response

    def list(self, *, group_id: str = "", **request: Any) -> httpx.Response:
        return self.project.call("GET", f"{_HOOKS}/{group_id or self.id}/list", **request)

    def get(self, name: str = "", *, group_id: str = "") -> httpx.Response:
        return self.project.call("GET", self._path(name, group_id))

    def modify(self, name: str = "", *, group_id: str = "", **fields: Any) -> httpx.Response:
        return self.project.call("PUT", self._path(name, group_id), json=fields)

    def delete(self, name: str = "", *, group_id: str = "") -> httpx.Response:
        response = self.project.call("DELETE", self._path(name, group_id))
        if response.is_success or (response.status_code, code_of(response)) == (404, "AS.0007"):
            self._made.discard(name or self.name())
        return response

    def call_instances(self, method: str, path: str, *, group_id: str = "", **request: Any) -> httpx.Response:
        """Send a request about suspended instances."""
        return self.project.call(method, f"scaling_instance_hook/{group_id or self.id}/{path}", **request)

    def find(self, name: str = "") -> dict[str, Any] | None:
        """Return a hook as it is listed, or None."""
        hooks = _hooks_in(self.list()) or []
        return next((hook for hook in hooks if hook.get("lifecycle_hook_name") == (name or self.name())), None)

    def _path(self, name: str, group_id: str) -> str:
        return f"{_HOOKS}/{group_id or self.id}/{quoted(name or self.name())}"

    def _remember(self, response: httpx.Response) -> None:
        """Remember a hook under the name that AS has given it."""
        try:
            content = response.json()
        except ValueError:
            return
        name = content.get("lifecycle_hook_name") if isinstance(content, dict) else None
        if isinstance(name, str) and name and name not in self._foreign:
            self._made.add(name)


def _hooks_in(response: httpx.Response) -> list[Any] | None:
    """Return the hooks that a list call answers, or None if that is not its answer."""
    try:
        content = response.json() if response.is_success else None
    except ValueError:
        return None
    hooks = content.get("lifecycle_hooks") if isinstance(content, dict) else None
    return hooks if isinstance(hooks, list) else None
