"""Which implementation runs where: one table for attention, one for structural noise.

An implementation is chosen for each call by device and dtype. `Choice` says which one it is and why, and every caller
that reports on it asks the same functions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stochroute.compiled import LEVELS, level, library
from stochroute.kernels.blocked import blocked_attention
from stochroute.kernels.feed_forward import FeedForwardNoise, add_noise, add_unit_noise
from stochroute.kernels.operators import fused_add_noise, fused_add_unit_noise, fused_attention, has_triton
from stochroute.kernels.reference import reference_attention
from stochroute.kernels.scores import AttentionInputs

ATTENTION: dict[str, Callable[[AttentionInputs], Tensor]] = {
    "fused": fused_attention,
    "blocked": blocked_attention,
    "reference": reference_attention,
}
AUTOMATIC = "auto"

_CPU_DTYPES = (torch.float32, torch.bfloat16)
_CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Choice:
    """An implementation and why it is the one.

    Attributes:
        name: "fused", "blocked" or "reference".
        reason: for people.
    """

    name: str
    reason: str


@torch.compiler.assume_constant_result  # a compiled graph holds the answer, not the look at the machine
def _fused_or_why_not(device: str, dtype: torch.dtype) -> tuple[bool, str]:
    if device == "cpu":
        if dtype not in _CPU_DTYPES:
            return False, f"the compiled kernels take float32 and bfloat16, not {_short(dtype)}"
        if library() is None:
            return False, "the compiled kernels are missing (no C++ compiler at installation)"
        return True, f"compiled kernels, {LEVELS[level()]}"
    if device == "cuda":
        if dtype not in _CUDA_DTYPES:
            return False, f"the Triton kernels take float32, bfloat16 and float16, not {_short(dtype)}"
        if not has_triton():
            return False, "Triton is not installed"
        return True, "Triton kernels"
    return False, f"there are no fused kernels for device type {device!r}"


def choose_attention(device: torch.device, dtype: torch.dtype, dropout: float = 0.0) -> Choice:
    """What attention with noise runs on."""
    fused, reason = _fused_or_why_not(device.type, dtype)
    if fused and dropout > 0:
        return Choice("blocked", "dropout of attention weights is left to torch")
    return Choice("fused" if fused else "blocked", reason)


def choose_structural(device: torch.device, dtype: torch.dtype) -> Choice:
    """What structural noise of the shared and independent forms runs on."""
    fused, reason = _fused_or_why_not(device.type, dtype)
    return Choice("fused" if fused else "reference", reason)


def choose_latent(device: torch.device, dtype: torch.dtype) -> Choice:
    """What structural noise of the latent form runs on: a matrix product draws it, and what adds it is named."""
    if device.type != "cuda":
        return Choice("torch", "the latent form is a matrix product")
    fused, reason = _fused_or_why_not(device.type, dtype)
    return Choice("fused" if fused else "torch", f"the latent form is a matrix product, and to add it: {reason}")


def attend(inputs: AttentionInputs, implementation: str = AUTOMATIC) -> Tensor:
    """Attention with noise: (b, h, q, d_v) in the value's dtype.

    Args:
        inputs: see `AttentionInputs`.
        implementation: a name of ATTENTION, or "auto" for the best one here.

    Raises:
        ValueError: "fused" is asked for where it cannot run.
    """
    if implementation not in (AUTOMATIC, "fused"):
        return ATTENTION[implementation](inputs)
    dtype = inputs.query.dtype
    if inputs.key.dtype != dtype or inputs.value.dtype != dtype:
        choice = Choice("blocked", "queries, keys and values differ in dtype")
    else:
        choice = choose_attention(inputs.query.device, dtype, inputs.dropout)
    if implementation == "fused" and choice.name != "fused":
        raise ValueError(f"attention_kernel='fused' cannot run here, since {choice.reason}: choose 'auto'")
    return ATTENTION[choice.name](inputs)


def add_structural_noise(states: Tensor, noise: FeedForwardNoise) -> Tensor:
    """States (b, s, hidden) with their noise."""
    if choose_structural(states.device, states.dtype).name == "fused":
        return fused_add_noise(states, noise)
    return add_noise(states, noise)


def add_latent_noise(states: Tensor, unit: Tensor, factor: Tensor, relative: bool) -> Tensor:
    """States (b, s, hidden) with factor · rms(states) · unit, see `stochroute.kernels.feed_forward.add_unit_noise`."""
    fused = choose_latent(states.device, states.dtype).name == "fused"
    return (fused_add_unit_noise if fused else add_unit_noise)(states, unit, factor, relative)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
