"""Fronts, differences at equal quality, their intervals, and the verdict that is made from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from stochroute.evaluation.arms import Setting
from stochroute.evaluation.comparison import (
    PATHS,
    SAMPLERS,
    Comparison,
    Interval,
    compare,
    kinds_at_levels,
    mean_intervals,
)
from stochroute.evaluation.front import common_range, difference, front_of, mean_over
from stochroute.evaluation.measures import Measure
from stochroute.evaluation.verdict import kinds, verdict

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8)
MEASURE = Measure("vendi_ngrams", "effective texts of 16", "diversity")


def best_mixture(points: list[tuple[int, int]], quality: float) -> float:
    """The greatest diversity of any mixture of the points with at least this quality, as a linear programme."""
    q, d = np.array(points, dtype=float).T
    found = linprog(-d, A_ub=-q[None], b_ub=[-quality], A_eq=np.ones((1, len(d))), b_eq=[1.0])
    assert found.success
    return -found.fun


@given(POINTS, st.floats(0, 1))
def test_the_front_is_the_best_mixture_of_the_settings(points: list[tuple[int, int]], share: float):
    front = front_of(*zip(*points, strict=True))
    lowest, highest = min(q for q, _ in points), max(q for q, _ in points)
    quality = lowest + share * (highest - lowest)
    assert front.at(quality) == pytest.approx(best_mixture(points, quality), abs=1e-6)


@given(POINTS, POINTS)
def test_the_mean_over_a_range_is_the_integral(first: list[tuple[int, int]], second: list[tuple[int, int]]):
    a, b = front_of(*zip(*first, strict=True)), front_of(*zip(*second, strict=True))
    low, high = common_range(a, b)
    grid = np.linspace(low, high, 4001)
    assert mean_over(a, low, high) == pytest.approx(np.mean([a.at(q) for q in grid]), abs=0.02)
    assert difference(a, b) == pytest.approx(-difference(b, a))
    assert difference(a, a) == 0


def test_fronts_that_share_no_quality_are_compared_at_the_lower_one_s_best():
    low, high = front_of([0.1, 0.2], [9.0, 8.0]), front_of([0.6, 0.8], [5.0, 3.0])
    assert common_range(low, high) == (0.2, 0.2)
    assert difference(low, high) == pytest.approx(8.0 - 5.0)


def test_values_that_do_not_exist_are_left_out():
    assert front_of([0.5, np.nan, 0.7], [1.0, 9.0, np.nan]).diversity == (1.0,)
    with pytest.raises(ValueError, match="no setting has a value on both axes"):
        front_of([np.nan], [1.0])


def test_an_interval_is_that_of_the_same_resamples_by_hand():
    values = np.random.default_rng(0).normal(size=(3, 12))
    values[1, :4] = np.nan
    found = mean_intervals(values, seed=5)
    everyone = np.random.default_rng(5).integers(0, 12, size=(1000, 12))  # as scipy draws them
    for row, interval in zip(values, found, strict=True):
        means = np.nanmean(row[everyone], axis=1)
        assert interval is not None
        assert interval.value == pytest.approx(np.nanmean(row))
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_a_single_prompt_has_no_interval_and_nothing_at_all_no_value():
    single = mean_intervals(np.array([[0.5], [np.nan]]), seed=0)
    assert single == [Interval(0.5, None, None), None]


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        (found,) = mean_intervals(rng.normal(size=(1, 30)), seed)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.98


def settings() -> list[Setting]:
    return [
        *[Setting("shared", "paths", f"{i}", budget=0.1 * (i + 1)) for i in range(3)],
        *[Setting("latent", "paths", f"{i}", budget=0.1 * (i + 1)) for i in range(3)],
        *[Setting("temperature", "sampler", f"{i}") for i in range(3)],
        Setting("beam search", "search", "0"),
    ]


def tables(lift: float, prompts: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Three settings an arm on the line diversity = 10 − 10 · quality, prompts about it; "shared" lifted."""
    rng = np.random.default_rng(0)
    quality = np.tile([0.2, 0.5, 0.8], 4)[:10, None] + 0.02 * rng.normal(size=(10, prompts))
    diversity = 10 - 10 * quality + 0.3 * rng.normal(size=(1, prompts))
    diversity[:3] += lift
    return quality, diversity


@pytest.mark.parametrize(
    ("lift", "words", "sign"),
    [(2.0, "Paths beat the best sampler at equal quality, by +2", 1), (0.0, "they are level with it", 0)],
)
def test_the_verdict_follows_the_interval(lift: float, words: str, sign: int):
    quality, diversity = tables(lift)
    found = compare(settings(), quality, diversity, seed=0)
    headline = found[0]
    assert (headline.first, headline.second) == (PATHS, SAMPLERS)
    assert headline.difference.value == pytest.approx(lift, abs=0.15)
    if sign:
        assert headline.difference.low is not None
        assert headline.difference.low > 0
    assert words in verdict(found, MEASURE, ["temperature"])
    pairs = {(c.first, c.second) for c in found[1:]}
    assert pairs == {(a, b) for a in ("shared", "latent") for b in ("temperature", "beam search")}


def test_paths_that_fall_behind_are_said_to_fall_behind():
    quality, diversity = tables(0.0)
    diversity[:6] -= 3
    said = verdict(compare(settings(), quality, diversity, seed=0), MEASURE, ["temperature"])
    assert "they fall behind it: −3" in said
    assert "do not beat" in said


def test_without_a_comparison_or_an_interval_there_is_no_verdict():
    assert verdict([], MEASURE, []).startswith("No verdict: there is no path arm")
    single = Comparison(PATHS, SAMPLERS, Interval(1.0, None, None), 5.0, 0.1, 0.9)
    assert verdict([single], MEASURE, []).startswith("No verdict from a single prompt")


def test_which_kind_when_names_the_most_diverse_arm_and_doubts_a_small_lead():
    quality, diversity = tables(2.0)
    levels = kinds_at_levels(settings(), quality, diversity, seed=0)
    assert [level.best for level in levels] == ["shared"] * 3
    assert all("ahead of the next" in sentence for sentence in kinds(levels))
    same = kinds_at_levels(settings(), *tables(0.0), seed=0)
    assert any("is not certain" in sentence for sentence in kinds(same))
