"""Fills docs/results.md: every result file with the command that made it.

python benchmarks/results_page.py
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results import RESULTS, fill, markdown

BENCHMARKS = Path(__file__).parent
PAGE = BENCHMARKS.parent / "docs" / "results.md"
HEAD = [["file", "made by", "date", "machine"], ["---"] * 4]


def records(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a result that names a command, outermost first."""
    if isinstance(part, dict):
        if isinstance(part.get("command"), str):
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from records(inner)


def purpose(command: str) -> str:
    """What the command's script says of itself in its first line; empty for other commands."""
    script = re.match(r"python (?:benchmarks/)?(\w+\.py)\b", command)
    if script is None:
        return ""
    docstring = ast.get_docstring(ast.parse((BENCHMARKS / script[1]).read_text(encoding="utf-8")))
    assert docstring is not None, f"{script[1]} does not say what it measures"
    return docstring.splitlines()[0]


def cell(text: str) -> str:
    """Text that fits into a table's cell."""
    return text.replace("|", "\\|")


def row(file: Path, commands_of_runs: set[str]) -> list[str]:
    """File, commands, dates and machine; commands that the runs below have as well are only counted."""
    found = list(records(json.loads(file.read_text(encoding="utf-8"))))
    if not found:
        raise SystemExit(f"{file.relative_to(RESULTS)} names no command: save results with harness.save")
    commands = list(dict.fromkeys(record["command"] for record in found))
    own = [command for command in commands if command not in commands_of_runs]
    shown = [f"`{cell(command)}`" for command in own]
    if len(own) < len(commands):
        shown.append(f"{len(commands) - len(own)} of the runs below")
    dates = sorted({record["date"] for record in found if "date" in record})
    machines = sorted(
        {record.get("gpu", record["processor"].partition(" (")[0]) for record in found if "processor" in record}
    )
    name = file.relative_to(RESULTS).as_posix()
    return [f"`{name}`", "<br>".join(shown), " – ".join(dict.fromkeys((dates[0], dates[-1]))), ", ".join(machines)]


def figures() -> str:
    """The tables: results first, then the single runs that some of them are made from, by folder."""
    results, runs = sorted(RESULTS.glob("*.json")), sorted(RESULTS.glob("*/**/*.json"))
    rows_of_runs = {file: row(file, set()) for file in runs}
    commands_of_runs = {r["command"] for file in runs for r in records(json.loads(file.read_text(encoding="utf-8")))}
    parts = [markdown([*HEAD, *(row(file, commands_of_runs) for file in results)])]
    for folder in sorted({file.parent for file in runs}):
        rows = [rows_of_runs[file] for file in runs if file.parent == folder]
        parts.append(f"### {folder.relative_to(RESULTS).as_posix()}\n\n{markdown([*HEAD, *rows])}")
    scripts = {}
    for file in results:
        for record in records(json.loads(file.read_text(encoding="utf-8"))):
            if text := purpose(record["command"]):
                scripts[record["command"].split()[1].removeprefix("benchmarks/")] = text
    described = [["script", "what it measures"], ["---"] * 2]
    described += [[f"`benchmarks/{script}`", cell(text)] for script, text in sorted(scripts.items())]
    return "\n\n".join([f"### The scripts\n\n{markdown(described)}", "### The results\n", *parts])


if __name__ == "__main__":
    fill(PAGE, "benchmarks/results_page.py", figures())
