"""What was measured against what was promised, and the verdict."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

#: How a step fails: a deadline, kubectl's refusal, no way to the simulated cloud, or a refusal of its.
FAILURES = (RuntimeError, TimeoutError, ValueError, subprocess.SubprocessError, httpx.HTTPError)


@dataclass
class Step:
    """One row of the table: how long it took, how long it may take (None: not promised), and what was not kept."""

    name: str
    bound_seconds: float | None = None
    seconds: float | None = None
    broken: list[str] = field(default_factory=list)

    def expect(self, fact: object, promise: str) -> None:
        """Note a promise as broken unless the fact holds."""
        if not fact:
            self.broken.append(promise)

    def close(self, seconds: float) -> None:
        """Take a duration, unless the step has measured one itself, and hold it against the bound."""
        if self.seconds is None:
            self.seconds = seconds
        if self.bound_seconds is not None:
            self.expect(
                self.seconds < self.bound_seconds, f"under {self.bound_seconds:g} s, and it took {self.seconds:.1f} s"
            )


class Report:
    """The steps so far. A step that fails does not keep the next from being tried."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.steps: list[Step] = []
        #: What may explain why a promise is broken; it is asked and shown then.
        self.explain: Callable[[], str] = str
        self._say = say
        self._clock = clock

    @contextmanager
    def step(self, name: str, bound_seconds: float | None = None) -> Iterator[Step]:
        """Measure a block; what goes wrong inside is what the step has not kept."""
        self._say(name)
        step = Step(name, bound_seconds)
        self.steps.append(step)
        began = self._clock()
        try:
            yield step
        except KeyboardInterrupt:
            step.broken.append("interrupted")
            raise
        except FAILURES as error:
            step.broken.append("\n".join([str(error), *getattr(error, "__notes__", [])]).strip())
        else:
            step.close(self._clock() - began)
        for promise in step.broken:
            self._say(f"BROKEN: {promise}")
        if step.broken:
            print(self.explain(), end="", flush=True)

    @property
    def is_kept(self) -> bool:
        """Whether something was measured, and every promise was kept."""
        return bool(self.steps) and not any(step.broken for step in self.steps)

    def table(self) -> str:
        """Return a line for each step, and then what was not kept."""
        width = max((len(step.name) for step in self.steps), default=0)
        rows = [f"{'step':{width}}  {'seconds':>7}  {'promised':>8}  "]
        for step in self.steps:
            seconds = "-" if step.seconds is None else f"{step.seconds:.1f}"
            bound = "-" if step.bound_seconds is None else f"< {step.bound_seconds:g}"
            rows.append(f"{step.name:{width}}  {seconds:>7}  {bound:>8}  {'BROKEN' if step.broken else 'ok'}")
        rows += [f"\nBroken, {step.name}: {promise}" for step in self.steps for promise in step.broken]
        return "\n".join(rows)
