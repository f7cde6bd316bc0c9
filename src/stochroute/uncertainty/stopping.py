"""Where an answer ends: at a stop text, found in the decoded text, so that any tokenizer will do.

transformers' own stop strings need a tokenizer whose tokens join to the text letter by letter; those of words do not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria


def stop_place(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of the stops begins after something has been said; None where none does."""
    said = len(text) - len(text.lstrip())
    places = [place for stop in stops if (place := text.find(stop, said)) >= 0]
    return min(places, default=None)


def cut(ids: list[int], tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> list[int]:
    """The ids up to the token that completes a stop, with it."""
    for length in range(1, len(ids) + 1):
        if stop_place(_text(tokenizer, ids[:length]), stops) is not None:
            return ids[:length]
    return ids


class StopTexts(StoppingCriteria):
    """Ends a row when what was written after its prompt holds a stop."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], prompt_width: int):
        self._tokenizer, self._stops, self._width = tokenizer, stops, prompt_width

    def __call__(self, input_ids: Tensor, scores: Any, **unused: Any) -> Tensor:
        """bool (rows,): which have ended."""
        ended = [
            stop_place(_text(self._tokenizer, row), self._stops) is not None
            for row in input_ids[:, self._width :].tolist()
        ]
        return torch.tensor(ended, device=input_ids.device)


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))
