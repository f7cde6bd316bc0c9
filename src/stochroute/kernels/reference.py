"""The reference: the formula written out, (q, k) matrices and all. It exists to be held against."""

import torch
from torch import Tensor

from stochroute.kernels.scores import AttentionInputs, score_dtype


def reference_attention(inputs: AttentionInputs) -> Tensor:
    """See `stochroute.kernels.scores.AttentionInputs`."""
    query, key, value, sinks = inputs.query, inputs.key, inputs.value, inputs.sinks
    batch, heads, length, _ = query.shape
    groups, keys = key.shape[1], key.shape[2]
    # the query heads of one key head lie side by side
    grouped = (batch, groups, heads // groups * length)

    scores = query.reshape(*grouped, query.shape[3]) @ key.transpose(-1, -2)
    scores = scores.view(batch, heads, length, keys) * inputs.scaling
    scores = scores.to(score_dtype(scores.dtype))
    if inputs.softcap is not None:
        scores = torch.tanh(scores / inputs.softcap) * inputs.softcap
    if inputs.noise is not None:
        scores = scores + inputs.noise.expand()
    scores = scores.masked_fill(~inputs.visibility.allowed(), -torch.inf)

    top = scores.detach().amax(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    total = None
    if sinks is not None:
        sink = sinks.to(scores.dtype)[None, :, None, None]
        top = torch.maximum(top, sink.detach())
        total = torch.exp(sink - top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True) + (0 if total is None else total)
    # a query that sees no key has total 0 and weights 0: any finite divisor gives it zeros
    weights = weights / total.masked_fill(total == 0, 1.0)
    weights = torch.nn.functional.dropout(weights, inputs.dropout, training=inputs.dropout > 0)
    return (weights.to(value.dtype).view(*grouped, keys) @ value).view(batch, heads, length, value.shape[3])
