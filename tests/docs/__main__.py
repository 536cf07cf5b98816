"""`python -m tests.docs` writes the generated parts of docs/reference.md."""

from tests.docs.reference import PAGE, render_page


def main() -> None:
    PAGE.write_text(render_page(PAGE.read_text()))


if __name__ == "__main__":
    main()
