"""Work in batches, each committed whole: a file with one line a batch, appended to and synced.

The first line says which run it is. A line that a kill has cut in half is no line, so a batch is there or it is not;
the file of another run is refused and stays as it is.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_BEGINNING = b'{"run": '


class Journal:
    """The batches of a run.

    Attributes:
        path: the file, beside the output.
        batches: how many are committed.
    """

    def __init__(self, path: Path, run: dict[str, Any], anew: bool = False):
        """Goes on with the file where it is there, and makes it where it is not.

        Args:
            path: of the file.
            run: what tells this run from another, as JSON types.
            anew: whether to throw away what is there.

        Raises:
            ValueError: it belongs to another run, holds something else, or another process is at work on it.
            OSError: it cannot be written.
        """
        self.path = path
        self._run = json.loads(json.dumps(run))
        self._stream: IO[bytes] = path.open("ab+")
        try:
            _lock(self._stream, path)
            if anew:
                self._stream.truncate(0)
            self.batches = self._check()
        except BaseException:
            self._stream.close()
            raise

    def commit(self, batch: dict[str, Any]) -> None:
        """Adds a batch, a JSON object; when this returns it is on the disk."""
        self._write(json.dumps(batch, ensure_ascii=False))
        self.batches += 1

    def read(self) -> Iterator[dict[str, Any]]:
        """The committed batches in order, one at a time."""
        with self.path.open("rb") as file:
            next(file)
            for _ in range(self.batches):
                yield json.loads(next(file))

    def close(self) -> None:
        """Closes the file and lets others have it."""
        self._stream.close()

    def remove(self) -> None:
        """Takes the file away."""
        self.path.unlink()

    def _check(self) -> int:
        """The number of whole batches; half a line at the end is cut off."""
        self._stream.seek(0)
        whole = batches = 0
        for number, line in enumerate(self._stream, 1):
            if not line.endswith(b"\n"):
                break
            try:
                value = json.loads(line)
                self._compare(value["run"]) if number == 1 else value["rows"]
            except (ValueError, KeyError, TypeError) as error:
                if isinstance(error, _AnotherRun):
                    raise
                raise ValueError(f"{self.path}, line {number}: no batch of this command; move the file away") from error
            whole += len(line)
            batches = number - 1
        if not whole and self.path.stat().st_size and not self._starts_as_one():
            raise ValueError(f"{self.path}: no journal of this command; move the file away")
        self._stream.truncate(whole)
        if not whole:
            self._write(json.dumps({"run": self._run}, ensure_ascii=False))
        return batches

    def _starts_as_one(self) -> bool:
        self._stream.seek(0)
        found = self._stream.read(len(_BEGINNING))
        return _BEGINNING.startswith(found)

    def _compare(self, found: Any) -> None:
        if found == self._run:
            return
        found = found if isinstance(found, dict) else {}
        differ = [name for name in {**self._run, **found} if found.get(name) != self._run.get(name)]
        then = "; ".join(f"{name} was {_shown(found.get(name))}, now {_shown(self._run.get(name))}" for name in differ)
        raise _AnotherRun(
            f"{self.path} belongs to another run: {then}; give the options of that run, or --overwrite to start anew"
        )

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise OSError(f"{self.path}: {error.strerror or error}; make room and resume") from error


class _AnotherRun(ValueError):
    pass


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _lock(stream: IO[bytes], path: Path) -> None:
    """Keeps other processes off the file for as long as this one lives; ValueError where one has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{path}: another process is at work on this run; let it finish, or end it") from error
