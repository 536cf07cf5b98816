"""Faults on request: what the next matching requests meet instead of, or beside, the service's own answer."""

import asyncio
import random
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .autoscaling import ERRORS
from .requestlog import LoggedRequest


class Fault(BaseModel):
    """A matcher, a count and an effect.

    At its stage (before or after the request is processed) a fault waits for `delay_seconds`, then, with `hold`, until
    it is released. Then it drops the connection or gives an answer of its own, if told to; else the request goes on.
    An answer of success does not stand in for a refusal by the service.
    A fault with no effect lets a request pass: put one first to spare the first matching requests.
    """

    model_config = ConfigDict(extra="forbid")

    operation: str | None = None
    method: str | None = None
    path: re.Pattern[str] | None = Field(default=None, description="regular expression, found anywhere in the path")
    project_id: str | None = None
    group_id: str | None = None
    hook_name: str | None = None
    count: int | None = Field(default=1, ge=1, description="how many requests; null: until cleared")
    share: float = Field(default=1, gt=0, le=1, description="of the requests that match, by chance")
    seed: int = Field(default=0, description="decides which ones")

    stage: Literal["before", "after"] = "before"
    delay_seconds: float = Field(default=0, ge=0)
    hold: bool = False
    drop: bool = False
    status: int | None = Field(default=None, ge=200, le=599)
    headers: dict[str, str] = {}
    json_body: Any = Field(default=None, alias="json")
    text: str | None = None
    code: str | None = Field(default=None, description="AS code; its HTTP status and a message come with it")

    @model_validator(mode="after")
    def _check(self) -> "Fault":
        if self.code is not None and self.code not in ERRORS and self.status is None:
            raise ValueError("a code that the service does not have needs a status")
        if self.answers and self.drop:
            raise ValueError("a fault drops the connection or answers, not both")
        if not self.answers and (self.text is not None or self.json_body is not None or self.headers):
            raise ValueError("an answer needs a status or a code")
        return self

    @property
    def answers(self) -> bool:
        return self.status is not None or self.code is not None

    def matches(self, request: LoggedRequest) -> bool:
        names = ("operation", "method", "project_id", "group_id", "hook_name")
        if any(getattr(self, name) not in (None, getattr(request, name)) for name in names):
            return False
        return self.path is None or self.path.search(request.path) is not None


class ArmedFault:
    def __init__(self, fault_id: int, fault: Fault) -> None:
        self.id = fault_id
        self.fault = fault
        self.left = fault.count
        self.draw = random.Random(fault.seed)  # noqa: S311  (no secret)
        self.released = asyncio.Event()
        self.drop_released = False

    def release(self, *, drop: bool) -> None:
        self.drop_released = drop
        self.released.set()

    def to_json(self) -> dict[str, Any]:
        return self.fault.model_dump(mode="json", by_alias=True) | {"id": self.id, "left": self.left}


class Faults:
    def __init__(self) -> None:
        self._armed: dict[int, ArmedFault] = {}
        self._last_id = 0

    def add(self, fault: Fault) -> ArmedFault:
        self._last_id += 1
        armed = self._armed[self._last_id] = ArmedFault(self._last_id, fault)
        return armed

    def list(self) -> list[ArmedFault]:
        return list(self._armed.values())

    def find(self, fault_id: int) -> ArmedFault | None:
        return self._armed.get(fault_id)

    def clear(self) -> None:
        """Forget all faults; what they hold loses its connection."""
        for armed in self._armed.values():
            armed.release(drop=True)
        self._armed.clear()

    def take(self, request: LoggedRequest) -> ArmedFault | None:
        """Return the first fault that the request meets, and count it."""
        for armed in self._armed.values():
            if armed.left != 0 and armed.fault.matches(request) and armed.draw.random() < armed.fault.share:
                armed.left = armed.left and armed.left - 1
                return armed
        return None
