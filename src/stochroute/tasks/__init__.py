"""Creativity tasks whose best possible score is known.

    task = Circle(seed=0)
    training = task.training_set()                    # token ids, labels, stable example ids
    ...                                               # train any causal LM, let it write 1,024 samples
    task.score(samples).creativity / task.ceiling(len(samples))

Creativity is the share of samples that are coherent, not memorised and different from each other (Nagarajan et
al., "Roll the dice & look before you leap", arXiv 2504.15266). Four tasks are that paper's, over small
vocabularies of their own; the fifth is the story world, in text.
"""

from collections.abc import Callable

from stochroute.tasks.circle import Circle
from stochroute.tasks.line import Line
from stochroute.tasks.sibling import Sibling
from stochroute.tasks.story import Story
from stochroute.tasks.task import Score, Task, TokenTask
from stochroute.tasks.training_set import IGNORED, TrainingSet
from stochroute.tasks.triangle import Triangle
from stochroute.tasks.vocabulary import Vocabulary

TASKS: dict[str, Callable[..., Task]] = {  # name -> its class, published size by default
    "sibling": Sibling,
    "triangle": Triangle,
    "circle": Circle,
    "line": Line,
    "story": Story,
}

__all__ = [
    "TASKS", "Circle", "Line", "Sibling", "Story", "Triangle",
    "IGNORED", "Score", "Task", "TokenTask", "TrainingSet", "Vocabulary",
]  # fmt: skip
