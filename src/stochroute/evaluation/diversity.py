"""How different the coherent texts of one prompt are.

Counts (Vendi scores, groups, distinct plots) are taken over all coherent ones of the n texts that every setting wrote:
an incoherent text adds nothing, so that counts are compared at equal n. Ratios (distinct-n, EAD, self-BLEU) rise when
texts are left out; they are taken over the first m coherent texts, m being the same for all, and are missing
(NaN) where a prompt has fewer.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from stochroute.evaluation.words import ngrams, words

LONGEST = 4  # words of the longest n-gram, in all measures


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of the texts (Li et al. 2016, arXiv 1510.03055); NaN without any."""
    counts = _ngrams_of(texts, n)
    return len(counts) / counts.total() if counts else math.nan


def expectation_adjusted_distinct(texts: Sequence[str], n: int, vocabulary: int) -> float:
    """Distinct n-grams over the number expected of as many uniform draws: unique ÷ V[1 − ((V − 1)/V)^C].

    Liu et al. 2022 (arXiv 2202.13587). NaN without any n-gram.

    Args:
        vocabulary: V, the number of distinct n-grams in all texts of the run.
    """
    counts = _ngrams_of(texts, n)
    if not counts:
        return math.nan
    # expm1 and log1p: the plain form loses all digits for a large V
    expected = -vocabulary * math.expm1(counts.total() * math.log1p(-1 / vocabulary)) if vocabulary > 1 else 1.0
    return len(counts) / expected


def self_bleu(texts: Sequence[str]) -> float:
    """The mean BLEU-4 of each text against the others, in [0, 1] (Zhu et al. 2018, arXiv 1802.01886), by sacrebleu.

    NaN for fewer than two texts. Lower is more diverse.
    """
    from sacrebleu.metrics.bleu import BLEU

    if len(texts) < 2:
        return math.nan
    bleu = BLEU(tokenize="none", effective_order=True, max_ngram_order=LONGEST)
    plain = [" ".join(words(text)) for text in texts]
    scores = [bleu.sentence_score(text, [*plain[:i], *plain[i + 1 :]]).score for i, text in enumerate(plain)]
    return float(np.mean(scores)) / 100


def vendi_ngrams(texts: Sequence[str]) -> float:
    """The effective number of different texts, with the mean cosine of n-gram counts, n = 1 … 4, as the kernel.

    Friedman & Dieng 2023 (arXiv 2210.02410), by vendi-score; 0 without texts.
    """
    if not texts:
        return 0.0
    return _vendi(ngram_cosines(texts))


def ngram_cosines(texts: Sequence[str]) -> np.ndarray:
    """How alike texts are: the mean cosine of their n-gram counts, n = 1 … 4: float64 (texts, texts) in [0, 1]."""
    return np.mean([_cosines([ngrams(words(t), n) for t in texts]) for n in range(1, LONGEST + 1)], axis=0)


def vendi_embeddings(vectors: np.ndarray) -> float:
    """The same with the cosine of embeddings (texts, width), rows of length 1; 0 without texts."""
    if not len(vectors):
        return 0.0
    kernel = (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(kernel, 1.0)
    return _vendi(kernel)


def utility_k(groups: Sequence[int], worth: Sequence[float], patience: float = 0.8) -> float:
    """NoveltyBench's utility of k texts read in order by somebody who goes on with probability `patience` (Zhang et al.
    2025, arXiv 2504.05228): Σ_i patience^i worth_i [text i is the first of its group] ÷ Σ_i patience^i.

    Args:
        groups: the group of each text; −1 for one that counts as nothing.
        worth: of each text.
    """
    seen: set[int] = {-1}
    gained = 0.0
    for i, (group, value) in enumerate(zip(groups, worth, strict=True)):
        if group not in seen:
            gained += patience**i * value
            seen.add(group)
    return gained / sum(patience**i for i in range(len(groups)))


def vocabulary_sizes(texts: Sequence[str]) -> dict[int, int]:
    """n -> number of distinct n-grams in all texts together, n = 1 … 4."""
    distinct = list(dict.fromkeys(texts))
    return {n: len(_ngrams_of(distinct, n)) for n in range(1, LONGEST + 1)}


def _ngrams_of(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(words(text), n))
    return counts


def _cosines(counts: list[Counter[tuple[str, ...]]]) -> np.ndarray:
    """Cosines of the counts; a text too short for any n-gram is like itself alone."""
    column = {gram: i for i, gram in enumerate(dict.fromkeys(g for c in counts for g in c))}
    table = np.zeros((len(counts), len(column)))
    for row, grams in enumerate(counts):
        for gram, count in grams.items():
            table[row, column[gram]] = count
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    table /= np.where(lengths > 0, lengths, 1)
    cosines = table @ table.T
    np.fill_diagonal(cosines, 1.0)
    return cosines


def _vendi(kernel: np.ndarray) -> float:
    from vendi_score import vendi

    with warnings.catch_warnings():
        # vendi-score 0.0.3 names a class by a module that SciPy has since moved
        warnings.simplefilter("ignore", DeprecationWarning)
        return float(vendi.score_K(kernel))
