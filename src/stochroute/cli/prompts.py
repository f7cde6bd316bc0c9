"""Where prompts come from: the command line, a file, or standard input."""

import json
import os
import stat
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from stochroute.cli.errors import BadInput
from stochroute.errors import one_line


def read_prompts(arguments: list[str], file: str | None) -> list[str]:
    """The prompts in order; [] when none were given anywhere.

    Args:
        arguments: prompts from the command line.
        file: a file of prompts, "-" for standard input, None for standard input when something is piped into it.

    A file holds one prompt a line: plain text, or JSON objects with a "prompt" (other keys are left alone).
    Blank lines are skipped. A file named *.parquet is a table with a column "prompt".

    Raises:
        BadInput: a prompt is empty or no UTF-8, or the file cannot be read.
    """
    if arguments:
        if file is not None:
            raise BadInput(f"--prompts-file {file} has no effect beside prompts on the command line: give one of them")
        return [_checked(text, f"prompt {number}") for number, text in enumerate(arguments, 1)]
    if file is None:
        return _parse(_standard_input(), "standard input") if is_piped() else []
    if file.endswith(".parquet"):
        return _from_parquet(file)
    name = "standard input" if file == "-" else file
    prompts = _parse(_standard_input() if file == "-" else _bytes_of(file), name)
    if not prompts:
        raise BadInput(f'--prompts-file {file}: no prompt in it; write one a line, or {{"prompt": …}} objects')
    return prompts


def _from_parquet(file: str) -> list[str]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadInput(f"--prompts-file {file}: reading Parquet needs a package: pip install pyarrow") from error
    try:
        column: list[Any] = parquet.read_table(file, columns=["prompt"])["prompt"].to_pylist()
    except (OSError, KeyError, ValueError) as error:  # pyarrow's own errors are kinds of these
        raise BadInput(
            f"--prompts-file {file}: {one_line(error)}; name a readable Parquet file with a column of texts, prompt"
        ) from error
    prompts: list[str] = []
    for number, value in enumerate(column, 1):
        if not isinstance(value, str):
            raise BadInput(f"{file}, row {number}: prompt is {value!r}; every row needs a text")
        prompts.append(_checked(value, f"{file}, row {number}"))
    if not prompts:
        raise BadInput(f"--prompts-file {file}: no prompt in it")
    return prompts


def _bytes_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise BadInput(f"--prompts-file {file}: {error.strerror or error}; name a readable file") from error


def is_piped() -> bool:
    """Whether standard input is a pipe or a file: not a terminal, not /dev/null, not a daemon's socket."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or replaced by something without a descriptor
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _parse(data: bytes, name: str) -> list[str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{name}, line {line}: not UTF-8; convert the file, for example with iconv -t utf-8") from error
    # split at line feeds only: str.splitlines would also break at characters that JSON strings may hold
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines or not lines[0][1].startswith("{"):
        return [_checked(line, f"{name}, line {number}") for number, line in lines]
    return [_checked(_prompt_of(line, f"{name}, line {number}"), f"{name}, line {number}") for number, line in lines]


def _prompt_of(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: no JSON ({error.msg}); the first line is JSON, so every line must be") from error
    prompt = cast(Any, row).get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str):
        raise BadInput(f'{where}: no "prompt" with a text; write {{"prompt": "Once upon a time"}}')
    return prompt


def _checked(prompt: str, where: str) -> str:
    if not prompt:
        raise BadInput(f"{where}: the prompt is empty; give at least one character")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(f"{where}: the prompt is not valid UTF-8 text; convert it first") from error
    return prompt
