"""Noise where it meets the model's numbers: attention with noise on its scores, structural noise on states."""

from stochroute.kernels.dispatch import (
    ATTENTION,
    AUTOMATIC,
    Choice,
    add_latent_noise,
    add_structural_noise,
    attend,
    choose_attention,
    choose_latent,
    choose_structural,
)
from stochroute.kernels.feed_forward import FeedForwardNoise
from stochroute.kernels.scores import AttentionInputs, DistanceBuckets, ScoreNoise, Visibility

__all__ = [
    "ATTENTION",
    "AUTOMATIC",
    "AttentionInputs",
    "Choice",
    "DistanceBuckets",
    "FeedForwardNoise",
    "ScoreNoise",
    "Visibility",
    "add_latent_noise",
    "add_structural_noise",
    "attend",
    "choose_attention",
    "choose_latent",
    "choose_structural",
]
