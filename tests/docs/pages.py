"""The pages, their fenced blocks, their links, and the commands in their blocks."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "deploy/README.md")
    ),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
#: A line of output that stands for any lines.
ELLIPSIS = "..."


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a block, and what the block shows of its output."""

    block: Block
    text: str
    output: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block} {self.text}"


def find_blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    pattern = r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$"
    for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        content = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(page, text.count("\n", 0, found.start()) + 1, found["language"], content)


def find_commands() -> list[Command]:
    """Return the commands of all console blocks, which begin with a dollar."""
    commands = []
    for block in find_blocks("console", "sh", "bash", "shell"):
        before, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert block.language == "console", (
            f"{block} is a {block.language} block; write console, with $ before commands"
        )
        assert not before.strip(), f"{block} begins with output"
        for part in parts:
            text, *output = re.sub(r" \\\n +", " ", part.rstrip("\n")).split("\n")
            commands.append(Command(block, text, tuple(output)))
    return commands


def find_links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def find_inline_code(page: Path) -> set[str]:
    """Return what a page has in single backticks, on one line each."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)}


def find_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def matches(shown: tuple[str, ...], output: str) -> bool:
    """Whether a page shows an output: line by line, but for what is other each time, and what an ellipsis leaves out.

    The lines of a list, with an asterisk each, may come in any order: the API server names broken rules in none.
    """
    lines = (r"(?:.*\n)*" if line == ELLIPSIS else re.escape(line) + r"\n" for line in _normalize_all(shown))
    actual = "".join(f"{line}\n" for line in _normalize_all(output.rstrip("\n").split("\n")))
    return re.fullmatch("".join(lines), actual) is not None


def _normalize_all(lines: Iterable[str]) -> Iterator[str]:
    for is_list, group in groupby(map(_normalize, lines), key=lambda line: line.startswith("* ")):
        lines_of_one = list(group)
        yield from sorted(lines_of_one) if is_list else lines_of_one


def _normalize(line: str) -> str:
    line = re.sub(r"continue-\w{5}", "continue-x", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line)
    line = re.sub(r"\b\d+s$", "AGE", line.strip())
    return " ".join(line.split())
