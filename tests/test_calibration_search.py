"""The root-finder on functions whose root is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.calibration.search import Curve, OutOfReach, solve

budgets = st.floats(1e-3, 1.0)


@given(budget=budgets, scale=st.floats(1e-3, 1e3), power=st.floats(0.5, 4))
def test_the_root_of_a_power_is_found_in_a_few_steps(budget: float, scale: float, power: float):
    curve = Curve(lambda factor: 0.05 * (factor * scale) ** power)
    root = (budget / 0.05) ** (1 / power) / scale
    if 1e-3 < root < 1e3:
        assert solve(curve, budget) == pytest.approx(root, rel=3e-3)
        assert len(curve.points) <= 10


@given(budget=budgets, ceiling=st.floats(1e-3, 10))
def test_a_curve_that_levels_off_is_solved_or_said_to_end_below(budget: float, ceiling: float):
    curve = Curve(lambda factor: ceiling * factor**2 / (1 + factor**2))
    if budget < 0.99 * ceiling:
        assert curve.evaluate(solve(curve, budget)) == pytest.approx(budget, rel=2e-3)
        assert len(curve.points) <= 14
    elif budget > 1.01 * ceiling:
        with pytest.raises(OutOfReach) as caught:
            solve(curve, budget)
        assert f"the largest reached is {max(nats for _, nats in curve.points):.3g} nats" in str(caught.value)
        assert len(curve.points) <= 14


@given(budget=budgets, guess=st.floats(0.05, 20))
def test_the_guess_does_not_change_the_root(budget: float, guess: float):
    curve = Curve(lambda factor: math.expm1(0.05 * factor**2))
    assert solve(curve, budget, guess) == pytest.approx(solve(curve, budget), rel=2e-3)


def test_a_good_guess_takes_three_evaluations():
    curve = Curve(lambda factor: 0.05 * factor**1.9)
    solve(curve, 0.05, guess=1.03)
    assert len(curve.points) <= 3


def test_no_point_is_computed_twice():
    seen = []
    solve(Curve(lambda factor: seen.append(factor) or 0.01 * factor**2), 0.05)
    assert len(seen) == len(set(seen))


@given(st.floats(0.02, 0.4))
def test_a_curve_that_jumps_past_the_budget_gives_the_nearer_side(low: float):
    curve = Curve(lambda factor: low if factor < 2 else 0.5)
    nats = curve.evaluate(solve(curve, 0.45))
    assert nats == (low if math.log(0.45 / low) < math.log(0.5 / 0.45) else 0.5)


def test_rounding_that_leaves_more_than_the_budget_is_said_to():
    with pytest.raises(OutOfReach, match=r"smallest that rounding leaves is 0\.001 nats.*wider dtype"):
        solve(Curve(lambda factor: 1e-3 + factor**2), 1e-4)


def test_nan_above_ends_the_search_with_what_was_reached():
    with pytest.raises(OutOfReach, match=r"largest reached is 0\.01 nats"):
        solve(Curve(lambda factor: 0.01 * factor if factor <= 1 else math.nan), 5.0)
    with pytest.raises(OutOfReach, match="makes NaN"):
        solve(Curve(lambda factor: math.nan), 5.0)
