"""Texts that are there already: exactly, or nearly by MinHash or by embeddings."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stochroute.evaluation.words import words

if TYPE_CHECKING:
    from stochroute.evaluation.embedding import Embedder

Method = Literal["minhash", "embeddings"]

DEFAULT_THRESHOLDS: dict[Method, float] = {"minhash": 0.8, "embeddings": 0.95}
_SHINGLE = 3  # words
_PERMUTATIONS = 128  # of a MinHash; its Jaccard similarity is then known to about 1/√128


@dataclass(frozen=True)
class Near:
    """When two texts are nearly the same.

    Attributes:
        method: "minhash" compares the sets of three words in a row by their Jaccard similarity, estimated by MinHash
            (Broder 1997); "embeddings" the meaning by the cosine of two embeddings.
        above: the similarity from which on they are.
    """

    method: Method
    above: float

    def __post_init__(self) -> None:
        if self.method not in DEFAULT_THRESHOLDS:
            raise ValueError(f"near {self.method!r}: choose {' or '.join(DEFAULT_THRESHOLDS)}")
        if not 0 < self.above <= 1:
            raise ValueError(f"near-above {self.above}: give a similarity in (0, 1]")


class Seen:
    """All texts so far, the source's and those kept. It holds 16 bytes a text, with `near` about a kilobyte."""

    def __init__(self, near: Near | None, embedder: "Embedder | None" = None):
        """embedder: for near.method "embeddings".

        Raises ImportError when datasketch is missing and asked for.
        """
        self._exact: set[bytes] = set()
        self._near: _MinHashes | _Embeddings | None = None
        if near is not None and near.method == "minhash":
            self._near = _MinHashes(near.above)
        elif near is not None:
            assert embedder is not None, "near duplicates by embeddings need an embedder"
            self._near = _Embeddings(near.above, embedder)

    def why_not(self, text: str) -> str | None:
        """Why the text brings nothing new; None when it does, and then it counts as seen."""
        if _digest(text) in self._exact:
            return "duplicate"
        if self._near is not None and not self._near.take(text):
            return "near-duplicate"
        self._exact.add(_digest(text))
        return None

    def add(self, texts: Sequence[str]) -> None:
        """Counts the texts as seen, whatever they are like."""
        self._exact.update(_digest(text) for text in texts)
        if self._near is not None:
            self._near.add(texts)


class _MinHashes:
    def __init__(self, above: float):
        from datasketch import MinHash, MinHashLSH

        self._above = above
        self._new: Any = MinHash
        self._hashes: list[Any] = []
        # the index is asked for less than the threshold, since it misses some of what lies right above its own
        self._index: Any = MinHashLSH(threshold=max(0.1, above - 0.1), num_perm=_PERMUTATIONS)

    def take(self, text: str) -> bool:
        found = self._hash(text)
        if any(found.jaccard(self._hashes[key]) >= self._above for key in self._index.query(found)):
            return False
        self._keep(found)
        return True

    def add(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._keep(self._hash(text))

    def _keep(self, found: Any) -> None:
        self._index.insert(len(self._hashes), found)
        self._hashes.append(found)

    def _hash(self, text: str) -> Any:
        tokens = words(text)
        pieces = {" ".join(tokens[i : i + _SHINGLE]) for i in range(max(1, len(tokens) - _SHINGLE + 1))}
        found = self._new(num_perm=_PERMUTATIONS, seed=1)
        found.update_batch([piece.encode() for piece in sorted(pieces)])
        return found


class _Embeddings:
    def __init__(self, above: float, embedder: "Embedder"):
        self._above, self._embedder = above, embedder
        self._vectors = np.zeros((0, 0), np.float32)
        self._count = 0

    def take(self, text: str) -> bool:
        vector = self._embedder.embed([text])[0]
        if self._count and float((self._vectors[: self._count] @ vector).max()) >= self._above:
            return False
        self._keep(vector)
        return True

    def add(self, texts: Sequence[str]) -> None:
        for text in texts:  # one by one: in another batch the last bits could be others, and so could a decision
            self._keep(self._embedder.embed([text])[0])

    def _keep(self, vector: np.ndarray) -> None:
        if self._count == len(self._vectors):
            grown = np.zeros((max(1024, 2 * self._count), len(vector)), np.float32)
            if self._count:
                grown[: self._count] = self._vectors
            self._vectors = grown
        self._vectors[self._count] = vector
        self._count += 1


def _digest(text: str) -> bytes:
    """Of the text without the white space around it."""
    return hashlib.blake2b(text.strip().encode(), digest_size=16).digest()
