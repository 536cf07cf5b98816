"""AS in memory: hooks of groups and who made them, by the same rules as tests/support/simulator.

What the operator is answered goes through its own translation of answers to errors.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from lifecyclehook_operator.api.v1alpha1 import Hook
from lifecyclehook_operator.cloud.client import Listing
from lifecyclehook_operator.cloud.errors import (
    ABSENT_CODES,
    CallError,
    Reason,
    TransientError,
    error_from_response,
    transport_errors,
)
from lifecyclehook_operator.cloud.singleflight import share
from tests.support.simulator.autoscaling import error_answer

from .network import Network, hold_turn
from .verdict import HOOKS_PER_GROUP, Key

PROJECT_ID = "project"
TOPIC_URN = "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh"
_URL = "https://as.example"


@dataclass
class Record:
    """A hook, and the UID of the resource whose call has made it (None: somebody else)."""

    fields: Mapping[str, Any]
    maker: str | None
    is_modified: bool = False
    #: By somebody else.
    is_changed: bool = False


class Cloud:
    """The hooks, and what was asked of them."""

    def __init__(self) -> None:
        self.hooks: dict[Key, Record] = {}
        self.busy: set[str] = set()
        self.calls: list[tuple[str, str, str]] = []
        self._created = 0

    def put(self, key: Key, fields: Mapping[str, Any], maker: str | None = None) -> Mapping[str, Any]:
        """Add a hook."""
        self._created += 1
        created_at = f"2026-01-01T{self._created // 60 % 24:02}:{self._created % 60:02}:00Z"
        content = {"notification_metadata": "", **fields, "lifecycle_hook_name": key[1], "create_time": created_at}
        content["notification_topic_name"] = "gsh"
        self.hooks[key] = Record(content, maker)
        return content

    def change(self, key: Key, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change fields of a hook."""
        record = self.hooks[key]
        record.fields = {**record.fields, **changes}
        return record.fields

    def create(self, key: Key, fields: Mapping[str, Any], maker: str | None) -> Mapping[str, Any]:
        self._check_idle(key, "create")
        if key in self.hooks:
            raise _refusal("AS.7041", "create")
        if sum(group_id == key[0] for group_id, _ in self.hooks) >= HOOKS_PER_GROUP:
            raise _refusal("AS.7038", "create")
        return self.put(key, fields, maker)

    def list(self, group_id: str) -> list[Mapping[str, Any]]:
        return [record.fields for (group, _), record in self.hooks.items() if group == group_id]

    def modify(self, key: Key, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_idle(key, "modify")
        if key not in self.hooks:
            raise _refusal("AS.0007", "modify")
        return self.change(key, changes)

    def delete(self, key: Key) -> None:
        self._check_idle(key, "delete")
        if key not in self.hooks:
            raise _refusal("AS.0007", "delete")
        del self.hooks[key]

    def _check_idle(self, key: Key, operation: str) -> None:
        if key[0] in self.busy:
            raise _refusal("AS.2020", operation)


def _refusal(code: str, operation: str) -> CallError:
    answer = error_answer(code)
    return error_from_response(httpx.Response(answer.status, json=answer.json), operation)


def explain(effect: Mapping[str, Any], operation: str) -> CallError:
    """Return the error that the operator's client makes of an effect that the simulated cloud knows, too."""
    if "drop" in effect:
        try:
            with transport_errors(operation):
                raise httpx.ReadError("lost", request=httpx.Request("GET", _URL))
        except CallError as error:
            return error
    if "code" in effect:
        return _refusal(effect["code"], operation)
    if effect["status"] < httpx.codes.BAD_REQUEST:  # an answer cut short
        reason = Reason.UNEXPECTED_RESPONSE
        return TransientError(reason, "cut short", operation=operation, http_status=200, outcome_unknown=True)
    content = {"json": effect["json"]} if "json" in effect else {"text": effect.get("text", "")}
    return error_from_response(httpx.Response(effect["status"], headers=effect.get("headers"), **content), operation)


class Listings:
    """One process's lists of hooks, which everybody shares who lists the same group at about the same time."""

    def __init__(self) -> None:
        self.by_group: dict[str, tuple[float, asyncio.Task[Listing]]] = {}


class Judge(Protocol):
    """Is notified of each call before it takes effect."""

    def is_there(self, uid: str) -> bool: ...
    def may_call(self, uid: str, operation: str) -> None: ...
    def may_create(self, uid: str, key: Key, fields: Mapping[str, Any]) -> None: ...
    def may_modify(self, uid: str, key: Key) -> None: ...
    def may_delete(self, uid: str, key: Key) -> None: ...
    def is_in_doubt(self, uid: str) -> None: ...
    def is_known(self, uid: str, since: float) -> None: ...


class CloudClient:
    """What the operator has in the place of its client of AS, for one resource."""

    def __init__(  # noqa: PLR0913, PLR0917  (all that there is around it)
        self, cloud: Cloud, network: Network, process: int, uid: str, listings: Listings, judge: Judge
    ) -> None:
        self._cloud = cloud
        self._network = network
        self._process = process
        self._uid = uid
        self._listings = listings
        self._judge = judge

    async def get_project_id(self) -> str:
        return PROJECT_ID

    @asynccontextmanager
    async def turn(self, group_id: str, tenant: str) -> AsyncIterator[None]:
        with hold_turn():
            yield

    async def create_hook(self, group_id: str, hook_name: str, fields: Mapping[str, Any]) -> Hook:
        key = (group_id, hook_name)

        def act() -> Mapping[str, Any]:
            # What comes into being after its resource has gone is nobody's, and nobody can prevent it.
            return self._cloud.create(key, fields, self._uid if self._judge.is_there(self._uid) else None)

        self._judge.may_create(self._uid, key, fields)
        try:
            content = await self._call("create", group_id, act)
        except CallError as error:
            if not error.outcome_unknown:
                self._judge.is_known(self._uid, float("inf"))
            else:
                self._judge.is_in_doubt(self._uid)
            raise
        self._judge.is_known(self._uid, float("inf"))
        return Hook.model_validate(content)

    async def list_hooks(self, group_id: str, *, not_before: float) -> Listing:
        started_at, listing = self._listings.by_group.get(group_id, (0.0, None))
        now = asyncio.get_running_loop().time()
        if listing is None or started_at < not_before or started_at < now - 10:
            started_at, listing = now, share(self._list_hooks(group_id))
            self._listings.by_group[group_id] = started_at, listing
        hooks = await asyncio.shield(listing)
        self._judge.is_known(self._uid, started_at)
        return hooks

    async def _list_hooks(self, group_id: str) -> Listing:
        content = await self._call("list", group_id, lambda: self._cloud.list(group_id))
        return Listing(list(content), httpx.Response(httpx.codes.OK))

    async def modify_hook(self, group_id: str, hook_name: str, changes: Mapping[str, Any]) -> Hook:
        key = (group_id, hook_name)
        self._judge.may_modify(self._uid, key)
        started_at = asyncio.get_running_loop().time()
        try:
            return Hook.model_validate(await self._call("modify", group_id, lambda: self._cloud.modify(key, changes)))
        except CallError as error:
            if error.code in ABSENT_CODES:  # tells as much as a list
                self._judge.is_known(self._uid, started_at)
            raise

    async def delete_hook(self, group_id: str, hook_name: str) -> None:
        key = (group_id, hook_name)

        def act() -> None:
            self._judge.may_delete(self._uid, key)
            self._cloud.delete(key)

        await self._call("delete", group_id, act)

    async def _call(self, operation: str, group_id: str, act: Callable[[], Any]) -> Any:
        self._judge.may_call(self._uid, operation)
        self._cloud.calls.append((operation, group_id, self._uid))
        try:
            return await self._network.call(
                self._process, operation, group_id, act, lambda effect: explain(effect, operation)
            )
        finally:
            if operation != "list":
                self._listings.by_group.pop(group_id, None)
