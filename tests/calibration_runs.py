"""Prompts, routings and an independent measurement of what noise does, for the tests of calibration."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

import stochroute as sr
from families import FAMILIES
from matrix import random_ids
from stochroute.calibration import Sample

LENGTHS = [9, 4, 7, 2, 9, 6]
PROMPTS = [row[:length] for row, length in zip(random_ids(len(LENGTHS), 9).tolist(), LENGTHS, strict=True)]
BUDGET = 0.05


def model(family: str = "llama") -> Any:
    """A tiny random model in float64, of its own."""
    return FAMILIES[family].build(torch.float64)


def both(**options: Any) -> sr.RoutingConfig:
    """Structural noise in all layers and attention noise, in proportions of their own."""
    return sr.RoutingConfig(
        structural=sr.Structural(layers="all", strength=(0.1, 0.0, 0.3)),
        attention=sr.Attention(strength=0.5),
        **options,
    )


@torch.no_grad()
def one_by_one(routed: sr.RoutedModel, sample: Sample) -> tuple[Tensor, Tensor]:
    """Σ KL(routed ‖ clean) of each pair, float64 (P, K), and Σ (H[mean_k p_k] − mean_k H[p_k]) of each prompt.

    Every row is read alone, without padding; the formulas are those of torch.distributions.
    """
    divergences, transmissions = [], []
    for row, start, paths in zip(sample.rows, sample.starts, sample.paths, strict=True):
        ids = torch.tensor([row])
        with routed.suspended():
            clean = Categorical(logits=routed.model(ids).logits[0, start:])
        along = []
        for path in paths:
            with routed.follow([path], start):
                along.append(Categorical(logits=routed.model(ids).logits[0, start:]))
        divergences.append([kl_divergence(noisy, clean).sum().item() for noisy in along])
        mixed = Categorical(probs=torch.stack([noisy.probs for noisy in along]).mean(0))
        entropies = torch.stack([noisy.entropy() for noisy in along]).mean(0)
        transmissions.append((mixed.entropy() - entropies).sum().item())
    return torch.tensor(divergences, dtype=torch.float64), torch.tensor(transmissions, dtype=torch.float64)
