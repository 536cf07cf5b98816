"""Ctrl-C, SIGTERM and a closed terminal end the run between two calls: it is known what each call has made."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns the first signal into a KeyboardInterrupt; later ones are ignored, for cleaning up has deadlines."""

    def __init__(self) -> None:
        self._is_in_call = False
        self._is_pending = False

    def install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._interrupt)

    def ignore(self) -> None:
        """Take no more signals, and forget one that was put off."""
        self._is_pending = False
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """Raise the KeyboardInterrupt that a call has put off."""
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let a call of the cloud end, which has a time limit: the next one, or `check`, raises."""
        self.check()
        self._is_in_call = True
        try:
            yield
        finally:
            self._is_in_call = False

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.ignore()
        self._is_pending = self._is_in_call
        with suppress(OSError):  # nobody may be reading any more
            # Not by print, which the signal may have interrupted.
            os.write(sys.stdout.fileno(), b"\n==> Stopping: the hooks of this run are removed first\n")
        if not self._is_in_call:
            raise KeyboardInterrupt
