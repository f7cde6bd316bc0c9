"""Sibling: two children of one parent, then the parent. A graph is learned; new pairs must be found in it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stochroute.tasks.settings import check_count
from stochroute.tasks.task import TokenTask
from stochroute.tasks.vocabulary import TokenSample, Vocabulary


@dataclass(frozen=True)
class Sibling(TokenTask):
    """Emit a first child, a second child, and the parent of both.

        >>> Sibling(parents=10, children=200, training_size=20_000).number_of_forms  # the little-data variant
        400000

    Every parent has two sets of children, none of them shared with anybody: the first child comes from its first set,
    the second from its second set. So a triple has one order, and its identity is the triple itself. The token ids of
    first children are p · children + i, those of second children follow, then the parents'.

    Attributes:
        parents: how many.
        children: in each of the two sets of a parent.
        training_size: independent uniform draws from all triples.
        seed: of the training set.
        prefix_tokens: ids kept for prefixes.
    """

    PUBLISHED_SAMPLES: ClassVar[int] = 3_000

    parents: int = 5
    children: int = 500
    training_size: int = 50_000
    seed: int = 0
    prefix_tokens: int = 64

    def __post_init__(self) -> None:
        check_count("parents", self.parents, 1, "give how many parents there are")
        check_count("children", self.children, 1, "give how many children each set of a parent has")
        self._check_training()

    @property
    def vocabulary(self) -> Vocabulary:
        """2 · parents · children ids of children, then the parents'."""
        return Vocabulary(2 * self.parents * self.children + self.parents, self.prefix_tokens)

    @property
    def body_length(self) -> int:
        """Three."""
        return 3

    @property
    def number_of_forms(self) -> int:
        """parents · children²."""
        return self.parents * self.children**2

    def canonical(self, sample: TokenSample) -> tuple[int, ...] | None:
        """(first child, second child, parent) as token ids; None if they do not belong together."""
        body = self.vocabulary.body(sample)
        if body is None or len(body) != self.body_length:
            return None
        first, second, parent = body
        parent -= 2 * self.parents * self.children
        second -= self.parents * self.children
        return body if first // self.children == second // self.children == parent else None

    def _draw_bodies(self, stream: np.random.Generator, count: int) -> np.ndarray:
        parent, first, second = stream.integers(0, [[self.parents], [self.children], [self.children]], (3, count))
        families = self.parents * self.children
        first += parent * self.children
        second += parent * self.children + families
        return np.stack([first, second, parent + 2 * families], axis=1)
