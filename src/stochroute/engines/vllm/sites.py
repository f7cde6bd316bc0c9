"""Hooks the feed-forward blocks of a model that vLLM has loaded.

The formula is `StructuralNoise.noised`, the same that runs in transformers; here its batch rows are a step's tokens.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stochroute.engines.vllm.routing import EngineRouting
from stochroute.engines.vllm.rows import StepPlaces
from stochroute.routing.sites import find_feed_forward, find_layers
from stochroute.routing.structural import LayerParameters, Places, StructuralNoise
from stochroute.routing.walk import Context
from stochroute.storage import read_routing

_NAME = "stochroute_site"


class Site(nn.Module):
    """The noise of one layer, as a child of the feed-forward block, so that compiled graphs find its tensors there."""

    keys: Tensor
    blocks: Tensor
    factor: Tensor
    z: Tensor | None
    strength: Tensor
    mu: Tensor
    spread: Tensor

    def __init__(self, noise: StructuralNoise, own: LayerParameters, places: Places):
        super().__init__()
        self.noise = noise
        parameters = own._asdict()
        self.layer = parameters.pop("layer")
        for name, tensor in {**vars(places), **parameters}.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """The states (tokens, hidden) with their noise."""
        tokens = states.shape[0]
        z = None if self.z is None else self.z[:tokens]
        places = Places(self.keys[:tokens], self.blocks[:tokens], self.factor[:tokens], z)
        own = LayerParameters(self.layer, self.strength, self.mu, self.spread)
        return self.noise.noised(states[:, None], own, places)[:, 0]


def attach(model: nn.Module, routing: EngineRouting, tokens: int, device: torch.device) -> StepPlaces:
    """Adds the routing's noise to the model, and returns the places that every step has to fill.

    Args:
        model: of vLLM, loaded.
        routing: what its requests walk.
        tokens: the most that one step computes.
        device: of the model.

    Raises:
        ValueError: the routing does not fit the model, or the model's feed-forward blocks cannot be found.
    """
    config: Any = cast(Any, model).config
    # vLLM names and nests its modules as transformers does, so the same rule finds them
    like_transformers = cast(PreTrainedModel, model)
    stack = find_layers(like_transformers)
    blocks = find_feed_forward(like_transformers, stack, None)
    noise = StructuralNoise(routing.structural, Context(), list(blocks), int(config.hidden_size), len(stack.layers))
    if routing.folder is not None:
        _adopt_parameters(noise, routing, config)
    noise = noise.to(device).requires_grad_(False)
    places = StepPlaces(noise, tokens, device)
    parameters = noise.parameters_by_row()
    for row in noise.audible:
        block = blocks[noise.layers[row]]
        block.add_module(_NAME, Site(noise, parameters[row], places.places))
        block.register_forward_hook(_add_noise)
    return places


def _add_noise(block: Any, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # vLLM's linear layers return their bias apart where it is yet to be added
        states, *rest = output
        if any(extra is not None for extra in rest):
            raise ValueError(f"{type(block).__name__} returns more than its states: this architecture is unknown here")
        return (block.stochroute_site(states), *rest)
    return block.stochroute_site(output)


def _adopt_parameters(noise: StructuralNoise, routing: EngineRouting, config: Any) -> None:
    assert routing.folder is not None
    _, found = read_routing(Path(routing.folder), cast(PreTrainedModel, SimpleNamespace(config=config)))
    own = {f"structural.{name}": parameter for name, parameter in noise.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    there = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if shapes != there:
        raise ValueError(f"the routing in {routing.folder} holds the parameters {there}, this model needs {shapes}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(found[name])
