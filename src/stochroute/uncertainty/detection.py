"""How well a score tells wrong answers from right ones: AUROC, AURC and selective accuracy, with intervals.

AUROC: probability that a wrong answer scores above a right one, ties counting half. AURC: error rate among the answers
kept, averaged over how many are kept, the most certain first (Geifman & El-Yaniv 2017, arXiv 1705.08500); lower is
better. Both treat tied scores as in no order, so that the order of the questions never matters.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 1_000
COVERAGES = tuple(share / 20 for share in range(1, 21))

_AT_ONCE = 50  # resamples, so that thousands of questions fit into memory

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Undefined(ValueError):
    """A measure has no value here: all answers are right, or all are wrong."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval: percentiles of a bootstrap over questions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """How one score detects the errors of one arm.

    Attributes:
        auroc, aurc: with intervals.
        accuracy: share of answers that are right.
        curve: (coverage, accuracy among the answers kept) with its interval, at `COVERAGES`.
        questions: how many.
    """

    auroc: Estimate
    aurc: Estimate
    accuracy: Estimate
    curve: list[tuple[float, Estimate]]
    questions: int

    def to_dict(self) -> dict[str, Any]:
        """The detection as JSON types."""
        return asdict(self)


def auroc(wrong: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve of `score` for finding what is wrong; Undefined unless there are both kinds."""
    wrong, score = _checked(wrong, score)
    if wrong.all() or not wrong.any():
        raise Undefined(
            f"all {len(wrong)} answers are {'wrong' if wrong.any() else 'right'}: AUROC is undefined; ask questions of "
            "which the model knows some and not others"
        )
    return float(_aurocs(wrong, score))


def selective_errors(wrong: ArrayLike, score: ArrayLike) -> Floats:
    """Error rate among the n answers of the lowest scores, for n = 1 … all: float64 (questions,).

    Where a tie is cut, its answers count as the share of it that is kept: the mean over all orders.
    """
    return _selective(*_checked(wrong, score))


def aurc(wrong: ArrayLike, score: ArrayLike) -> float:
    """Mean of `selective_errors`."""
    return float(selective_errors(wrong, score).mean())


def detect(wrong: ArrayLike, score: ArrayLike, seed: int = 0) -> Detection:
    """All of the above with intervals; Undefined where AUROC is.

    Args:
        wrong: bool, one a question.
        score: float, one a question; the higher, the less certain.
        seed: of the bootstrap.
    """
    wrong, score = _checked(wrong, score)
    kept = [max(1, round(share * len(wrong))) - 1 for share in COVERAGES]

    def measures(bad: Bools, values: Floats) -> Floats:  # (…, n) -> (…, 2 + coverages)
        errors = _selective(bad, values)
        return np.stack([_aurocs(bad, values), errors.mean(-1), *np.moveaxis(1 - errors[..., kept], -1, 0)], axis=-1)

    auroc(wrong, score)  # Undefined, where it is
    resampled = np.concatenate([measures(wrong[drawn], score[drawn]) for drawn in _resamples(len(wrong), seed)])
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    estimates = [Estimate(*map(float, found)) for found in zip(measures(wrong, score), low, high, strict=True)]
    curve = list(zip(COVERAGES, estimates[2:], strict=True))
    return Detection(estimates[0], estimates[1], estimates[-1], curve, len(wrong))


def gain(wrong: ArrayLike, score: ArrayLike, other_wrong: ArrayLike, other_score: ArrayLike, seed: int = 0) -> Estimate:
    """AUROC minus the other's, over the same questions in the same order; the bootstrap draws questions for both."""
    wrong, score = _checked(wrong, score)
    other_wrong, other_score = _checked(other_wrong, other_score)
    if len(wrong) != len(other_wrong):
        raise ValueError(f"{len(wrong)} and {len(other_wrong)} questions: compare arms over the same questions")
    value = auroc(wrong, score) - auroc(other_wrong, other_score)
    resampled = [
        _aurocs(wrong[drawn], score[drawn]) - _aurocs(other_wrong[drawn], other_score[drawn])
        for drawn in _resamples(len(wrong), seed)
    ]
    low, high = np.nanpercentile(np.concatenate(resampled), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _aurocs(wrong: Bools, score: Floats) -> Floats:
    """AUROC over the last dimension; NaN where there is only one kind, as a resample may be."""
    bad = wrong.sum(-1)
    good = wrong.shape[-1] - bad
    ranks = np.where(wrong, stats.rankdata(score, axis=-1), 0.0).sum(-1)
    with np.errstate(invalid="ignore"):
        return (ranks - bad * (bad + 1) / 2) / (bad * good)  # Mann and Whitney's U over the number of pairs


def _selective(wrong: Bools, score: Floats) -> Floats:
    """`selective_errors` over the last dimension."""
    order = np.argsort(score, axis=-1, kind="stable")
    score, wrong = np.take_along_axis(score, order, -1), np.take_along_axis(wrong, order, -1)
    count = score.shape[-1]
    place = np.broadcast_to(np.arange(count), score.shape)
    edge = score[..., 1:] != score[..., :-1]
    ends = np.ones((*score.shape[:-1], 1), dtype=bool)
    # first place of the tie that each place is in, and the place after its last
    first = np.maximum.accumulate(np.where(np.concatenate([ends, edge], -1), place, 0), axis=-1)
    after = np.where(np.concatenate([edge, ends], -1), place + 1, count)
    after = np.minimum.accumulate(after[..., ::-1], axis=-1)[..., ::-1]
    errors = np.concatenate([np.zeros_like(ends, dtype=np.float64), np.cumsum(wrong, axis=-1)], axis=-1)
    before, at_end = np.take_along_axis(errors, first, -1), np.take_along_axis(errors, after, -1)
    within = before + (at_end - before) * (place + 1 - first) / (after - first)
    return within / (place + 1)


def _resamples(questions: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices of the questions of each resample: (some, questions), RESAMPLES in all."""
    stream = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _AT_ONCE):
        yield stream.integers(0, questions, (_AT_ONCE, questions))


def _checked(wrong: ArrayLike, score: ArrayLike) -> tuple[Bools, Floats]:
    bad, values = np.asarray(wrong, dtype=bool), np.asarray(score, dtype=np.float64)
    if bad.ndim != 1 or bad.shape != values.shape or not len(bad):
        raise ValueError(f"wrong has shape {bad.shape}, score {values.shape}: give one of each for every question")
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN or infinite: leave its question out")
    return bad, values
