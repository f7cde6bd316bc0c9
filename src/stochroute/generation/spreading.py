"""Spread token routing: the texts of one prompt share the model's distribution out among them.

Arithmetic sampling (Vilnis et al. 2022, arXiv 2210.15458): a point of [0, 1) picks the text whose interval it falls
into, when the interval is divided token by token in proportion to the probabilities. A uniform point is an exact
sample. Siblings have evenly spaced points: where n is a power of two and the siblings see the same probabilities, an
answer of probability p is given by ⌊np⌋ or ⌈np⌉ of n. Every text alone is distributed as without spreading.

A point says nothing more once the interval is narrower than the distance between siblings; from there on the draws
are those of `TokenRouting`. That also bounds what rounding can do, since each division widens an error in the
probabilities by as much as it narrows the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from stochroute.generation.token_routing import TokenRouting
from stochroute.noise import code_points, key_words
from stochroute.paths import SIBLING_BITS, read_sibling

_NARROWEST = 2.0**-SIBLING_BITS
_LARGEST = 1 - 2.0**-53


@dataclass(eq=False, slots=True)
class Point:
    """What is left of a path's point.

    Attributes:
        at: where it stands in the interval of its text so far, in [0, 1).
        width: of that interval, in (0, 1].
    """

    at: float
    width: float = 1.0

    @property
    def is_open(self) -> bool:
        """Whether it still chooses tokens."""
        return self.width >= _NARROWEST


def points_of(paths: Sequence[int], positions: Tensor) -> list[Point]:
    """The points of the paths for texts that begin at the positions, int64 (rows,)."""
    families, numbers = zip(*map(read_sibling, paths), strict=True)
    keys = key_words(list(families), positions.device)
    at = code_points(keys, torch.tensor(numbers, device=positions.device), positions, SIBLING_BITS)
    return [Point(value) for value in cast(list[float], at.tolist())]


def decide(points: Sequence[Point], scores: Tensor, drawn: Tensor) -> None:
    """Has every open point choose its row's token: `drawn` becomes infinite there, and the point moves on.

    Args:
        points: one a row.
        scores: the warped logits (rows, vocabulary).
        drawn: the same with noise; changed in place.
    """
    rows = [row for row, point in enumerate(points) if point.is_open]
    if not rows:
        return
    probabilities = scores[rows].double().softmax(-1)
    ends = probabilities.cumsum(-1)
    at = torch.tensor([points[row].at for row in rows], dtype=torch.float64, device=scores.device) * ends[:, -1]
    chosen = (ends <= at[:, None]).sum(-1)
    # rounding may put a point on the very end, behind which there are only tokens that cannot come
    last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).int().argmax(-1)
    chosen = torch.minimum(chosen, last)
    widths = probabilities.gather(-1, chosen[:, None])[:, 0]
    begins = ends.gather(-1, chosen[:, None])[:, 0] - widths
    moved = ((at - begins) / widths).clamp(0, _LARGEST)
    drawn[rows, chosen] = torch.inf
    for row, value, width in zip(rows, moved.tolist(), widths.tolist(), strict=True):
        points[row].at, points[row].width = value, points[row].width * width


class SpreadTokenRouting(TokenRouting):
    """Token routing whose first tokens are chosen by each path's point."""

    def __init__(self, paths: list[int], prompt_lengths: Tensor, keep_scores: bool, streamer: Any = None):
        """As in `TokenRouting`."""
        super().__init__(paths, prompt_lengths, keep_scores, streamer)
        self.points = points_of(paths, prompt_lengths)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = super().__call__(input_ids, scores)
        decide(self.points, scores, drawn)
        return drawn
