"""The ways to get answers to one question: along paths, by temperature alone, by dropout, or in a single pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stochroute.config import RoutingConfig
from stochroute.routed import RoutedModel, route
from stochroute.routing.sites import find_feed_forward, find_layers

NO_NOISE = RoutingConfig(structural=None, span="all")


@dataclass(frozen=True)
class Arm:
    """How answers are drawn.

    Attributes:
        name: in results.
        routing: the noise; `NO_NOISE` for temperature alone, dropout and the single pass.
        temperature: of sampling, drawn from the path, with no top-k; 0 takes the likeliest token.
        mean: of structural noise, over its standard deviation: √3 makes uniform noise one-sided, U(0, 2√3 σ).
        dropout: rate at which feed-forward outputs are dropped, in every layer at every token; 0 for none.
        single: whether one answer is enough: nothing is drawn.
    """

    name: str
    routing: RoutingConfig = NO_NOISE
    temperature: float = 1.0
    mean: float = 0.0
    dropout: float = 0.0
    single: bool = False

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature={self.temperature} must be at least 0: 0 takes the likeliest token")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be in [0, 1): it is the share that is dropped")
        if self.mean and self.routing.structural is None:
            raise ValueError(f"mean={self.mean} has no effect without structural noise: leave it out")
        noiseless = not any((self.routing.structural, self.routing.attention, self.routing.experts))
        if self.single and (self.temperature or self.dropout or not noiseless):
            raise ValueError(f"{self.name}: a single pass has no temperature, dropout or noise: leave them out")
        if noiseless and not (self.single or self.temperature or self.dropout):
            raise ValueError(f"{self.name}: all answers would be the same: give noise, a temperature or dropout")

    def to_dict(self) -> dict[str, Any]:
        """The arm as JSON types."""
        return {**asdict(self), "routing": self.routing.to_dict()}

    @contextmanager
    def attached(self, model: PreTrainedModel) -> Iterator[RoutedModel]:
        """Inside, the model has this arm's noise; afterwards it is what it was."""
        routed = route(model, self.routing)
        try:
            if self.mean and routed.structural is not None:
                with torch.no_grad():
                    routed.structural.mu.fill_(self.mean)
            yield routed
        finally:
            routed.detach()


def single_pass() -> Arm:
    """The likeliest answer of the original model, for its entropy and p(max)."""
    return Arm("single pass", temperature=0.0, single=True)


def temperature_only(temperature: float) -> Arm:
    """Sampling alone."""
    return Arm(f"temperature {temperature:g}", temperature=temperature)


@contextmanager
def dropped(model: PreTrainedModel, rate: float, seed: int) -> Iterator[None]:
    """Inside, each number of every feed-forward output is 0 with probability `rate`, the others grow to keep the mean.

    MC dropout (Gal & Ghahramani 2016, arXiv 1506.02142) at the sites of structural noise; every row and every token of
    a batch draws its own mask.

    Args:
        model: a decoder-only language model, trained with dropout or without.
        rate: in [0, 1); 0 changes nothing.
        seed: of the masks, in the order in which layers run.
    """
    if not rate:
        yield
        return
    sites = find_feed_forward(model, find_layers(model), None)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed % (1 << 63))
    handles = [site.register_forward_hook(partial(_drop, rate, generator)) for site in sites.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _drop(rate: float, generator: torch.Generator, module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # some mixture-of-experts blocks return (states, router logits)
        return (_masked(output[0], rate, generator), *output[1:])
    return _masked(output, rate, generator)


def _masked(states: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    kept = torch.rand(states.shape, generator=generator, device=states.device) >= rate
    return states * kept / (1 - rate)
