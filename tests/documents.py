"""The code blocks of the documentation's pages, and what they presume."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_EXCUSED = re.compile(r"<!-- not run: [^\n]+ -->\n\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file.
        language: what stands behind the fence, "" for nothing.
        text: with its last line end.
        line: lines before its first, so that a traceback points into the page.
        excused: whether the line above says `<!-- not run: REASON -->`.
    """

    page: Path
    language: str
    text: str
    line: int
    excused: bool


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    whole = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(whole):
        line = whole.count("\n", 0, found.start("text"))
        excused = _EXCUSED.search(whole[: found.start()]) is not None
        yield Block(page, found["language"], found["text"], line, excused)


def execute(block: Block, names: dict[str, object]) -> None:
    """Runs a Python block in the given namespace."""
    exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)


def commands(page: Path, program: str) -> Iterator[str]:
    """The command lines of a page that begin with the program, without their comments."""
    for block in blocks(page):
        if block.language in ("", "sh", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.startswith(f"{program} "):
                    yield re.sub(r"\s#.*", "", line)


def name(page: Path) -> str:
    """The page as the navigation names it."""
    return page.relative_to(DOCS).as_posix()
