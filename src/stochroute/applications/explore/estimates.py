"""How much of the space of answers has been seen: Good–Turing coverage and Chao1, with intervals of 95 %.

Answers are species, texts along paths are individuals: n texts, of which f₁ answers came once and f₂ twice.

- Coverage, the probability that the next text brings an answer seen before: 1 − f₁/n (Good 1953, Biometrika 40), with
  Esty's interval, ± z √W, W = (f₁ (n − f₁) + 2 n f₂)/n³ (Esty 1983, Annals of Statistics 11).
- Number of answers, seen and unseen: Chao1 = S + (n − 1)/n · f₁²/(2 f₂), and S + (n − 1)/n · f₁ (f₁ − 1)/2 where f₂ = 0
  (Chao 1984, Scandinavian Journal of Statistics 11; Chiu et al. 2014, Biometrics 70). It is a lower bound in
  expectation: rare answers beyond it may remain. Its interval is log-normal in the number unseen (Chao 1987, Biometrics
  43); where nothing points to unseen answers, SpadeR's (Chao, Ma, Hsieh & Chiu 2015). Where no answer came twice,
  nothing bounds their number from above, and from below the birthday problem does.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import exp, log, sqrt

_Z = 1.959963984540054  # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Interval:
    """A value with its interval of 95 %; `high` is None where nothing bounds it."""

    value: float
    low: float
    high: float | None


@dataclass(frozen=True)
class Abundance:
    """How often answers came.

    Attributes:
        texts: n.
        answers: S, the different ones.
        once, twice: f₁ and f₂, how many of them came once and twice.
        times: how many answers came i times, for every i that occurs: ((i, fᵢ), …).
    """

    texts: int
    answers: int
    once: int
    twice: int
    times: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, answers: Iterable[Hashable]) -> "Abundance":
        """Of a list of answers, one a text."""
        counts = Counter(answers)
        times = Counter(counts.values())
        return cls(sum(counts.values()), len(counts), times[1], times[2], tuple(sorted(times.items())))


def coverage(seen: Abundance) -> Interval:
    """The Good–Turing coverage; 0 without texts."""
    n, f1, f2 = seen.texts, seen.once, seen.twice
    if not n:
        return Interval(0.0, 0.0, 1.0)
    value = 1 - f1 / n
    half = _Z * sqrt((f1 * (n - f1) + 2 * n * f2) / n**3)
    if f1 == 0:  # the normal limit is too narrow at the edge: no text in n was a lone one, so at most 3/n are (95 %)
        return Interval(1.0, max(0.0, 1 - max(half, 3 / n)), 1.0)
    if f1 == n:  # nor did two agree: among N equally likely answers, n²/2N ≤ ln 20, and the coverage is n/N
        return Interval(0.0, 0.0, min(1.0, 2 * log(20) / n))
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def chao1(seen: Abundance) -> Interval:
    """Chao1's number of answers, seen and unseen; 0 without texts."""
    n, s, f1, f2 = seen.texts, seen.answers, seen.once, seen.twice
    if not n:
        return Interval(0.0, 0.0, 0.0)
    a = (n - 1) / n
    if f1 and f2:
        ratio = f1 / f2
        value = s + a * f1 * ratio / 2
        variance = f2 * (a * ratio**2 / 2 + a**2 * ratio**3 + a**2 * ratio**4 / 4)
        return _log_normal(s, value, variance)
    if f1 > 1:
        value = s + a * f1 * (f1 - 1) / 2
        if f1 == n:  # among N equally likely answers n differ with a probability of about exp(−n²/2N)
            return Interval(value, max(float(s), n**2 / (2 * log(20))), None)
        variance = a * f1 * (f1 - 1) / 2 + a**2 * f1 * (2 * f1 - 1) ** 2 / 4 - a**2 * f1**4 / (4 * value)
        return _log_normal(s, value, variance)
    if n == 1:
        return Interval(1.0, 1.0, None)
    return _nothing_unseen(seen)


def _log_normal(s: int, value: float, variance: float) -> Interval:
    unseen = value - s
    factor = exp(_Z * sqrt(log(1 + variance / unseen**2)))
    return Interval(value, s + unseen / factor, s + unseen * factor)


def _nothing_unseen(seen: Abundance) -> Interval:
    n, s = seen.texts, seen.answers
    variance = sum(f * (exp(-i) - exp(-2 * i)) for i, f in seen.times)
    variance -= sum(i * exp(-i) * f for i, f in seen.times) ** 2 / n
    missed = sum(f * exp(-i) for i, f in seen.times) / s
    middle, half = s / (1 - missed), _Z * sqrt(max(0.0, variance)) / (1 - missed)
    return Interval(float(s), max(float(s), middle - half), middle + half)
