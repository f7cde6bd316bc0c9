"""How many queries and keys a kernel handles at once, and with how many warps and stages of prefetching.

The numbers for half precision with the shared memory of a Hopper and heads up to 128 wide are the fastest of a dozen on
an H200, causal, with noise. The others are those at which Triton's compiler keeps registers from spilling (mostly) and
shared memory within the bounds of the device.
"""

from functools import cache
from typing import NamedTuple

import torch
import triton
from triton import knobs

from stochroute.kernels.scores import AttentionInputs

# TRITON_INTERPRET=1 when triton was imported: kernels run in NumPy on the CPU
INTERPRETED: bool = knobs.runtime.interpret

_ROOMY = 200 << 10  # bytes of shared memory a block may take on Hopper (227 KiB) and not on what came before


class Blocks(NamedTuple):
    """The sizes of one kernel's blocks and its launch options."""

    queries: int
    keys: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        """The compiler's options among the keyword arguments of a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages}


class Case(NamedTuple):
    """What the sizes depend on.

    Attributes:
        width: the wider of key and value heads, a power of two.
        half: whether elements take 16 bits, and so the tensor cores.
        gathers: whether each score looks something up (an explicit mask, distance buckets).
        roomy: whether the device has the shared memory of a Hopper.
    """

    width: int
    half: bool
    gathers: bool
    roomy: bool


def case_of(inputs: AttentionInputs, width: int) -> Case:
    """The case of these inputs, whose heads are padded to `width`."""
    gathers = inputs.visibility.explicit is not None or (inputs.noise is not None and inputs.noise.buckets is not None)
    return Case(width, inputs.query.element_size() == 2, gathers, shared_memory(inputs.query.device) >= _ROOMY)


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes that one block may take; 0 where the interpreter runs."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin if device.type == "cuda" else 0


def forward_blocks(case: Case) -> Blocks:
    """For the forward pass over many queries."""
    if INTERPRETED:
        return Blocks(16, 16, 4, 1)  # small, so that short tests span several
    if not case.half:
        return Blocks(32 if case.width <= 64 else 16, 32, 8, 2)
    if not case.roomy:
        return Blocks(64, 32, 4, 2) if case.width <= 128 else Blocks(32, 32, 4, 1)
    if case.width <= 128:
        return Blocks(64, 64, 8, 3) if case.gathers else Blocks(128, 32, 4, 3)
    return Blocks(64, 64, 8, 2)


def decode_blocks(case: Case, rows: int) -> Blocks:
    """For `rows` pairs of head and query that share their keys; `queries` counts such pairs."""
    if INTERPRETED:
        return Blocks(16, 16, 4, 1)
    pairs = max(16, triton.next_power_of_2(rows))
    if not case.half:
        return Blocks(16, 32, 8, 2)
    if not case.roomy or case.width > 128:
        return Blocks(min(pairs, 16 if case.width > 128 else 32), 32, 4, 2)
    return Blocks(min(pairs, 32 if case.gathers else 64), 64, 4, 3)


def query_gradient_blocks(case: Case) -> Blocks:
    """For the gradients of queries and noise."""
    if INTERPRETED:
        return Blocks(16, 16, 4, 1)
    if not case.half:
        return Blocks(16, 16, 8, 1)
    if not case.roomy or case.width > 128:
        return Blocks(32, 32, 8, 1)
    if case.gathers:
        return Blocks(32, 64, 8, 2)
    return Blocks(128, 32, 4, 2) if case.width <= 64 else Blocks(64, 64, 4, 2)


def key_gradient_blocks(case: Case) -> Blocks:
    """For the gradients of keys and values."""
    if INTERPRETED:
        return Blocks(16, 16, 4, 1)
    if not case.half:
        return Blocks(16, 32, 8, 1) if case.width <= 128 else Blocks(16, 16, 8, 1)
    if not case.roomy or case.width > 128:
        return Blocks(32, 32, 8, 1)
    return Blocks(32, 64, 8, 2) if case.gathers else Blocks(32, 64, 4, 2)
