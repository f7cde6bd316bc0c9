"""Structural routing: noise on feed-forward outputs, h' = h + ε with ε = factor · (μ + σ ⊙ ξ)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stochroute.config import Structural, layer_indices, layer_strengths
from stochroute.kernels import FeedForwardNoise, add_latent_noise, add_structural_noise
from stochroute.noise import SHARED_LAYER, Kind, key_words, sibling_noise, vector_noise
from stochroute.routing.walk import Context, Passage

_SHARED = "structural"
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


class LayerParameters(NamedTuple):
    """What the noise of one layer is made of.

    Attributes:
        layer: its index as the draws count it, or SHARED_LAYER.
        strength: float32 (), the largest factor.
        mu: float32 (hidden,).
        spread: σ, float32 (hidden,), or for the latent form U, float32 (hidden, rank).
    """

    layer: int
    strength: Tensor
    mu: Tensor
    spread: Tensor


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
        """Prepares what the layers share. The parameters are taken apart once for all layers: one at a time, each would
        cost several operations, and a gradient of the whole tensor."""
        passage.shared[_SHARED] = self.parameters_by_row(), self.places(passage)

    def parameters_by_row(self) -> list[LayerParameters]:
        """Of each of `layers`."""
        is_shared, is_latent = self.config.form == "shared", self.config.form == "latent"
        layers = [SHARED_LAYER] * len(self.layers) if is_shared else self.layers
        spread = self.basis if is_latent else self.sigma
        tensors = self.strength.unbind(), self.mu.unbind(), spread.unbind()
        return [LayerParameters(*own) for own in zip(layers, *tensors, strict=True)]

    def places(self, passage: Passage) -> Places:
        """Where the states of the passage stand; draws the z of the latent form."""
        walk, blocks, z = passage.walk, passage.blocks(self.config.hold), None
        if self.config.form == "latent":
            rank, distribution = self.config.rank or 0, self.config.distribution
            if self.config.spread:
                z = sibling_noise(walk.families[:, None], walk.numbers[:, None], rank, blocks, distribution)
            else:
                z = vector_noise(walk.keys[:, None], rank, blocks, SHARED_LAYER, Kind.FFN, distribution)
            if (known := walk.inferred) is not None:
                z = known.mean[:, None] + known.deviation[:, None] * z
        return Places(walk.keys, blocks, passage.factor(self.config.schedule), z)

    def noised(self, states: Tensor, own: LayerParameters, places: Places) -> Tensor:
        """The states (b, s, hidden) of a layer with its noise."""
        device, relative = states.device, self.config.scale == "relative"
        factor = (places.factor * own.strength).to(device)
        mu, spread = own.mu.to(device), own.spread.to(device)
        if places.z is not None:
            wide = torch.promote_types(states.dtype, torch.float32)
            unit = mu + places.z.to(device, wide) @ spread.to(wide).T
            return add_latent_noise(states, unit, factor, relative)
        noise = FeedForwardNoise(
            keys=places.keys.to(device),
            blocks=places.blocks.to(device),
            layer=own.layer,
            distribution=self.config.distribution,
            factor=factor,
            relative=relative,
            mu=mu,
            sigma=spread,
        )
        return add_structural_noise(states, noise)

    def _hook(self, row: int, module: nn.Module, args: Any, output: Any) -> Any:
        passage = self.context.current()
        if passage is None:
            return None
        if isinstance(output, tuple):  # some mixture-of-experts blocks return (states, router logits)
            return (self._noised(row, output[0], passage), *output[1:])
        return self._noised(row, output, passage)

    def _noised(self, row: int, output: Tensor, passage: Passage) -> Tensor:
        parameters, places = passage.shared[_SHARED]
        if output.dim() == 3:
            return self.noised(output, parameters[row], places)
        states = output.view(*passage.positions.shape, self.hidden)  # OPT flattens (b, s, hidden) to (b·s, hidden)
        return self.noised(states, parameters[row], places).view_as(output)


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
