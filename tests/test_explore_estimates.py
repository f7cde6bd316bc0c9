"""Coverage and Chao1 against another package, against formulas counted out, and against worlds whose size is known."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.applications.explore import Abundance, chao1, coverage

COUNTS = st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=30)


def of(counts: list[int]) -> Abundance:
    return Abundance.of([answer for answer, count in enumerate(counts) for _ in range(count)])


# scikit-bio 0.7.4: chao1, chao1_ci, goods_coverage and esty_ci, the last of 1 − coverage. It leaves the factor
# (n − 1)/n out of Chao1, which a last answer that came 10⁹ times takes to 1; and where an answer came twice its
# variance has 0.24 for the ¼ of Chao 1987, which moves the interval by less than a hundredth.
SCIKIT_BIO = [
    (
        [5, 3, 2, 2, 1, 1, 1],
        10.25,
        (8.267381596108496, 26.933614256479263),
        0.8,
        (-0.1305573506400049, 0.530557350640005),
    ),
    (
        [9, 4, 1, 1, 1],
        9.0,
        (6.3658023422568055, 30.603450990703884),
        0.8125,
        (-0.0037495494259054407, 0.37874954942590544),
    ),
    (
        [30, 12, 5, 2, 2, 2, 1, 1, 1, 1, 1, 1],
        19.0,
        (14.078134946341143, 46.39099629612498),
        0.8983050847457628,
        (-0.010417758521910875, 0.21380758903038546),
    ),
]


@pytest.mark.parametrize(("counts", "number", "interval", "covered", "uncovered"), SCIKIT_BIO)
def test_estimates_agree_with_scikit_bio(
    counts: list[int],
    number: float,
    interval: tuple[float, float],
    covered: float,
    uncovered: tuple[float, float],
):
    n, f = sum(counts) + 10**9, Counter(counts)
    # of() would list 10⁹ texts
    many = Abundance(n, len(counts) + 1, f[1], f[2], tuple(sorted([*f.items(), (10**9, 1)])))
    found = chao1(many)
    assert found.value == pytest.approx(number)
    assert (found.low, found.high) == pytest.approx(interval, rel=1e-6 if not f[2] else 1e-2)
    seen = coverage(of(counts))
    assert seen.value == pytest.approx(covered)
    # scikit-bio rounds z to 1.96
    assert seen.low == pytest.approx(max(0.0, 1 - uncovered[1]), abs=1e-4)
    assert seen.high == pytest.approx(min(1.0, 1 - uncovered[0]), abs=1e-4)


@given(COUNTS)
def test_coverage_is_one_minus_the_share_of_lone_texts(counts: list[int]):
    seen = of(counts)
    found = coverage(seen)
    assert found.value == pytest.approx(1 - sum(count == 1 for count in counts) / sum(counts))
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-12 <= found.high + 2e-12 <= 1 + 2e-12


@given(COUNTS)
def test_there_are_never_fewer_answers_than_were_seen(counts: list[int]):
    found = chao1(of(counts))
    assert len(counts) <= found.low + 1e-9
    assert found.value >= len(counts)
    assert found.high is None or found.high >= found.low


@given(COUNTS)
def test_chao1_is_its_formula(counts: list[int]):
    n, s, f1, f2 = sum(counts), len(counts), counts.count(1), counts.count(2)
    expected = s + (n - 1) / n * (f1**2 / (2 * f2) if f2 else f1 * (f1 - 1) / 2)
    assert chao1(of(counts)).value == pytest.approx(expected)


@given(COUNTS.filter(lambda counts: counts.count(1) and counts.count(2)))
def test_chao1s_interval_is_that_of_spader(counts: list[int]):
    # as SpadeR's source writes it (Chao1 in Diversity_subroutine.R)
    n, d, f1, f2 = sum(counts), len(counts), counts.count(1), counts.count(2)
    estimate = d + (n - 1) / n * f1**2 / (2 * f2)
    variance = f2 * (
        (n - 1) / n * (f1 / f2) ** 2 / 2 + ((n - 1) / n) ** 2 * (f1 / f2) ** 3 + ((n - 1) / n) ** 2 * (f1 / f2) ** 4 / 4
    )
    t = estimate - d
    k = math.exp(1.959963984540054 * math.sqrt(math.log(1 + variance / t**2)))
    found = chao1(of(counts))
    assert (found.low, found.high) == pytest.approx((d + t / k, d + t * k))


@given(st.permutations(list("aabbbccddddef")))
def test_the_order_of_texts_does_not_matter(texts: list[str]):
    assert Abundance.of(texts) == Abundance.of(sorted(texts))


def test_nothing_is_known_of_nothing_and_nothing_bounds_what_never_came_twice():
    assert coverage(Abundance.of([])).value == 0
    assert chao1(Abundance.of([])).value == 0
    for size in (1, 2, 30):
        found = chao1(Abundance.of(range(size)))
        assert found.high is None
        assert found.low >= max(1, size**2 / (2 * math.log(20)))


def hits(seen: list[np.ndarray], size: int, probabilities: np.ndarray) -> tuple[float, float]:
    """Shares of the samples whose interval of coverage, and of the number of answers, holds the truth."""
    covered = numbers = 0
    for sample in seen:
        abundance = Abundance.of(sample.tolist())
        truth = probabilities[np.unique(sample)].sum()
        cover, number = coverage(abundance), chao1(abundance)
        assert cover.high is not None
        covered += cover.low - 1e-9 <= truth <= cover.high + 1e-9
        numbers += round(number.low) <= size and (number.high is None or size <= round(number.high))
    return covered / len(seen), numbers / len(seen)


@pytest.mark.parametrize(("size", "n"), [(12, 30), (144, 150), (144, 400), (144, 900)])
def test_in_a_uniform_world_the_intervals_hold_the_truth_as_often_as_they_say(size: int, n: int):
    draws = np.random.default_rng(0)
    probabilities = np.full(size, 1 / size)
    covered, numbers = hits([draws.integers(size, size=n) for _ in range(300)], size, probabilities)
    assert covered > 0.9
    assert numbers > 0.9


def test_in_an_uneven_world_coverage_holds_and_chao1_is_a_lower_bound():
    draws = np.random.default_rng(0)
    probabilities = 1 / np.arange(1, 201)
    probabilities /= probabilities.sum()
    samples = [draws.choice(200, size=300, p=probabilities) for _ in range(200)]
    covered, _ = hits(samples, 200, probabilities)
    assert covered > 0.9
    estimates = [chao1(Abundance.of(sample.tolist())).value for sample in samples]
    assert np.mean(estimates) < 205
