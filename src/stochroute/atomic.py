"""Writes a text file in one step."""

import os
import tempfile
from pathlib import Path


def write_text(file: Path, content: str) -> None:
    """Replaces the file: a reader sees the old one or the new one, whole, whatever happens on the way.

    Raises:
        OSError: the folder cannot be written; the old file stands.
    """
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_umask())  # what open() would have given
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    # there is no way to read it without setting it
    mask = os.umask(0)
    os.umask(mask)
    return mask
