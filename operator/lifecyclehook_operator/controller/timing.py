"""When to reconcile next: resync, backoff and jitter."""

import asyncio
import math
import random
import zlib
from dataclasses import dataclass

from lifecyclehook_operator.cloud.errors import CallError

NEVER = math.inf


def now() -> float:
    """Return the time of the event loop, in seconds, on which all delays are based."""
    return asyncio.get_running_loop().time()


def jitter(seconds: float) -> float:
    """Return up to a quarter less, so that failures at the same time are not retried at the same time."""
    return seconds * random.uniform(0.75, 1)  # noqa: S311  (no secret)


def next_round(key: str, seconds: float) -> float:
    """Return when the next round begins: at the same time for all who have a key, at other times for other keys."""
    phase = zlib.crc32(key.encode()) / 2**32
    return (math.floor(now() / seconds - phase) + 1 + phase) * seconds


@dataclass(frozen=True)
class Timing:
    """Delays in seconds, before jitter."""

    resync: float
    backoff_min: float
    backoff_max: float
    slow_min: float
    slow_max: float
    #: How long AS may still act on a call whose answer was lost.
    settling: float

    def next_resync(self, group_id: str) -> float:
        """Return the next resync: at the same time for every hook of a group, so that one list call serves all."""
        return next_round(group_id, self.resync)

    def next_retry(self, error: CallError, failures: int) -> float:
        """Return when to retry after this many failures in a row: not before the cloud's Retry-After is over."""
        if error.retry == "Never":
            return NEVER
        least, most = (
            (self.backoff_min, self.backoff_max) if error.retry == "Backoff" else (self.slow_min, self.slow_max)
        )
        wait = jitter(min(most, least * 2.0 ** min(failures - 1, 30)))
        return now() + max(wait, (error.retry_after_seconds or 0) * random.uniform(1, 1.25))  # noqa: S311  (no secret)
