"""Tables in and out: JSON lines, CSV, Parquet, or whatever `datasets` loads, read row by row."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

Row = dict[str, Any]

FORMATS = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
_ROWS_AT_ONCE = 1000  # of a Parquet row group


def open_source(name: str, split: str = "train") -> Iterable[Row]:
    """The rows of a table, read from its beginning whenever it is iterated.

    Args:
        name: a file by its ending (.jsonl, .csv, .parquet); a folder that `datasets` has saved; or a name on the Hub.
        split: of a folder or a name.

    Raises:
        ValueError: there is no such table, it is empty or of another kind, or text that is not UTF-8.
        ImportError: `datasets` is missing.
    """
    from datasets import load_dataset, load_from_disk

    path = Path(name)
    if path.is_dir():
        try:
            found = load_from_disk(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{name}: no folder of `datasets` ({error}); name a file, or what save_to_disk wrote"
            ) from error
        if isinstance(found, dict):
            if split not in found:
                raise ValueError(f"{name}: has no split {split!r}, only {', '.join(map(str, found))}; name one of them")
            found = found[split]
        return found  # pyright: ignore[reportReturnType]
    kind = FORMATS.get(path.suffix.lower())
    if path.exists() or kind is not None:
        if kind is None:
            raise ValueError(f"{name}: its ending is not known; name a {', '.join(FORMATS)} file")
        _check_file(path, text=kind != "parquet")
        # in a text "NA" is a text
        options: dict[str, Any] = {"keep_default_na": False} if kind == "csv" else {}
        return _Lines(name, lambda: load_dataset(kind, data_files=name, split="train", streaming=True, **options))
    return _Lines(name, lambda: load_dataset(name, split=split, streaming=True))


class _Lines:
    """Rows of a dataset, opened anew for every pass, with errors that name it."""

    def __init__(self, name: str, load: Callable[[], Iterable[Row]]):
        self._name, self._load = name, load

    def __iter__(self) -> Iterator[Row]:
        read = 0
        try:
            for row in self._load():
                yield row
                read += 1
        # whatever is raised here is about the table that the user named: a dozen packages read tables
        except Exception as error:
            told = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"{self._name}, after row {read}: cannot be read ({told}); mend or convert it") from error


def _check_file(path: Path, text: bool) -> None:
    try:
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: is empty; name a file with rows in it")
        if not text:
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path}, line {number}: not UTF-8, so the file mixes encodings or has another one; convert "
                        f"it, for example with iconv -t utf-8"
                    ) from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; name a readable file") from error


def check_target(path: Path) -> str:
    """The format of a file to be written, by its ending; ValueError when it cannot be written there."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"output {path}: its ending is not known; name a {', '.join(FORMATS)} file")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"output {path}: name a file in a folder that is there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"output {path}: not writable; choose another place")
    return FORMATS[path.suffix.lower()]


def write_table(path: Path, columns: list[str], rows: Callable[[], Iterable[Row]]) -> None:
    """Writes the file whole or not at all; the same rows give the same bytes.

    Args:
        path: its ending chooses the format.
        columns: in order; a row without one has a null there.
        rows: opens the rows anew; they are read once, for Parquet twice.

    Raises:
        OSError: there is no room.
    """
    kind = check_target(path)
    staging = path.with_name(f".{path.name}.part")
    try:
        if kind == "parquet":
            _write_parquet(staging, columns, rows)
        else:
            with staging.open("w", encoding="utf-8", newline="") as file:
                _write_json(file, columns, rows()) if kind == "json" else _write_csv(file, columns, rows())
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(staging, path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def _write_json(file: Any, columns: list[str], rows: Iterable[Row]) -> None:
    for row in rows:
        file.write(json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) + "\n")


def _write_csv(file: Any, columns: list[str], rows: Iterable[Row]) -> None:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # what a cell cannot hold as it is goes in as JSON
        writer.writerow(
            {k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for k, v in row.items()}
        )


def _write_parquet(path: Path, columns: list[str], rows: Callable[[], Iterable[Row]]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    def tables() -> Iterator[Any]:
        opened = iter(rows())
        while chunk := list(islice(opened, _ROWS_AT_ONCE)):
            yield pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in chunk])

    schema = pa.schema([(name, pa.null()) for name in columns])
    for table in tables():
        schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
    with ParquetWriter(path, schema) as writer:
        for table in tables():
            writer.write_table(table.cast(schema))
