"""What every single text is worth: its likelihood under the judge, its repetition, what a checker reads in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stochroute.evaluation.checkers import Checker, Reading
from stochroute.evaluation.judging import Judge, Reward
from stochroute.evaluation.run import SCORE_FILE, Run, Sample
from stochroute.evaluation.words import ngrams, words

REPEATED = 4  # words of a run that counts as repeated
COHERENT_SHARE = 0.99  # of the texts that set the thresholds, which pass each of them
_BLOCK = 512  # texts scored between two writes


@dataclass(frozen=True)
class Score:
    """What was measured on one text.

    Attributes:
        nats: −ln p(text | prompt) under the judge; None without a judge.
        bytes: length in UTF-8.
        repetition: share of its 4-grams of words that stood in it before, 1 − distinct/all (Welleck et al. 2020,
            arXiv 1908.04319); 0 for a text with fewer than four words.
        readable: what the checker says of coherence; None without a checker.
        correct: likewise, of being right.
        identity: likewise, what it says.
        reward: of the reward model; None without one.
    """

    nats: float | None
    bytes: int
    repetition: float
    readable: bool | None = None
    correct: bool | None = None
    identity: str | None = None
    reward: float | None = None

    @property
    def nats_per_byte(self) -> float | None:
        """None without a judge or for an empty text."""
        return None if self.nats is None or not self.bytes else self.nats / self.bytes


@dataclass(frozen=True)
class Thresholds:
    """When a text that no checker reads is coherent: it holds something, the judge finds it no less likely, and it
    repeats itself no more, than nearly all texts that set the standard.

    Attributes:
        nats_per_byte: at most; None without a judge.
        repetition: at most.
        source: which texts set the standard.
    """

    nats_per_byte: float | None
    repetition: float
    source: str


def thresholds_of(scores: Sequence[Score], source: str) -> Thresholds:
    """The COHERENT_SHARE quantile of each measure over the texts that set the standard."""
    likelihoods = [s.nats_per_byte for s in scores if s.nats_per_byte is not None]
    return Thresholds(
        float(np.quantile(likelihoods, COHERENT_SHARE)) if likelihoods else None,
        float(np.quantile([s.repetition for s in scores], COHERENT_SHARE)),
        source,
    )


def is_coherent(score: Score, thresholds: Thresholds) -> bool:
    """The checker's word where there is one; else whether the text passes every threshold."""
    if score.readable is not None:
        return score.readable
    if not score.bytes or score.repetition > thresholds.repetition:
        return False
    limit, found = thresholds.nats_per_byte, score.nats_per_byte
    return limit is None or (found is not None and found <= limit)


def repetition(text: str) -> float:
    """See `Score.repetition`."""
    counts = ngrams(words(text), REPEATED)
    return 1 - len(counts) / counts.total() if counts else 0.0


class Scorer:
    """Scores texts with whatever judges there are."""

    def __init__(self, prompts: Sequence[str], judge: Judge | None, checker: Checker | None, reward: Reward | None):
        self._prompts = prompts
        self._judge = judge
        self._checker = checker
        self._reward = reward

    def score(self, prompt_indices: Sequence[int], texts: Sequence[str]) -> list[Score]:
        """One score a text; a text that comes several times after one prompt is judged once."""
        pairs = list(zip(prompt_indices, texts, strict=True))
        distinct = list(dict.fromkeys(pairs))
        prompts = [self._prompts[p] for p, _ in distinct]
        only = [text for _, text in distinct]
        nats = None if self._judge is None else self._judge.nats(prompts, only)
        rewards = None if self._reward is None else self._reward.rewards(prompts, only)
        found: dict[tuple[int, str], Score] = {}
        for i, (index, text) in enumerate(distinct):
            reading = self._read(index, text)
            found[index, text] = Score(
                nats=None if nats is None else round(float(nats[i]), 4),
                bytes=len(text.encode()),
                repetition=round(repetition(text), 6),
                readable=None if reading is None else reading.coherent,
                correct=None if reading is None else reading.correct,
                identity=None if reading is None else reading.identity,
                reward=None if rewards is None else round(float(rewards[i]), 4),
            )
        return [found[pair] for pair in pairs]

    def _read(self, index: int, text: str) -> Reading | None:
        return None if self._checker is None else self._checker.read(index, self._prompts[index], text)


def score_missing(run: Run, samples: Sequence[Sample], scorer: Scorer, advance: Callable[[int], None]) -> list[Score]:
    """The scores of all samples, in their order; those that the run does not hold yet are made and appended.

    Raises:
        ValueError: the run holds more scores than samples, or a line is no score.
    """
    found = [_score(entry, run) for entry in run.scores()]
    if len(found) > len(samples):
        raise ValueError(
            f"{run.folder / SCORE_FILE} holds {len(found)} scores for {len(samples)} samples: "
            f"delete it, scores are made again"
        )
    advance(len(found))
    for first in range(len(found), len(samples), _BLOCK):
        block = samples[first : first + _BLOCK]
        scores = scorer.score([s.prompt for s in block], [s.text for s in block])
        run.append(SCORE_FILE, scores)
        found += scores
        advance(len(scores))
    return found


def _score(entry: Any, run: Run) -> Score:
    try:
        return Score(**entry)
    except TypeError as error:
        raise ValueError(
            f"{run.folder / SCORE_FILE} holds a line that is no score ({error}): delete it, scores are made again"
        ) from error
