"""Attention with noise on its scores: several implementations of one function."""

from stochroute.kernels.blocked import blocked_attention
from stochroute.kernels.reference import reference_attention
from stochroute.kernels.scores import AttentionKernel, ScoreNoise, Visibility

KERNELS: dict[str, AttentionKernel] = {"blocked": blocked_attention, "reference": reference_attention}

__all__ = [
    "KERNELS",
    "AttentionKernel",
    "ScoreNoise",
    "Visibility",
    "blocked_attention",
    "reference_attention",
]
