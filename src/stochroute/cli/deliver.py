"""Where the rows of `stochroute generate` go: a file, standard output, or a person's screen."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import typer
from rich.console import Console

from stochroute.cli.errors import BadInput, Failed, Interrupted
from stochroute.cli.progress import progress_bars
from stochroute.cli.rows import Row, RowFile
from stochroute.cli.show import Summary, show
from stochroute.cli.walks import Batch, Walks
from stochroute.generation.receipts import Receipt
from stochroute.paths import format_path, parse_path


def to_file(walks: Walks, file: RowFile, batch: int) -> Row:
    """Appends the rows that are missing, batch by batch, and returns the last row of the file.

    Raises:
        BadInput: the rows that are there come from another run, or the file cannot be written.
        Interrupted: the user pressed Ctrl-C; the file can be gone on with.
    """
    _check_rows(walks, file)
    there = len(file.finished)
    if there:
        typer.echo(f"{file.path}: {there} of {walks.total} rows are there already", err=True)
    last = file.finished[-1] if there else None
    written = there
    try:
        for rows in _walk(walks, there, batch):
            if written == there:
                _check_receipt(file, rows[0])
            file.append(rows)
            written += len(rows)
            last = rows[-1]
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: {written} of {walks.total} rows are in {file.path}; the same command with --resume goes on"
        ) from None
    finally:
        file.close()
    assert last is not None, "a run has at least one row"
    typer.echo(f"{file.path}: {written} rows", err=True)
    return last


def to_standard_output(walks: Walks, batch: int) -> Row:
    """Prints one JSON object a line, flushes after each batch, and returns the last row."""
    row = None
    for rows in _walk(walks, 0, batch):
        for row in rows:
            typer.echo(row.to_json())
        sys.stdout.flush()
    assert row is not None, "a run has at least one row"
    return row


def to_screen(walks: Walks, batch: int) -> Row:
    """Shows the texts of each prompt side by side, says how different they are, and returns the last row."""
    console = Console()
    summary = Summary()
    texts: list[Row] = []
    rows = (row for rows in _walk(walks, 0, batch) for row in rows)
    for _, group in groupby(rows, key=lambda row: row.prompt_index):
        texts = list(group)
        show(console, texts)
        summary.add(texts, walks.loaded.embedded)
    console.print(summary.line(walks.seed, walks.loaded.embedded), highlight=False, soft_wrap=True)
    return texts[-1]


def check_replay(walks: Walks, row: Row, beside_rows: bool) -> None:
    """Walks the row's path once more, alone, and says that its text came out the same.

    Args:
        beside_rows: whether rows go to standard output, so that this line goes to standard error.

    Raises:
        Failed: it did not.
    """
    again = walks.walk(Batch([row.prompt_index], [[parse_path(row.path)]]))[0]
    if again.text != row.text:
        raise Failed(
            f"path {row.path}, walked again alone, gave another text. In {row.receipt['dtype']} two tokens may be "
            "closer than the rounding of another batch; --dtype float64 decides such ties"
        )
    typer.echo(f"path {row.path} was replayed from its id, alone: identical text", err=beside_rows)


def _walk(walks: Walks, finished: int, most: int) -> Iterator[list[Row]]:
    """The rows of each batch, with a progress bar on a terminal where there are several batches."""
    with progress_bars(wanted=walks.total - finished > most) as bars:
        task = bars.add_task("texts", total=walks.total, completed=finished)
        for batch in walks.batches(finished, most):
            rows = walks.walk(batch)
            bars.advance(task, len(rows))
            yield rows


def _check_rows(walks: Walks, file: RowFile) -> None:
    """BadInput unless the finished rows are the first that this run would write."""
    if len(file.finished) > walks.total:
        raise BadInput(
            f"--output {file.path}: holds {len(file.finished)} rows, but this run has {walks.total}; "
            "give the prompts and --paths of the interrupted run"
        )
    ids: list[int] = []
    for number, row in enumerate(file.finished):
        prompt, sample = divmod(number, walks.paths_each)
        if sample == 0:
            ids = walks.ids(prompt)
        if (row.prompt, row.prompt_index) != (walks.prompts[prompt], prompt):
            raise BadInput(
                f"--output {file.path}, line {number + 1}: has another prompt; "
                "give the prompts and --paths of the interrupted run"
            )
        if row.path != format_path(ids[sample]):
            raise BadInput(
                f"--output {file.path}, line {number + 1}: has path {row.path}, this run {format_path(ids[sample])}; "
                "give the --seed, --paths or --replay of the interrupted run"
            )


def _check_receipt(file: RowFile, new: Row) -> None:
    """BadInput when the new row came about under other circumstances than the finished ones."""
    if not file.finished:
        return
    try:
        old = Receipt.from_dict(file.finished[-1].receipt)
    except ValueError as error:
        raise BadInput(f"--output {file.path}, line {len(file.finished)}: {error}; start a new file") from error
    # the start follows from the prompt, which has been compared
    differences = old.differences(replace(Receipt.from_dict(new.receipt), start=old.start))
    if differences:
        raise BadInput(
            f"--output {file.path}: was begun under other circumstances ({'; '.join(differences)}); "
            "give the options of the interrupted run, or start a new file"
        )
