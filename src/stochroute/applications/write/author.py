"""The model that writes: candidates for what comes next, each along its own path, cut to the form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import StoppingCriteria

from stochroute.applications.write.forms import Form, cut, has_ended
from stochroute.generation.decoding import GREEDY, Decoding
from stochroute.generation.receipts import Receipt
from stochroute.loading import LoadedModel, continuation, encode
from stochroute.routed import RoutedModel

_NEW_TOKENS = 128
_STORY_TOKENS = 256  # the embedded model's stories end by themselves well before


@dataclass(frozen=True)
class Candidate:
    """A continuation, with what walks its path again.

    Attributes:
        text: cut to the form; "" where the path has nothing of the form to say.
        receipt: of its path.
        finished: whether the model ended the text, or the form has no more steps.
    """

    text: str
    receipt: Receipt
    finished: bool


@dataclass(frozen=True)
class Author:
    """A routed model that writes in a form.

    Attributes:
        loaded: the model with its tokenizer.
        routed: the same model with its routing.
        form: of the texts.
        decoding: how tokens are chosen; the default is greedy, so that only the path tells texts apart. With spread
            the continuations of a text share the model's distribution out.
        new_tokens: the most that one continuation may have; None for a default that fits the model.
        batch: continuations computed at once.
    """

    loaded: LoadedModel
    routed: RoutedModel
    form: Form
    decoding: Decoding = GREEDY
    new_tokens: int | None = None
    batch: int = 32

    def candidates(self, before: str, paths: list[int], steps: int | None = None) -> list[Candidate]:
        """What each path writes after `before`.

        Args:
            before: the text so far.
            paths: path ids.
            steps: how many of the form's steps to write; None for as many as the form has or the model writes.

        Raises:
            ValueError: the text so far gives no token or fills the model's context.
        """
        ids = encode(self.loaded, [before], chat=False)[0]
        return [
            candidate
            for first in range(0, len(paths), self.batch)
            for candidate in self._batch(before, ids, paths[first : first + self.batch], steps)
        ]

    def _batch(self, before: str, ids: list[int], paths: list[int], steps: int | None) -> list[Candidate]:
        device = self.loaded.model.device

        def text_of(row: list[int]) -> str:
            return continuation(self.loaded, ids, row)

        until = _Until(len(ids), lambda row: has_ended(self.form, before, text_of(row), steps))
        out = self.routed.generate(
            torch.tensor([ids], device=device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=device),
            paths=paths,
            rows_at_once=len(paths),
            max_new_tokens=self._room(len(ids)),
            pad_token_id=self.loaded.pad,
            stopping_criteria=[until],
            **self.decoding.arguments(),
        )
        found: list[Candidate] = []
        for row, receipt in zip(cast(list[list[int]], cast(Any, out.generated).tolist()), out.receipts, strict=True):
            text = cut(self.form, before, text_of(row), steps)
            ended = bool(self.loaded.stops & set(row)) and len(text.strip()) == len(text_of(row).strip())
            last = self.form.steps is not None and len(self.form.parts(before + text)) >= self.form.steps
            found.append(Candidate(text, receipt, ended or last or not text.strip()))
        return found

    def _room(self, length: int) -> int:
        default = _STORY_TOKENS if self.loaded.embedded else _NEW_TOKENS
        asked = default if self.new_tokens is None else self.new_tokens
        return asked if self.loaded.context is None else min(asked, self.loaded.context - length)


class _Until(StoppingCriteria):
    """Ends a row when its text says so."""

    def __init__(self, prompt_width: int, done: Callable[[list[int]], bool]):
        self._prompt_width = prompt_width
        self._done = done

    def __call__(self, input_ids: torch.Tensor, scores: Any, **unused: Any) -> torch.Tensor:
        rows: list[list[int]] = input_ids[:, self._prompt_width :].tolist()
        return torch.tensor([self._done(row) for row in rows], device=input_ids.device)
