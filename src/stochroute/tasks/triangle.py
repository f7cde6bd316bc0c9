"""Triangle: three edges of a learned graph that close. Most training rows are single edges."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from stochroute.tasks.graph import Neighbours, draw_graph, edges_of, triangles_of
from stochroute.tasks.settings import Purpose, check_count, open_stream
from stochroute.tasks.task import TokenTask
from stochroute.tasks.training_set import IGNORED, TrainingSet
from stochroute.tasks.vocabulary import TokenSample, Vocabulary


@dataclass(frozen=True)
class Triangle(TokenTask):
    """Emit the edges a b, b c, c a of a triangle in the graph; its identity is the sorted triple.

    A sample must run round the triangle as the training rows do; it may begin at any corner, in either direction.

    Where the published description leaves room, this was decided:
    - how near neighbours are closed: see `graph.draw_graph`; about 2,800 triangles and 4,450 edges come out;
    - rows 0, e + 1, 2 (e + 1), … of the training set are triangles, drawn independently and uniformly, the e =
      `edges_per_triangle` rows after each are edges;
    - edges are dealt in shuffled passes through all of them, not drawn independently: at the published size independent
      draws would miss one edge in ten, and no model could know the triangles that need it, though the ceiling counts
      them. With fewer edge rows than edges the ceiling is out of reach;
    - an edge row starts with `edge` in place of `start`, so that the prompt says which of the two is asked for; it
      points in a random direction and is padded to the length of a triangle row.

    Attributes:
        nodes: of the graph.
        degree: edges that every node has at least, before wedges are closed.
        triangles_per_node: triangles that every node lies in at least.
        edges_per_triangle: edge rows for each triangle row of the training set.
        training_size: rows, triangles and edges together.
        seed: of the graph and the training set.
        prefix_tokens: ids kept for prefixes.
    """

    PUBLISHED_SAMPLES: ClassVar[int] = 1_024

    nodes: int = 999
    degree: int = 3
    triangles_per_node: int = 6
    edges_per_triangle: int = 2
    training_size: int = 15_000
    seed: int = 0
    prefix_tokens: int = 64

    def __post_init__(self) -> None:
        check_count("degree", self.degree, 1, "every node needs an edge")
        check_count("triangles_per_node", self.triangles_per_node, 1, "every node must lie in a triangle")
        check_count("nodes", self.nodes, self.degree + 1, f"degree={self.degree} needs more nodes than that")
        if (most := (self.nodes - 1) * (self.nodes - 2) // 2) < self.triangles_per_node:
            raise ValueError(
                f"triangles_per_node={self.triangles_per_node} is more than the {most} that nodes={self.nodes} allow: "
                f"raise nodes or lower triangles_per_node"
            )
        check_count("edges_per_triangle", self.edges_per_triangle, 0, "give how many edge rows follow a triangle row")
        self._check_training()

    @property
    def vocabulary(self) -> Vocabulary:
        """One id a node, and `edge`."""
        return Vocabulary(self.nodes + 1, self.prefix_tokens)

    @property
    def edge(self) -> int:
        """The id that starts an edge row."""
        return self.nodes

    @property
    def body_length(self) -> int:
        """Two tokens for each of three edges."""
        return 6

    @cached_property
    def neighbours(self) -> Neighbours:
        """The graph: node -> its neighbours."""
        return draw_graph(self.nodes, self.degree, self.triangles_per_node, open_stream(Purpose.GRAPH, self.seed))

    @cached_property
    def triangles(self) -> np.ndarray:
        """int64 (number_of_forms, 3): every triangle of the graph, its nodes ascending."""
        return triangles_of(self.neighbours)

    @property
    def number_of_forms(self) -> int:
        """The triangles of the graph, counted."""
        return len(self.triangles)

    def canonical(self, sample: TokenSample) -> tuple[int, ...] | None:
        """The three nodes ascending; None unless the sample runs round a triangle of the graph."""
        body = self.vocabulary.body(sample)
        if body is None or len(body) != self.body_length or self.edge in body:
            return None
        a, b, *rest = body
        c = rest[1]
        closed = rest == [b, c, c, a]
        known = b in self.neighbours[a] and c in self.neighbours[b] and a in self.neighbours[c]
        return tuple(sorted((a, b, c))) if closed and known else None

    def training_set(self) -> TrainingSet:
        """training_size rows of 8 tokens, drawn afresh from the seed: the same at every call."""
        vocabulary = self.vocabulary
        tokens = np.full((self.training_size, 1 + self.sample_length), vocabulary.pad, dtype=np.int64)
        is_triangle = self._triangle_rows()
        tokens[is_triangle] = np.pad(
            self._ended(self._training_bodies()), ((0, 0), (1, 0)), constant_values=vocabulary.start
        )
        edges = self._draw_edges(int((~is_triangle).sum()))
        tokens[~is_triangle, :4] = np.pad(
            edges, ((0, 0), (1, 1)), constant_values=((0, 0), (self.edge, vocabulary.end))
        )
        labels = np.where(tokens == vocabulary.pad, IGNORED, tokens)
        labels[:, 0] = IGNORED
        return TrainingSet(tokens, labels, np.arange(self.training_size), prompt_length=1)

    def turned_training_set(self, passes: int, seed: int) -> TrainingSet:
        """The training set `passes` times over, in every row told anew: a triangle from a random corner in a random
        direction, an edge in a random direction.

        A triangle stays itself, and so what counts as memorised stays the same. Row k tells example
        k mod training_size; pass 0 is turned too.

        Args:
            passes: how often each example comes.
            seed: of the turns; the same (passes, seed) gives the same rows.
        """

        def turned(tokens: np.ndarray) -> np.ndarray:
            is_triangle = np.tile(self._triangle_rows(), passes)
            stream = open_stream(Purpose.TURNS, seed)
            corners = tokens[is_triangle][:, [1, 2, 4]]
            tokens[is_triangle, 1 : 1 + self.body_length] = _around(stream.permuted(corners, axis=1))
            tokens[~is_triangle, 1:3] = stream.permuted(tokens[~is_triangle, 1:3], axis=1)
            return tokens

        return self.training_set().told_anew(passes, turned)

    def _triangle_rows(self) -> np.ndarray:
        return np.arange(self.training_size) % (self.edges_per_triangle + 1) == 0

    def _training_bodies(self) -> np.ndarray:
        return self._draw_bodies(open_stream(Purpose.TRAINING, self.seed), int(self._triangle_rows().sum()))

    def _draw_bodies(self, stream: np.random.Generator, count: int) -> np.ndarray:
        drawn = self.triangles[stream.integers(0, self.number_of_forms, count)]
        return _around(stream.permuted(drawn, axis=1))

    def _draw_edges(self, count: int) -> np.ndarray:
        """int64 (count, 2): passes through all edges, each pass and each edge's direction shuffled."""
        stream = open_stream(Purpose.EDGES, self.seed)
        edges = edges_of(self.neighbours)
        passes = -(-count // len(edges))
        order = stream.permuted(np.tile(np.arange(len(edges)), (passes, 1)), axis=1).ravel()[:count]
        return stream.permuted(edges[order], axis=1)


def _around(corners: np.ndarray) -> np.ndarray:
    """(count, 6): the edges a b, b c, c a from the corners a, b, c of each triangle, (count, 3)."""
    a, b, c = corners.T
    return np.stack([a, b, b, c, c, a], axis=1)
