"""When two texts are the same answer: by their words, by their meaning, or by what an exact checker reads in them."""

from typing import TYPE_CHECKING, Protocol

import numpy as np

from stochroute.evaluation.words import words
from stochroute.world import check

if TYPE_CHECKING:
    from stochroute.evaluation.embedding import Embedder


class Reader(Protocol):
    """Reads texts one after another, in the order of their paths, and remembers those before."""

    name: str

    def read(self, prompt: str, text: str) -> str | None:
        """What the text says, equal for two texts that are the same answer; None for one that is no answer at all."""
        ...


class SameText:
    """The same words, whatever their case and the white space between them."""

    name = "text"

    def read(self, prompt: str, text: str) -> str | None:
        """See `Reader.read`."""
        return " ".join(words(text)) or None


class SamePlot:
    """The story world's checker: the same plot, however it is told. An incoherent text is no answer."""

    name = "plot"

    def read(self, prompt: str, text: str) -> str | None:
        """See `Reader.read`."""
        verdict = check(prompt + text)
        return " ".join(vars(verdict.plot).values()) if verdict.coherent and verdict.plot is not None else None


class SameMeaning:
    """An embedding near to that of an answer's first text (the partition of NoveltyBench, arXiv 2504.05228)."""

    name = "meaning"

    def __init__(self, embedder: "Embedder", above: float):
        """above: the cosine from which on two texts are the same answer, in (0, 1]."""
        if not 0 < above <= 1:
            raise ValueError(f"same-above {above}: give a cosine in (0, 1]")
        self._embedder, self._above = embedder, above
        self._firsts: list[tuple[str, np.ndarray]] = []

    def read(self, prompt: str, text: str) -> str | None:
        """See `Reader.read`."""
        if not text.strip():
            return None
        vector = self._embedder.embed([text])[0]
        for first, known in self._firsts:
            if float(known @ vector) >= self._above:
                return first
        self._firsts.append((text, vector))
        return text
