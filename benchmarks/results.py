"""Result files, and the places in the documents that scripts fill from them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> dict[str, Any]:
    """One result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def of_size(name: str, size: str) -> str:
    """The name of a result that there is in several sizes; the CPU's has no suffix."""
    return name if size == "cpu" else f"{name}_{size}"


def interval(ratio: dict[str, float], digits: int) -> str:
    """A ratio with its 95 % interval."""
    return f"{ratio['median']:.{digits}f} × ({ratio['low']:.{digits}f} – {ratio['high']:.{digits}f})"


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; the first two rows are its head and the rule under it."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(document: Path, script: str, figures: str) -> None:
    """Puts the figures between the marks that name the script; what stood there before goes."""
    begin, end = f"<!-- figures: {script} -->", "<!-- end of figures -->"
    text = document.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{document.name} has no {begin} … {end}")
    document.write_text(pattern.sub(lambda _: f"{begin}\n{figures}\n{end}", text), encoding="utf-8")
