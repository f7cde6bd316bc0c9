"""Uncertainty scores of one answered question: the higher, the likelier a hallucination. All in nats but the shares."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from stochroute.uncertainty.answers import Answered
from stochroute.uncertainty.equivalence import Equivalence, clusters, same_text

SAMPLED = {
    "answer entropy": "entropy of the K answers, counted",
    "semantic entropy": "the same over meanings",
    "weighted semantic entropy": "the same, meanings weighted by the likelihood of their texts",
}
EPISTEMIC = {
    "token transmission": "I(token; path), mean over the tokens of the answer given",
    "largest token transmission": "the largest of them",
    "answer transmission": "I(answer; path) of whole answers, BALD",
}
TOTAL = {"token total": "entropy of the mixture over paths, mean over the tokens of the answer given"}
SINGLE = {
    "single-pass entropy": "entropy of the next token, mean over the tokens of the answer given",
    "1 − p(max)": "1 − probability of the whole answer given",
}
EXPLAINED = {**SAMPLED, **EPISTEMIC, **TOTAL, **SINGLE}


def scores_of(row: Answered, question: str = "", equivalence: Equivalence = same_text) -> dict[str, float]:
    """Every score that the row has the numbers for, by the names of `EXPLAINED`.

    Sampled ones (Farquhar et al. 2024, Nature 630; weighted: Kuhn et al. 2023, arXiv 2302.09664) need several answers,
    epistemic ones (BALD: Houlsby et al. 2011, arXiv 1112.5745) several paths that differ, single-pass ones nothing more
    than the original model's own next-token distribution along the answer given.

    Args:
        row: the question, answered.
        question: its text, for an equivalence that reads it.
        equivalence: which answers mean the same.
    """
    found: dict[str, float] = {}
    if len(row.answers) > 1:
        same = clusters(equivalence(question, row.answers))
        found["answer entropy"] = counted_entropy(clusters(same_text(question, row.answers)))
        found["semantic entropy"] = counted_entropy(same)
        if row.log_likelihoods is not None:
            found["weighted semantic entropy"] = weighted_entropy(same, row.texts, row.log_likelihoods)
    if "transmission" in row.nats:
        found["token transmission"] = fmean(row.nats["transmission"])
        found["largest token transmission"] = max(row.nats["transmission"])
        if row.transmission is not None:
            found["answer transmission"] = row.transmission
        found["token total"] = fmean(row.nats["total"])
    if "clean" in row.nats:
        found["single-pass entropy"] = fmean(row.nats["clean"])
        found["1 − p(max)"] = -math.expm1(-math.fsum(row.nats["surprise"]))
    return found


def counted_entropy(labels: Sequence[int]) -> float:
    """Entropy in nats of how often each label comes."""
    return _entropy([count / len(labels) for count in Counter(labels).values()])


def weighted_entropy(labels: Sequence[int], texts: Sequence[str], log_p: Sequence[float]) -> float:
    """Entropy in nats over labels that weigh as much as their different texts are likely, scaled to sum to 1.

    Args:
        labels: of each text.
        texts: one that comes twice is weighed once.
        log_p: of each text.
    """
    largest = max(log_p)
    weights: dict[int, float] = {}
    for label, value in dict(zip(texts, zip(labels, log_p, strict=True), strict=True)).values():
        weights[label] = weights.get(label, 0.0) + math.exp(value - largest)
    whole = sum(weights.values())
    return _entropy([weight / whole for weight in weights.values()])


def _entropy(shares: Sequence[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0) + 0.0
