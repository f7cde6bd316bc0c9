"""What the tests of augmentation share: a tiny model, a table of rows, and runs in processes that get killed."""

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import stochroute as sr
from stochroute.applications.augment import Augmentation, Report, Template, augment
from stochroute.applications.augment.duplicates import Near
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, load_model

ROWS = [{"text": f"row {n} of {n * n} words", "label": ("up", "down")[n % 2], "id": f"r{n}"} for n in range(18)]
SETTINGS = Augmentation(
    template=Template("{label}: {text:2}"),
    source_id="id",
    paths=2,
    seed=7,
    decoding=Decoding(temperature=1.0),
    new_tokens=4,
    near=Near("minhash", 0.8),
    batch=3,
)


def load(folder: str) -> LoadedModel:
    """The tiny model in float64, whose ties are decided the same way in any batch."""
    return load_model(folder, "cpu", "float64")


def make(loaded: LoadedModel, output: Path, settings: Augmentation = SETTINGS, **options: Any) -> Report | None:
    """One run over ROWS."""
    noise = options.pop("noise", sr.Structural(strength=1.0))
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=noise))
    try:
        return augment(options.pop("source", ROWS), output, settings, loaded, routed, **options)
    finally:
        routed.detach()


def with_settings(**changes: Any) -> Augmentation:
    """SETTINGS, changed."""
    return replace(SETTINGS, **changes)


def in_a_process(work: Callable[[], object]) -> int:
    """Starts the work in a forked process, which has all modules and the model already, and returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_of(process: int) -> int:
    """Waits for it: its exit code, or minus the signal that ended it."""
    status = os.waitpid(process, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_myself() -> None:
    """As `kill -9` from outside would, at this very place."""
    os.kill(os.getpid(), signal.SIGKILL)
