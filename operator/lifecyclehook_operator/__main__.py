"""The command lifecyclehook-operator."""

import argparse
import asyncio
import gc
import shutil
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource

from lifecyclehook_operator.api.crd import build_crds
from lifecyclehook_operator.settings import Settings
from lifecyclehook_operator.versions import DISTRIBUTION, describe_versions

_COMMANDS = {
    "run": "run the operator; see run --help for its options",
    "crd": "print the CustomResourceDefinitions, or the one whose plural is given",
    "export": "print manifests that adopt the hooks of an AS group as they are; see export --help",
    "version": "print the version, and those of Python, kopf and the Kubernetes client",
}

#: By Python's defaults, to look for garbage takes 5 % of the CPU time; there is little, for most is freed without.
_GARBAGE_THRESHOLDS = (50_000, 20, 20)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Breaks no line within a host name."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's), and return its exit status."""
    parser = argparse.ArgumentParser(
        prog=DISTRIBUTION,
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="Kubernetes operator for the lifecycle hooks of Open Telekom Cloud Auto Scaling groups.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["commands:", *(f"  {name:9} {text}" for name, text in _COMMANDS.items())]),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version(DISTRIBUTION)}")
    parser.add_argument("command", choices=tuple(_COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    match parsed.command:
        case "crd":
            return _print_crds(parser, parsed.options)
        case "export":
            return _export(parsed.options)
        case "version":
            print(describe_versions())
            return 0
    return _run(parsed.options)


def _print_crds(parser: argparse.ArgumentParser, plurals: Sequence[str]) -> int:
    crds = build_crds()
    if unknown := set(plurals) - set(crds):
        parser.error(f"crd takes {' or '.join(crds)}, not {' '.join(sorted(unknown))}")
    wanted = [crds[plural] for plural in plurals or crds]
    yaml.safe_dump_all(wanted, sys.stdout, sort_keys=False, width=120, allow_unicode=True)
    return 0


def _export(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{DISTRIBUTION} export",
        description=_wrap(
            """Print a LifecycleHook manifest for each hook of an AS group. Applied, they adopt these hooks and change
            nothing in AS. The exit status is 1 if a hook can't be exported; standard error says why.

            Credentials are read as those of the operator, see run --help: from OS_CLIENT_CONFIG_FILE and OS_CLOUD, or
            from OS_AUTH_URL and so on."""
        ),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--group", required=True, metavar="ID", help="ID of the AS group.")
    parser.add_argument(
        "--credentials", type=Path, metavar="FILE", help="A clouds.yaml, instead of OS_CLIENT_CONFIG_FILE."
    )
    parser.add_argument("--cloud", metavar="NAME", help="The cloud in it, instead of OS_CLOUD. (default: otc)")
    options = parser.parse_args(arguments)
    # What calls the cloud takes longer to import than to print a help.
    from lifecyclehook_operator.cloud.clouds_yaml import read_environment  # noqa: PLC0415
    from lifecyclehook_operator.cloud.errors import CallError  # noqa: PLC0415
    from lifecyclehook_operator.export import export_group  # noqa: PLC0415

    try:
        credentials = read_environment(options.credentials, options.cloud)
        if credentials is None:
            parser.error("no credentials: set OS_AUTH_URL and so on, or OS_CLOUD, or use --credentials")
        manifests, problems = asyncio.run(export_group(options.group, credentials))
    except CallError as error:
        manifests, problems = [], [f"{error}. {error.advice.replace('spec.scalingGroupId', '--group')}".strip()]
    if manifests:
        yaml.safe_dump_all(manifests, sys.stdout, explicit_start=True, sort_keys=False, width=120, allow_unicode=True)
    for problem in problems:
        print(f"{DISTRIBUTION}: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{DISTRIBUTION} run",
        usage="%(prog)s [options]",
        description=_wrap(Settings.__doc__ or ""),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    source = CliSettingsSource[argparse.ArgumentParser](Settings, root_parser=parser, add_argument_method=_add_option)
    try:
        options = CliApp.run(Settings, cli_args=list(arguments), cli_settings_source=source)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            where = ".".join(map(str, problem["loc"])).replace("_", "-")
            print(f"{DISTRIBUTION}: {f'--{where}: ' if where else ''}{problem['msg']}", file=sys.stderr)
        return 2
    # What is imported stays: to search it for garbage, now or later, takes a tenth of the time.
    gc.disable()
    # Importing kopf takes most of a second, and neither crd nor --help needs it.
    from lifecyclehook_operator import handlers, manager  # noqa: F401, PLC0415  (handlers registers itself with kopf)

    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    gc.enable()
    return manager.run(options)


def _add_option(parser: argparse.ArgumentParser, *flags: str, **how: Any) -> argparse.Action:  # noqa: ANN401
    """Add an option as pydantic-settings does, but with the words of a user instead of Python's types and values."""
    name = flags[0].removeprefix("--").replace("-", "_")
    if field := Settings.model_fields.get(name):
        default = field.default
        if isinstance(default, tuple):
            default = ", ".join(default)
        is_shown = default != "" and default is not False  # else the description says what that means
        how["help"] = f"{field.description}{f' (default: {default})' if is_shown else ''}".replace("%", "%%")
        if "{" not in how.get("metavar", "{"):  # the words to choose from stay
            *_, what = name.split("_")
            is_repeatable = isinstance(field.default, tuple)
            how["metavar"] = (
                "N" if what == name and not is_repeatable else what.upper().removesuffix("S" * is_repeatable)
            )
    return parser.add_argument(*flags, **how)


def _wrap(text: str) -> str:
    """Return a docstring with its paragraphs as wide as the terminal."""
    width = shutil.get_terminal_size().columns - 2
    return "\n\n".join(
        textwrap.fill(" ".join(paragraph.split()), width, break_on_hyphens=False) for paragraph in text.split("\n\n")
    )


if __name__ == "__main__":
    sys.exit(main())
