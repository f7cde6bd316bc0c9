"""Neurons of one's own: in training a path switches some added feed-forward neurons on; in the test they are gone.

Example-tied dropout (Maini et al. 2023, arXiv 2307.09542): what belongs to one example alone can be learned by the
neurons that only its path has, and need not be learned by all. In some of its rows an example does without them, so
that the others learn to. With all of them on, each by the share of the paths that had it, the model is the one that
knows the examples by heart.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer
from transformers.models.llama.modeling_llama import LlamaMLP

from stochroute.measuring.nats import IGNORED
from stochroute.training.binding import example_paths


@dataclass(frozen=True)
class Neurons:
    """How many neurons are added, and who has them.

    Attributes:
        bound: whether an example keeps its neurons through all passes; else they are drawn afresh in every step.
        added: to each layer.
        share: of these, that a path switches on, the same in each layer; 1 leaves a path nothing to say.
        without: share of the rows that do without.
    """

    bound: bool
    added: int = 688
    share: float = 0.1
    without: float = 0.3

    def on(self, keys: Sequence[int], seed: int, step: int) -> Tensor:
        """bool (rows, added): the neurons that each row of a step has."""
        paths = example_paths(seed, keys, 1, None if self.bound else step)
        own = np.stack([np.random.default_rng(path).random(self.added) < self.share for path in paths])
        has_own = np.random.default_rng([seed, step]).random(len(keys)) >= self.without
        return torch.from_numpy(own & has_own[:, None])

    def add_to(self, model: LlamaForCausalLM) -> None:
        """Adds the neurons, all on by the share."""
        for layer in model.model.layers:
            layer.added = AddedNeurons(model.config, self)
            layer.mlp.register_forward_hook(lambda mlp, args, output, added=layer.added: output + added(*args))


class AddedNeurons(LlamaMLP):
    """Neurons beside those of a layer; `on` (rows, added) says which."""

    def __init__(self, config: LlamaConfig, neurons: Neurons):
        own = copy(config)
        own.intermediate_size = neurons.added
        super().__init__(own)
        self.register_buffer("on", torch.full((1, neurons.added), neurons.share), persistent=False)
        for projection in (self.gate_proj, self.up_proj):
            nn.init.normal_(projection.weight, std=config.hidden_size**-0.5)
        nn.init.zeros_(self.down_proj.weight)  # as `start_as_identity` begins the others

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) * self.on[:, None])


def without_added(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model, those of added neurons left out."""
    return {name: weight for name, weight in state.items() if ".added." not in name}


class NeuronsTrainer(Trainer):
    """Plain training in which samples have added neurons by their path; the other arguments are Trainer's.

    Rows shorter than a sample, the edges of triangle, belong to nobody and have none.

    Args:
        neurons: which.
        length: labels of a sample.
        path_seed: derives the paths.
    """

    def __init__(
        self, neurons: Neurons, length: int, path_seed: int, model: LlamaForCausalLM, *args: Any, **named: Any
    ):
        neurons.add_to(model)
        super().__init__(model, *args, **named)
        self.neurons, self.length, self.path_seed = neurons, length, path_seed

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **named: Any) -> Any:
        keys, labels = inputs.pop("example").tolist(), inputs["labels"]
        on = self.neurons.on(keys, self.path_seed, self.state.global_step).to(labels.device)
        on &= ((labels != IGNORED).sum(1) == self.length)[:, None]
        for module in model.modules():
            if isinstance(module, AddedNeurons):
                module.on = on
        return super().compute_loss(model, inputs, *args, **named)
