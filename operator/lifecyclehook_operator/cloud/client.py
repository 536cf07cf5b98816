"""The lifecycle-hook calls of the AS API (as_06_0901 to as_06_0907), for one project."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import httpx
from pydantic import ValidationError

from lifecyclehook_operator.api.v1alpha1 import Hook
from lifecyclehook_operator.cloud.auth import AccessKeyAuth, LoginLimits, TokenAuth
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.endpoints import Endpoint
from lifecyclehook_operator.cloud.errors import (
    AS_CODES,
    CALLBACK,
    LIST_SUSPENSIONS,
    CallError,
    error_from_response,
    read_json,
    sanitize,
    undocumented,
)
from lifecyclehook_operator.cloud.http import HttpClient
from lifecyclehook_operator.cloud.instances import Suspensions
from lifecyclehook_operator.cloud.singleflight import Shared
from lifecyclehook_operator.fairness import FairLimit
from lifecyclehook_operator.metrics import AS_REQUEST_DURATION, AS_REQUESTS, AS_SLOTS_WAITING

_HOOKS, _INSTANCES = "scaling_lifecycle_hook", "scaling_instance_hook"
#: The longest body that is read: of five hooks a group, each several times as long as its fields can be, and of all 300
#: instances of a group, suspended by each of them. What a body becomes as objects takes up to 25 times the memory.
_LIMIT_BYTES = {_HOOKS: 5 * 16 * 1024, _INSTANCES: 512 * 1024}
#: Longer than a field of a hook can be; and how long its metadata can be.
_FIELD_CHARACTERS = 512
_METADATA_CHARACTERS = 256
#: The largest number that a status can hold.
_INT64_MAX = 2**63 - 1
#: A body with one of these is an error, or a single hook.
_NO_LIST = frozenset({"error", "error_code", "lifecycle_hook_name"})


@dataclass
class _Turn(AbstractAsyncContextManager[None]):
    """A turn of a group and one of the client, held by a tenant."""

    of_group: FairLimit
    of_client: FairLimit
    tenant: str

    async def __aenter__(self) -> None:
        await self.of_group.acquire(self.tenant)
        try:
            await self.of_client.acquire(self.tenant)
        except BaseException:
            self.of_group.release(self.tenant)
            raise

    async def __aexit__(self, *_: object) -> None:
        self.of_client.release(self.tenant)
        self.of_group.release(self.tenant)


@dataclass(frozen=True)
class Listing:
    """The hooks of a group, each as AS listed it."""

    entries: list[Any]
    response: httpx.Response

    def find(self, hook_name: str) -> Hook | None:
        """Return the hook of that name, or None if the group has none.

        A malformed entry does not affect other hooks. Raises TransientError if it is this hook, or may be, because its
        name can't be read and no other entry is this hook.
        """
        names = [_read_name(entry) for entry in self.entries]
        if hook_name in names:
            return _read_hook("list", self.response, self.entries[names.index(hook_name)], hook_name)
        if None in names:
            raise undocumented(
                "list", self.response, "a hook of the group has no name that can be read, and may be this one"
            )
        return None

    def read(self) -> Iterator[Hook | CallError]:
        """Yield each hook of the group, or why it can't be read."""
        for entry in self.entries:
            try:
                yield _read_hook("list", self.response, entry, _read_name(entry) or "")
            except CallError as error:
                yield error


