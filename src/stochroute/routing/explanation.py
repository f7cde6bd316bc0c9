"""Which implementation each kind of noise runs on in a routed model, and why."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from stochroute.kernels import AUTOMATIC, Choice, choose_attention, choose_latent, choose_structural
from stochroute.routing.sites import find_layers

if TYPE_CHECKING:
    from stochroute.routing.attached import AttachedRouting


@dataclass(frozen=True)
class Running:
    """One kind of noise on one device.

    Attributes:
        kind: "structural", "attention" or "experts".
        layers: indices of the noised layers there.
        device: the device, such as "cpu" or "cuda:0".
        dtype: of the model, such as "bfloat16".
        implementation: "fused", "blocked", "reference" or "torch".
        reason: why it is this one, for people.
    """

    kind: str
    layers: tuple[int, ...]
    device: str
    dtype: str
    implementation: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """What runs where; printing it gives a table."""

    rows: tuple[Running, ...]

    def __str__(self) -> str:
        cells = [("kind", "layers", "device", "dtype", "implementation", "why")]
        for row in self.rows:
            layers = ", ".join(map(str, row.layers))
            cells.append((row.kind, layers, row.device, row.dtype, row.implementation, row.reason))
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
        return "\n".join("  ".join([*map(str.ljust, line[:-1], widths), line[-1]]) for line in cells)


def explain(routing: "AttachedRouting") -> Explanation:
    """One row for each kind of noise that is on and each device that its layers lie on."""
    model, rows = routing.model, []
    layers_of_model = find_layers(model).layers
    kinds = {"structural": routing.structural, "attention": routing.attention, "experts": routing.experts}
    for kind, noise in kinds.items():
        if noise is None:
            continue
        by_device: dict[torch.device, list[int]] = {}
        for layer in noise.layers:
            by_device.setdefault(_device_of(layers_of_model[layer]), []).append(layer)
        for device, layers in by_device.items():
            choice = _choice(kind, routing, device)
            dtype = str(model.dtype).removeprefix("torch.")
            rows.append(Running(kind, tuple(layers), str(device), dtype, choice.name, choice.reason))
    return Explanation(tuple(rows))


def _choice(kind: str, routing: "AttachedRouting", device: torch.device) -> Choice:
    model = routing.model
    if kind == "experts":
        return Choice("torch", "a handful of numbers a token")
    if routing.structural is not None and kind == "structural":
        if routing.structural.config.form == "latent":
            return choose_latent(device, model.dtype)
        return choose_structural(device, model.dtype)
    assert routing.attention is not None
    if routing.attention.kernel not in (AUTOMATIC, "fused"):
        return Choice(routing.attention.kernel, "asked for by name")
    dropout = float(getattr(model.config, "attention_dropout", 0.0) or 0.0) if model.training else 0.0
    return choose_attention(device, model.dtype, dropout)


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
