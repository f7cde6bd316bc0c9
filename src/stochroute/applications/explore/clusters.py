"""Answers in groups of like ones, each with the one in its middle, and places on a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stochroute.applications.explore.explored import Explored
    from stochroute.evaluation.embedding import Embedder


@dataclass(frozen=True)
class Cluster:
    """Answers that are like one another.

    Attributes:
        representative: the row of the text in its middle: the one with the largest mean cosine to the others.
        answers: the row of each of its answers' first text.
        texts: how many texts gave one of its answers.
    """

    representative: int
    answers: tuple[int, ...]
    texts: int


def cluster(explored: "Explored", embedder: "Embedder", most: int) -> list[Cluster]:
    """At most `most` clusters of the answers, by average linkage of cosine distances; the largest first.

    Raises:
        ValueError: `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"clusters {most}: give at least 1")
    firsts = explored.firsts
    if not firsts:
        return []
    vectors = embedder.embed([explored.texts[row].text for row in firsts])
    labels = _linked(vectors, most)
    count = explored.counts
    found: list[Cluster] = []
    for label in sorted(set(labels)):
        members = [i for i, own in enumerate(labels) if own == label]
        cosines = vectors[members] @ vectors[members].T
        middle = members[int(cosines.mean(1).argmax())]
        rows = tuple(firsts[i] for i in members)
        found.append(Cluster(firsts[middle], rows, sum(count[_answer(explored, row)] for row in rows)))
    return sorted(found, key=lambda one: (-one.texts, one.representative))


def places(explored: "Explored", embedder: "Embedder") -> list[tuple[float, float]]:
    """A place for each answer's first text: the first two principal components of the embeddings."""
    if not explored.firsts:
        return []
    vectors = embedder.embed([explored.texts[row].text for row in explored.firsts]).astype(np.float64)
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    kept = min(2, len(sizes))
    flat[:, :kept] = left[:, :kept] * sizes[:kept]
    return [(float(x), float(y)) for x, y in flat]


def _answer(explored: "Explored", row: int) -> str:
    answer = explored.texts[row].answer
    assert answer is not None, "firsts are texts with an answer"
    return answer


def _linked(vectors: np.ndarray, most: int) -> Sequence[int]:
    if len(vectors) <= most:
        return list(range(len(vectors)))
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    distances = np.clip(pdist(vectors.astype(np.float64), metric="cosine"), 0, None)
    return fcluster(linkage(distances, method="average"), most, criterion="maxclust").tolist()
