"""Attention with noise against PyTorch's SDPA without: the inputs, the rivals, the ratio of their times."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from stochroute.kernels import AttentionInputs, ScoreNoise, Visibility, attend
from stochroute.measuring.timing import interleaved, ratio
from stochroute.noise import attention_row_keys, key_words
from stochroute.paths import derive_paths

STRENGTH = 0.5  # nats


@dataclass(frozen=True)
class Shape:
    """Causal self-attention of b sequences of s tokens, with h heads of d channels."""

    batch: int = 1
    heads: int = 8
    length: int = 1024
    width: int = 64
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


def build_inputs(shape: Shape, noise: bool = True, grad: bool = False) -> AttentionInputs:
    """Random inputs from a fixed seed, each row of the batch along its own path."""
    stream = torch.Generator().manual_seed(shape.length)
    size = (shape.batch, shape.heads, shape.length, shape.width)
    query, key, value = (
        torch.randn(size, generator=stream).to(shape.device, shape.dtype).requires_grad_(grad) for _ in range(3)
    )
    slots = torch.arange(shape.length, device=shape.device).expand(shape.batch, -1)
    keys = key_words(derive_paths(7, shape.batch), shape.device)
    drawn = ScoreNoise(
        row_keys=attention_row_keys(keys, shape.heads, slots, 0),
        key_positions=slots,
        amplitude=torch.full(size[:3], STRENGTH, device=shape.device),
        distribution="normal",
    )
    visibility = Visibility(slots, slots, torch.tensor(2**30, device=shape.device), None)
    return AttentionInputs(query, key, value, visibility, drawn if noise else None, shape.width**-0.5)


def naive_attention(inputs: AttentionInputs) -> Tensor:
    """softmax((QKᵀ + N)/√d_k) V with N of shape (b, h, s, s) drawn by torch, as the formula stands on paper."""
    query, width = inputs.query, inputs.query.shape[-1]
    scores = query @ inputs.key.transpose(-1, -2)
    scores = (scores + STRENGTH * width**0.5 * torch.randn_like(scores)) / width**0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1) @ inputs.value


def stock_attention(inputs: AttentionInputs) -> Tensor:
    """PyTorch's scaled_dot_product_attention, causal, without noise."""
    return scaled_dot_product_attention(inputs.query, inputs.key, inputs.value, is_causal=True)


ARMS: dict[str, Callable[[AttentionInputs], Tensor]] = {
    "fused": lambda inputs: attend(inputs, "fused"),
    "fused, no noise": lambda inputs: attend(inputs, "fused"),
    "blocked": lambda inputs: attend(inputs, "blocked"),
    "naive": naive_attention,
    "sdpa": stock_attention,
}


def naive_bytes(shape: Shape) -> int:
    """What `naive_attention` needs at its peak: scores, noise, and the results of adding, masking and the softmax."""
    return 5 * shape.batch * shape.heads * shape.length**2 * shape.dtype.itemsize


def over_stock(arm: str, shape: Shape, pairs: int, backward: bool = False) -> dict[str, float]:
    """An arm's time over SDPA's: "median" with its 95 % interval "low", "high", "pairs", and SDPA's own seconds.

    Args:
        arm: a name of ARMS.
        shape: of both.
        pairs: interleaved pairs.
        backward: whether the backward pass is timed as well.
    """
    inputs = build_inputs(shape, noise="no noise" not in arm, grad=backward)
    grad = torch.ones_like(inputs.query)

    def runs(function: Callable[[AttentionInputs], Tensor]) -> Callable[[], None]:
        def run() -> None:
            out = function(inputs)
            if backward:
                torch.autograd.grad(out, (inputs.query, inputs.key, inputs.value), grad)
            if shape.device != "cpu":
                torch.cuda.synchronize()

        return run

    seconds = interleaved(runs(ARMS[arm]), runs(stock_attention), pairs, warmup=min(pairs, 3))
    return {**ratio(seconds[:, 0], seconds[:, 1]), "sdpa_seconds": float(np.median(seconds[:, 1]))}
