"""The space of answers to one prompt: sampled along paths until new ones stop bringing new answers.

    explored = explore("Once upon a time", Exploration(seed=7), loaded, routed, SameText())
    explored.answers.value, explored.coverage.low  # how many answers there are, and how much of them was seen
    explored.fork(path)                            # the prompt up to where that path branches

On the command line: `stochroute explore`.
"""

from stochroute.applications.explore.answers import Reader, SameMeaning, SamePlot, SameText
from stochroute.applications.explore.clusters import Cluster, cluster
from stochroute.applications.explore.estimates import Abundance, Interval, chao1, coverage
from stochroute.applications.explore.explored import Explored, Text
from stochroute.applications.explore.map import write_map
from stochroute.applications.explore.sampling import Exploration, explore, read_run

__all__ = [
    "Abundance", "Cluster", "Exploration", "Explored", "Interval", "Reader", "SameMeaning", "SamePlot", "SameText",
    "Text", "chao1", "cluster", "coverage", "explore", "read_run", "write_map",
]  # fmt: skip
