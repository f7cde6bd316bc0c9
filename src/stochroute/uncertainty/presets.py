"""Published protocols as sets of arms.

arms = noise_injection(alpha=0.05)                                  # arXiv 2502.03799
"""

import math

from stochroute.config import RoutingConfig, Structural
from stochroute.uncertainty.arms import Arm, single_pass, temperature_only

PUBLISHED_TEMPERATURE = 0.5
_ONE_SIDED = math.sqrt(3)  # mean of U(0, α) over its standard deviation α/√12


def noise_injection(alpha: float = 0.05, temperature: float = PUBLISHED_TEMPERATURE) -> list[Arm]:
    """The arms of "Enhancing Hallucination Detection through Noise Injection" (Liu et al. 2025, arXiv 2502.03799).

    ε ~ U(0, α) in every channel, drawn once a path, is added to the output of every MLP of the upper third of the
    layers, at every token of question and answer, as a change of weights would be; answers are sampled at T = 0.5, ten
    a question, and scored by answer entropy. Beside it the same temperature without noise, and a single pass. α is in
    units of the activation, so every model needs its own; the default is no more than a place to begin.

    Raises:
        ValueError: α is not above 0.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha={alpha} must be above 0: it is the largest value that noise takes")
    structural = Structural(
        form="shared",
        layers="upper_third",
        strength=alpha / math.sqrt(12),
        scale="absolute",
        distribution="uniform",
        hold="sequence",
    )
    injected = Arm(
        f"noise U(0, {alpha:g})", RoutingConfig(structural=structural, span="all"), temperature, mean=_ONE_SIDED
    )
    return [injected, temperature_only(temperature), single_pass()]
