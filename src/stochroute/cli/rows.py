"""The rows that `generate --json` and `--output` write: one JSON object a line, in the order of the prompts.

    {"prompt", "prompt_index", "text", "path", "start", "seed", "receipt": {…}}

`text` is the continuation, without the prompt. `path` is 16 hex digits. `seed` is null when the ids were given.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from stochroute.cli.errors import BadInput


@dataclass(frozen=True)
class Row:
    """One path's text, with all that walks it again."""

    prompt: str
    prompt_index: int
    text: str
    path: str
    start: int
    seed: int | None
    receipt: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """The row that `to_json` wrote; ValueError, KeyError or TypeError for anything else."""
        data = cast(dict[str, Any], json.loads(line))
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


class RowFile:
    """The file of --output: appended to batch by batch, so that it can be gone on with after any interruption."""

    def __init__(self, path: Path, resume: bool):
        """Reads what is there and changes nothing yet.

        Raises:
            BadInput: the file exists and `resume` was not asked for, or it holds something else than rows, or its
                folder cannot be written to.
        """
        self.path = path
        self.finished: list[Row] = []
        self._whole_bytes = 0
        self._stream: IO[bytes] | None = None
        folder = path.parent
        if path.is_dir():
            raise BadInput(f"--output {path}: is a folder; name a file")
        if not folder.is_dir():
            raise BadInput(f"--output {path}: there is no folder {folder}; make it first")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise BadInput(f"--output {path}: not writable; choose another place")
        if path.exists():
            if not resume:
                raise BadInput(f"--output {path}: exists; go on with it by --resume, or choose another name")
            self._read()

    def append(self, rows: list[Row]) -> None:
        """Writes the rows and flushes; a half-written line from an earlier run is cut off before the first."""
        try:
            if self._stream is None:
                self._stream = self.path.open("ab")
                self._stream.truncate(self._whole_bytes)
            self._stream.write("".join(row.to_json() + "\n" for row in rows).encode())
            self._stream.flush()
        except OSError as error:
            raise BadInput(f"--output {self.path}: {error.strerror or error}; choose another place") from error

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BadInput(f"--output {self.path}: {error.strerror or error}") from error
        self._whole_bytes = data.rfind(b"\n") + 1
        for number, line in enumerate(data[: self._whole_bytes].split(b"\n")[:-1], 1):
            try:
                self.finished.append(Row.from_json(line.decode()))
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(
                    f"--output {self.path}, line {number}: no row of stochroute generate; "
                    "name the file of the interrupted run"
                ) from error
