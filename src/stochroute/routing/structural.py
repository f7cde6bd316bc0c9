"""Structural routing: noise on feed-forward outputs, h' = h + ε with ε = factor · (μ + σ ⊙ ξ)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stochroute.config import Structural, layer_indices, layer_strengths
from stochroute.kernels import FeedForwardNoise, add_structural_noise, add_unit_noise
from stochroute.noise import SHARED_LAYER, Kind, key_words, vector_noise
from stochroute.routing.walk import Context, Passage

_LATENT = "latent"
_BASIS_KEY = 0
_BASIS_GRID = 2.0**20


@dataclass(frozen=True, eq=False)
class Places:
    """Where the states of one forward pass stand on their paths: all that the noise of any layer is made from.

    Attributes:
        keys: int64 (b, 2), the paths as Philox keys.
        blocks: int64 (b, s), or (b, 1) where one serves the whole sequence: the position block that shares a draw.
        factor: float32 (b, s), the schedule's factor: 0 before the start and in clean rows.
        z: float32 (b, s or 1, rank), what all layers of the latent form share; None for the other forms.
    """

    keys: Tensor
    blocks: Tensor
    factor: Tensor
    z: Tensor | None


class StructuralNoise(nn.Module):
    """The structural noise of one model.

    Parameters (float32, n noised layers, `hidden` channels):
        mu: (n, hidden), starts at 0.
        sigma: (n, hidden), starts at 1. Independent and shared forms.
        basis: (n, hidden, rank), starts with orthogonal columns, scaled so that ε has variance 1 on average over
            the channels. Latent form: ξ = U z.
    """

    strength: Tensor

    def __init__(self, config: Structural, context: Context, available: list[int], hidden: int, depth: int):
        """`available`: the layers, of `depth` in all, that have a feed-forward block of `hidden` channels."""
        super().__init__()
        self.config = config
        self.context = context
        self.layers = layer_indices(config.layers, available, depth)
        strengths = layer_strengths(config.proportion, self.layers)
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
        self.audible = [row for row, strength in enumerate(strengths) if strength]
        self._handles: list[RemovableHandle] = []

    @property
    def silent(self) -> bool:
        """True where every strength is 0."""
        return not self.audible

    def attach(self, sites: dict[int, nn.Module]) -> None:
        """Hooks the feed-forward blocks, by layer, that get noise; a layer of strength 0 stays without a hook."""
        for row in self.audible:
            handle = sites[self.layers[row]].register_forward_hook(partial(self._hook, row))
            self._handles.append(handle)

    def detach(self) -> None:
        """Takes every hook off the model."""
        for handle in self._handles:
            handle.remove()

    def begin_passage(self, passage: Passage) -> None:
        """Draws the z that all layers share: float32 (b, s or 1, rank)."""
        if self.config.form == "latent":
            keys, blocks = passage.walk.keys[:, None], passage.blocks(self.config.hold)
            z = vector_noise(keys, self.config.rank or 0, blocks, SHARED_LAYER, Kind.FFN, self.config.distribution)
            passage.draws[_LATENT] = z

    def _hook(self, row: int, module: nn.Module, args: Any, output: Any) -> Any:
        passage = self.context.current()
        if passage is None:
            return None
        if isinstance(output, tuple):  # some mixture-of-experts blocks return (states, router logits)
            return (self._noised(row, output[0], passage), *output[1:])
        return self._noised(row, output, passage)

    def places(self, passage: Passage) -> Places:
        """Where the states of the passage stand; `begin_passage` has to come first."""
        return Places(
            keys=passage.walk.keys,
            blocks=passage.blocks(self.config.hold),
            factor=passage.factor(self.config.schedule),
            z=passage.draws.get(_LATENT),
        )

    def noised(self, row: int, states: Tensor, places: Places) -> Tensor:
        """The states (b, s, hidden) of the layer `layers[row]` with their noise."""
        device, relative = states.device, self.config.scale == "relative"
        factor = (places.factor * self.strength[row]).to(device)
        mu = self.mu[row].to(device)
        if places.z is not None:
            wide = torch.promote_types(states.dtype, torch.float32)
            unit = mu + places.z.to(device, wide) @ self.basis[row].to(device, wide).T
            return add_unit_noise(states, unit, factor, relative)
        noise = FeedForwardNoise(
            keys=places.keys.to(device),
            blocks=places.blocks.to(device),
            layer=SHARED_LAYER if self.config.form == "shared" else self.layers[row],
            distribution=self.config.distribution,
            factor=factor,
            relative=relative,
            mu=mu,
            sigma=self.sigma[row].to(device),
        )
        return add_structural_noise(states, noise)

    def _noised(self, row: int, output: Tensor, passage: Passage) -> Tensor:
        batch, length = passage.positions.shape
        states = output.view(batch, length, self.hidden)  # OPT flattens (b, s, hidden) to (b·s, hidden)
        return self.noised(row, states, self.places(passage)).view_as(output)


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
