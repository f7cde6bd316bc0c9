"""The model that replies: token ids and paths in, texts with receipts out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers.generation.streamers import BaseStreamer

from stochroute.applications.chat.transcript import Reply
from stochroute.generation.decoding import GREEDY, Decoding
from stochroute.generation.outputs import RoutedOutput
from stochroute.loading import LoadedModel, continuation
from stochroute.routed import RoutedModel

OnTexts = Callable[[list[str]], None]  # what each reply says so far

_NEW_TOKENS = 128


@dataclass(frozen=True)
class Speaker:
    """A routed model that speaks.

    Attributes:
        loaded: the model with its tokenizer.
        routed: the same model with its routing.
        decoding: how tokens are chosen; the default is greedy, so that only the path tells replies apart. With
            spread the replies of a turn share the model's distribution out.
        new_tokens: the most that a reply may have; None for 128, or half the context where that is less.
    """

    loaded: LoadedModel
    routed: RoutedModel
    decoding: Decoding = GREEDY
    new_tokens: int | None = None

    @property
    def room(self) -> int:
        """The most tokens that a reply may have."""
        if self.new_tokens is not None:
            return self.new_tokens
        return _NEW_TOKENS if self.loaded.context is None else min(_NEW_TOKENS, self.loaded.context // 2)

    def replies(
        self, ids: list[int], paths: list[int], stop: str | None, on_texts: OnTexts | None = None
    ) -> tuple[Reply, ...]:
        """One reply a path to what the ids say, all computed together.

        Args:
            ids: what the model reads.
            paths: path ids.
            stop: a string that ends a reply and is no part of it; None leaves that to the model's end token.
            on_texts: called after every token.
        """
        streamer = (
            None if on_texts is None else _Streamer(lambda new: on_texts([self._text(ids, n, stop) for n in new]))
        )
        device = self.loaded.model.device
        out: RoutedOutput = self.routed.generate(
            torch.tensor([ids], device=device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=device),
            paths=paths,
            rows_at_once=len(paths),
            max_new_tokens=self.room,
            pad_token_id=self.loaded.pad,
            stop_strings=None if stop is None else [stop],
            tokenizer=self.loaded.tokenizer,
            streamer=streamer,
            **self.decoding.arguments(),
        )
        generated = cast(list[list[int]], cast(Any, out.generated).tolist())
        return tuple(
            Reply(self._text(ids, new, stop), receipt) for new, receipt in zip(generated, out.receipts, strict=True)
        )

    def _text(self, ids: list[int], new: list[int], stop: str | None) -> str:
        text = continuation(self.loaded, ids, new)
        return (text if stop is None else text.partition(stop)[0]).strip()


class _Streamer(BaseStreamer):
    """Collects the tokens of every row; transformers' own streamers take a single row."""

    def __init__(self, on_rows: Callable[[list[list[int]]], None]):
        self._on_rows = on_rows
        self._rows: list[list[int]] | None = None

    def put(self, value: torch.Tensor) -> None:
        """The prompts (rows, width) first, then one token a row at every step."""
        if self._rows is None:
            self._rows = [[] for _ in range(value.shape[0])]
            return
        for row, token in zip(self._rows, value.tolist(), strict=True):
            row.append(token)
        self._on_rows(self._rows)

    def end(self) -> None:
        """Nothing is left to be said."""
