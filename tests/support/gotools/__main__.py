"""`python -m tests.support.gotools NAME` prints where a program is, and builds it first if need be."""

import argparse
import sys
from functools import partial

from tests.support.controlplane import BinariesNotFoundError

from . import PACKAGES, find_or_make_tool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.gotools", description=__doc__)
    parser.add_argument("name", choices=PACKAGES)
    try:
        print(find_or_make_tool(parser.parse_args().name, partial(print, file=sys.stderr, flush=True)))
    except BinariesNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
