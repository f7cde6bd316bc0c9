"""Attention in blocks of queries: nothing of shape (q, k) is ever stored, in the forward or for the backward pass."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stochroute.kernels.reference import reference_attention
from stochroute.kernels.scores import ScoreNoise, Visibility

BLOCK_ELEMENTS = 1 << 20  # scores held at once over batch, heads, queries of the block and keys


def blocked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visibility: Visibility,
    noise: ScoreNoise | None,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
    dropout: float,
) -> Tensor:
    """See `stochroute.kernels.scores.AttentionKernel`. The backward pass computes each block again."""
    batch, heads, length, _ = query.shape
    rows = max(1, BLOCK_ELEMENTS // max(1, batch * heads * key.shape[2]))
    blocks = [slice(first, first + rows) for first in range(0, length, rows)] or [slice(None)]
    amplitude = None if noise is None else noise.amplitude
    trains = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (query, key, value, sinks, amplitude)
    )

    def block(chosen: slice, key: Tensor, value: Tensor) -> Tensor:
        return reference_attention(
            query[:, :, chosen],
            key,
            value,
            visibility.queries(chosen),
            None if noise is None else noise.queries(chosen),
            scaling,
            softcap,
            sinks,
            dropout,
        )

    if trains:
        return torch.cat([checkpoint(block, c, key, value, use_reentrant=False) for c in blocks], dim=2)
    return torch.cat([block(chosen, key, value) for chosen in blocks], dim=2)
