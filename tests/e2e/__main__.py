"""Show the product in action on a real cluster: install, use, crash, upgrade, uninstall. Needs kubectl and openssl."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .cluster import Cluster, UnsafeContextError, check_context, current_context
from .play import Play
from .report import FAILURES, Report
from .stage import OccupiedError, Stage

STARTED = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--image", required=True, help="image of the operator, which the nodes have or can pull")
    parser.add_argument("--old-image", help="image to upgrade from (default: no upgrade is shown)")
    parser.add_argument("--context", help="name of the current context, to confirm a cluster that is not a local one")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    report = Report(say)
    try:
        context = current_context()
        check_context(context, options.context)
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(Cluster(context), Path(folder), options.image)
            report.explain = stage.logs
            say(f"Setting the stage on {context}")
            with stage.set() as cloud:
                try:
                    Play(stage, cloud, report, options.old_image).run()
                finally:
                    print(f"\n{report.table()}", flush=True)
                    ignore_signals()
                    say("Clearing the stage")
    except (UnsafeContextError, OccupiedError) as error:
        sys.exit(str(error))
    except FAILURES as error:
        sys.exit("\n".join(["", str(error), *getattr(error, "__notes__", [])]))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if report.is_kept else 1)


def say(line: str) -> None:
    print(f"==> {line} ({time.monotonic() - STARTED:.1f} s)", flush=True)


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Shut down cleanly, whatever signals still arrive; each step has its own time limit."""
    ignore_signals()
    raise KeyboardInterrupt


def ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
