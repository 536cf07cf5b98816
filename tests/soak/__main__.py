"""Let chaos loose on the operator, then judge what is left: `make soak`, MINUTES= and SEED=.

Users, the cloud and machines act at the same time, as the seed says, while the cloud fails 30 % of the requests. The
exit status is 1 if not all was as it should be in the end; what differs, the end of the operator's log, and where all
of it is kept, is then printed.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.controlplane import BinariesNotFoundError, ControlPlane, ControlPlaneError
from tests.support.harness import OPERATOR, OperatorProcess, install, log_tail
from tests.support.relay import Relay
from tests.support.simulator import run_simulator
from tests.support.workspace import Workspace

from . import schedule
from .chaos import World, unleash
from .verdict import RESYNC_SECONDS, Judge

#: Waits short enough for a soak; no call takes long.
OPTIONS = {
    "backoff_min_seconds": 0.2,
    "backoff_max_seconds": 1,
    "slow_retry_min_seconds": 0.5,
    "slow_retry_max_seconds": 2,
    "cloud_timeout_seconds": 3,
    "shutdown_grace_seconds": 4,
    "resync_interval_seconds": RESYNC_SECONDS,
}


@contextmanager
def set_scene() -> Iterator[World]:
    """Everything runs and is installed; when the block ends, all of it is stopped."""
    with ExitStack() as stack:
        cluster = stack.enter_context(ControlPlane())
        cloud = stack.enter_context(run_simulator())
        install(cluster)
        relay = stack.enter_context(Relay(int(cluster.url.rpartition(":")[2])))
        workspaces = [stack.enter_context(Workspace(cluster, cloud)) for _ in schedule.NAMESPACES]
        environment = {**cloud.credentials_env(), "KUBECONFIG": str(relay_kubeconfig(cluster, relay))}
        operator = stack.enter_context(OperatorProcess(cluster, environment, **OPTIONS))
        yield World(cluster, cloud, operator, relay, workspaces)


def relay_kubeconfig(cluster: ControlPlane, relay: Relay) -> Path:
    """Write a kubeconfig of the operator's that leads through the relay."""
    direct = cluster.service_account_kubeconfig(OPERATOR, OPERATOR).read_text()
    path = cluster.work_dir / "relay.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(direct.replace(cluster.url, f"https://127.0.0.1:{relay.port}"))
    return path


def soak(world: World, seed: int, seconds: float, say: Callable[[str], None]) -> None:
    """Let chaos last so long, judge what is left, and print what it took; what is wrong is in `world.wrongs`."""
    unleash(world, seed, seconds, say)
    say("Chaos is over; all is to settle")
    judge = Judge(world)
    judge.judge()
    show(world, judge, seed, seconds)


def show(world: World, judge: Judge, seed: int, seconds: float) -> None:
    """Print the closing table."""
    tally = world.tally
    requests, usages = tally.requests.total(), tally.usages
    rows = {
        "seed": str(seed),
        "chaos": f"{seconds:.0f} s; steps: {listed(tally.steps)}",
        "requests to the cloud": f"{requests}: {listed(tally.requests)}",
        "of them with a fault": f"{tally.faults / max(requests, 1):.1%}",
        "requests afterwards": listed(Counter(str(each.operation) for each in world.cloud.requests())),
        "Kubernetes writes": listed(judge.count_writes()),
        "lives of the operator": str(len(usages)),
        "its peak memory": f"{max((usage.peak_megabytes for usage in usages), default=0):.0f} MB",
        "its CPU time": f"{sum(usage.cpu_seconds for usage in usages):.1f} s",
        "settled, and all deleted, after": f"{judge.settle_seconds:.1f} s and {judge.gone_seconds:.1f} s",
    }
    for what, figure in rows.items():
        print(f"  {what:<32} {figure}", flush=True)


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def report(world: World, seed: int) -> None:
    """Print what is wrong."""
    print(f"Not as it should be (SEED={seed}):", *world.wrongs, sep="\n  ")
    print(f"The end of the operator's log:\n{log_tail(world.operator.log)}", flush=True)


def keep_logs(world: World, folder: Path | None) -> None:
    """Copy the logs to a folder; None: to a new one."""
    folder = folder or Path(tempfile.mkdtemp(prefix="lifecyclehook-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    for log in world.cluster.work_dir.glob("*.log"):
        shutil.copy(log, folder)
    print(f"The logs are in {folder}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long chaos lasts (default: 5)")
    parser.add_argument("--seed", type=int, help="decides what happens (default: any)")
    parser.add_argument("--logs", type=Path, help="folder to keep all logs in (default: none, a new one on failure)")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if sys.platform != "linux":
        sys.exit("The soak reads CPU time and memory from /proc, which only Linux has.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    began_at = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_at:7.1f} s  {line}", flush=True)

    say(f"{options.minutes:g} minutes of chaos: SEED={seed}")
    try:
        with set_scene() as world:
            try:
                soak(world, seed, options.minutes * 60, say)
            except Exception as error:
                world.wrongs.append(f"the soak itself has failed: {error!r}")
                raise
            finally:
                if world.wrongs:
                    report(world, seed)
                if world.wrongs or options.logs:
                    keep_logs(world, options.logs)
    except (BinariesNotFoundError, ControlPlaneError, subprocess.CalledProcessError) as error:
        sys.exit("\n".join([str(error), *getattr(error, "__notes__", [])]))
    except KeyboardInterrupt:
        sys.exit(130)
    if world.wrongs:
        sys.exit(1)
    print("All was as it should be.")


if __name__ == "__main__":
    main()
