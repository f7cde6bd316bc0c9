"""Away from a model that knows the training set by heart.

Tokens by ln p + weight · (ln p − ln q), p the model, q the one that knows; classifier-free guidance with a negative
weight on what is known (Sanchez et al. 2023, arXiv 2306.17806), among the tokens that p finds plausible (contrastive
decoding, Li et al. 2022, arXiv 2210.15097). Two steps of a model a token.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from transformers import LlamaForCausalLM, LogitsProcessor


@dataclass(frozen=True)
class Away:
    """How far away.

    Attributes:
        weight: of the difference.
        plausible: how likely a token is at least, over the likeliest; by p, before any temperature.
    """

    weight: float
    plausible: float

    def __str__(self) -> str:
        return f"away × {self.weight:g}, plausible {self.plausible:g}"


@dataclass(frozen=True)
class AwayFrom(LogitsProcessor):
    """Puts the distance from `known` into the logits, before a temperature divides them."""

    known: LlamaForCausalLM
    away: Away

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        own = scores.log_softmax(-1)
        known = self.known(input_ids).logits[:, -1].float().log_softmax(-1)  # whole samples: they are a few tokens
        plausible = own >= own.amax(-1, keepdim=True) + math.log(self.away.plausible)
        return (own + self.away.weight * (own - known)).masked_fill(~plausible, -math.inf)
