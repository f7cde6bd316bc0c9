"""How well a score tells wrong answers from right ones: AUROC, AURC and selective accuracy, with intervals.

AUROC: probability that a wrong answer scores above a right one, ties counting half. AURC: error rate among the answers
kept, averaged over how many are kept, the most certain first (Geifman & El-Yaniv 2017, arXiv 1705.08500); lower is
better. Both treat tied scores as in no order, so that the order of the questions never matters.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 1_000
COVERAGES = tuple(share / 20 for share in range(1, 21))

Floats = NDArray[np.float64]


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
    ranks = stats.rankdata(score)
    bad = int(wrong.sum())
    good = len(wrong) - bad
    if not bad or not good:
        raise Undefined(
            f"all {len(wrong)} answers are {'wrong' if bad else 'right'}: AUROC is undefined; ask questions of which "
            "the model knows some and not others"
        )
    # Mann and Whitney's U over the number of pairs
    return float((ranks[wrong].sum() - bad * (bad + 1) / 2) / (bad * good))


def selective_errors(wrong: ArrayLike, score: ArrayLike) -> Floats:
    """Error rate among the n answers of the lowest scores, for n = 1 … all: float64 (questions,).

    Where a tie is cut, its answers count as the share of it that is kept: the mean over all orders.
    """
    wrong, score = _checked(wrong, score)
    order = np.argsort(score, kind="stable")
    _, starts, counts = np.unique(score[order], return_index=True, return_counts=True)
    means = np.add.reduceat(wrong[order].astype(np.float64), starts) / counts
    return np.cumsum(np.repeat(means, counts)) / np.arange(1, len(wrong) + 1)


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
    kept = [max(1, round(share * len(wrong))) for share in COVERAGES]
    values = np.array([auroc(wrong, score), *_selective(wrong, score, kept)])
    drawn = _resample(len(wrong), seed)
    resampled = np.array([[_auroc_or_nan(wrong[i], score[i]), *_selective(wrong[i], score[i], kept)] for i in drawn])
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    estimates = [Estimate(*map(float, found)) for found in zip(values, low, high, strict=True)]
    curve = list(zip(COVERAGES, estimates[2:], strict=True))
    return Detection(estimates[0], estimates[1], estimates[-1], curve, len(wrong))


def gain(wrong: ArrayLike, score: ArrayLike, other_wrong: ArrayLike, other_score: ArrayLike, seed: int = 0) -> Estimate:
    """AUROC minus the other's, over the same questions in the same order; the bootstrap draws questions for both."""
    wrong, score = _checked(wrong, score)
    other_wrong, other_score = _checked(other_wrong, other_score)
    if len(wrong) != len(other_wrong):
        raise ValueError(f"{len(wrong)} and {len(other_wrong)} questions: compare arms over the same questions")
    drawn = _resample(len(wrong), seed)
    differences = [_auroc_or_nan(wrong[i], score[i]) - _auroc_or_nan(other_wrong[i], other_score[i]) for i in drawn]
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    return Estimate(auroc(wrong, score) - auroc(other_wrong, other_score), float(low), float(high))


def _selective(wrong: NDArray[np.bool_], score: Floats, kept: list[int]) -> list[float]:
    """AURC, then accuracy among the kept."""
    errors = selective_errors(wrong, score)
    return [float(errors.mean()), *(float(1 - errors[n - 1]) for n in kept)]


def _resample(questions: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, questions, (RESAMPLES, questions))


def _auroc_or_nan(wrong: NDArray[np.bool_], score: Floats) -> float:
    """A resample may hold one kind only."""
    return auroc(wrong, score) if wrong.any() and not wrong.all() else float("nan")


def _checked(wrong: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    bad, values = np.asarray(wrong, dtype=bool), np.asarray(score, dtype=np.float64)
    if bad.ndim != 1 or bad.shape != values.shape or not len(bad):
        raise ValueError(f"wrong has shape {bad.shape}, score {values.shape}: give one of each for every question")
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN or infinite: leave its question out")
    return bad, values
