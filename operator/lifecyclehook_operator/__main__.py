"""The command lifecyclehook-operator."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

import yaml
from pydantic import ValidationError
from pydantic_settings import CliApp

from lifecyclehook_operator.api.crd import build_crds
from lifecyclehook_operator.settings import Settings

DISTRIBUTION = "lifecyclehook-operator"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's), and return its exit status."""
    parser = argparse.ArgumentParser(
        prog=DISTRIBUTION,
        description="Kubernetes operator for the lifecycle hooks of Open Telekom Cloud Auto Scaling groups.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        "  run   run the operator; see run --help for its options\n"
        "  crd   print the CustomResourceDefinitions, or the one whose plural is named\n",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version(DISTRIBUTION)}")
    parser.add_argument("command", choices=("run", "crd"), metavar="run|crd", help="the command")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the options of run, the plural for crd")
    parsed = parser.parse_args(arguments)
    if parsed.command == "crd":
        crds = build_crds()
        if unknown := set(parsed.options) - set(crds):
            parser.error(f"crd takes {' or '.join(crds)}, not {' '.join(sorted(unknown))}")
        wanted = [crds[plural] for plural in parsed.options or crds]
        yaml.safe_dump_all(wanted, sys.stdout, sort_keys=False, width=120, allow_unicode=True)
        return 0
    try:
        options = CliApp.run(Settings, cli_args=parsed.options)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            where = ".".join(map(str, problem["loc"])).replace("_", "-")
            print(f"{DISTRIBUTION}: {f'--{where}: ' if where else ''}{problem['msg']}", file=sys.stderr)
        return 2
    # Importing kopf takes most of a second, and neither crd nor --help needs it.
    from lifecyclehook_operator import handlers, manager  # noqa: F401, PLC0415  (handlers registers itself with kopf)

    return manager.run(options)


if __name__ == "__main__":
    sys.exit(main())
