"""A file of results that survives an interruption: one JSON object a line, appended entry by entry.

The first line says which run it is; a file of another run is refused and stays as it is.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_BEGINNING = b'{"run":'  # of the first line, which may have been cut in half


class ResumableFile:
    """The entries of a run, on disk where a file is named.

    Attributes:
        entries: those there are, in order; grows as they are added.
    """

    def __init__(self, file: str | Path | None, run: dict[str, Any], resume: bool, check: Callable[[Any], object]):
        """Opens the file, which is written at the first entry.

        Args:
            file: where to keep the entries; None for nowhere.
            run: what tells this run from another, as JSON types.
            resume: whether the file may be there already.
            check: raises KeyError, TypeError or ValueError for what is no entry.

        Raises:
            ValueError: the file is there and resume is not asked for, it belongs to another run, or it holds
                something else.
            OSError: it cannot be read, or its folder cannot be written to.
        """
        self.entries: list[Any] = []
        self._path = None if file is None else Path(file)
        self._run = json.loads(json.dumps(run))
        self._whole_bytes = 0
        self._stream: IO[bytes] | None = None
        if self._path is None:
            return
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise FileNotFoundError(f"output {file}: name a file in a folder that is there")
        if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise PermissionError(f"output {file}: not writable; choose another place")
        if self._path.exists():
            if not resume:
                raise ValueError(f"output {file}: exists; resume it, or choose another name")
            self._read(check)

    def add(self, entry: Any) -> None:
        """Keeps the entry, a JSON value, and flushes it to the file. OSError when there is no room for it."""
        if self._path is None:
            self.entries.append(entry)
            return
        lines = [entry]
        if self._stream is None:
            self._stream = self._path.open("ab")
            self._stream.truncate(self._whole_bytes)  # a line that an interruption cut in half
            if not self._whole_bytes:
                lines = [{"run": self._run}, entry]
        try:
            self._stream.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
            self._stream.flush()
        except OSError as error:
            raise OSError(f"output {self._path}: {error.strerror or error}; make room and resume") from error
        self.entries.append(entry)

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            with suppress(OSError):  # what did not fit has been said already
                self._stream.close()

    def _read(self, check: Callable[[Any], object]) -> None:
        assert self._path is not None
        data = self._path.read_bytes()
        self._whole_bytes = data.rfind(b"\n") + 1
        if not self._whole_bytes and not _BEGINNING.startswith(data[: len(_BEGINNING)]):
            raise ValueError(f"output {self._path}: no results of this command; choose another name")
        for number, line in enumerate(data[: self._whole_bytes].split(b"\n")[:-1], 1):
            try:
                value = json.loads(line)
                if number > 1:
                    check(value)
                    self.entries.append(value)
                    continue
                found = value["run"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"output {self._path}, line {number}: no result of this command; name the file of the "
                    f"interrupted run"
                ) from error
            self._compare(found)

    def _compare(self, found: Any) -> None:
        if found == self._run:
            return
        found = found if isinstance(found, dict) else {}
        differ = [name for name in {**self._run, **found} if found.get(name) != self._run.get(name)]
        then = "; ".join(f"{name} was {found.get(name)!r}, now {self._run.get(name)!r}" for name in differ)
        raise ValueError(
            f"output {self._path}: belongs to another run ({then}); give the options of that run, or another name"
        )
