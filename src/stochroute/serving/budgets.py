"""From a budget in nats to strengths, for any request: one curve, measured before the server listens."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stochroute.calibration import Sample, measure, neutral_rows
from stochroute.calibration.split import rounded, scaled, strengths_of, with_strengths
from stochroute.config import RoutingConfig
from stochroute.routed import RoutedModel

_FACTORS = tuple(2.0 ** (step / 2) for step in range(-8, 7))  # on the routing's own strengths: 1/16 … 8
_PAIRS = 128
_DIGITS = 4  # of a strength, as in calibrate


@dataclass(frozen=True)
class Budgets:
    """What strengths do, measured on neutral passages.

    Attributes:
        own: the routing config whose strengths are multiplied.
        points: (factor, nats a noised position), both rising.
    """

    own: RoutingConfig
    points: tuple[tuple[float, float], ...]

    @classmethod
    def measured(
        cls, routed: RoutedModel, tokenizer: Any, context: int | None, on_point: Callable[[int, int], None]
    ) -> "Budgets":
        """Measures KL(routed ‖ clean) at every factor, with the same prompts and paths; the routing stays as it is.

        Raises:
            ValueError: fewer than two factors do more than the one before, as with noise that does nothing.
        """
        own = routed.config
        sample = Sample.along_paths(neutral_rows(tokenizer, context), own.span, _PAIRS, seed=0)
        points: list[tuple[float, float]] = []
        try:
            for number, factor in enumerate(_FACTORS):
                on_point(number, len(_FACTORS))
                routed.adopt_strengths(_multiplied(own, factor))
                nats = measure(routed, sample).nats("divergence")
                # the end: NaN, or so strong that more of it changes nothing
                if not math.isfinite(nats) or (points and nats <= points[-1][1]):
                    break
                if nats > 0:
                    points.append((factor, nats))
        finally:
            routed.adopt_strengths(own)
        if len(points) < 2:
            raise ValueError("the noise of this routing does nothing that could be measured: give it more strength")
        return cls(own, tuple(points))

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and the largest budget."""
        return self.points[0][1], self.points[-1][1]

    def config(self, budget: float) -> RoutingConfig:
        """The routing that does what the budget says, its strengths rounded to four digits.

        Between the points it is read off on logarithms, where nats of small noise are a line.

        Raises:
            ValueError: the budget is outside `reach`.
        """
        low, high = self.reach
        if not low <= budget <= high:
            raise ValueError(f"budget={budget:g} is out of reach: this routing does {low:.2g} to {high:.2g} nats")
        factors, nats = np.log(np.array(self.points)).T
        return _multiplied(self.own, math.exp(np.interp(math.log(budget), nats, factors)))


def _multiplied(config: RoutingConfig, factor: float) -> RoutingConfig:
    return with_strengths(config, rounded(scaled(strengths_of(config), factor), _DIGITS))
