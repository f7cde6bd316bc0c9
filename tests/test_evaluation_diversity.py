"""Every measure of diversity against an independent computation."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from stochroute.evaluation.diversity import (
    distinct_n,
    expectation_adjusted_distinct,
    self_bleu,
    utility_k,
    vendi_embeddings,
    vendi_ngrams,
    vocabulary_sizes,
)
from stochroute.evaluation.embedding import WordLlamaEmbedder, partition, same_by_embedding
from stochroute.evaluation.words import ngrams, words

TEXTS = [
    "The cat sat on the mat.",
    "The cat sat on a chair!",
    "A dog ran away.",
    "Two birds sang, and a third joined in.",
]
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, max_size=9).map(" ".join)


def test_words_are_words_signs_and_single_chinese_characters():
    assert words("Don't stop, 3 Cats!") == ["don't", "stop", ",", "3", "cats", "!"]
    assert words("从前 a fox") == ["从", "前", "a", "fox"]
    assert ngrams(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert not ngrams(["a"], 2)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_distinct_n_counts_as_sklearn_does(n: int):
    counts = CountVectorizer(tokenizer=words, token_pattern=None, lowercase=False, ngram_range=(n, n)).fit_transform(
        TEXTS
    )
    assert distinct_n(TEXTS, n) == pytest.approx(counts.shape[1] / counts.sum())
    assert vocabulary_sizes(TEXTS)[n] == counts.shape[1]


def test_expectation_adjusted_distinct_is_the_formula_and_one_for_uniform_draws():
    unique, total, vocabulary = 14, 21, 30
    texts = [" ".join(f"w{i}" for i in range(14)), " ".join(f"w{i}" for i in range(7))]
    expected = unique / (vocabulary * (1 - ((vocabulary - 1) / vocabulary) ** total))
    assert expectation_adjusted_distinct(texts, 1, vocabulary) == pytest.approx(expected)
    drawn = np.random.default_rng(0).integers(500, size=4000)
    uniform = [" ".join(f"w{i}" for i in drawn)]
    assert expectation_adjusted_distinct(uniform, 1, 500) == pytest.approx(1, abs=0.01)
    assert math.isnan(expectation_adjusted_distinct([""], 1, 500))
    assert expectation_adjusted_distinct(["a a a"], 1, 1) == 1


def bleu(hypothesis: list[str], references: list[list[str]]) -> float:
    """BLEU-4 of one sentence (Papineni et al. 2002) with sacrebleu's "exp" smoothing and effective order."""
    logs, smooth = [], 1.0
    for n in range(1, 5):
        have = Counter(zip(*(hypothesis[i:] for i in range(n)), strict=False))
        if not have:
            break
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(zip(*(reference[i:] for i in range(n)), strict=False))
        hits = sum(min(count, most[gram]) for gram, count in have.items())
        if not hits:
            smooth *= 2
        logs.append(math.log((hits or 1 / smooth) / have.total()))
    length = len(hypothesis)
    closest = min((abs(len(r) - length), len(r)) for r in references)[1]
    return math.exp(min(0.0, 1 - closest / length) + sum(logs) / len(logs))


@given(st.lists(WORDS, min_size=2, max_size=5))
def test_self_bleu_is_the_mean_bleu_against_the_others(texts: list[str]):
    rows = [words(text) for text in texts]
    if not any(set(row) & {w for j, other in enumerate(rows) if j != i for w in other} for i, row in enumerate(rows)):
        return  # without a single common word sacrebleu gives 0 at once
    expected = [bleu(row, [other for j, other in enumerate(rows) if j != i]) for i, row in enumerate(rows)]
    common = [bool(set(row) & {w for j, o in enumerate(rows) if j != i for w in o}) for i, row in enumerate(rows)]
    expected = [value if shares else 0.0 for value, shares in zip(expected, common, strict=True)]
    assert self_bleu(texts) == pytest.approx(np.mean(expected), abs=1e-9)


def test_self_bleu_is_one_for_copies_and_missing_for_one_text():
    assert self_bleu([TEXTS[0]] * 3) == pytest.approx(1)
    assert math.isnan(self_bleu(TEXTS[:1]))


def vendi(kernel: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues of K/n, by NumPy's general eigenvalues."""
    values = np.linalg.eigvals(kernel / len(kernel)).real
    return math.exp(-sum(v * math.log(v) for v in values if v > 1e-12))


def test_vendi_scores_are_the_entropy_of_the_kernel_s_eigenvalues():
    kernels = []
    for n in range(1, 5):
        vectorizer = CountVectorizer(tokenizer=words, token_pattern=None, lowercase=False, ngram_range=(n, n))
        rows = vectorizer.fit_transform(TEXTS).toarray().astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        kernels.append(rows @ rows.T)
    assert vendi_ngrams(TEXTS) == pytest.approx(vendi(np.mean(kernels, axis=0)))
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vendi_embeddings(vectors) == pytest.approx(vendi(vectors @ vectors.T))


def test_vendi_counts_texts_as_one_would():
    assert vendi_ngrams(["same words here now"] * 5) == pytest.approx(1)
    assert vendi_ngrams(["a b c d", "e f g h", "i j k l"]) == pytest.approx(3)
    assert vendi_ngrams(["a", "b"]) == pytest.approx(2)  # too short for longer n-grams
    assert vendi_ngrams([]) == vendi_embeddings(np.zeros((0, 4))) == 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_texts_are_grouped_by_what_they_say(labels: list[int]):
    groups = partition(len(labels), lambda i, j: labels[i] == labels[j])
    assert len(set(groups)) == len(set(labels))
    assert all((groups[i] == groups[j]) == (labels[i] == labels[j]) for i in range(len(labels)) for j in range(i))
    firsts = [g for i, g in enumerate(groups) if g not in groups[:i]]
    assert firsts == list(range(len(firsts)))


def test_a_text_is_compared_with_the_first_of_each_group_alone():
    near = {(1, 0), (2, 1)}
    assert partition(3, lambda i, j: (i, j) in near) == [0, 0, 1]


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=10))
def test_utility_is_noveltybench_s_weighted_mean(groups: list[int]):
    worth = [1.0 + i % 3 for i in range(len(groups))]
    new = [g != -1 and g not in groups[:i] for i, g in enumerate(groups)]
    values = [value if first else 0 for value, first in zip(worth, new, strict=True)]
    assert utility_k(groups, worth) == pytest.approx(np.average(values, weights=0.8 ** np.arange(len(groups))))


def test_the_embedding_model_of_the_wheel_works_offline_and_knows_meaning_from_words():
    import logging

    handlers = list(logging.getLogger().handlers)
    embedder = WordLlamaEmbedder()
    assert logging.getLogger().handlers == handlers  # importing it leaves logging as it was
    vectors = embedder.embed(
        ["The kitten slept on the sofa.", "A cat was asleep on the couch.", "Stocks fell on Monday.", ""]
    )
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2
    assert embedder.embed([]).shape == (0, 256)


def test_short_answers_are_the_same_when_half_their_words_are():
    texts = ["blue", "Blue", "the blue sea", "red"]
    same = same_by_embedding(texts, np.eye(4), 0.8)
    assert [same(i, j) for i, j in pairwise((1, 0, 1))] == [True, True]
    assert not same(3, 0)
    assert not same(2, 0)
    assert same_by_embedding(["one two"] * 2, np.eye(2), 0.8)(1, 0)
