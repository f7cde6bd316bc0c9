"""Line: the edges of a directed path, shuffled. A pattern must be planned before its first token."""

from dataclasses import dataclass
from typing import ClassVar

from stochroute.tasks.shuffled_edges import ShuffledEdges


@dataclass(frozen=True)
class Line(ShuffledEdges):
    """Emit the edges of a directed path through `nodes` of `entities`, in any order.

        >>> Line().number_of_forms  # 9!
        362880

    Attributes:
        entities: tokens to choose nodes from.
        nodes: distinct entities in a line.
        training_size: independent uniform draws: entities, their order and the order of the edges.
        seed: of the training set.
        prefix_tokens: ids kept for prefixes.
    """

    PUBLISHED_SAMPLES: ClassVar[int] = 1_024
    CLOSED: ClassVar[bool] = False

    entities: int = 10
    nodes: int = 10
    training_size: int = 10_000
    seed: int = 0
    prefix_tokens: int = 64
