"""Fronts of quality against diversity, and how far one lies above another at equal quality.

Both axes are means over prompts. Whoever has two settings can use one for a share of the prompts and the other for the
rest, and lands on the straight line between them; whoever reaches a quality can do with less. So what an arm reaches is
the concave hull of its settings, and its front the function

    f(q) = the greatest diversity of any mixture of its settings with a quality of at least q.

Two fronts are compared where both have something to choose: from the greater of the qualities of their most diverse
points up to the smaller of their greatest qualities. The difference at equal quality is the mean over that range of
f_A(q) − f_B(q); where the range is empty, it is taken at its upper end alone.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Front:
    """A concave, falling function of quality. Plain floats: a handful of corners, made thousands of times.

    Attributes:
        quality: of the corners, rising: from the most diverse point to the best one.
        diversity: of the corners, falling.
    """

    quality: tuple[float, ...]
    diversity: tuple[float, ...]

    def at(self, quality: float) -> float:
        """f(q): the first corner's diversity below it. Meaningless above the last corner, which nothing reaches."""
        right = bisect_right(self.quality, quality)
        if right == 0:
            return self.diversity[0]
        if right == len(self.quality):
            return self.diversity[-1]
        low, high = self.quality[right - 1], self.quality[right]
        share = (quality - low) / (high - low)
        return (1 - share) * self.diversity[right - 1] + share * self.diversity[right]


def front_of(quality: Sequence[float], diversity: Sequence[float]) -> Front:
    """The front of settings with these means; higher is better on both axes; NaN where a setting has no value.

    Raises:
        ValueError: no setting has both values.
    """
    known = [(q, d) for q, d in zip(quality, diversity, strict=True) if isfinite(q) and isfinite(d)]
    if not known:
        raise ValueError("no setting has a value on both axes")
    corners: list[tuple[float, float]] = []
    for q, d in sorted(known, reverse=True):  # the best first; among equals the more diverse
        if corners and d <= corners[-1][1]:
            continue  # no better than one of greater quality
        while len(corners) > 1 and not _turns(corners[-2], corners[-1], (q, d)):
            corners.pop()
        corners.append((q, d))
    corners.reverse()
    return Front(tuple(q for q, _ in corners), tuple(d for _, d in corners))


def common_range(first: Front, second: Front) -> tuple[float, float]:
    """The qualities at which both have something to choose; a single one, twice, where there are none."""
    high = min(first.quality[-1], second.quality[-1])
    low = max(first.quality[0], second.quality[0])
    return min(low, high), high


def mean_over(front: Front, low: float, high: float) -> float:
    """The mean of f over [low, high], exactly: f is made of straight pieces."""
    if high <= low:
        return front.at(high)
    area, x, y = 0.0, low, front.at(low)
    for corner, height in zip(front.quality, front.diversity, strict=True):
        if low < corner < high:
            area += (corner - x) * (y + height) / 2
            x, y = corner, height
    area += (high - x) * (y + front.at(high)) / 2
    return area / (high - low)


def difference(first: Front, second: Front) -> float:
    """How much more diverse the first is than the second at equal quality, see above."""
    low, high = common_range(first, second)
    return mean_over(first, low, high) - mean_over(second, low, high)


def _turns(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies strictly above the line from a to c; walking towards less quality and more diversity."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0
