"""The greedy choice against determinants by NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.applications.write import choose
from stochroute.applications.write.selection import greedy
from stochroute.evaluation.diversity import ngram_cosines


def similarity_of(seed: int, count: int, width: int) -> np.ndarray:
    """Cosines of random vectors: singular where there are more of them than dimensions."""
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), width=st.integers(1, 12), spread=st.floats(0, 3))
def test_every_step_takes_the_greatest_determinant(seed: int, count: int, width: int, spread: float):
    similarity = similarity_of(seed, count, width)
    log_quality = np.random.default_rng(seed + 1).normal(size=count) * spread
    kernel = np.exp(log_quality)[:, None] * similarity * np.exp(log_quality)
    chosen = greedy(similarity, log_quality, count)
    taken: list[int] = []
    for one in chosen:
        others = [i for i in range(count) if i not in taken]
        dets = {i: np.linalg.slogdet(kernel[np.ix_([*taken, i], [*taken, i])])[1] for i in others}
        assert dets[one.index] >= max(dets.values()) - 1e-5
        rest = similarity[np.ix_(taken, taken)]
        explained = similarity[one.index, taken] @ np.linalg.pinv(rest, hermitian=True) @ similarity[taken, one.index]
        assert one.novelty == pytest.approx(1 - explained, abs=1e-5)
        taken.append(one.index)
    # as many as there are independent texts, and not one more
    assert len(chosen) == np.linalg.matrix_rank(similarity, tol=1e-6)


def test_similarity_is_a_kernel_with_ones_on_its_diagonal():
    texts = ["the fox ran home", "the fox ran away", "月出东山", "", "!"]
    similarity = ngram_cosines(texts)
    assert np.allclose(np.diag(similarity), 1)
    assert np.linalg.eigvalsh(similarity).min() > -1e-12


def test_quality_decides_the_first_and_novelty_who_comes_next():
    texts = ["the fox ran home today", "the fox ran home again", "a bear slept under snow"]
    nats = np.array([1.0, 1.01, 1.2])
    assert [c.index for c in choose(texts, nats, 3)] == [0, 2, 1]
    assert [c.index for c in choose(texts, nats, 3, weight=20.0)] == [0, 1, 2]
    assert [c.index for c in choose(texts, nats[::-1].copy(), 1)] == [2]
    assert choose(texts, nats, 1)[0].novelty == 1.0


def test_a_text_that_says_nothing_new_is_not_chosen_and_nothing_gives_nothing():
    assert [c.index for c in choose(["a b c d e", "a b c d e"], np.array([2.0, 1.0]), 2)] == [1]
    assert choose([], np.array([]), 3) == []
