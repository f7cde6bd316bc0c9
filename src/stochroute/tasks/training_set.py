"""What a model is trained on: rows of token ids, what of them is learned, and who each row is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stochroute.tasks.settings import check_count

IGNORED = -100  # the label that transformers leaves out of the loss


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The examples of a token task, one a row, all of one length: a dataset as `RoutedTrainer` takes it.

    Attributes:
        tokens: int64 (examples, length): prefix if any, prompt, body, end, padding.
        labels: int64 (examples, length): the tokens to learn, that is body and end; IGNORED elsewhere.
        ids: int64 (examples,): the stable id of each example, to bind a path to. An example that stands in several
            rows, each time told otherwise, keeps its id.
        prompt_length: tokens before the first one to learn, the same in every row.
    """

    tokens: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    prompt_length: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row by the names that training expects: "input_ids", "labels" (length,) and "example"."""
        return {"input_ids": self.tokens[row], "labels": self.labels[row], "example": int(self.ids[row])}

    @property
    def start(self) -> int:
        """The position before the first label: where a path's noise starts in training, `follow(paths, start=…)`."""
        return self.prompt_length - 1

    def told_anew(self, passes: int, tell: Callable[[np.ndarray], np.ndarray]) -> "TrainingSet":
        """The same examples `passes` times over, each time in other tokens; row k tells example k mod len(self).

        Args:
            passes: how often each example comes.
            tell: takes tokens, int64 (passes · examples, length), and gives those of the same shape to show instead.

        Raises:
            ValueError: passes is no integer of at least 1.
        """
        check_count("passes", passes, 1, "give how often each example is to come")
        tokens = tell(np.tile(self.tokens, (passes, 1)))
        labels = np.where(np.tile(self.labels, (passes, 1)) == IGNORED, IGNORED, tokens)
        return TrainingSet(tokens, labels, np.tile(self.ids, passes), self.prompt_length)

    def with_prefixes(self, prefixes: np.ndarray) -> "TrainingSet":
        """The same examples, row i after prefix i, the prefix not learned.

        Args:
            prefixes: int64 (examples, k), from `Vocabulary.null_prefixes` or `seed_prefixes`.

        Raises:
            ValueError: not one prefix an example.
        """
        prefixes = np.asarray(prefixes)
        if prefixes.ndim != 2 or len(prefixes) != len(self.tokens):
            raise ValueError(
                f"prefixes of shape {prefixes.shape} do not fit {len(self.tokens)} examples: "
                f"give shape ({len(self.tokens)}, prefix length)"
            )
        return TrainingSet(
            tokens=np.hstack([prefixes, self.tokens]),
            labels=np.hstack([np.full_like(prefixes, IGNORED), self.labels]),
            ids=self.ids,
            prompt_length=self.prompt_length + prefixes.shape[1],
        )
