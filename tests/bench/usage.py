"""What a process has used so far, as Linux tells it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

QUIET_SECONDS = 1.0
POLL_SECONDS = 0.05
#: A process that waits for something to happen takes less than this share of a core.
QUIET_SHARE = 0.03


@dataclass(frozen=True)
class Usage:
    """CPU time and the most memory that was in use at a time."""

    cpu_seconds: float
    peak_megabytes: float

    @classmethod
    def read(cls, pid: int) -> Self:
        """Read what a process of this machine has used."""
        process = Path("/proc") / str(pid)
        times = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        (peak,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        return cls(sum(map(int, times)) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024)


def wait_until_quiet(pid: int, seconds: float) -> float:
    """Wait until a process has been as good as idle for a second, and return the clock's time when that began.

    Raises TimeoutError if it isn't before so many seconds have passed.
    """
    deadline = time.monotonic() + seconds
    since, used = time.monotonic(), Usage.read(pid).cpu_seconds
    while time.monotonic() - since < QUIET_SECONDS:
        time.sleep(POLL_SECONDS)
        now, used_now = time.monotonic(), Usage.read(pid).cpu_seconds
        if used_now - used > QUIET_SHARE * QUIET_SECONDS:
            since, used = now, used_now
        if now > deadline:
            raise TimeoutError(f"the operator was not quiet within {seconds:.0f} s")
    return since
