"""The lifecycle-hook calls of the AS API (as_06_0901 to as_06_0905), for one project."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from lifecyclehook_operator.auth import AccessKeyAuth, Place, TokenAuth
from lifecyclehook_operator.credentials import Credentials
from lifecyclehook_operator.errors import CallError, Reason, TransientError
from lifecyclehook_operator.metrics import AS_REQUEST_DURATION, AS_REQUESTS, AS_SLOTS_WAITING
from lifecyclehook_operator.resource import Hook
from lifecyclehook_operator.transport import error_from_response, share, transport_errors

#: How long a listing is kept for others who look at the same group at about the same time.
_LISTING_KEPT_SECONDS = 10
#: After how long without use a project's connections are closed; longer than any resync interval that makes sense.
_UNUSED_SECONDS = 6 * 3600


class _HookList(BaseModel):
    lifecycle_hooks: list[Hook]


T = TypeVar("T")

_HOOK = TypeAdapter(Hook)
_HOOK_LIST = TypeAdapter(_HookList)


class Project:
    """The lifecycle hooks of a project.

    Every method raises CallError, in one of its five classes, for whatever goes wrong on the way or in the answer.
    """

    def __init__(self, credentials: Credentials, *, timeout_seconds: float, concurrency: int) -> None:
        """
        Args:
            credentials: who we are and where to call.
            timeout_seconds: how long to wait for a connection, and for each part of an answer.
            concurrency: how many resources of this project may be in work at a time.
        """
        self.used_at = time.monotonic()
        # httpx gets slow when many requests wait for a connection of its pool: the slots keep them out of it.
        self._slots = asyncio.Semaphore(concurrency)
        self._slots_of_group: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._slots_per_group = max(1, concurrency // 4)
        # At debug level httpcore logs the headers of answers, and IAM's is the token.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._http = httpx.AsyncClient(
            timeout=timeout_seconds,
            verify=_trust(credentials),
            limits=httpx.Limits(max_connections=concurrency + 1, max_keepalive_connections=concurrency + 1),
        )
        self._auth = (AccessKeyAuth if credentials.ak else TokenAuth)(credentials, self._http)
        self._listings: dict[str, tuple[float, asyncio.Task[list[Hook]]]] = {}

    async def find_place(self) -> Place:
        """Return which project it is, and where its AS is."""
        return await self._auth.find_place()

    async def get_id(self) -> str:
        """Return the project's ID."""
        return (await self.find_place()).project_id

    @asynccontextmanager
    async def slot(self, group_id: str) -> AsyncIterator[None]:
        """Wait for a turn to work at a group's hooks; a group that hangs takes but a part of the turns."""
        slots_of_group = self._slots_of_group.setdefault(group_id, asyncio.Semaphore(self._slots_per_group))
        async with AsyncExitStack() as turn:
            with AS_SLOTS_WAITING.track_inprogress():
                await turn.enter_async_context(slots_of_group)
                await turn.enter_async_context(self._slots)
            yield

    async def create_hook(self, group_id: str, hook_name: str, fields: Mapping[str, Any]) -> Hook:
        """Create a hook and return it as AS answers it (as_06_0901). Empty metadata is not sent."""
        body = {"lifecycle_hook_name": hook_name, **fields}
        if not body["notification_metadata"]:
            del body["notification_metadata"]
        return self._parse(_HOOK, "create", await self._call("create", "POST", group_id, body))

    async def list_hooks(self, group_id: str, *, not_before: float) -> list[Hook]:
        """Return all hooks of a group (as_06_0902), as they were at `not_before` (of time.monotonic) or later.

        One call serves all who ask for the same group at about the same time. Hooks are always read this way: the path
        that reads a single one means the list if its name is "list".
        """
        started_at, listing = self._listings.get(group_id, (0.0, None))
        if listing is None or started_at < not_before:
            listing = share(self._list_hooks(group_id))
            self._listings[group_id] = (time.monotonic(), listing)
        return await asyncio.shield(listing)  # one waiter's cancellation is not the others'

    async def _list_hooks(self, group_id: str) -> list[Hook]:
        try:
            response = await self._call("list", "GET", f"{group_id}/list")
            return self._parse(_HOOK_LIST, "list", response).lifecycle_hooks
        finally:
            own = self._listings.get(group_id)
            asyncio.get_running_loop().call_later(_LISTING_KEPT_SECONDS, self._forget_listing, group_id, own)

    def _forget_listing(self, group_id: str, listing: object) -> None:
        if self._listings.get(group_id) is listing:
            del self._listings[group_id]

    async def modify_hook(self, group_id: str, hook_name: str, changes: Mapping[str, Any]) -> Hook:
        """Change these fields of a hook, leave the others, and return it as AS answers it (as_06_0904)."""
        return self._parse(_HOOK, "modify", await self._call("modify", "PUT", f"{group_id}/{hook_name}", changes))

    async def delete_hook(self, group_id: str, hook_name: str) -> None:
        """Delete a hook (as_06_0905)."""
        await self._call("delete", "DELETE", f"{group_id}/{hook_name}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(
        self, operation: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        place = await self.find_place()
        url = f"{place.url}/scaling_lifecycle_hook/{path}"
        try:
            with AS_REQUEST_DURATION.labels(operation).time(), transport_errors(operation):
                response = await self._http.request(method, url, json=body, headers=place.headers, auth=self._auth)
        except CallError as error:
            if error.operation == operation:  # else it was IAM that failed
                AS_REQUESTS.labels(operation, "", "").inc()
            raise
        failure = None if response.is_success else error_from_response(response, operation)
        AS_REQUESTS.labels(operation, response.status_code, failure.code if failure else "").inc()
        if failure is not None:
            raise failure
        return response

    @staticmethod
    def _parse(adapter: TypeAdapter[T], operation: str, response: httpx.Response) -> T:
        try:
            return adapter.validate_json(response.content)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise TransientError(
                Reason.UNEXPECTED_RESPONSE,
                f"the answer is not the documented one: {where or 'body'}: {problem['msg']}",
                operation=operation,
                http_status=response.status_code,
                request_id=response.headers.get("X-Request-Id", ""),
                may_have_been_done=True,
            ) from error


def _trust(credentials: Credentials) -> ssl.SSLContext:
    """Return whom to trust: the usual authorities, and those that the credentials bring along."""
    context = httpx.create_ssl_context()
    if credentials.ca_certificates:
        context.load_verify_locations(cadata=credentials.ca_certificates)
    return context


class Projects:
    """The projects in use: resources with the same credentials share one, and so its token and connections."""

    def __init__(self, *, timeout_seconds: float, concurrency: int) -> None:
        """Take what each Project takes."""
        self._timeout_seconds = timeout_seconds
        self._concurrency = concurrency
        self._projects: dict[Credentials, Project] = {}

    def get(self, credentials: Credentials) -> Project:
        """Return the project that these credentials are for."""
        if credentials not in self._projects:
            self._close_unused()
            self._projects[credentials] = Project(
                credentials, timeout_seconds=self._timeout_seconds, concurrency=self._concurrency
            )
        project = self._projects[credentials]
        project.used_at = time.monotonic()
        return project

    def _close_unused(self) -> None:
        """Close what has not been used for long: the credentials have changed, or nothing needs them any more."""
        long_ago = time.monotonic() - _UNUSED_SECONDS
        for credentials, project in list(self._projects.items()):
            if project.used_at < long_ago:
                del self._projects[credentials]
                share(project.aclose())

    async def aclose(self) -> None:
        """Close all connections."""
        for project in self._projects.values():
            await project.aclose()
