"""Chooses texts that are good and unlike each other: the greedy mode of a determinantal point process.

A set S of texts has the weight det(L_S), L_ij = q_i s_ij q_j (Kulesza & Taskar 2012, arXiv 1207.6083, section 3.1): q_i
is the quality of text i, s_ij the similarity of two texts. Each step takes the text with the greatest

    det(L_{S+i}) / det(L_S) = q_i² · (1 − s_iSᵀ s_SS⁻¹ s_iS),

quality squared times what the texts chosen before do not account for: its novelty, in [0, 1]. The Cholesky factor is
updated instead of computed anew (Chen, Zhang & Zhou 2018, arXiv 1709.05135, algorithm 1). It is written out here
because no kept library has it: DPPy (0.3.3, 2024) draws samples and has no greedy mode; submodlib-py (0.0.3, 2025)
brings numba, pandas and matplotlib; apricot-select is of 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stochroute.evaluation.diversity import ngram_cosines

_NOTHING_NEW = 1e-9  # novelty that is rounding


@dataclass(frozen=True)
class Chosen:
    """A text that was chosen: its index and its novelty against those chosen before it."""

    index: int
    novelty: float


def choose(texts: Sequence[str], nats: np.ndarray, keep: int, weight: float = 1.0) -> list[Chosen]:
    """At most `keep` of the texts, the best first; fewer where the rest would be nothing new.

    Args:
        texts: distinct.
        nats: of each, lower is better; its quality is exp(−weight · nats).
        weight: of quality against novelty; 0 looks at novelty alone.

    Similarity is the mean cosine of the counts of n-grams of words, n = 1 … 4.
    """
    if not len(texts):
        return []
    similarity = ngram_cosines(texts)
    return greedy(similarity, -weight * np.asarray(nats, dtype=np.float64), keep)


def greedy(similarity: np.ndarray, log_quality: np.ndarray, keep: int) -> list[Chosen]:
    """The greedy choice for a similarity matrix (n, n), positive semidefinite with ones on its diagonal."""
    count = len(log_quality)
    factor = np.zeros((count, 0))  # rows of the Cholesky factor so far
    novelty = np.diag(similarity).astype(np.float64).copy()
    left = np.ones(count, dtype=bool)
    chosen: list[Chosen] = []
    while len(chosen) < keep:
        possible = left & (novelty > _NOTHING_NEW)
        if not possible.any():
            break
        with np.errstate(divide="ignore"):
            gain = np.where(possible, 2 * log_quality + np.log(np.maximum(novelty, 0)), -np.inf)
        best = int(gain.argmax())
        chosen.append(Chosen(best, float(min(1.0, novelty[best]))))
        column = (similarity[:, best] - factor @ factor[best]) / np.sqrt(novelty[best])
        factor = np.column_stack([factor, column])
        novelty = novelty - column**2
        left[best] = False
    return chosen
