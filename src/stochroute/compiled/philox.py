"""Grids of Philox words from the compiled library."""

import ctypes

import torch
from torch import Tensor

from stochroute.compiled import call

_DIMENSIONS = 6  # as in csrc/abi.h


class _PhiloxGrid(ctypes.Structure):
    """Mirrors struct PhiloxGrid of csrc/abi.h."""

    _fields_ = [
        ("size", ctypes.c_int64 * _DIMENSIONS),
        ("data", ctypes.c_void_p * 6),
        ("stride", ctypes.c_int64 * _DIMENSIONS * 6),
        ("out", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
    ]


def philox_grid(counters_and_keys: tuple[Tensor, ...]) -> Tensor | None:
    """int64 (..., 4): Philox4x32-10 of the counters c0 … c3 and the keys k0, k1, int64 tensors on the CPU that
    broadcast; None where they have too many dimensions for the library."""
    shape = torch.broadcast_shapes(*(t.shape for t in counters_and_keys))
    if len(shape) > _DIMENSIONS:
        return None
    grid = [t.expand((1,) * (_DIMENSIONS - len(shape)) + tuple(shape)) for t in counters_and_keys]
    out = torch.empty((*shape, 4), dtype=torch.int64)
    arguments = _PhiloxGrid(
        size=tuple(grid[0].shape),
        data=tuple(t.data_ptr() for t in grid),
        stride=tuple((ctypes.c_int64 * _DIMENSIONS)(*t.stride()) for t in grid),
        out=out.data_ptr(),
        threads=torch.get_num_threads(),
    )
    call("philox_grid", arguments)
    return out
