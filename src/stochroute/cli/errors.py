"""Which errors are the user's: those get one line and exit code 2; any other is a bug and keeps its traceback."""

import traceback

from stochroute.errors import one_line


class BadInput(ValueError):
    """An argument, a file or a model that cannot be used. The message names it and says what to do."""


def is_for_the_user(error: Exception) -> bool:
    """Whether the message was written for the person at the command line.

    So it is for BadInput, and for the ValueErrors and OSErrors that this package raises itself. The same classes
    raised by other packages are bugs, unless the code that called them says otherwise by raising BadInput.
    """
    if isinstance(error, BadInput):
        return True
    if not isinstance(error, ValueError | OSError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    home = str(frames[-1].f_globals.get("__name__", "")) if frames else ""
    return home.partition(".")[0] == "stochroute"


def came_from_ctrl_c(error: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt began it: one that falls into an import comes out as another error."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def missing_packages(error: ImportError, extra: str) -> BadInput:
    """What to raise where an optional package is not installed."""
    return BadInput(f"this needs more packages ({one_line(error)}): pip install 'stochroute[{extra}]'")


class Interrupted(Exception):
    """Ctrl-C; the message says how to go on. Exit code 130."""


class Failed(Exception):
    """What was to be shown is not so; the message says why. Exit code 1."""
