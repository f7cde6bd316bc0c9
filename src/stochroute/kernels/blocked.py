"""Attention in blocks of queries: nothing of shape (q, k) is ever stored, in the forward or for the backward pass."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stochroute.kernels.reference import reference_attention
from stochroute.kernels.scores import AttentionInputs

BLOCK_ELEMENTS = 1 << 20  # scores held at once over batch, heads, queries of the block and keys


def blocked_attention(inputs: AttentionInputs) -> Tensor:
    """See `stochroute.kernels.scores.AttentionInputs`. The backward pass computes each block again."""
    batch, heads, length, _ = inputs.query.shape
    rows = max(1, BLOCK_ELEMENTS // max(1, batch * heads * inputs.key.shape[2]))
    blocks = [slice(first, first + rows) for first in range(0, length, rows)] or [slice(None)]

    def block(chosen: slice, key: Tensor, value: Tensor) -> Tensor:
        return reference_attention(replace(inputs.queries(chosen), key=key, value=value))

    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs.parameters()):
        return torch.cat([checkpoint(block, c, inputs.key, inputs.value, use_reentrant=False) for c in blocks], dim=2)
    return torch.cat([block(chosen, inputs.key, inputs.value) for chosen in blocks], dim=2)
