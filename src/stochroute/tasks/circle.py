"""Circle: the edges of a directed cycle, shuffled. A pattern must be planned before its first token."""

from dataclasses import dataclass
from typing import ClassVar

from stochroute.tasks.shuffled_edges import ShuffledEdges


@dataclass(frozen=True)
class Circle(ShuffledEdges):
    """Emit the edges of a directed cycle through `nodes` of `entities`, in any order.

        >>> Circle(entities=9, nodes=8, training_size=2_000).number_of_forms  # the little-data variant: 7!
        5040

    Attributes:
        entities: tokens to choose nodes from.
        nodes: distinct entities in a cycle.
        training_size: independent uniform draws: entities, their order and the order of the edges.
        seed: of the training set.
        prefix_tokens: ids kept for prefixes.
    """

    PUBLISHED_SAMPLES: ClassVar[int] = 1_024
    CLOSED: ClassVar[bool] = True

    entities: int = 10
    nodes: int = 9
    training_size: int = 10_000
    seed: int = 0
    prefix_tokens: int = 64