def _read_name(entry: object) -> str | None:
    name = entry.get("lifecycle_hook_name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) and name else None


class AutoScalingClient:
    """The lifecycle hooks of a project.

    Every method raises CallError, in one of its five classes, for every failure of the call or of its response.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_seconds: float,
        concurrency: int,
        login_limits: LoginLimits | None = None,
    ) -> None:
        """
        Args:
            credentials: user or access key, project and endpoints.
            timeout_seconds: how long a request may take, from connecting to the end of the response.
            concurrency: how many calls may be under way for one tenant; for all tenants, twice as many.
            login_limits: shared by all projects that the same user may log in to.
        """
        self.used_at = time.monotonic()
        #: The project and its AS endpoint, once they are known.
        self.endpoint: Endpoint | None = None
        # httpx gets slow if many requests wait for a connection of its pool: these limits keep them from it.
        self._slots = FairLimit(2 * concurrency, AS_SLOTS_WAITING)
        self._slots_of_group: WeakValueDictionary[str, FairLimit] = WeakValueDictionary()
        self._slots_per_group = max(1, concurrency // 2)
        self._http = HttpClient(
            timeout_seconds=timeout_seconds,
            max_connections=2 * concurrency + 1,  # logging in takes one more
            ca_certificates=credentials.ca_certificates,
        )
        limit = (login_limits or LoginLimits()).of_user(credentials)
        self._auth = (
            AccessKeyAuth(credentials, self._http) if credentials.ak else TokenAuth(credentials, self._http, limit)
        )
        self._listings = Shared(self._list_hooks)
        self._suspensions = Shared(self._list_suspensions)

    async def find_endpoint(self) -> Endpoint:
        """Return the project and its AS endpoint."""
        self.endpoint = await self._auth.find_endpoint()
        return self.endpoint

    async def get_project_id(self) -> str:
        """Return the project's ID."""
        return (await self.find_endpoint()).project_id

    def turn(self, group_id: str, tenant: str) -> AbstractAsyncContextManager[None]:
        """Return what a tenant has to hold during a call about a group: entering it waits for a turn.

        A group that hangs takes only some of the turns.
        """
        if (slots_of_group := self._slots_of_group.get(group_id)) is None:
            slots_of_group = self._slots_of_group[group_id] = FairLimit(self._slots_per_group, AS_SLOTS_WAITING)
        return _Turn(slots_of_group, self._slots, tenant)

    async def create_hook(self, group_id: str, hook_name: str, fields: Mapping[str, Any]) -> Hook:
        """Create a hook and return it as AS returns it (as_06_0901). Empty metadata is not sent."""
        body = {"lifecycle_hook_name": hook_name, **fields}
        if not body["notification_metadata"]:
            del body["notification_metadata"]
        response = await self._call("create", "POST", group_id, body)
        return _read_hook("create", response, read_json("create", response), hook_name)

    async def list_hooks(self, group_id: str, *, not_before: float) -> Listing:
        """Return all hooks of a group (as_06_0902), as they were at `not_before` (of time.monotonic) or later.

        One call serves all who ask for the same group at about the same time. Hooks are always read this way, because
        the path of a single hook is that of the list if the hook is named "list".
        """
        return await self._listings.get(group_id, not_before=not_before)

    async def _list_hooks(self, group_id: str) -> Listing:
        return _read_list(await self._call("list", "GET", f"{group_id}/list"))

    async def modify_hook(self, group_id: str, hook_name: str, changes: Mapping[str, Any]) -> Hook:
        """Change these fields of a hook, leave the others, and return it as AS returns it (as_06_0904)."""
        path = f"{group_id}/{hook_name}"
        response = await self._call("modify", "PUT", path, changes)
        return _read_hook("modify", response, read_json("modify", response), hook_name)

    async def delete_hook(self, group_id: str, hook_name: str) -> None:
        """Delete a hook (as_06_0907)."""
        await self._call("delete", "DELETE", f"{group_id}/{hook_name}")

    async def list_suspensions(self, group_id: str, *, not_before: float) -> Suspensions:
        """Return the instances that hooks of a group suspend, or have suspended, as they were at `not_before` or later.

        As with `list_hooks`, one call (scaling_instance_hook, list) serves all who ask at about the same time.
        """
        return await self._suspensions.get(group_id, not_before=not_before)

    async def _list_suspensions(self, group_id: str) -> Suspensions:
        response = await self._call(LIST_SUSPENSIONS, "GET", f"{group_id}/list", service=_INSTANCES)
        return Suspensions.from_response(response)

    async def call_back(self, group_id: str, lifecycle_action_key: str, result: str) -> None:
        """End or extend the suspension that has this key (scaling_instance_hook, callback).

        AS refuses that with AS.7042 unless an instance hangs under this key.
        """
        body = {"lifecycle_action_result": result, "lifecycle_action_key": lifecycle_action_key}
        await self._call(CALLBACK, "PUT", f"{group_id}/callback", body, service=_INSTANCES)

    def close_when_unused(self) -> None:
        """Close the connections as soon as no request is in flight. A later request opens new ones."""
        self._http.close_when_unused()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(
        self, operation: str, method: str, path: str, body: Mapping[str, Any] | None = None, *, service: str = _HOOKS
    ) -> httpx.Response:
        endpoint = await self.find_endpoint()
        url = f"{endpoint.url}/{service}/{path}"
        try:
            with AS_REQUEST_DURATION.labels(operation).time():
                response = await self._http.send(
                    operation,
                    method,
                    url,
                    json=body,
                    headers=endpoint.headers,
                    auth=self._auth,
                    limit_bytes=_LIMIT_BYTES[service],
                )
        except CallError as error:
            if error.operation == operation:  # else IAM failed
                AS_REQUESTS.labels(operation, "", "").inc()
            raise
        finally:
            if method != "GET":  # it may have taken effect, which no earlier list shows
                for shared in (self._listings, self._suspensions):
                    shared.forget(path.partition("/")[0])
        failure = None if response.is_success else error_from_response(response, operation)
        AS_REQUESTS.labels(operation, response.status_code, _label(failure.code) if failure else "").inc()
        if failure is not None:
            raise failure
        return response


def _label(code: str) -> str:
    """Return the label for a code: one that is not documented must not become a series of its own."""
    return code if code in AS_CODES or not code else "other"


def _read_hook(operation: str, response: httpx.Response, content: object, hook_name: str) -> Hook:
    """Return the hook in a response, with sanitized texts. Raises TransientError if it is malformed or another hook."""
    try:
        hook = Hook.model_validate(content, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise undocumented(operation, response, f"{where or 'body'}: {problem['msg']}") from error
    texts = {name: value for name, value in hook if isinstance(value, str)}
    try:
        "".join(texts.values()).encode()
    except UnicodeEncodeError as error:  # a text that was cut may end in one half of a surrogate pair
        raise undocumented(operation, response, "a text contains an invalid Unicode character") from error
    if hook.lifecycle_hook_name != hook_name:
        other = sanitize(hook.lifecycle_hook_name, 64)
        raise undocumented(operation, response, f"the body is a hook named {other!r}, not {hook_name!r}")
    if not 0 <= hook.default_timeout <= _INT64_MAX:
        raise undocumented(operation, response, "defaultTimeout: out of range")
    if len(hook.notification_metadata) <= _METADATA_CHARACTERS:
        del texts["notification_metadata"]  # it is compared with the spec, which may have any characters
    cleaned = {name: clean for name, text in texts.items() if (clean := sanitize(text, _FIELD_CHARACTERS)) != text}
    return hook.model_copy(update=cleaned) if cleaned else hook


def _read_list(response: httpx.Response) -> Listing:
    body = read_json("list", response)
    entries = body.get("lifecycle_hooks") if isinstance(body, dict) else None
    # An empty list may be omitted; but if anything else counted as one, hooks would count as gone.
    if entries is None and isinstance(body, dict) and _NO_LIST.isdisjoint(body):
        entries = []
    if not isinstance(entries, list):
        raise undocumented("list", response, "the body has no list of hooks")
    return Listing(entries, response)
