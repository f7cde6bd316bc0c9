"""The choice of the next token of every row, each with its own settings, drawn from its own path."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from stochroute.generation.spreading import Point, decide
from stochroute.noise import gumbel_noise

_NEUTRAL = {("temperature", 1.0), ("top_p", 1.0)}


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. What is not asked for is off; temperature 0 takes the likeliest token.

    Attributes:
        temperature: 0, or what the logits are divided by.
        top_k: the number of likeliest tokens that are kept; None keeps all.
        top_p: the share of probability that is kept.
        min_p: tokens below this share of the likeliest one's probability are dropped; None drops none.
        spread: whether the texts of one prompt share its distribution out.
    """

    temperature: float
    top_k: int | None
    top_p: float
    min_p: float | None
    spread: bool = False

    def settings(self) -> dict[str, Any]:
        """The settings that do something, by their names in transformers' generate, as its receipts name them."""
        if self.temperature == 0:
            return {}
        asked = {"temperature": self.temperature, "top_k": self.top_k or 0, "top_p": self.top_p, "min_p": self.min_p}
        return {
            "do_sample": True,
            **{name: value for name, value in asked.items() if value is not None and (name, value) not in _NEUTRAL},
            **({"spread": True} if self.spread else {}),
        }

    def warpers(self) -> LogitsProcessorList:
        """transformers' own warpers, in the order of its `generate`, so that a text is the same there."""
        warpers = LogitsProcessorList()
        if self.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k is not None:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            warpers.append(TopPLogitsWarper(self.top_p))
        if self.min_p is not None:
            warpers.append(MinPLogitsWarper(self.min_p))
        return warpers


def choose_tokens(
    logits: Tensor, samplings: list[Sampling], keys: Tensor, positions: Tensor, points: list[Point | None]
) -> Tensor:
    """The next token of each row: int64 (rows,).

    Args:
        logits: float32 (rows, vocabulary).
        samplings: one a row.
        keys: int64 (rows, 2), the paths as Philox keys.
        positions: int64 (rows,), the position of the token that is chosen.
        points: of the rows that are spread; they move on.
    """
    alike: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        alike.setdefault(sampling, []).append(row)
    tokens = torch.empty(len(samplings), dtype=torch.int64, device=logits.device)
    for sampling, rows in alike.items():
        chosen = torch.tensor(rows, device=logits.device)
        own = logits if len(alike) == 1 else logits[chosen]
        if sampling.temperature > 0:
            warped = sampling.warpers()(None, own)  # pyright: ignore[reportArgumentType]  (warpers read no ids)
            own = gumbel_noise(keys[chosen], logits.shape[-1], positions[chosen]).add_(warped)
            if sampling.spread:
                decide([point for row in rows if (point := points[row])], warped, own)
        tokens[chosen] = own.argmax(-1)
    return tokens
