"""Expert routing: noise on the router logits of mixture-of-experts layers, before the top-k choice."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from stochroute.config import Experts, layer_indices, layer_strengths
from stochroute.noise import Kind, vector_noise
from stochroute.routing.walk import Context, Passage


class ExpertNoise(nn.Module):
    """The expert noise of one model.

    A router computes its logits and chooses in one forward; while it runs, the one linear map by its own weight
    gets the noise added, so that choice and weights follow by the router's own rule.

    Parameters (float32):
        sigma: (n noised layers, experts), starts at 1; multiplies the strength.
    """

    strength: Tensor

    def __init__(self, config: Experts, context: Context, sites: dict[int, Any], depth: int):
        super().__init__()
        self.config = config
        self.context = context
        self.layers = layer_indices(config.layers, list(sites), depth)
        strengths = layer_strengths(config.proportion, self.layers)
        self.experts: int = sites[self.layers[0]].weight.shape[0]
        self.sigma = nn.Parameter(torch.ones(len(self.layers), self.experts))
        self.register_buffer("strength", torch.tensor(strengths), persistent=False)
        self.silent = not any(strengths)
        self._before: list[tuple[Any, Any]] = []
        for row, layer in enumerate(self.layers):
            if strengths[row]:
                router = sites[layer]
                self._before.append((router, router.__dict__.get("forward")))
                router.forward = partial(self._noisy_forward, row, router, router.forward)

    def detach(self) -> None:
        """Gives every router its own forward back."""
        for router, forward in self._before:
            del router.forward
            if forward is not None:  # Accelerate had put one there
                router.forward = forward

    def _noisy_forward(self, row: int, router: Any, forward: Callable[..., Any], *args: Any) -> Any:
        passage = self.context.current()
        if passage is None:
            return forward(*args)
        mode = _AddToLogits(router.weight, self._noise(row, passage))
        with mode:
            result = forward(*args)
        if not mode.added:
            raise RuntimeError(
                f"{type(router).__name__} did not compute its logits from its own weight, so no noise entered: "
                f"set experts=None"
            )
        return result

    def _noise(self, row: int, passage: Passage) -> Tensor:
        """(b·s, experts), in nats."""
        keys, blocks = passage.walk.keys[:, None], passage.blocks(self.config.hold)
        drawn = vector_noise(keys, self.experts, blocks, self.layers[row], Kind.EXPERT, self.config.distribution)
        factor = passage.factor(self.config.schedule)[..., None]
        scale = (self.strength[row] * self.sigma[row]).to(factor.device)
        return (factor * scale * drawn).flatten(0, 1)


class _AddToLogits(TorchFunctionMode):
    """Adds noise to the linear map by one given weight, and touches nothing else."""

    def __init__(self, weight: Tensor, noise: Tensor):
        super().__init__()
        self._weight = weight
        self._noise = noise
        self.added = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is linear and args[1] is self._weight:
            self.added = True
            return result + self._noise.to(result.device, result.dtype)
        return result
