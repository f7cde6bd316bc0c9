"""Root-finding: the factor on all strengths at which a quantity meets its budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from scipy.optimize import brentq

_MET = 1e-3  # a budget is met within this share of it: far under what sampling leaves open
_SLOPE = 2.0  # nats grow with the square of a small strength
_OVERSHOOT = 0.02  # so that the step that should meet the budget goes past it
_LARGEST_STEP = math.log(8)
_WIDEST = math.log(1e4)  # factors beyond, up or down, are not tried
_LEAST_NATS = 1e-12  # for the logarithm: rounding can give 0 and less


class OutOfReach(ValueError):
    """No strength meets the budget."""


@dataclass
class Curve:
    """Nats as a function of the factor, each point computed once.

    Attributes:
        evaluate: factor -> nats; NaN where the noise is too strong for the dtype.
        points: what was computed, in order.
    """

    evaluate: Callable[[float], float]
    points: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, factor: float) -> float:
        for known, nats in self.points:
            if known == factor:
                return nats
        self.points.append((factor, self.evaluate(factor)))
        return self.points[-1][1]

    def nearest(self, budget: float) -> float:
        """The factor computed whose nats are nearest to the budget, in proportion."""
        positive = [point for point in self.points if point[1] > 0]
        return min(positive, key=lambda point: abs(math.log(point[1] / budget)))[0]


def solve(curve: Curve, budget: float, guess: float = 1.0) -> float:
    """The factor f with curve(f) = budget, to a thousandth of the budget; where the curve jumps past the budget, as the
    choice of experts makes it, the nearest that was found.

    Works on logarithms, where nats of small noise are a line of slope 2: steps along that line, and then along the
    secant, from the guess until the budget is passed; then Brent's method (Brent 1973, as scipy.optimize.brentq)
    between the last two points.

    Raises:
        OutOfReach: the curve stays below the budget, or above it, for factors of 10⁻⁴ to 10⁴ about the guess; the
            message says what it reaches.
    """

    def excess(log_factor: float) -> float:
        nats = curve(math.exp(log_factor))
        value = nats if math.isnan(nats) else math.log(max(nats, _LEAST_NATS) / budget)
        return 0.0 if abs(value) < _MET else value

    here = start = math.log(guess)
    value, slope = excess(here), _SLOPE
    if math.isnan(value):
        raise OutOfReach(f"the noise makes NaN of the logits at {guess:.3g} × the strengths given: lower them")
    while value != 0:
        there = here - _step(value, slope)
        beyond = excess(there) if abs(there - start) <= _WIDEST else math.nan
        if math.isnan(beyond):
            raise OutOfReach(_reach(curve, budget, value < 0))
        if value * beyond <= 0:
            brentq(excess, here, there, xtol=_MET / 10)
            return curve.nearest(budget)
        here, value, slope = there, beyond, (beyond - value) / (there - here)
    return curve.nearest(budget)


def _step(excess: float, slope: float) -> float:
    """How far to go down along a line of that slope: negative where the budget lies above."""
    length = abs(excess) / slope + _OVERSHOOT if slope > 0 else _LARGEST_STEP
    return math.copysign(min(length, _LARGEST_STEP), excess)


def _reach(curve: Curve, budget: float, too_small: bool) -> str:
    known = [(nats, factor) for factor, nats in curve.points if not math.isnan(nats)]
    if too_small:
        nats, factor = max(known)
        return (
            f"budget={budget:g} is out of reach: the largest reached is {nats:.3g} nats a noised position, at "
            f"{factor:.3g} × the strengths given; lower the budget, or let more layers or kinds carry noise"
        )
    nats, factor = min(known)
    return (
        f"budget={budget:g} is out of reach: the smallest that rounding leaves is {nats:.3g} nats a noised position, "
        f"at {factor:.3g} × the strengths given; raise the budget, or use a wider dtype"
    )
