"""What was found: accuracies of every arm under every attack, and what a vote gains or loses, with intervals."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from stochroute.robustness.answers import REFUSED
from stochroute.robustness.items import Item
from stochroute.robustness.runs import TEST, Chosen, Plan, Sample, is_right
from stochroute.robustness.voting import Label, majority

RESAMPLES = 2000
ARMS = ("clean", "routed", "vote", "smoothed")
# gain -> (arm, the arm it is held against)
GAINS = {
    "vote - clean": ("vote", "clean"),
    "vote - smoothed": ("vote", "smoothed"),
    "routed - clean": ("routed", "clean"),
    "smoothed - clean": ("smoothed", "clean"),
}


def report(plan: Plan, items: Sequence[Item], samples: Sequence[Sample], chosen: Chosen) -> dict[str, Any]:
    """The report as JSON types; the same samples give the same report.

    "conditions" has one entry for each attack, the prompts as they are first:

        kind, rate: of the attack; null and 0 for none.
        changed: share of the prompts that it changed.
        accuracy: arm -> {mean, low, high} over the prompts with an answer; null where there are none. "routed" is the
            mean over the K paths of what one path gets right.
        gain: difference of two arms -> {mean, low, high}, in accuracy, paired by prompt.
        refused: for prompts "to_decline" and "to_answer", arm -> {mean, low, high} of the share refused.

    "attacked" holds the same over all attacks together. Intervals are of 95 %, by the percentile bootstrap over
    prompts (scipy.stats.bootstrap).
    """
    tested = [sample for sample in samples if sample.phase == TEST]
    conditions = [
        _entry(kind, rate, items, [s for s in tested if (s.kind, s.rate) == (kind, rate)], chosen)
        for kind, rate in plan.conditions
    ]
    attacked = [sample for sample in tested if sample.kind is not None]
    return {
        "prompts": len({sample.item for sample in tested}),
        "validation_prompts": len(samples) - len(tested),
        "runs_a_prompt": {"clean": 1, "routed": 1, "vote": plan.paths, "smoothed": plan.paths},
        "strength": chosen.routing,
        "smoothing": {"kind": plan.smoothing, "rate": chosen.smoothing},
        "validation_accuracy": chosen.validated,
        "conditions": conditions,
        "attacked": _entry("all", None, items, attacked, chosen) if attacked else None,
    }


def _entry(
    kind: str | None, rate: float | None, items: Sequence[Item], samples: Sequence[Sample], chosen: Chosen
) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": kind, "rate": rate}
    entry["changed"] = fmean(sample.prompt != items[sample.item].prompt for sample in samples)
    scored = {arm: by_prompt(items, samples, chosen, arm) for arm in ARMS}
    some = bool(scored["clean"])
    entry["accuracy"] = {arm: interval(list(values.values())) for arm, values in scored.items()} if some else None
    gains: dict[str, Any] = {}
    for name, (arm, rival) in GAINS.items():
        gains[name] = interval([value - scored[rival][prompt] for prompt, value in scored[arm].items()])
    entry["gain"] = gains if some else None
    refused = {}
    for name, refuse in (("to_decline", True), ("to_answer", False)):
        rates = {arm: by_prompt(items, samples, chosen, arm, _is_refused, refuse) for arm in ARMS}
        if rates["clean"]:
            refused[name] = {arm: interval(list(values.values())) for arm, values in rates.items()}
    if refused:
        entry["refused"] = refused
    return entry


def by_prompt(
    items: Sequence[Item],
    samples: Sequence[Sample],
    chosen: Chosen,
    arm: str,
    counts: Callable[[Item, Label], bool] = is_right,
    refuse: bool | None = None,
) -> dict[int, float]:
    """Prompt -> the share of its samples' answers by this arm that count, by default those that are right.

    Of prompts with this `refuse` alone: None for those with an answer.
    """
    found: dict[int, list[float]] = {}
    for sample in samples:
        item = items[sample.item]
        if item.refuse is refuse:
            labels = _labels(sample, chosen, arm)
            found.setdefault(sample.item, []).append(fmean(counts(item, label) for label in labels))
    return {prompt: fmean(values) for prompt, values in found.items()}


def _labels(sample: Sample, chosen: Chosen, arm: str) -> list[Label]:
    if arm == "clean":
        return [sample.clean.label]
    if arm == "smoothed":
        return [majority(sample.smoothed[chosen.smoothing])]
    ballots = sample.paths[chosen.routing]
    return [majority(ballots)] if arm == "vote" else [ballot.label for ballot in ballots]


def _is_refused(item: Item, label: Label) -> bool:
    return label == REFUSED


def interval(values: Sequence[float]) -> dict[str, float] | None:
    """The mean of the values and its 95 % interval: mean, low, high; None where there is no value.

    Fewer than two values, or all alike, have no spread to resample: low and high are the mean.
    """
    from scipy.stats import bootstrap

    if not values:
        return None
    mean = fmean(values)
    if len(set(values)) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    found = bootstrap(
        (np.asarray(values),), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return {"mean": mean, "low": float(found.low), "high": float(found.high)}
