"""Noise as a pure function of (path id, site, position, index): no generator, no global seed, no state.

Everything here is integer arithmetic in torch until one last affine step, so that every device and every
batch shape gives the same bits. This is the reference that faster implementations are held against.
"""

from stochroute.noise.distributions import DISTRIBUTIONS, normal, rademacher, uniform, unit_variance
from stochroute.noise.draws import (
    NOISE_VERSION,
    SHARED_LAYER,
    Kind,
    attention_noise,
    attention_row_keys,
    code_points,
    gumbel_noise,
    key_words,
    sibling_noise,
    vector_noise,
)
from stochroute.noise.philox import philox4x32

__all__ = [
    "DISTRIBUTIONS",
    "NOISE_VERSION",
    "SHARED_LAYER",
    "Kind",
    "attention_noise",
    "attention_row_keys",
    "code_points",
    "gumbel_noise",
    "key_words",
    "normal",
    "philox4x32",
    "rademacher",
    "sibling_noise",
    "uniform",
    "unit_variance",
    "vector_noise",
]
