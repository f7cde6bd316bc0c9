"""The story world's plots: counted exactly, numbered without gaps, drawn evenly."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochroute.world import WORLD, Plot, World, draw_plot, number_of, number_of_plots, plot_at
from stochroute.world.plots import BRANCHES, LESSONS, ROLES, Branch, mix

NUMBERS = st.integers(0, number_of_plots() - 1)

SMALL = World(
    heroes=("Mira", "Otto", "Tom"),
    helpers=("Zoe", "Paul"),
    kinds=("fox", "bear"),
    places=("sea", "hill"),
    branches=(
        Branch(goals={"a": ("a1", "a2")}, obstacles={"o": {"s": "kindness", "t": "courage"}}),
        Branch(goals={"b": ("b1",), "c": ("c1", "c2")}, obstacles={"p": {"u": "courage"}}),
    ),
    lessons={"kindness": ("k1", "k2"), "courage": ("c",)},
)


def every_combination(world: World):
    """Every plot of the world's words, coherent or not."""
    goals = {goal: endings for branch in world.branches for goal, endings in branch.goals.items()}
    obstacles = [obstacle for branch in world.branches for obstacle in branch.obstacles]
    solutions = {solution for _, solution in world.manners}
    endings = {ending for several in goals.values() for ending in several}
    lessons = {lesson for several in world.lessons.values() for lesson in several}
    who = (world.heroes, world.kinds, world.helpers, world.kinds, world.places)
    return (Plot(*values) for values in product(*who, goals, obstacles, solutions, endings, lessons))


def test_the_formula_counts_what_brute_force_counts():
    coherent = [plot for plot in every_combination(SMALL) if not SMALL.problems(plot)]
    assert SMALL.number_of_plots == len(coherent) == (3 * 2) * (2 * 2) * 2 * 9
    assert {SMALL.plot_at(number) for number in range(SMALL.number_of_plots)} == set(coherent)


def test_the_world_has_as_many_plots_as_documented():
    assert number_of_plots() == (12 * 12) * (12 * 12) * 12 * 960 == 238_878_720
    assert len(set(WORLD.threads)) == 960


@settings(deadline=None)
@given(NUMBERS)
def test_number_and_plot_are_two_names_of_one_thing(number):
    plot = plot_at(number)
    assert number_of(plot) == number
    assert WORLD.problems(plot) == ()


@pytest.mark.parametrize("number", [-1, number_of_plots()])
def test_a_number_outside_the_world_is_an_error(number):
    with pytest.raises(IndexError, match=str(number)):
        plot_at(number)


@settings(deadline=None)
@given(NUMBERS, st.sampled_from(ROLES))
def test_a_plot_with_an_unknown_word_has_no_number(number, role):
    broken = replace(plot_at(number), **{role: "nothing"})
    with pytest.raises(ValueError, match="nothing"):
        number_of(broken)


def test_hero_and_helper_come_from_two_casts():
    assert set(WORLD.heroes).isdisjoint(WORLD.helpers)
    plot = plot_at(0)
    assert WORLD.problems(replace(plot, helper=plot.hero)) == (f"helper {plot.hero!r} is unknown",)


def test_every_rule_can_be_broken_alone():
    plot = next(p for p in map(plot_at, range(960)) if (p.goal, p.obstacle, p.solution) == ("cake", "storm", "tent"))
    assert plot.lesson in LESSONS["cleverness"]
    for change, words in (
        ({"ending": "sail"}, "does not follow from goal"),
        ({"solution": "pillow", "lesson": "doors"}, "does not fit obstacle"),
        ({"lesson": "doors"}, "does not follow from solution"),
        ({"obstacle": "well", "solution": "bucket"}, "does not stand in the way"),
    ):
        (problem,) = WORLD.problems(replace(plot, **change))
        assert words in problem


def test_solutions_have_one_obstacle_and_endings_one_goal():
    solutions = [solution for _, solution in WORLD.manners]
    endings = [ending for branch in BRANCHES for several in branch.goals.values() for ending in several]
    assert len(solutions) == len(set(solutions)) == 48
    assert len(endings) == len(set(endings)) == 40


def test_draws_repeat_and_are_even():
    draws = [draw_plot(3, index) for index in range(3200)]
    assert draws == [draw_plot(3, index) for index in range(3200)]
    assert draws != [draw_plot(4, index) for index in range(3200)]
    assert len(set(draws)) > 3195
    for role, expected in (("hero", 3200 / 12), ("goal", 160), ("place", 3200 / 12)):
        counts = Counter(getattr(plot, role) for plot in draws)
        chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi_square < 50, role  # p < 1e-4 at 19 degrees of freedom


def test_mixing_is_pinned():
    """Draws must mean the same for ever, so the mixing may not drift."""
    assert mix() == 0x9E3779B97F4A7C15
    assert [mix(0), mix(0, 0), mix(1, 2)] == [14467056895137714718, 521201995760688805, 14339857800317763272]
