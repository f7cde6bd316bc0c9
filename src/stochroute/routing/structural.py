"""Structural routing: noise on feed-forward outputs, h' = h + ε with ε = factor · (μ + σ ⊙ ξ)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stochroute.config import Structural, layer_indices, layer_strengths
from stochroute.noise import SHARED_LAYER, Kind, key_words, vector_noise
from stochroute.routing.walk import Context, Passage, Walk

_HELD = "structural"
_BASIS_KEY = 0
_BASIS_GRID = 2.0**20


class StructuralNoise(nn.Module):
    """The structural noise of one model.

    Parameters (float32, n noised layers, `hidden` channels):
        mu: (n, hidden), starts at 0.
        sigma: (n, hidden), starts at 1. Independent and shared forms.
        basis: (n, hidden, rank), starts with orthogonal columns, scaled so that ε has variance 1 on average over
            the channels. Latent form: ξ = U z.
    """

    strength: Tensor

    def __init__(self, config: Structural, context: Context, sites: dict[int, nn.Module], hidden: int, depth: int):
        super().__init__()
        self.config = config
        self.context = context
        self.layers = layer_indices(config.layers, list(sites), depth)
        strengths = layer_strengths(config.strength, self.layers)
        self.hidden = hidden
        self.mu = nn.Parameter(torch.zeros(len(self.layers), hidden))
        if config.form == "latent":
            if (config.rank or 0) > hidden:
                raise ValueError(f"rank={config.rank} is larger than the model's hidden size {hidden}: lower it")
            self.basis = nn.Parameter(_orthogonal_basis(self.layers, hidden, config.rank or 0))
        else:
            self.sigma = nn.Parameter(torch.ones(len(self.layers), hidden))
        # a tensor, so that another strength needs no recompilation
        self.register_buffer("strength", torch.tensor(strengths), persistent=False)
        self.silent = not any(strengths)
        self._handles: list[RemovableHandle] = [
            sites[layer].register_forward_hook(partial(self._hook, row))
            for row, layer in enumerate(self.layers)
            if strengths[row]
        ]

    def detach(self) -> None:
        """Takes every hook off the model."""
        for handle in self._handles:
            handle.remove()

    def begin_walk(self, walk: Walk) -> None:
        """Draws what lasts the whole walk."""
        if self.config.hold == "sequence":
            blocks = torch.zeros_like(walk.starts)
            if self.config.form == "independent":
                draws = [self._draw(walk.keys, blocks, layer) for layer in self.layers]
                walk.held[_HELD] = torch.stack(draws)[:, :, None]  # (n, b, 1, hidden)
            else:
                walk.held[_HELD] = self._draw(walk.keys, blocks, SHARED_LAYER)[:, None]  # (b, 1, hidden or rank)

    def begin_passage(self, passage: Passage) -> None:
        """Draws what all layers share in one forward pass."""
        if self.config.hold != "sequence" and self.config.form != "independent":
            blocks = passage.blocks(self.config.hold)
            passage.draws[_HELD] = self._draw(passage.walk.keys[:, None], blocks, SHARED_LAYER)

    def _draw(self, keys: Tensor, blocks: Tensor, layer: int) -> Tensor:
        n = (self.config.rank or 0) if self.config.form == "latent" else self.hidden
        return vector_noise(keys, n, blocks, layer, Kind.FFN, self.config.distribution)

    def _drawn(self, row: int, passage: Passage) -> Tensor:
        """ξ (or z) of one layer: float32, broadcastable against (b, s, hidden or rank)."""
        if self.config.hold == "sequence":
            held = passage.walk.held[_HELD]
            return held[row] if self.config.form == "independent" else held
        if self.config.form == "independent":
            blocks = passage.blocks(self.config.hold)
            return self._draw(passage.walk.keys[:, None], blocks, self.layers[row])
        return passage.draws[_HELD]

    def _hook(self, row: int, module: nn.Module, args: Any, output: Any) -> Any:
        passage = self.context.current()
        if passage is None:
            return None
        if isinstance(output, tuple):  # some mixture-of-experts blocks return (states, router logits)
            return (self._noised(row, output[0], passage), *output[1:])
        return self._noised(row, output, passage)

    def _noised(self, row: int, output: Tensor, passage: Passage) -> Tensor:
        batch, length = passage.positions.shape
        wide = torch.promote_types(output.dtype, torch.float32)
        states = output.view(batch, length, self.hidden).to(wide)  # OPT flattens (b, s, hidden) to (b·s, hidden)
        at = _mover(output.device, wide)
        factor = at(passage.factor(self.config.schedule))[..., None] * at(self.strength[row])  # (b, s, 1)
        if self.config.scale == "relative":
            # the norm, whose gradient at 0 is 0, not √mean(x²), whose gradient there is NaN
            factor = factor * torch.linalg.vector_norm(states, dim=-1, keepdim=True) / self.hidden**0.5
        drawn = at(self._drawn(row, passage))
        latent = self.config.form == "latent"
        unit = drawn @ at(self.basis[row]).T if latent else at(self.sigma[row]) * drawn
        return (states + factor * (at(self.mu[row]) + unit)).to(output.dtype).view_as(output)


def _mover(device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(device=device, dtype=dtype)


def _orthogonal_basis(layers: list[int], hidden: int, rank: int) -> Tensor:
    """float32 (n, hidden, rank): orthogonal columns of length √(hidden/rank), from a fixed stream.

    The QR factors differ in their last bits from machine to machine; rounding to a coarse grid takes that away.
    """
    keys = key_words([_BASIS_KEY]).expand(rank, 2)
    columns = torch.arange(rank)
    bases = []
    for layer in layers:
        gaussian = vector_noise(keys, hidden, columns, layer, Kind.BASIS).double().T
        q, r = torch.linalg.qr(gaussian)
        bases.append(q * r.diagonal().sign() * (hidden / rank) ** 0.5)  # QR leaves the signs free
    return ((torch.stack(bases) * _BASIS_GRID).round() / _BASIS_GRID).float()
