"""`python -m tests.support.gotools NAME ...` prints where these programs are, and builds them first if need be."""

import argparse
import sys
from functools import partial

from tests.support.controlplane import BinariesNotFoundError

from . import PACKAGES, find_or_make_tool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.gotools", description=__doc__)
    parser.add_argument("names", choices=PACKAGES, nargs="+", metavar="NAME")
    try:
        for name in parser.parse_args().names:
            print(find_or_make_tool(name, partial(print, file=sys.stderr, flush=True)))
    except BinariesNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
