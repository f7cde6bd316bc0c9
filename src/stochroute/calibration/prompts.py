"""The texts that a routing is calibrated on, as token rows, each with the first position that carries noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from torch import Tensor

from stochroute.config import Span
from stochroute.paths import derive_paths

NEUTRAL_TOKENS = 32
_TOKENS_PER_CHARACTER = 1.5  # a tokenizer that needs more falls back to bytes: its model hardly knows the script
_FEWEST = 8

Prompt = str | Sequence[int] | Tensor


@dataclass(frozen=True)
class Sample:
    """(prompt, path) pairs on which noise is measured: K paths a prompt, no path twice.

    Attributes:
        rows: token ids of each prompt.
        starts: the first noised position of each prompt.
        paths: K path ids a prompt.
    """

    rows: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def along_paths(cls, rows: Sequence[Sequence[int]], span: Span, pairs: int, seed: int) -> "Sample":
        """At least `pairs` pairs, and two paths a prompt, so that transmission can be told. The paths of fewer pairs
        are the first ones of more.

        Noised positions begin where the span says: "all" at 0; "generated" in the middle, at the last token of the
        first half (rounded up), which stands for the clean prompt.
        """
        each = max(2, -(-pairs // len(rows)))
        starts = [0 if span == "all" else (len(row) + 1) // 2 - 1 for row in rows]
        paths = [tuple(derive_paths(seed, each, prompt=index)) for index in range(len(rows))]
        return cls(tuple(tuple(row) for row in rows), tuple(starts), tuple(paths))

    @property
    def pairs(self) -> int:
        """The number of (prompt, path) pairs."""
        return sum(map(len, self.paths))

    def thinned(self, pairs: int) -> "Sample":
        """Evenly spaced prompts with all their paths: about so many pairs, at least two prompts."""
        kept = max(2, pairs // len(self.paths[0]))
        step = max(1, len(self.rows) // kept)
        return Sample(self.rows[::step], self.starts[::step], self.paths[::step])


def token_rows(prompts: Sequence[Prompt], tokenizer: Any, context: int | None, vocabulary: int) -> list[list[int]]:
    """The token ids of each prompt.

    Args:
        prompts: texts, or token ids.
        tokenizer: a transformers tokenizer; needed for texts.
        context: tokens that the model holds, None where it does not say.
        vocabulary: tokens that the model knows.

    Raises:
        ValueError: fewer than two prompts, one of fewer than two tokens or of more than the model holds, a token that
            the model does not know, or texts without a tokenizer.
    """
    if isinstance(prompts, str | bytes) or len(prompts) < 2:
        given = "one text" if isinstance(prompts, str | bytes) else f"{len(prompts)}"
        raise ValueError(
            f"prompts holds {given}: give a list of at least 2, better 32, so that an interval can be told"
        )
    rows = [_tokens(prompt, tokenizer, number) for number, prompt in enumerate(prompts)]
    for number, row in enumerate(rows):
        if len(row) < 2:
            raise ValueError(
                f"prompt {number} has {len(row)} token{'s' * (len(row) != 1)}: give at least 2, one to stand before "
                f"the noise and one along it"
            )
        if context is not None and len(row) > context:
            raise ValueError(f"prompt {number} has {len(row)} tokens, but the model holds {context}: shorten it")
        if max(row) >= vocabulary:
            raise ValueError(
                f"prompt {number} holds token {max(row)}, but the model knows {vocabulary}: take its own tokenizer"
            )
    return rows


def neutral_rows(tokenizer: Any, context: int | None) -> list[list[int]]:
    """The first tokens of each passage of neutral.txt, short English and Chinese texts that travel with the package.

    Passages in a script that the tokenizer only knows byte by byte are left out, unless fewer than eight remain.

    Args:
        tokenizer: a transformers tokenizer.
        context: tokens that the model holds, None where it does not say.
    """
    texts = files("stochroute.calibration").joinpath("neutral.txt").read_text(encoding="utf-8").split("\n")
    texts = [text for text in texts if text]
    rows = {text: _tokens(text, tokenizer, number) for number, text in enumerate(texts)}
    known = [row for text, row in rows.items() if len(row) <= _TOKENS_PER_CHARACTER * len(text)]
    length = min(NEUTRAL_TOKENS, context or NEUTRAL_TOKENS)
    return [row[:length] for row in (known if len(known) >= _FEWEST else rows.values())]


def _tokens(prompt: Prompt, tokenizer: Any, number: int) -> list[int]:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise ValueError(f"prompt {number} is a text, but tokenizer=None: pass the model's tokenizer")
        return list(tokenizer(prompt)["input_ids"])
    row: Any = prompt.tolist() if isinstance(prompt, Tensor) else prompt
    whole = isinstance(row, Sequence) and all(type(token) is int and token >= 0 for token in row)
    if not whole:
        raise ValueError(f"prompt {number} is no text and no flat list of token ids: {str(prompt)[:60]}")
    return list(row)
