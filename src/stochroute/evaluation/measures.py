"""Every measure of every setting and prompt: tables (settings, prompts) that fronts and reports are made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stochroute.evaluation import diversity
from stochroute.evaluation.embedding import Embedder, Entailment, partition, same_by_embedding
from stochroute.evaluation.quality import pass_at_k
from stochroute.evaluation.run import Sample
from stochroute.evaluation.scoring import Score

NOVELTY_TEXTS = 10  # NoveltyBench's k
_RATIO_SHARE = 0.5  # of the n texts: how many coherent ones a ratio is taken over


@dataclass(frozen=True)
class Measure:
    """What is measured.

    Attributes:
        name: key of its table.
        label: for people, with its unit.
        role: "quality" and "diversity" can be axes of a front; "other" is reported beside them.
        higher_is_better: the direction in which there is more quality or diversity.
    """

    name: str
    label: str
    role: Literal["quality", "diversity", "other"]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Text:
    """A sample with all that is known of it."""

    sample: Sample
    score: Score
    coherent: bool


@dataclass(frozen=True)
class Tables:
    """The measures, and name -> float64 (settings, prompts), NaN where one does not exist."""

    measures: list[Measure]
    values: dict[str, np.ndarray]

    def measure(self, name: str) -> Measure:
        """The measure of that name."""
        return next(m for m in self.measures if m.name == name)


def measure_all(
    texts: dict[tuple[int, int], list[Text]],
    settings: int,
    prompts: int,
    embedder: Embedder,
    same_above: float,
    entailment: Entailment | None,
    advance: Callable[[], None],
) -> Tables:
    """The tables.

    Args:
        texts: (setting, prompt) -> its n texts, in the order of their sample numbers.
        embedder: gives the vectors of semantic diversity.
        same_above: cosine from which two texts say the same.
        entailment: decides that instead, where given.
        advance: called after each setting and prompt.
    """
    everything = [t for group in texts.values() for t in group]
    sizes = diversity.vocabulary_sizes([t.sample.text for t in everything if t.coherent])
    reward_deciles = _deciles(everything)
    values: dict[str, np.ndarray] = {}
    for setting in range(settings):
        for prompt in range(prompts):
            group = texts[setting, prompt]
            found = {
                **_quality(group),
                **_ratios(group, sizes),
                **_counts(group, embedder, same_above, entailment, reward_deciles),
            }
            for name, value in found.items():
                values.setdefault(name, np.full((settings, prompts), np.nan))[setting, prompt] = value
            advance()
    known = {m.name: m for m in _measures(len(next(iter(texts.values()))))}
    return Tables(
        [known[name] for name in known if name in values], {name: values[name] for name in known if name in values}
    )


def _measures(n: int) -> list[Measure]:
    k = min(NOVELTY_TEXTS, n)
    return [
        Measure("likelihood", "judge's log-likelihood, nats per byte", "quality"),
        Measure("correct", "correct texts, share (pass@1)", "quality"),
        Measure("coherent", "coherent texts, share", "quality"),
        Measure("reward", "reward, mean", "quality"),
        Measure("vendi_ngrams", f"Vendi score of n-grams, effective texts of {n}", "diversity"),
        Measure("vendi_embeddings", f"Vendi score of embeddings, effective texts of {n}", "diversity"),
        Measure("groups", f"groups of meaning, of {n}", "diversity"),
        Measure("identities", f"different things said (plots, answers), of {n}", "diversity"),
        Measure("distinct_k", f"NoveltyBench distinct, of {k}", "diversity"),
        Measure("utility_k", f"NoveltyBench utility, of {k} texts read in order", "diversity"),
        Measure("distinct_n", "distinct-n, mean of n = 1 … 4", "diversity"),
        Measure("ead", "expectation-adjusted distinct, mean of n = 1 … 4", "diversity"),
        Measure("self_bleu", "self-BLEU", "diversity", higher_is_better=False),
        Measure("repetition", "repeated 4-grams within a text, share", "other", higher_is_better=False),
        Measure("tokens", "length, tokens", "other"),
        *[Measure(f"pass_at_{k}", f"pass@{k}", "other") for k in _powers(n)],
        Measure("coverage", f"coverage: prompts with a correct text among {n}", "other"),
    ]


def _powers(n: int) -> list[int]:
    return [k for k in (2**i for i in range(1, 20)) if k < n]


def _quality(group: Sequence[Text]) -> dict[str, float]:
    n = len(group)
    found = {
        "coherent": float(np.mean([t.coherent for t in group])),
        "repetition": float(np.mean([t.score.repetition for t in group])),
        "tokens": float(np.mean([t.sample.tokens for t in group])),
    }
    nats = [t.score.nats for t in group if t.score.nats is not None]
    if nats:
        size = sum(t.score.bytes for t in group)
        found["likelihood"] = -sum(nats) / size if size else math.nan
    correct = [t.score.correct for t in group if t.score.correct is not None]
    if correct:
        found |= {f"pass_at_{k}": pass_at_k(n, sum(correct), k) for k in _powers(n)}
        found |= {"correct": sum(correct) / n, "coverage": float(any(correct))}
    rewards = [t.score.reward for t in group if t.score.reward is not None]
    if rewards:
        found["reward"] = float(np.mean(rewards))
    return found


def _ratios(group: Sequence[Text], sizes: dict[int, int]) -> dict[str, float]:
    m = max(2, math.ceil(len(group) * _RATIO_SHARE))
    coherent = [t.sample.text for t in group if t.coherent][:m]
    if len(coherent) < m:
        return {"distinct_n": math.nan, "ead": math.nan, "self_bleu": math.nan}
    orders = range(1, diversity.LONGEST + 1)
    return {
        "distinct_n": float(np.mean([diversity.distinct_n(coherent, n) for n in orders])),
        "ead": float(np.mean([diversity.expectation_adjusted_distinct(coherent, n, sizes[n]) for n in orders])),
        "self_bleu": diversity.self_bleu(coherent),
    }


def _counts(
    group: Sequence[Text],
    embedder: Embedder,
    same_above: float,
    entailment: Entailment | None,
    deciles: Callable[[float], int] | None,
) -> dict[str, float]:
    coherent = [t for t in group if t.coherent]
    texts = [t.sample.text for t in coherent]
    vectors = embedder.embed(texts)
    same = same_by_embedding(texts, vectors, same_above) if entailment is None else entailment.same(texts)
    among_coherent = iter(partition(len(texts), same))
    groups = [next(among_coherent) if t.coherent else -1 for t in group]
    worth = [1.0 if deciles is None or t.score.reward is None else float(deciles(t.score.reward)) for t in group]
    k = min(NOVELTY_TEXTS, len(group))
    found = {
        "vendi_ngrams": diversity.vendi_ngrams(texts),
        "vendi_embeddings": diversity.vendi_embeddings(vectors),
        "groups": float(len(set(groups) - {-1})),
        "distinct_k": float(len(set(groups[:k]) - {-1})),
        "utility_k": diversity.utility_k(groups[:k], worth[:k]),
    }
    if any(t.score.readable is not None for t in group):
        found["identities"] = float(len({t.score.identity for t in coherent if t.score.identity is not None}))
    return found


def _deciles(texts: Sequence[Text]) -> Callable[[float], int] | None:
    """A reward's decile among all rewards of the run, 1 … 10: NoveltyBench's scale without its model's thresholds."""
    rewards = [t.score.reward for t in texts if t.score.reward is not None]
    if not rewards:
        return None
    limits = np.quantile(rewards, np.arange(1, 10) / 10)
    return lambda reward: 1 + int(np.searchsorted(limits, reward))
