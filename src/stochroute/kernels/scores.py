"""What an attention kernel is given: queries, keys and values, who may see whom, and the noise on the scores.

Visibility and noise are of size O(queries + keys); a kernel expands them to (queries, keys) only block by block.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from stochroute.noise import attention_noise


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which key a query may attend to.

    Attributes:
        key_slots: int64 (b, k), each key's place in the cache; −1 for padding.
        query_slots: int64 (b, q).
        window: int64, a single number: how many latest slots are visible. A tensor, so that nothing waits for it.
        explicit: bool (b, q, k) where the rule is neither causal nor a window (packed or chunked sequences), else
            None.
    """

    key_slots: Tensor
    query_slots: Tensor
    window: Tensor
    explicit: Tensor | None

    def allowed(self) -> Tensor:
        """bool (b, 1, q, k)."""
        keys, queries = self.key_slots[:, None, :], self.query_slots[:, :, None]
        seen = keys >= 0
        if self.explicit is not None:
            seen = seen & self.explicit
        else:
            seen = seen & (keys <= queries) & (keys > queries - self.window)
        return seen[:, None]

    def queries(self, chosen: slice) -> "Visibility":
        """The same for some of the queries."""
        explicit = None if self.explicit is None else self.explicit[:, chosen]
        return replace(self, query_slots=self.query_slots[:, chosen], explicit=explicit)


@dataclass(frozen=True, eq=False)
class DistanceBuckets:
    """A mean and a standard deviation for each head and each range of distances between query and key.

    Bucket 0 holds distance 0, bucket 1 distances 1 and 2, bucket n distances 2ⁿ − 1 … 2ⁿ⁺¹ − 2; the last one holds
    all that are left. A key behind its query (some explicit masks) counts as distance 0.

    Attributes:
        mean: (h, n), n ≥ 1, multiplied by the amplitude.
        sigma: (h, n), multiplied by the amplitude.
        query_positions: int64 (b, q).
    """

    mean: Tensor
    sigma: Tensor
    query_positions: Tensor

    def expand(self, key_positions: Tensor) -> Tensor:
        """int64 (b, q, k): the bucket of every query and key."""
        distance = (self.query_positions[:, :, None] - key_positions.clamp_min(0)[:, None, :]).clamp_min(0)
        # the exponent of a float64 is the integer logarithm, exactly
        return (torch.frexp((distance + 1).double()).exponent.long() - 1).clamp_max(self.mean.shape[1] - 1)


@dataclass(frozen=True, eq=False)
class ScoreNoise:
    """The noise N/√d_k of one layer, in nats, not yet expanded: amplitude · ξ, or with buckets
    amplitude · (mean + sigma · ξ).

    Attributes:
        row_keys: int64 (b, h, q, 2), see `stochroute.noise.attention_row_keys`.
        key_positions: int64 (b, k).
        amplitude: (b, h, q), the standard deviation for each head and query, in nats.
        distribution: name of the distribution.
        buckets: what depends on the distance, None for nothing.
    """

    row_keys: Tensor
    key_positions: Tensor
    amplitude: Tensor
    distribution: str
    buckets: DistanceBuckets | None = None

    def expand(self) -> Tensor:
        """(b, h, q, k) in the amplitude's dtype."""
        unit = attention_noise(self.row_keys, self.key_positions, self.distribution).to(self.amplitude.dtype)
        if self.buckets is not None:
            bucket = self.buckets.expand(self.key_positions)[:, None]  # (b, 1, q, k)
            head = torch.arange(unit.shape[1], device=unit.device)[:, None, None]
            unit = self.buckets.mean[head, bucket] + self.buckets.sigma[head, bucket] * unit
        return self.amplitude[..., None] * unit

    def queries(self, chosen: slice) -> "ScoreNoise":
        """The same for some of the queries."""
        buckets = self.buckets
        if buckets is not None:
            buckets = replace(buckets, query_positions=buckets.query_positions[:, chosen])
        return replace(
            self, row_keys=self.row_keys[:, :, chosen], amplitude=self.amplitude[:, :, chosen], buckets=buckets
        )


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """The arguments of softmax(cap(scaling · QKᵀ) + N/√d_k) V with grouped heads; keys and values are not repeated.

    Attributes:
        query: (b, h, q, d).
        key: (b, g, k, d), h a multiple of g.
        value: (b, g, k, d_v).
        visibility: which key a query may attend to; a query that may see none gets zeros.
        noise: None for a layer without noise.
        scaling: the model's own factor on QKᵀ, mostly 1/√d.
        softcap: c in c · tanh(scores/c), applied before the noise, so that strength stays in nats; None for none.
        sinks: (h,) logits of a key without value, None for none.
        dropout: share of attention weights dropped.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    visibility: Visibility
    noise: ScoreNoise | None
    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0

    def parameters(self) -> list[Tensor]:
        """The tensors that may want a gradient."""
        found = [self.query, self.key, self.value]
        if self.sinks is not None:
            found.append(self.sinks)
        if self.noise is not None:
            found.append(self.noise.amplitude)
            if self.noise.buckets is not None:
                found += [self.noise.buckets.mean, self.noise.buckets.sigma]
        return found

    def queries(self, chosen: slice) -> "AttentionInputs":
        """The same for some of the queries."""
        return replace(
            self,
            query=self.query[:, :, chosen],
            visibility=self.visibility.queries(chosen),
            noise=None if self.noise is None else self.noise.queries(chosen),
        )


class AttentionGradients(NamedTuple):
    """The gradients of what `AttentionInputs` holds, each of its shape and dtype; None where there is nothing."""

    query: Tensor
    key: Tensor
    value: Tensor
    sinks: Tensor | None
    amplitude: Tensor | None
    mean: Tensor | None
    sigma: Tensor | None


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which scores are softmaxed: float32, or the input's own where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def like_projection(tensor: Tensor) -> Tensor:
    """An empty tensor for the gradient of (b, heads, s, d): of the same strides where they are dense, else laid out
    (b, s, heads, d), as the projections of a model are."""
    return torch.empty_like(tensor.transpose(1, 2)).transpose(1, 2)


def empty_output(query: Tensor, value: Tensor) -> Tensor:
    """An empty (b, h, q, d_v) in the value's dtype that lies in memory as (b, q, h, d_v), as the model's output
    projection reads it."""
    batch, heads, queries, _ = query.shape
    return value.new_empty(batch, queries, heads, value.shape[3]).transpose(1, 2)
