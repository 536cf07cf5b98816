"""`python -m tests.deploy` writes what is made from the rest of deploy/: install.yaml."""

from tests.controlplane import find_or_make_binaries
from tests.deploy.rendering import INSTALL, render_install


def main() -> None:
    INSTALL.write_text(render_install(find_or_make_binaries().kubectl))


if __name__ == "__main__":
    main()
