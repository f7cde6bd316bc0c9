"""What an arm costs: parameters that could be learned, numbers drawn for a token, time against plain sampling."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from stochroute.evaluation.arms import Setting
from stochroute.generation.decoding import Decoding
from stochroute.measuring.timing import interleaved, ratio
from stochroute.routed import RoutedModel, route

PAIRS = 5
PLAIN = Setting("plain", "sampler", "T 1", Decoding(temperature=1.0))


@dataclass(frozen=True)
class Cost:
    """What one arm costs.

    Attributes:
        parameters: learnable numbers of its noise.
        drawn: noise numbers drawn for one new token at the position of the last one asked for.
        time: ratio of the time of writing the first prompt's texts to that of plain sampling, the median of
            interleaved pairs with its 95 % interval over pairs.
    """

    parameters: int
    drawn: float
    time: dict[str, float]


def cost_of(
    setting: Setting, model: Any, length: int, write: Callable[[Setting], object], pairs: int = PAIRS
) -> dict[str, Any]:
    """The cost of an arm at one of its settings, as JSON types.

    Args:
        model: the model, not routed.
        length: tokens of prompt and text.
        write: writes the first prompt's texts at a setting.
    """
    parameters = 0
    if setting.routing != PLAIN.routing:
        routed = route(model, setting.routing)
        parameters = sum(tensor.numel() for tensor in routed.noise_parameters().values())
        drawn = _drawn(routed, model.config.get_text_config(), length)
        routed.detach()
    else:
        drawn = 0.0
    seconds = interleaved(lambda: write(setting), lambda: write(PLAIN), pairs)
    return asdict(Cost(parameters, drawn, ratio(seconds[:, 0], seconds[:, 1])))


def _drawn(routed: RoutedModel, config: Any, length: int) -> float:
    total = 0.0
    structural, attention, experts = routed.structural, routed.attention, routed.experts
    if structural is not None and routed.config.structural is not None:
        form = routed.config.structural
        numbers = {
            "shared": config.hidden_size,
            "independent": len(structural.layers) * config.hidden_size,
            "latent": form.rank or 0,
        }[form.form]
        total += numbers / (length if form.hold == "sequence" else form.hold)
    if attention is not None:
        total += len(attention.layers) * attention.heads * length
    if experts is not None:
        total += len(experts.layers) * experts.experts
    return total
