"""Which checkpoints are whole: a record written last names every file with its size and hash, so that a checkpoint
that was cut short, by a kill or a full disk, never passes for a good one.

    seal(Path("out/checkpoint-20"), run)          # after everything else was written
    last_good("out")                              # the newest whole one, None where there is none
"""

import hashlib
import json
import os
import warnings
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

RECORD_FILE = "stochroute.json"

Run = dict[str, str | int]  # what a run has to share with the one it goes on from, by name


class TornCheckpoint(UserWarning):
    """A checkpoint was cut short and is passed over; training goes on from the one before."""


def seal(folder: Path, run: Run) -> None:
    """Writes the record of a checkpoint that is complete.

    Raises:
        OSError: it cannot be written.
    """
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != RECORD_FILE
    }
    staged = folder / f".{RECORD_FILE}"
    with open(staged, "w", encoding="utf-8") as record:
        json.dump({"run": run, "files": files}, record, indent=2)
        record.flush()
        os.fsync(record.fileno())
    os.replace(staged, folder / RECORD_FILE)


def unseal(folder: Path) -> None:
    """Takes the record away before the checkpoint is written over."""
    (folder / RECORD_FILE).unlink(missing_ok=True)


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None where it is whole."""
    try:
        files = json.loads((folder / RECORD_FILE).read_bytes())["files"]
    except FileNotFoundError:
        return f"it has no {RECORD_FILE}, which is written last"
    except (ValueError, KeyError, TypeError):
        return f"{RECORD_FILE} is corrupt"
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes of {expected['bytes']}"
        if _sha256(file) != expected["sha256"]:
            return f"{name} is corrupt"
    return None


def run_of(folder: Path) -> Run:
    """What `seal` was told about the run."""
    return json.loads((folder / RECORD_FILE).read_bytes())["run"]


def checkpoints_in(output: str | os.PathLike[str]) -> list[Path]:
    """The checkpoint folders, whole or not, by rising step."""
    found = {
        int(folder.name.rpartition("-")[2]): folder
        for folder in Path(output).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if folder.is_dir() and folder.name.rpartition("-")[2].isdecimal()
    }
    return [found[step] for step in sorted(found)]


def last_good(output: str | os.PathLike[str]) -> Path | None:
    """The newest whole checkpoint; a newer one that is not whole is named in a TornCheckpoint warning."""
    for folder in reversed(checkpoints_in(output)):
        fault = fault_of(folder)
        if fault is None:
            return folder
        warnings.warn(f"checkpoint {folder} is passed over: {fault}", TornCheckpoint, stacklevel=2)
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
