"""How good a continuation is: its likelihood, in nats a word, under a model without noise or under a judge.

A word is a run of letters, a Chinese character or a sign (`stochroute.evaluation.words`), so that models with other
tokenizers give figures of one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from stochroute.evaluation.judging import Judge
from stochroute.evaluation.words import words
from stochroute.loading import LoadedModel
from stochroute.measuring.continuations import Continuation, log_probabilities
from stochroute.routed import RoutedModel


class Quality(Protocol):
    """Says how unlikely continuations are.

    Attributes:
        name: of the model that says so.
    """

    @property
    def name(self) -> str: ...

    def nats(self, before: str, texts: Sequence[str]) -> np.ndarray:
        """−ln p(text | before) over the number of words, for each text: float64 (texts,). Lower is better."""
        ...


@dataclass(frozen=True)
class Clean:
    """The generator itself, without noise.

    Attributes:
        loaded, routed: the model.
        batch: texts read at once.
    """

    loaded: LoadedModel
    routed: RoutedModel
    batch: int = 32

    @property
    def name(self) -> str:
        """What stands in results."""
        return f"{self.loaded.name}, without noise"

    def nats(self, before: str, texts: Sequence[str]) -> np.ndarray:
        """As `Quality.nats`; the tokens after the common beginning of `before` and the whole are the text's."""
        tokenizer = self.loaded.tokenizer
        known: list[int] = tokenizer(before)["input_ids"]
        rows: list[Continuation] = []
        for text in texts:
            whole: list[int] = tokenizer(before + text)["input_ids"]
            same = next((i for i, (a, b) in enumerate(zip(known, whole, strict=False)) if a != b), len(known))
            same = max(1, min(same, len(whole) - 1))
            rows.append(Continuation(tuple(whole[:same]), tuple(whole[same:]), None))
        found = np.zeros(len(texts))
        for index, log_p in log_probabilities(self.routed, rows, self.batch):
            own = torch.tensor(rows[index].tokens, device=log_p.device)
            found[index] = -float(log_p.gather(-1, own[:, None]).sum())
        return found / _word_counts(texts)


@dataclass(frozen=True)
class Judged:
    """A judge, which did not write the texts."""

    judge: Judge

    @property
    def name(self) -> str:
        """What stands in results."""
        return self.judge.name

    def nats(self, before: str, texts: Sequence[str]) -> np.ndarray:
        """As `Quality.nats`."""
        return self.judge.nats([before] * len(texts), texts) / _word_counts(texts)


def _word_counts(texts: Sequence[str]) -> np.ndarray:
    return np.array([max(1, len(words(text))) for text in texts], dtype=np.float64)
