"""The story world as token rows, so that the creativity benchmark trains and scores it as it does the other tasks."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from stochroute.embedded import load
from stochroute.tasks import IGNORED, Story, TokenTask, TrainingSet, Vocabulary
from stochroute.tasks.vocabulary import TokenSample

LONGEST = 127  # tokens of a story; the longest of ten thousand English ones has 110


@dataclass(frozen=True)
class StoryRows(TokenTask):
    """Stories over the ids of the embedded model's tokenizer; everything else is `stochroute.tasks.Story`'s.

    Attributes:
        training_size, seed: as in Story.
        prefix_tokens: as in every token task.
    """

    PUBLISHED_SAMPLES: ClassVar[int] = Story.PUBLISHED_SAMPLES

    training_size: int = 10_000
    seed: int = 0
    prefix_tokens: int = 64

    @cached_property
    def story(self) -> Story:
        """The task in text."""
        return Story(training_size=self.training_size, seed=self.seed)

    @cached_property
    def tokenizer(self) -> Any:
        """The embedded model's; its own control tokens stay unused."""
        return load()[1]

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids, then the task's control tokens."""
        return Vocabulary(len(self.tokenizer), self.prefix_tokens)

    @property
    def body_length(self) -> int:
        """Of the longest story."""
        return LONGEST

    @property
    def number_of_forms(self) -> int:
        """The plots of the story world."""
        return self.story.number_of_forms

    @property
    def training_forms(self) -> frozenset[Hashable]:
        """The plots of the training texts."""
        return self.story.training_forms

    def canonical(self, sample: TokenSample) -> Hashable | None:
        """The plot; None unless the story is whole and without a flaw."""
        body = self.vocabulary.body(sample)
        return None if body is None else self.story.canonical(self.tokenizer.decode(body))

    def training_set(self) -> TrainingSet:
        """One row a text, padded on the right to the longest."""
        vocabulary = self.vocabulary
        bodies = self.tokenizer(self.story.training_texts(), add_special_tokens=False)["input_ids"]
        tokens = np.full((len(bodies), 2 + max(map(len, bodies))), vocabulary.pad, dtype=np.int64)
        for row, body in zip(tokens, bodies, strict=True):
            row[: len(body) + 2] = [vocabulary.start, *body, vocabulary.end]
        labels = np.where(tokens == vocabulary.pad, IGNORED, tokens)
        labels[:, 0] = IGNORED
        return TrainingSet(tokens, labels, np.arange(len(tokens)), prompt_length=1)

    def _draw_bodies(self, stream: np.random.Generator, count: int) -> np.ndarray:
        texts = self.story.sample(count, int(stream.integers(1 << 63)))
        bodies = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        rows = np.full((count, LONGEST), self.vocabulary.end, dtype=np.int64)
        for row, body in zip(rows, bodies, strict=True):
            row[: len(body)] = body
        return rows
