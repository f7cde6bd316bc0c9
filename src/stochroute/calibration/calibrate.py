"""From a budget in nats to strengths."""

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

from stochroute.calibration.divergence import Measured, measure
from stochroute.calibration.prompts import Prompt, Sample, token_rows
from stochroute.calibration.report import Report
from stochroute.calibration.search import Curve, solve
from stochroute.calibration.split import (
    Strengths,
    contributions,
    equalised,
    rounded,
    scaled,
    strengths_of,
    with_strengths,
)
from stochroute.config import Quantity, Split
from stochroute.routing.attached import AttachedRouting

_FIRST_PAIRS, _MOST_PAIRS = 256, 8192  # where their number is left open
_PRECISION = 0.05  # half of the 95 % interval over the budget, which they should give
_PILOT_PAIRS = 64  # enough to know where to look; every site is measured alone on these
_DIGITS = 4  # of a strength: what a person can copy, and coarser than the rounding of other machines


def calibrate(
    routed: AttachedRouting,
    prompts: Sequence[Prompt],
    budget: float,
    tokenizer: Any,
    quantity: Quantity,
    split: Split,
    pairs: int | None,
    seed: int,
    on_evaluation: Callable[[int, float], None] | None,
) -> Report:
    """See `stochroute.routed.RoutedModel.calibrate`."""
    _check(routed, budget, quantity, split, pairs)
    shape, before = routed.model.config.get_text_config(), routed.config
    rows = token_rows(prompts, tokenizer, getattr(shape, "max_position_embeddings", None), shape.vocab_size)
    sample = Sample.along_paths(rows, before.span, pairs or _FIRST_PAIRS, seed)
    pilot = sample.thinned(_PILOT_PAIRS)
    meter = _Meter(routed, quantity, on_evaluation)
    try:
        proportions = strengths_of(before)
        curve = meter.curve(proportions, pilot)
        factor = solve(curve, budget)
        if split == "sensitivity":
            proportions = equalised(routed, scaled(proportions, factor), meter.on(pilot), budget)
            curve = meter.curve(proportions, pilot)
            factor = solve(curve, budget)
        factor, found, measured = meter.settle(proportions, sample, budget, factor)
        needed = min(len(rows) * measured.paths_needed(_PRECISION), _MOST_PAIRS)
        if pairs is None and needed > sample.pairs:
            sample = Sample.along_paths(rows, before.span, needed, seed)
            factor, found, measured = meter.settle(proportions, sample, budget, factor)
        sites = contributions(routed, found, meter.on(pilot))
        routed.adopt_strengths(with_strengths(before, found))
    except BaseException:
        routed.adopt_strengths(before)
        raise
    low, high = measured.interval(quantity)
    return Report(
        budget=budget,
        quantity=quantity,
        split=split,
        nats=measured.nats(quantity),
        low=low,
        high=high,
        divergence=measured.nats("divergence"),
        transmission=measured.nats("transmission"),
        config=routed.config,
        contributions=tuple(sites),
        curve=tuple(sorted((f / factor, nats) for f, nats in curve.points)),
        prompts=len(rows),
        pairs=sample.pairs,
        positions=int(measured.positions.sum()) * len(sample.paths[0]),
        evaluations=meter.evaluations,
        forward_passes=meter.forward_passes,
    )


class _Meter:
    """Measures the routing at any strengths, and counts what that costs.

    Prompts and paths of a sample are the same at every measurement (common random numbers), so that nats are a smooth
    function of the strengths.
    """

    def __init__(self, routed: AttachedRouting, quantity: Quantity, on_evaluation: Callable[[int, float], None] | None):
        self.routed = routed
        self.quantity: Quantity = quantity
        self.on_evaluation = on_evaluation
        self.evaluations = 0
        self.forward_passes = 0

    def measure(self, strengths: Strengths, sample: Sample) -> Measured:
        """At these strengths, which the routing keeps."""
        self.routed.adopt_strengths(with_strengths(self.routed.config, strengths))
        measured = measure(self.routed, sample)
        self.evaluations += 1
        self.forward_passes += sample.pairs + len(sample.rows)
        if self.on_evaluation is not None:
            self.on_evaluation(self.evaluations, measured.nats(self.quantity))
        return measured

    def settle(
        self, proportions: Strengths, sample: Sample, budget: float, guess: float
    ) -> tuple[float, Strengths, Measured]:
        """The factor that meets the budget on this sample, the strengths to keep, and what these do."""
        factor = solve(self.curve(proportions, sample), budget, guess)
        found = rounded(scaled(proportions, factor), _DIGITS)
        return factor, found, self.measure(found, sample)

    def on(self, sample: Sample) -> Callable[[Strengths], float]:
        """Strengths -> nats on this sample."""
        return lambda strengths: self.measure(strengths, sample).nats(self.quantity)

    def curve(self, proportions: Strengths, sample: Sample) -> Curve:
        """Factor on all strengths -> nats on this sample."""
        return Curve(lambda factor: self.measure(scaled(proportions, factor), sample).nats(self.quantity))


def _check(routed: AttachedRouting, budget: float, quantity: str, split: str, pairs: int | None) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget < math.inf:
        raise ValueError(
            f"budget={budget!r} must be a finite number of nats above 0: 0.05 is modest, 0.5 is much; "
            f"for the original model route with strength=0"
        )
    for name, value, choices in (("quantity", quantity, Quantity), ("split", split, Split)):
        if value not in get_args(choices):
            raise ValueError(f"{name}={value!r} is unknown: choose {' or '.join(map(repr, get_args(choices)))}")
    if pairs is not None and (isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 2):
        raise ValueError(f"pairs={pairs!r} is no number of (prompt, path) pairs: give an integer ≥ 2, or None")
    if routed.silent:
        off = "no kind of noise is on" if not routed.kinds() else "every strength is 0"
        raise ValueError(
            f"{off}, so there is nothing to calibrate: route with structural, attention or expert noise at a strength "
            f"above 0, or 'auto'"
        )
