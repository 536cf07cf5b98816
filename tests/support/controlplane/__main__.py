"""`python -m tests.support.controlplane build|run`."""

import argparse
import signal
import sys

from . import BinariesNotFoundError, ControlPlane, ControlPlaneError, find_or_make_binaries


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.controlplane", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="find etcd, kube-apiserver and kubectl, or make them and keep them in the cache")
    commands.add_parser("run", help="run a control plane until Ctrl-C, and print how to reach it")
    command = parser.parse_args().command
    # SIGINT as well: a shell starts its background jobs with that ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if command == "build":
            print(find_or_make_binaries().folder)
        else:
            run()
    except (BinariesNotFoundError, ControlPlaneError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130 if command == "build" else 0)


def run() -> None:
    with ControlPlane() as control_plane:
        print(f"export KUBECONFIG={control_plane.kubeconfig}")
        print(f"export PATH={control_plane.binaries.folder}:$PATH")
        print("Running until Ctrl-C.", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
