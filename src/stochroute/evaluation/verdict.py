"""The verdict in a sentence: made from the intervals alone, whichever way they fall."""

from collections.abc import Sequence

from stochroute.evaluation.comparison import PATHS, SAMPLERS, Comparison, Interval, Level
from stochroute.evaluation.measures import Measure


def verdict(comparisons: Sequence[Comparison], measure: Measure, samplers: Sequence[str]) -> str:
    """Whether paths beat the best sampler at equal quality, by how much, and which single arm comes nearest.

    Args:
        comparisons: of the headline measure.
        measure: that measure.
        samplers: names of the sampler arms.
    """
    headline = next((c for c in comparisons if (c.first, c.second) == (PATHS, SAMPLERS)), None)
    if headline is None:
        return "No verdict: there is no path arm, or no sampler, or not one text of any arm is coherent."
    found, unit = headline.difference, measure.label
    amount = f"{_signed(found.value)}{_share(found.value, headline.over)}{_bounds(found)} in {unit}"
    if found.low is None or found.high is None:
        opening = f"No verdict from a single prompt; all paths minus all samplers at equal quality: {amount}"
    elif found.low > 0:
        opening = f"Paths beat the best sampler at equal quality, by {amount}"
    elif found.high < 0:
        opening = f"Paths do not beat the best sampler at equal quality, they fall behind it: {amount}"
    else:
        opening = f"Paths do not beat the best sampler at equal quality, they are level with it: {amount}"
    return f"{opening}. {_single_arm(comparisons, samplers)}".strip()


def kinds(levels: Sequence[Level]) -> list[str]:
    """One sentence a quality: the kind of noise that is the most diverse there, and whether the lead is certain."""
    found: list[str] = []
    for level in levels:
        lead = level.lead
        if lead is None:
            certain = "the only arm there"
        elif lead.low is not None and lead.low > 0:
            certain = f"ahead of the next by {_signed(lead.value)}{_bounds(lead)}"
        elif lead.value == 0:
            certain = "level with the next"
        else:
            certain = f"but its lead over the next, {_signed(lead.value)}{_bounds(lead)}, is not certain"
        found.append(f"{level.name.capitalize()}: {level.best}, {certain}.")
    return found


def _single_arm(comparisons: Sequence[Comparison], samplers: Sequence[str]) -> str:
    """The path arm whose worst difference to a single sampler arm is the best, and that difference."""
    worst: dict[str, Comparison] = {}
    for c in comparisons:
        if c.second in samplers and (c.first not in worst or c.difference.value < worst[c.first].difference.value):
            worst[c.first] = c
    if not worst:
        return ""
    best = max(worst.values(), key=lambda c: c.difference.value)
    return (
        f"The best single path arm, {best.first}, against the sampler that is the strongest there, {best.second}: "
        f"{_signed(best.difference.value)}{_bounds(best.difference)}."
    )


def _share(value: float, over: float) -> str:
    return f", {_signed(100 * value / abs(over))} %" if over else ""


def _bounds(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f" (95 % interval {_signed(interval.low)} to {_signed(interval.high)})"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")
