"""The launch of a kernel, with what all of them share."""

from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs `kernel` on a grid of programs, on the device of its first argument, a tensor or a `Strided`.

    The constants are its constexpr parameters and the compiler's options; the fusion of products and sums is named
    because Triton 3.10 changes its default.
    """
    first = arguments[0]
    # Triton launches on the current device, which in a model spread over several is not always the tensors' own
    with torch.cuda.device_of(first if isinstance(first, Tensor) else first.start):
        kernel[grid](*arguments, **constants, enable_fp_fusion=True)
