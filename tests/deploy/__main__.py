"""`python -m tests.deploy` writes what is made from the rest of deploy/: install.yaml and the chart.

With --image, it writes those of a release, which have this image in them, to a folder instead.
"""

import argparse
from pathlib import Path

from tests.deploy.chart import package_chart, write_chart
from tests.deploy.rendering import INSTALL, render_install, render_release
from tests.deploy.values import Image
from tests.support.controlplane import find_or_make_binaries
from tests.support.gotools import find_or_make_tool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--image", type=Image.parse, metavar="NAME[:TAG][@DIGEST]", help="default of TAG: the version")
    parser.add_argument("--folder", type=Path, default="dist", help="default: %(default)s")
    options = parser.parse_args()
    kubectl = find_or_make_binaries().kubectl
    if not options.image:
        INSTALL.write_text(render_install(kubectl))
        write_chart(kubectl)
        return
    options.folder.mkdir(exist_ok=True)
    (options.folder / INSTALL.name).write_text(render_release(kubectl, options.image))
    package_chart(find_or_make_tool("helm"), options.image, options.folder)


if __name__ == "__main__":
    main()
