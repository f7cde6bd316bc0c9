"""What circle and line share: the directed edges of a chain of distinct entities, emitted in any order."""

from math import factorial
from typing import ClassVar

import numpy as np

from stochroute.tasks.settings import Purpose, check_count, open_stream
from stochroute.tasks.task import TokenTask
from stochroute.tasks.training_set import TrainingSet
from stochroute.tasks.vocabulary import TokenSample, Vocabulary


class ShuffledEdges(TokenTask):
    """Draw `nodes` of `entities` in some order, link each to the next, and emit the links shuffled.

    The identity of a sample forgets which entities were taken: nodes are renamed 0, 1, 2, … by their first appearance
    in the order emitted. What is left is the order in which the edges came out, so there are (edges)! forms for a line;
    for a circle the rotations of an order are one form, edges!/nodes. Both are (nodes − 1)!, all equally likely.
    """

    CLOSED: ClassVar[bool]  # whether the last node is linked to the first one

    entities: int
    nodes: int

    def __post_init__(self) -> None:
        check_count("nodes", self.nodes, 2, "a chain has at least two nodes")
        remedy = f"there are nodes={self.nodes} distinct ones to choose from them; raise entities or lower nodes"
        check_count("entities", self.entities, self.nodes, remedy)
        self._check_training()

    @property
    def edges(self) -> int:
        """How many edges a sample has."""
        return self.nodes if self.CLOSED else self.nodes - 1

    @property
    def vocabulary(self) -> Vocabulary:
        """One id an entity."""
        return Vocabulary(self.entities, self.prefix_tokens)

    @property
    def body_length(self) -> int:
        """Two tokens an edge: where it comes from, where it goes."""
        return 2 * self.edges

    @property
    def number_of_forms(self) -> int:
        """(nodes − 1)!."""
        return factorial(self.nodes - 1)

    def canonical(self, sample: TokenSample) -> tuple[int, ...] | None:
        """The 2 · edges tokens with nodes renamed by first appearance; None unless the edges make one chain."""
        body = self.vocabulary.body(sample)
        if body is None or len(body) != self.body_length:
            return None
        names = {entity: name for name, entity in enumerate(dict.fromkeys(body))}
        form = tuple(names[entity] for entity in body)
        return form if self._is_one_chain(form[::2], form[1::2]) else None

    def renamed_training_set(self, passes: int, seed: int) -> TrainingSet:
        """The training set `passes` times over, in every row with the entities renamed by a permutation of its own.

        Forms know no names, so that renaming shows the model nothing but the forms that it would see anyway, and what
        counts as memorised stays the same. Row k tells example k mod training_size; pass 0 is renamed too.

        Args:
            passes: how often each example comes.
            seed: of the permutations; the same (passes, seed) gives the same rows.
        """

        def renamed(tokens: np.ndarray) -> np.ndarray:
            names = np.tile(np.arange(self.entities), (len(tokens), 1))
            names = open_stream(Purpose.NAMES, seed).permuted(names, axis=1)
            named = tokens < self.entities
            return np.where(named, np.take_along_axis(names, np.where(named, tokens, 0), axis=1), tokens)

        return self.training_set().told_anew(passes, renamed)

    def _is_one_chain(self, sources: tuple[int, ...], targets: tuple[int, ...]) -> bool:
        """Whether the edges, source to target, are one walk through `nodes` nodes."""
        if len({*sources, *targets}) != self.nodes or len({*sources}) != self.edges or len({*targets}) != self.edges:
            return False
        ahead = dict(zip(sources, targets, strict=True))
        node = next(iter({*sources} - {*targets}), sources[0])  # a line starts where nothing leads, a circle anywhere
        while node in ahead:
            node = ahead.pop(node)
        return not ahead

    def _draw_bodies(self, stream: np.random.Generator, count: int) -> np.ndarray:
        chain = stream.permuted(np.tile(np.arange(self.entities), (count, 1)), axis=1)[:, : self.nodes]
        links = np.stack([chain, np.roll(chain, -1, axis=1)], axis=2)[:, : self.edges]  # (count, edges, 2)
        order = stream.permuted(np.tile(np.arange(self.edges), (count, 1)), axis=1)
        return np.take_along_axis(links, order[:, :, None], axis=1).reshape(count, self.body_length)
