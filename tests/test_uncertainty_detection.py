"""AUROC, AURC and selective accuracy against scikit-learn, SciPy and the definitions written out."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from stochroute.uncertainty.detection import COVERAGES, Undefined, aurc, auroc, detect, gain, selective_errors

# few different scores, so that ties are common
ANSWERS = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=40)
BOTH_KINDS = ANSWERS.filter(lambda rows: len({wrong for wrong, _ in rows}) == 2)


def columns(rows):
    return [wrong for wrong, _ in rows], [float(score) for _, score in rows]


@given(BOTH_KINDS)
def test_auroc_is_scikit_learns(rows):
    wrong, score = columns(rows)
    assert auroc(wrong, score) == pytest.approx(roc_auc_score(wrong, score))


@given(BOTH_KINDS, st.randoms())
def test_the_order_of_the_questions_never_matters(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert auroc(*columns(shuffled)) == pytest.approx(auroc(*columns(rows)))
    assert aurc(*columns(shuffled)) == pytest.approx(aurc(*columns(rows)))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=5))
def test_a_cut_tie_counts_as_the_mean_over_all_orders(rows):
    expected = []
    for order in permutations(rows):
        errors = [wrong for wrong, _ in sorted(order, key=lambda row: row[1])]  # stable: ties stay in this order
        expected.append(np.cumsum(errors) / np.arange(1, len(errors) + 1))
    np.testing.assert_allclose(selective_errors(*columns(rows)), np.mean(expected, axis=0))


def test_a_perfect_score_has_auroc_1_and_the_least_aurc():
    wrong, score = [False] * 3 + [True], [0.0, 0.1, 0.2, 0.9]
    assert auroc(wrong, score) == 1
    assert aurc(wrong, score) == pytest.approx(0.25 / 4)
    assert auroc(wrong, [-s for s in score]) == 0


@pytest.mark.parametrize(("wrong", "kind"), [([True] * 3, "wrong"), ([False] * 3, "right")])
def test_all_of_one_kind_has_no_auroc_and_says_so(wrong, kind):
    for measure in (auroc, detect):
        with pytest.raises(Undefined, match=f"all 3 answers are {kind}: AUROC is undefined"):
            measure(wrong, [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("wrong", "score", "words"),
    [([], [], "one of each"), ([True, False], [0.1], "one of each"), ([True, False], [0.1, float("nan")], "NaN")],
)
def test_bad_input_is_named(wrong, score, words):
    with pytest.raises(ValueError, match=words):
        auroc(wrong, score)


@pytest.fixture(scope="module")
def answers():
    stream = np.random.default_rng(3)
    wrong = stream.random(300) < 0.4
    return wrong, stream.normal(size=300) + wrong, stream.normal(size=300) + 0.3 * wrong


def test_intervals_are_those_of_scipys_bootstrap(answers):
    wrong, score, other = answers
    found = detect(wrong, score, seed=1)
    scipys = stats.bootstrap(
        (wrong, score), auroc, paired=True, vectorized=False, method="percentile", n_resamples=1000, rng=2
    ).confidence_interval
    assert found.auroc.low == pytest.approx(scipys.low, abs=0.01)
    assert found.auroc.high == pytest.approx(scipys.high, abs=0.01)
    difference = gain(wrong, score, wrong, other, seed=1)
    scipys = stats.bootstrap(
        (wrong, score, other),
        lambda w, a, b: auroc(w, a) - auroc(w, b),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=2,
    ).confidence_interval
    assert difference.low == pytest.approx(scipys.low, abs=0.015)
    assert difference.high == pytest.approx(scipys.high, abs=0.015)
    assert difference.value == pytest.approx(auroc(wrong, score) - auroc(wrong, other))


def test_the_curve_ends_at_the_accuracy_and_is_reproducible(answers):
    wrong, score, _ = answers
    found = detect(wrong, score, seed=1)
    assert [coverage for coverage, _ in found.curve] == list(COVERAGES)
    assert found.curve[-1][1].value == pytest.approx(1 - wrong.mean()) == found.accuracy.value
    assert found.curve[9][1].value == pytest.approx(1 - selective_errors(wrong, score)[149])
    assert found == detect(wrong, score, seed=1) != detect(wrong, score, seed=2)
    for estimate in (found.auroc, found.aurc, found.accuracy, *(point for _, point in found.curve)):
        assert estimate.low <= estimate.value <= estimate.high


def test_arms_are_compared_over_the_same_questions(answers):
    wrong, score, _ = answers
    with pytest.raises(ValueError, match="300 and 299 questions"):
        gain(wrong, score, wrong[1:], score[1:])
