"""The file of a run: its circumstances in the first line, one answered question in every other, in a fixed order."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from stochroute.uncertainty.answers import Answered

FORMAT = "stochroute uncertainty 1"


class AnswerFile:
    """Appended to question by question, so that a run can be gone on with after any interruption.

    Attributes:
        path: where it is.
        finished: the rows that are there.
    """

    def __init__(self, path: Path, circumstances: dict[str, Any]):
        """Reads what is there and changes nothing yet.

        Args:
            path: an earlier file of the same run, or a new one.
            circumstances: all that the rows depend on, as JSON types.

        Raises:
            ValueError: the file holds something else, or the rows of another run; the message says what differs.
            OSError: it cannot be read, or its folder is not there.
        """
        self.path = path
        self.finished: list[Answered] = []
        self._header = {"format": FORMAT, **json.loads(json.dumps(circumstances))}
        self._whole_bytes = 0
        self._stream: IO[bytes] | None = None
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")
        if path.exists():
            self._read()

    def append(self, rows: Sequence[Answered]) -> None:
        """Writes the rows and flushes; a line that an earlier run left half-written is cut off first."""
        if self._stream is None:
            self._stream = self.path.open("ab")
            self._stream.truncate(self._whole_bytes)
            if not self._whole_bytes:
                self._write([self._header])
        self._write([row.to_dict() for row in rows])
        self.finished += rows

    def close(self) -> None:
        """Closes the file; reading it again goes on."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        assert self._stream is not None
        self._stream.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _read(self) -> None:
        data = self.path.read_bytes()
        self._whole_bytes = data.rfind(b"\n") + 1
        lines = data[: self._whole_bytes].split(b"\n")[:-1]
        if not lines:
            if data and not json.dumps({"format": FORMAT}).encode()[:-1].startswith(data[:20]):
                raise ValueError(f"{self.path}: is no file of stochroute uncertainty: name another one")
            return
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if number == 1:
                    self._compare(row)
                else:
                    self.finished.append(Answered.from_dict(row))
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}: is no row of stochroute uncertainty: name another file"
                ) from error

    def _compare(self, header: dict[str, Any]) -> None:
        if header["format"] != FORMAT:
            raise ValueError(f"{self.path}: is in the format {header['format']!r}, not {FORMAT!r}: name another file")
        names = [name for name in self._header if header.get(name) != self._header[name]]
        if names:
            said = "; ".join(f"{n} was {_short(header.get(n))}, now {_short(self._header[n])}" for n in names)
            raise ValueError(
                f"{self.path}: holds the answers of another run ({said}): name another file, or give that run's options"
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
