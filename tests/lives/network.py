"""The way from one operator process to a server: it takes time, and whatever can happen to a call happens here."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from lifecyclehook_operator.cloud.errors import CallError
from lifecyclehook_operator.kube.errors import KubernetesError

T = TypeVar("T")

#: How long a client waits for an answer, in seconds.
TIMEOUT_SECONDS = 30
_HOLDS_TURN = ContextVar("holds_turn", default=False)


@contextmanager
def hold_turn() -> Iterator[None]:
    """Hold a turn of AS in this task."""
    token = _HOLDS_TURN.set(True)
    try:
        yield
    finally:
        _HOLDS_TURN.reset(token)


@dataclass
class Fault:
    """What the next calls of an operation meet, of one AS group or (None) of any."""

    operation: str
    group_id: str | None
    effect: dict[str, Any]
    count: int


class Network:
    """Holds the faults, and knows who is dead: the calls of a dead process are never made and never answered."""

    def __init__(self, draw: random.Random, crash: Callable[[], None]) -> None:
        self.faults: list[Fault] = []
        self.process = 0
        self.wrongs: list[str] = []
        self._draw = draw
        self._crash = crash

    async def call(
        self,
        process: int,
        operation: str,
        group_id: str | None,
        act: Callable[[], T],
        explain: Callable[[dict[str, Any]], Exception],
    ) -> T:
        """Make a call for a process, and return what `act` returns at the server.

        Raises what it raises, and for an effect of a fault, what `explain` returns.
        """
        # A list may be due to what the call that is under way does at the server.
        if _HOLDS_TURN.get() != (group_id is not None) and operation != "list_objects":
            self.wrongs.append(f"{operation} is called {'with' if group_id is None else 'without'} a turn of AS")
        effect = self._take_effect(operation, group_id)
        is_after = effect.get("stage") == "after"
        await self._travel(process, effect.get("slow_seconds", 0))
        if "late_seconds" in effect:
            asyncio.get_running_loop().call_later(effect["late_seconds"], _try, act)
            await self._travel(process, TIMEOUT_SECONDS)
            raise explain({"drop": True})
        if effect and not is_after and "slow_seconds" not in effect:
            await self._fail(effect, explain)
        result = act()
        if is_after:
            await self._fail(effect, explain)
        await self._travel(process)
        return result

    def _take_effect(self, operation: str, group_id: str | None) -> dict[str, Any]:
        for fault in self.faults:
            if fault.operation == operation and fault.group_id in (None, group_id):
                fault.count -= 1
                if not fault.count:
                    self.faults.remove(fault)
                return fault.effect
        return {}

    async def _travel(self, process: int, seconds: float = 0) -> None:
        self._check(process)
        await asyncio.sleep(seconds + self._draw.choice((0.005, 0.02, 0.02, 0.3)))
        self._check(process)

    def _check(self, process: int) -> None:
        if process != self.process:
            raise asyncio.CancelledError

    async def _fail(self, effect: dict[str, Any], explain: Callable[[dict[str, Any]], Exception]) -> None:
        if "crash" in effect:
            self._crash()
            raise asyncio.CancelledError
        raise explain(effect)


def _try(act: Callable[[], object]) -> None:
    """Let a call have its effect that nobody waits for any more, if the server does not refuse it."""
    with suppress(CallError, KubernetesError):
        act()
