"""Fronts of quality against diversity, and how far one lies above another at equal quality.

Both axes are means over prompts. Whoever has two settings can use one for a share of the prompts and the other for the
rest, and lands on the straight line between them; whoever reaches a quality can do with less. So what an arm reaches is
the concave hull of its settings, and its front the function

    f(q) = the greatest diversity of any mixture of its settings with a quality of at least q.

Two fronts are compared where both have something to choose: from the greater of the qualities of their most diverse
points up to the smaller of their greatest qualities. The difference at equal quality is the mean over that range of
f_A(q) − f_B(q); where the range is empty, it is taken at its upper end alone.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Front:
    """A concave, falling function of quality.

    Attributes:
        quality: float64 (corners,), rising: from the most diverse point to the best one.
        diversity: float64 (corners,), falling.
    """

    quality: np.ndarray
    diversity: np.ndarray

    def at(self, quality: np.ndarray | float) -> np.ndarray:
        """f(q): the first corner's diversity below it. Meaningless above the last corner, which nothing reaches."""
        return np.asarray(np.interp(quality, self.quality, self.diversity))


def front_of(quality: np.ndarray, diversity: np.ndarray) -> Front:
    """The front of settings with these means, float64 (settings,); higher is better on both axes.

    Raises:
        ValueError: no setting has both values.
    """
    known = np.isfinite(quality) & np.isfinite(diversity)
    if not known.any():
        raise ValueError("no setting has a value on both axes")
    order = np.lexsort((-diversity[known], -quality[known]))  # the best first; among equals the more diverse
    corners: list[tuple[float, float]] = []
    for q, d in zip(quality[known][order].tolist(), diversity[known][order].tolist(), strict=True):
        if corners and d <= corners[-1][1]:
            continue  # no better than one of greater quality
        while len(corners) > 1 and not _turns(corners[-2], corners[-1], (q, d)):
            corners.pop()
        corners.append((q, d))
    corners.reverse()
    return Front(np.array([q for q, _ in corners]), np.array([d for _, d in corners]))


def common_range(first: Front, second: Front) -> tuple[float, float]:
    """The qualities at which both have something to choose; a single one, twice, where there are none."""
    high = min(float(first.quality[-1]), float(second.quality[-1]))
    low = max(float(first.quality[0]), float(second.quality[0]))
    return min(low, high), high


def mean_over(front: Front, low: float, high: float) -> float:
    """The mean of f over [low, high], exactly: f is made of straight pieces."""
    if high <= low:
        return float(front.at(high))
    inside = front.quality[(front.quality > low) & (front.quality < high)]
    grid = np.concatenate([[low], inside, [high]])
    return float(np.trapezoid(front.at(grid), grid) / (high - low))


def difference(first: Front, second: Front) -> float:
    """How much more diverse the first is than the second at equal quality, see above."""
    low, high = common_range(first, second)
    return mean_over(first, low, high) - mean_over(second, low, high)


def _turns(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies strictly above the line from a to c; walking towards less quality and more diversity."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0
