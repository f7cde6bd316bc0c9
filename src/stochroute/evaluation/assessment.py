"""From samples and scores to all figures of a run: one dictionary of JSON types, which the report only shows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stochroute.evaluation import front, verdict
from stochroute.evaluation.arms import Arm, Setting
from stochroute.evaluation.comparison import Comparison, compare, kinds_at_levels, mean_intervals
from stochroute.evaluation.embedding import Embedder, Entailment
from stochroute.evaluation.measures import Measure, Tables, Text, measure_all
from stochroute.evaluation.run import Sample
from stochroute.evaluation.scoring import Score, Thresholds, is_coherent

_SHOWN_PROMPTS, _SHOWN_TEXTS = 6, 8  # in the grid of samples


@dataclass(frozen=True)
class Assessment:
    """What figures are made of.

    Attributes:
        arms: with their settings' strengths found.
        prompts: in order.
        samples, scores: of all settings and prompts, in any order, one score a sample.
        thresholds: when a text that no checker reads is coherent.
        seed: of the run; the resamples follow it.
    """

    arms: Sequence[Arm]
    prompts: Sequence[str]
    samples: Sequence[Sample]
    scores: Sequence[Score]
    thresholds: Thresholds
    seed: int

    @property
    def settings(self) -> list[Setting]:
        """Of all arms, in order."""
        return [s for arm in self.arms for s in arm.settings]

    def texts(self) -> dict[tuple[int, int], list[Text]]:
        """(setting, prompt) -> its texts in the order of their sample numbers."""
        row = {s.name: i for i, s in enumerate(self.settings)}
        found: dict[tuple[int, int], list[Text]] = {}
        for sample, score in zip(self.samples, self.scores, strict=True):
            text = Text(sample, score, is_coherent(score, self.thresholds))
            found.setdefault((row[sample.setting], sample.prompt), []).append(text)
        for group in found.values():
            group.sort(key=lambda t: t.sample.sample)
        return found


def assess(
    assessment: Assessment,
    embedder: Embedder,
    same_above: float,
    entailment: Entailment | None,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """All figures: measures, settings with intervals, fronts, comparisons, kinds, verdict, samples to show."""
    settings, texts = assessment.settings, assessment.texts()
    tables = measure_all(texts, len(settings), len(assessment.prompts), embedder, same_above, entailment, advance)
    quality, diversity = headline_measures(tables)
    seed = assessment.seed % (1 << 32)
    comparisons = {
        m.name: compare(settings, _upwards(tables, quality), _upwards(tables, m), seed)
        for m in tables.measures
        if m.role == "diversity"
    }
    levels = kinds_at_levels(settings, _upwards(tables, quality), _upwards(tables, diversity), seed)
    samplers = [arm.name for arm in assessment.arms if arm.family == "sampler"]
    coherent = sum(t.coherent for group in texts.values() for t in group)
    intervals = {m.name: mean_intervals(tables.values[m.name], seed) for m in tables.measures}
    return {
        "headline": {"quality": quality.name, "diversity": diversity.name},
        "verdict": verdict.verdict(comparisons[diversity.name] if coherent else [], diversity, samplers),
        "kinds": verdict.kinds(levels),
        "levels": [asdict(level) for level in levels],
        "coherent_texts": coherent,
        "thresholds": asdict(assessment.thresholds),
        "measures": [asdict(m) for m in tables.measures],
        "arms": [{"name": arm.name, "family": arm.family, "about": arm.about} for arm in assessment.arms],
        "settings": [
            {**s.to_dict(), "measured": {name: _plain(rows[i]) for name, rows in intervals.items()}}
            for i, s in enumerate(settings)
        ],
        "fronts": _fronts(assessment.arms, tables),
        "comparisons": {name: [asdict(c) for c in found] for name, found in comparisons.items()},
        "samples": _shown(assessment, texts, tables, quality, comparisons[diversity.name]),
    }


def headline_measures(tables: Tables) -> tuple[Measure, Measure]:
    """The axes of the verdict, settled before anything is seen: what a checker knows exactly where there is one, else
    the judge's likelihood and the Vendi score of n-grams, which needs no model.

    Raises:
        ValueError: nothing measures quality.
    """
    checked = "identities" in tables.values
    names = [m.name for m in tables.measures]
    quality = next((n for n in (("correct",) if checked else ()) + ("likelihood",) if n in names), None)
    if quality is None:
        raise ValueError("nothing measures the quality of these texts: give a judge or a checker")
    return tables.measure(quality), tables.measure("identities" if checked else "vendi_ngrams")


def _upwards(tables: Tables, measure: Measure) -> np.ndarray:
    values = tables.values[measure.name]
    return values if measure.higher_is_better else -values


def _plain(interval: Any) -> dict[str, float | None] | None:
    return None if interval is None else asdict(interval)


def _fronts(arms: Sequence[Arm], tables: Tables) -> dict[str, Any]:
    """quality -> diversity -> arm -> corners [[quality, diversity], …] of its front, in the measures' own units."""
    found: dict[str, Any] = {}
    for q in (m for m in tables.measures if m.role == "quality"):
        for d in (m for m in tables.measures if m.role == "diversity"):
            row = 0
            for arm in arms:
                rows = slice(row, row + len(arm.settings))
                row += len(arm.settings)
                xs, ys = ([_mean(v) for v in _upwards(tables, m)[rows]] for m in (q, d))
                if not np.isfinite(np.add(xs, ys)).any():
                    continue
                line = front.front_of(xs, ys)
                sign = 1 if d.higher_is_better else -1
                corners = [[x, sign * y] for x, y in zip(line.quality, line.diversity, strict=True)]
                found.setdefault(q.name, {}).setdefault(d.name, {})[arm.name] = corners
    return found


def _mean(row: np.ndarray) -> float:
    there = row[np.isfinite(row)]
    return float(there.mean()) if len(there) else np.nan


def _shown(
    assessment: Assessment,
    texts: dict[tuple[int, int], list[Text]],
    tables: Tables,
    quality: Measure,
    comparisons: Sequence[Comparison],
) -> dict[str, Any]:
    """Texts to read side by side: of every arm the setting whose quality is nearest to one quality for all."""
    means = [_mean(row) for row in _upwards(tables, quality)]
    target = (
        (comparisons[0].quality_low + comparisons[0].quality_high) / 2 if comparisons else float(np.nanmedian(means))
    )
    columns: list[dict[str, Any]] = []
    row = 0
    for arm in assessment.arms:
        rows = range(row, row + len(arm.settings))
        row += len(arm.settings)
        nearest = min(rows, key=lambda i: abs(means[i] - target) if np.isfinite(means[i]) else np.inf)
        setting = assessment.settings[nearest]
        columns.append(
            {
                "arm": arm.name,
                "label": setting.label,
                "quality": means[nearest],
                "texts": [
                    [
                        {"path": t.sample.path, "text": t.sample.text, "coherent": t.coherent}
                        for t in texts[nearest, prompt][:_SHOWN_TEXTS]
                    ]
                    for prompt in range(min(_SHOWN_PROMPTS, len(assessment.prompts)))
                ],
            }
        )
    return {"quality": target, "prompts": list(assessment.prompts[:_SHOWN_PROMPTS]), "arms": columns}
