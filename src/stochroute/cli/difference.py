"""How different the texts of one prompt are, in plain numbers."""

import re
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

# A word is a run of letters and digits; in scripts written without spaces, one character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True)
class Difference:
    """Measured over the texts of one prompt.

    Attributes:
        texts: how many there are.
        distinct: how many are left after removing repetitions.
        distance: mean over all pairs of 1 − (words in both / words in either), in [0, 1]; None for fewer than two.
    """

    texts: int
    distinct: int
    distance: float | None


def difference(texts: list[str]) -> Difference:
    """The Difference of these texts; words are compared in lower case."""
    vocabularies = [frozenset(word.lower() for word in _WORD.findall(text)) for text in texts]
    distances = [_distance(a, b) for a, b in combinations(vocabularies, 2)]
    return Difference(len(texts), len({text.strip() for text in texts}), fmean(distances) if distances else None)


def _distance(a: frozenset[str], b: frozenset[str]) -> float:
    either = len(a | b)
    return 1 - len(a & b) / either if either else 0.0
