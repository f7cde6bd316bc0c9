"""What the kernels of structural noise are given, and their reference: h' = h + factor · rms(h) · (μ + σ ⊙ ξ)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stochroute.noise import Kind, vector_noise


@dataclass(frozen=True, eq=False)
class FeedForwardNoise:
    """The structural noise of one layer, not yet drawn.

    Attributes:
        keys: int64 (b, 2), the paths as Philox keys.
        blocks: int64 (b, s), the position block whose draw each position uses.
        layer: the layer's index, or `stochroute.noise.SHARED_LAYER`.
        distribution: name of the distribution.
        factor: float32 (b, s): strength times schedule; wants no gradient.
        relative: whether the noise is multiplied by the root mean square of the state it is added to.
        mu, sigma: float32 (hidden,).
    """

    keys: Tensor
    blocks: Tensor
    layer: int
    distribution: str
    factor: Tensor
    relative: bool
    mu: Tensor
    sigma: Tensor

    def draw(self) -> Tensor:
        """ξ, float32 (b, s, hidden)."""
        return vector_noise(self.keys[:, None], len(self.mu), self.blocks, self.layer, Kind.FFN, self.distribution)


def add_noise(states: Tensor, noise: FeedForwardNoise) -> Tensor:
    """The reference: states (b, s, hidden) with their noise."""
    wide = torch.promote_types(states.dtype, torch.float32)
    unit = noise.mu.to(wide) + noise.sigma.to(wide) * noise.draw().to(wide)
    return add_unit_noise(states, unit, noise.factor, noise.relative)


def add_unit_noise(states: Tensor, unit: Tensor, factor: Tensor, relative: bool) -> Tensor:
    """states + factor · rms(states) · unit, computed in float32 or wider, in the states' dtype.

    Args:
        states: (b, s, hidden).
        unit: noise of unit strength, broadcastable against the states.
        factor: float32 (b, s).
        relative: without it, rms(states) is 1.
    """
    wide = torch.promote_types(states.dtype, torch.float32)
    clean, factor = states.to(wide), factor.to(wide)[..., None]
    if relative:
        # the norm, whose gradient at 0 is 0, not √mean(x²), whose gradient there is NaN
        factor = factor * torch.linalg.vector_norm(clean, dim=-1, keepdim=True) / states.shape[-1] ** 0.5
    return (clean + factor * unit.to(wide)).to(states.dtype)
