"""`python -m tests.deploy` writes what is made from the rest of deploy/: install.yaml."""

from tests.deploy.rendering import INSTALL, render_install
from tests.support.controlplane import find_or_make_binaries


def main() -> None:
    INSTALL.write_text(render_install(find_or_make_binaries().kubectl))


if __name__ == "__main__":
    main()
