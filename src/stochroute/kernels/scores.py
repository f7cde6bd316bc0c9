"""What an attention kernel is given besides queries, keys and values: who may see whom, and the noise.

Both are of size O(queries + keys); a kernel expands them to (queries, keys) only block by block.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from stochroute.noise import attention_noise


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which key a query may attend to.

    Attributes:
        key_slots: int (b, k), each key's place in the cache; −1 for padding.
        query_slots: int (b, q).
        window: int, a single number: how many latest slots are visible. A tensor, so that nothing waits for it.
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
class ScoreNoise:
    """The noise N/√d_k of one layer, in nats, not yet expanded.

    Attributes:
        row_keys: int64 (b, h, q, 2), see `stochroute.noise.attention_row_keys`.
        key_positions: int64 (b, k).
        amplitude: (b, h, q), the standard deviation for each head and query, in nats.
        distribution: name of the distribution.
    """

    row_keys: Tensor
    key_positions: Tensor
    amplitude: Tensor
    distribution: str

    def expand(self) -> Tensor:
        """(b, h, q, k) in the amplitude's dtype."""
        unit = attention_noise(self.row_keys, self.key_positions, self.distribution)
        return self.amplitude[..., None] * unit.to(self.amplitude.dtype)

    def queries(self, chosen: slice) -> "ScoreNoise":
        """The same for some of the queries."""
        return replace(self, row_keys=self.row_keys[:, :, chosen], amplitude=self.amplitude[:, :, chosen])


class AttentionKernel(Protocol):
    """softmax(cap(scaling · QKᵀ) + N/√d_k) V with grouped heads; keys and values are not repeated.

    Args:
        query: (b, h, q, d).
        key: (b, g, k, d), h a multiple of g.
        value: (b, g, k, d_v).
        visibility: which key a query may attend to; a query that may see none gets zeros.
        noise: None for a layer without noise.
        scaling: the model's own factor on QKᵀ, mostly 1/√d.
        softcap: c in c · tanh(scores/c), applied before the noise, so that strength stays in nats; None for none.
        sinks: (h,) logits of a key without value, None for none.
        dropout: share of attention weights dropped.

    Returns:
        (b, h, q, d_v) in the value's dtype; the softmax runs in float32 or wider.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visibility: Visibility,
        noise: ScoreNoise | None,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
        dropout: float,
    ) -> Tensor: ...


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which scores are softmaxed: float32, or the input's own where that is wider."""
    return torch.promote_types(dtype, torch.float32)
