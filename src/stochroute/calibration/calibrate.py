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
    shape = routed.model.config.get_text_config()
    rows = token_rows(prompts, tokenizer, getattr(shape, "max_position_embeddings", None), shape.vocab_size)

    def sample(at_least: int) -> Sample:
        return Sample.along_paths(rows, routed.config.span, at_least, seed)

    before = routed.config
    calibration = _Calibration(routed, budget, quantity, split, sample(pairs or _FIRST_PAIRS), on_evaluation)
    try:
        calibration.find_strengths()
        if pairs is None:
            needed = min(len(rows) * calibration.measured.paths_needed(_PRECISION), _MOST_PAIRS)
            if needed > calibration.sample.pairs:
                calibration.find_strengths_again(sample(needed))
        return calibration.report()
    except BaseException:
        routed.adopt_strengths(before)
        raise


class _Calibration:
    """One run. Its paths and prompts stay the same throughout (common random numbers), so that nats are a smooth
    function of the strengths."""

    def __init__(
        self,
        routed: AttachedRouting,
        budget: float,
        quantity: Quantity,
        split: Split,
        sample: Sample,
        on_evaluation: Callable[[int, float], None] | None,
    ):
        self.routed = routed
        self.budget = budget
        self.quantity: Quantity = quantity
        self.split: Split = split
        self.sample = sample
        self.pilot = sample.thinned(_PILOT_PAIRS)
        self.on_evaluation = on_evaluation
        self.evaluations = 0
        self.passes = 0

    def find_strengths(self) -> None:
        """From the proportions in the config; where to look is found on a few pairs."""
        strengths = strengths_of(self.routed.config)
        factor, self.curve = self._solve(strengths, self.pilot, 1.0)
        if self.split == "sensitivity":
            strengths = equalised(self.routed, scaled(strengths, factor), self._alone)
            factor, self.curve = self._solve(strengths, self.pilot, 1.0)
        self.strengths = strengths
        self._settle(factor)

    def find_strengths_again(self, sample: Sample) -> None:
        """On a larger sample, from what the smaller one has found."""
        self.sample = sample
        self._settle(self.factor)

    def _settle(self, guess: float) -> None:
        self.factor, _ = self._solve(self.strengths, self.sample, guess)
        self.found = rounded(scaled(self.strengths, self.factor), _DIGITS)
        self.measured = self._measure(self.found, self.sample)

    def report(self) -> Report:
        """What was found; the strengths found are those of the routing afterwards."""
        sites = contributions(self.routed, self.found, self._alone)
        self.routed.adopt_strengths(with_strengths(self.routed.config, self.found))
        measured = self.measured
        low, high = measured.interval(self.quantity)
        return Report(
            budget=self.budget,
            quantity=self.quantity,
            split=self.split,
            nats=measured.nats(self.quantity),
            low=low,
            high=high,
            divergence=measured.nats("divergence"),
            transmission=measured.nats("transmission"),
            config=self.routed.config,
            contributions=tuple(sites),
            curve=tuple(sorted((f / self.factor, nats) for f, nats in self.curve.points)),
            prompts=len(self.sample.rows),
            pairs=self.sample.pairs,
            positions=int((measured.positions * len(self.sample.paths[0])).sum()),
            evaluations=self.evaluations,
            forward_passes=self.passes,
        )

    def _solve(self, strengths: Strengths, sample: Sample, guess: float) -> tuple[float, Curve]:
        curve = Curve(lambda factor: self._measure(scaled(strengths, factor), sample).nats(self.quantity))
        return solve(curve, self.budget, guess), curve

    def _alone(self, strengths: Strengths) -> float:
        return self._measure(strengths, self.pilot).nats(self.quantity)

    def _measure(self, strengths: Strengths, sample: Sample) -> Measured:
        self.routed.adopt_strengths(with_strengths(self.routed.config, strengths))
        measured = measure(self.routed, sample)
        self.evaluations += 1
        self.passes += sample.pairs + len(sample.rows)
        if self.on_evaluation is not None:
            self.on_evaluation(self.evaluations, measured.nats(self.quantity))
        return measured


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
