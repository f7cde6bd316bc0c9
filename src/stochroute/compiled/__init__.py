"""The compiled kernels of csrc: where the library lies, which instruction set of it runs, and how it is called.

The library has a plain C interface and knows nothing of torch, so that it is built without torch and serves every
version of it. It is loaded at the first use.
"""

import ctypes
import functools
import os
import warnings
from pathlib import Path

from torch import Tensor

LEVELS = ("baseline", "avx2", "avx512", "avx512_popcount")
LEVEL_VARIABLE = "STOCHROUTE_CPU_LEVEL"
_FILE = Path(__file__).with_name("libstochroute_kernels.so")


class KernelsMissing(UserWarning):
    """The package was installed without a C++ compiler, so the slower torch code runs instead of the kernels."""


class Strided(ctypes.Structure):
    """Mirrors struct Strided of csrc/abi.h."""

    _fields_ = [("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4)]


def strided(tensor: Tensor | None) -> Strided:
    """A tensor of up to four dimensions, or none, as the kernels take it; they read and write its memory."""
    return Strided() if tensor is None else Strided(tensor.data_ptr(), tensor.stride())


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None, with one warning (KernelsMissing), where there is none."""
    if _FILE.exists():
        return ctypes.CDLL(str(_FILE))
    warnings.warn(
        "stochroute was installed without its compiled kernels, so slower torch code runs instead: install a C++ "
        "compiler (g++ or clang++) and then stochroute again",
        KernelsMissing,
        stacklevel=2,
    )
    return None


@functools.cache
def level() -> int:
    """The index in LEVELS of the instruction set in use: the best the processor has, or the one asked for by the
    environment variable STOCHROUTE_CPU_LEVEL.

    Raises:
        ValueError: the variable names a level that is unknown or that this processor does not have.
    """
    loaded = library()
    assert loaded is not None
    able = LEVELS[: loaded.stochroute_levels()]
    asked = os.environ.get(LEVEL_VARIABLE) or able[-1]
    if asked not in able:
        raise ValueError(f"{LEVEL_VARIABLE}={asked!r} cannot be used here: choose one of {', '.join(able)}")
    return LEVELS.index(asked)


def call(function: str, arguments: ctypes.Structure) -> None:
    """Runs one of the kernels.

    Raises:
        MemoryError: there was no memory for its scratch space.
    """
    if getattr(library(), f"stochroute_{function}")(level(), ctypes.byref(arguments)):
        raise MemoryError(f"{function}: no memory left for the scratch space of its threads")
