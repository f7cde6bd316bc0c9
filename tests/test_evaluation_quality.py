"""Checkers, pass@k, repetition, thresholds and MAUVE against independent computations."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.evaluation.checkers import Answers, StoryWorld, final_number
from stochroute.evaluation.quality import mauve, pass_at_k
from stochroute.evaluation.scoring import Score, Thresholds, is_coherent, repetition, thresholds_of
from stochroute.world import check, draw_text


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_correct_text(n: int, data: st.DataObject):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations([i < correct for i in range(n)], k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_refuses_what_cannot_be():
    for n, correct, k in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError, match="k must be in 1"):
            pass_at_k(n, correct, k)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He has 3 + 4 = 7 apples.\n#### 7", "7"),
        ("So the answer is $1,200.50, I think. Call 555.", "1200.5"),
        ("first 3, then 12.0", "12"),
        ("ANSWER: -5", "-5"),
        ("no idea", None),
        ("#### 10 is wrong. #### 11", "11"),
        ("100", "100"),
    ],
)
def test_the_final_number_is_found(text: str, number: str | None):
    assert final_number(text) == number


def test_answers_are_compared_as_numbers():
    checker = Answers(["Janet makes 9 * 2 = 18.\n#### 18", "1,000"])
    assert checker.read(0, "", "It is 18.00").correct
    wrong = checker.read(1, "", "999")
    assert (wrong.coherent, wrong.correct, wrong.identity) == (True, False, "999")
    assert checker.read(1, "", "many").identity is None
    with pytest.raises(ValueError, match="the answer of prompt 2 holds no number"):
        Answers(["1", "none"])


def test_the_story_world_reads_prompt_and_text_together():
    story = draw_text(3, 0)
    reading = StoryWorld().read(0, story[:20], story[20:])
    assert reading.correct
    assert reading.identity == str(check(story).plot)
    assert StoryWorld().read(0, story[:20], "nonsense").identity is None


def test_repetition_is_the_share_of_four_grams_that_came_before():
    assert repetition("a b c d") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert repetition("la la la la la la") == pytest.approx(1 - 1 / 3)
    assert repetition("short") == repetition("") == 0


def test_thresholds_pass_most_of_the_texts_that_set_them():
    scores = [Score(nats=float(i), bytes=100, repetition=i / 1000) for i in range(100)]
    thresholds = thresholds_of(scores, "the references")
    assert sum(is_coherent(score, thresholds) for score in scores) == 99
    assert not is_coherent(Score(0.0, 0, 0.0), thresholds)
    assert not is_coherent(Score(1.0, 100, 0.5), thresholds)
    assert is_coherent(Score(None, 5, 0.0), Thresholds(None, 0.1, ""))
    # a checker has the last word
    assert is_coherent(Score(900.0, 1, 1.0, readable=True), thresholds)
    assert not is_coherent(Score(0.1, 100, 0.0, readable=False), thresholds)


def test_mauve_is_the_area_under_its_divergence_curve():
    rng = np.random.default_rng(0)
    centres = np.eye(8)[:2] * 10  # two clusters that k-means cannot miss
    shares = (0.75, 0.25), (0.4, 0.6)
    p, q = (
        np.concatenate([centres[i] + 0.01 * rng.normal(size=(round(20 * s), 8)) for i, s in enumerate(share)])
        for share in shares
    )
    kl = lambda a, b: float(np.sum(a * np.log(a / b)))  # noqa: E731
    a, b = (np.array(share) for share in shares)
    points = [(0.0, 1.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, 25):
        mixture = weight * a + (1 - weight) * b
        points.append((np.exp(-5 * kl(b, mixture)), np.exp(-5 * kl(a, mixture))))
    points = np.array([*points, (1.0, 0.0)])
    area = 0.0
    for x, y in (points.T, points[:, ::-1].T):
        order = np.argsort(x)
        area += 0.5 * np.trapezoid(y[order], x[order])
    assert mauve(p.astype(np.float32), q.astype(np.float32), seed=3) == pytest.approx(area, abs=1e-6)
