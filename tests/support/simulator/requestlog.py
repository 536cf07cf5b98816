"""The log of requests: what came in and what became of it. Secrets are masked before they get here."""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

MASK = "***"
SECRET_KEYS = frozenset({"password", "secret", "access", "lifecycle_action_key"})
SHOWN_HEADERS = ("accept", "connection", "content-type", "user-agent", "x-project-id", "x-domain-id", "x-sdk-date")


class LoggedRequest(BaseModel):
    """One request to IAM or AS. Times called `…_at` are of the system's monotonic clock, in seconds."""

    sequence: int
    time: datetime
    received_at: float
    answered_at: float | None = None
    client: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    auth: Literal["token", "signature"] | None
    operation: str | None = None
    project_id: str | None = None
    group_id: str | None = None
    hook_name: str | None = None
    fault: int | None = None
    state: Literal["received", "held", "answered", "lost"] = "received"
    processed: bool = False
    status: int | None = None
    code: str | None = None
    request_id: str


class RequestFilter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    operation: str | None = None
    group_id: str | None = None
    hook_name: str | None = None
    state: str | None = None
    fault: int | None = None
    after: int = 0

    def matches(self, request: LoggedRequest) -> bool:
        wanted = self.model_dump(exclude={"after"}, exclude_none=True)
        return request.sequence > self.after and all(getattr(request, name) == value for name, value in wanted.items())


class RequestLog:
    def __init__(self) -> None:
        self._entries: list[LoggedRequest] = []
        self._last_sequence = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def next_sequence(self) -> int:
        self._last_sequence += 1
        return self._last_sequence

    def add(self, entry: LoggedRequest) -> None:
        self._entries.append(entry)
        self.notify()

    def notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self, until: int | None = None) -> None:
        self._entries = [] if until is None else [entry for entry in self._entries if entry.sequence > until]

    def find(self, wanted: RequestFilter) -> Iterator[LoggedRequest]:
        return (entry for entry in self._entries if wanted.matches(entry))

    async def wait_for(self, wanted: RequestFilter, count: int, timeout_seconds: float) -> list[LoggedRequest]:
        """Wait until `count` requests match, and return those that do when the time is over at the latest."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            found = list(self.find(wanted))
            if len(found) >= count or loop.time() >= deadline:
                return found
            waiter = loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=deadline - loop.time())
            finally:
                self._waiters.discard(waiter)


def parse_body(body: bytes) -> Any:
    """Parse a JSON body and mask what is secret in it. A body that is not JSON is not kept."""
    try:
        return mask(json.loads(body))
    except ValueError:
        return None


def mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mask_member(key, member) for key, member in value.items()}
    return [mask(member) for member in value] if isinstance(value, list) else value


def _mask_member(key: str, member: Any) -> Any:
    if key in SECRET_KEYS and not isinstance(member, dict):
        return MASK
    return dict.fromkeys(member, MASK) if key == "token" and isinstance(member, dict) else mask(member)
