"""The reference: the formula written out, (q, k) matrices and all. It exists to be held against."""

import torch
from torch import Tensor

from stochroute.kernels.scores import ScoreNoise, Visibility, score_dtype


def reference_attention(
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
    """See `stochroute.kernels.scores.AttentionKernel`."""
    batch, heads, length, _ = query.shape
    groups, keys = key.shape[1], key.shape[2]
    grouped = (
        batch,
        groups,
        heads // groups * length,
        -1,
    )  # the query heads of one key head lie side by side

    scores = (query.reshape(grouped) @ key.transpose(-1, -2)).view(batch, heads, length, keys) * scaling
    scores = scores.to(score_dtype(scores.dtype))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if noise is not None:
        scores = scores + noise.expand()
    scores = scores.masked_fill(~visibility.allowed(), -torch.inf)

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
    weights = torch.nn.functional.dropout(weights, dropout, training=dropout > 0)
    return (weights.to(value.dtype).view(*grouped[:3], keys) @ value).view(batch, heads, length, -1)
