"""Who lies above whom at equal quality, with intervals from resampling the prompts, the same ones for everybody."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import cast

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from stochroute.evaluation.arms import Setting
from stochroute.evaluation.front import Front, common_range, difference, front_of, mean_over

CONFIDENCE = 0.95
RESAMPLES = 1000
PATHS, SAMPLERS = "all paths", "all samplers"
LEVELS = {"close to greedy": 0.9, "in the middle": 0.5, "loose": 0.1}  # shares of the range of qualities


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval over prompts; None where there are too few prompts."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One front against another at equal quality.

    Attributes:
        first, second: names of arms, or PATHS and SAMPLERS for the front of all settings of a family.
        difference: how much more diverse the first is, in the measure's unit.
        over: the second's mean diversity over the same range.
        quality_low, quality_high: the range.
    """

    first: str
    second: str
    difference: Interval
    over: float
    quality_low: float
    quality_high: float


Statistic = Callable[[np.ndarray], np.ndarray]


def resampled(statistic: Statistic, prompts: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The statistic of all prompts, and the ends of its interval (NaN for a single prompt): (values,) each.

    Args:
        statistic: indices of prompts int64 (prompts,) -> float64 (values,).
        seed: of the resamples.
    """
    everyone = np.arange(prompts)
    value = statistic(everyone)
    if prompts < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)

    def many(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.moveaxis(indices, axis, -1).reshape(-1, prompts).astype(np.int64)
        found = np.array([statistic(row) for row in rows])  # (resamples, values)
        return found.T.reshape(len(value), *np.moveaxis(indices, axis, -1).shape[:-1])

    with warnings.catch_warnings():
        # a front may be missing in a resample that holds none of the prompts where it exists; such are left out below
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (everyone,),
            many,
            n_resamples=RESAMPLES,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
    drawn = np.asarray(found.bootstrap_distribution)
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(
            np.where(np.isfinite(drawn).any(-1, keepdims=True), drawn, 0), [tail, 1 - tail], axis=-1
        )
    return value, np.where(np.isfinite(value), low, np.nan), np.where(np.isfinite(value), high, np.nan)


def mean_intervals(values: np.ndarray, seed: int) -> list[Interval | None]:
    """The mean over prompts of each row, float64 (settings, prompts), NaN left out; None for a row of NaN alone."""
    value, low, high = resampled(lambda prompts: _means(values[:, prompts]), values.shape[1], seed)
    return [_interval(*ends) for ends in zip(value, low, high, strict=True)]


def compare(settings: Sequence[Setting], quality: np.ndarray, diversity: np.ndarray, seed: int) -> list[Comparison]:
    """The path family against the sampler family, then every path arm against every other arm that is none.

    Args:
        quality, diversity: float64 (settings, prompts), higher is better.
    """
    members = _members(settings)
    paths = list(dict.fromkeys(s.arm for s in settings if s.family == "paths"))
    rivals = list(dict.fromkeys(s.arm for s in settings if s.family != "paths"))
    pairs = [(PATHS, SAMPLERS)] if PATHS in members and SAMPLERS in members else []
    pairs += [(first, second) for first in paths for second in rivals]

    def statistic(prompts: np.ndarray) -> np.ndarray:
        fronts = _fronts(members, quality[:, prompts], diversity[:, prompts])
        return np.array([_difference(fronts[a], fronts[b]) for a, b in pairs])

    if not pairs:
        return []
    fronts = _fronts(members, quality, diversity)
    value, low, high = resampled(statistic, quality.shape[1], seed)
    found: list[Comparison] = []
    for (a, b), ends in zip(pairs, zip(value, low, high, strict=True), strict=True):
        interval, first, second = _interval(*ends), fronts[a], fronts[b]
        if interval is None or first is None or second is None:
            continue
        bounds = common_range(first, second)
        found.append(Comparison(a, b, interval, mean_over(second, *bounds), *bounds))
    return found


@dataclass(frozen=True)
class Level:
    """The front of every path arm at one quality.

    Attributes:
        name: of LEVELS.
        quality: the quality.
        diversity: arm -> f(q); None for an arm that does not reach it.
        lead: how far the best arm lies above the second; None for a single arm.
    """

    name: str
    quality: float
    diversity: dict[str, Interval | None]
    best: str
    lead: Interval | None


def kinds_at_levels(settings: Sequence[Setting], quality: np.ndarray, diversity: np.ndarray, seed: int) -> list[Level]:
    """Which path arm is the most diverse at which quality; [] without path arms."""
    members = {arm: rows for arm, rows in _members(settings).items() if settings[rows[0]].family == "paths"}
    members.pop(PATHS, None)
    whole = {arm: front for arm, front in _fronts(members, quality, diversity).items() if front is not None}
    if not whole:
        return []
    high = max(float(front.quality[-1]) for front in whole.values())
    low = min(float(front.quality[0]) for front in whole.values())
    levels = {name: low + share * (high - low) for name, share in LEVELS.items()}
    arms = list(whole)

    def heights(prompts: np.ndarray) -> np.ndarray:  # (levels, arms)
        fronts = _fronts(members, quality[:, prompts], diversity[:, prompts])
        return np.array([[_height(fronts[arm], q) for arm in arms] for q in levels.values()])

    full = heights(np.arange(quality.shape[1]))
    ranked = np.argsort(-np.nan_to_num(full, nan=-np.inf), axis=1)

    def statistic(prompts: np.ndarray) -> np.ndarray:
        found = heights(prompts)
        leads = [
            row[order[0]] - row[order[1]] if len(arms) > 1 else np.nan for row, order in zip(found, ranked, strict=True)
        ]
        return np.concatenate([found.ravel(), leads])

    value, lows, highs = resampled(statistic, quality.shape[1], seed)
    intervals = [_interval(*ends) for ends in zip(value, lows, highs, strict=True)]
    width = len(arms)
    return [
        Level(
            name,
            q,
            dict(zip(arms, intervals[i * width : (i + 1) * width], strict=True)),
            arms[ranked[i, 0]],
            intervals[len(levels) * width + i],
        )
        for i, (name, q) in enumerate(levels.items())
    ]


def _members(settings: Sequence[Setting]) -> dict[str, list[int]]:
    """Arm or family -> the rows of its settings."""
    found: dict[str, list[int]] = {}
    for row, setting in enumerate(settings):
        found.setdefault(setting.arm, []).append(row)
        family = {"paths": PATHS, "sampler": SAMPLERS}.get(setting.family)
        if family is not None:
            found.setdefault(family, []).append(row)
    return found


def _fronts(members: dict[str, list[int]], quality: np.ndarray, diversity: np.ndarray) -> dict[str, Front | None]:
    q, d = (cast(list[float], _means(values).tolist()) for values in (quality, diversity))
    found: dict[str, Front | None] = {}
    for name, rows in members.items():
        known = any(isfinite(q[row]) and isfinite(d[row]) for row in rows)
        found[name] = front_of([q[row] for row in rows], [d[row] for row in rows]) if known else None
    return found


def _difference(first: Front | None, second: Front | None) -> float:
    return np.nan if first is None or second is None else difference(first, second)


def _height(front: Front | None, quality: float) -> float:
    return np.nan if front is None or quality > front.quality[-1] else front.at(quality)


def _means(values: np.ndarray) -> np.ndarray:
    """Means over prompts of what is there, NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(-1)
    return np.where(count > 0, np.where(there, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def _interval(value: float, low: float, high: float) -> Interval | None:
    if not np.isfinite(value):
        return None
    return Interval(float(value), *(float(end) if np.isfinite(end) else None for end in (low, high)))
