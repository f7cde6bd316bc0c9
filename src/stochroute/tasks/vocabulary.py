"""Token ids of a task: its symbols, four control tokens, and tokens kept for prefixes."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stochroute.tasks.settings import Purpose, check_count, open_stream

TokenSample = Sequence[int] | np.ndarray  # what a model emitted after the prompt: integers, shape (any length,)


@dataclass(frozen=True)
class Vocabulary:
    """Ids 0 … symbols − 1 are the task's own; start, end, pad, null and the prefix tokens follow.

        >>> Vocabulary(symbols=10, prefix_tokens=64).size
        78

    Attributes:
        symbols: how many tokens the task itself uses.
        prefix_tokens: how many tokens seed-conditioning draws from; 0 for none.
    """

    symbols: int
    prefix_tokens: int = 64

    def __post_init__(self) -> None:
        check_count("symbols", self.symbols, 1, "a task needs at least one symbol")
        check_count("prefix_tokens", self.prefix_tokens, 0, "give how many ids to keep for prefixes, 0 for none")

    @property
    def start(self) -> int:
        """The id that asks for a sample: the last token of every prompt."""
        return self.symbols

    @property
    def end(self) -> int:
        """The id that ends a sample (eos_token_id in `generate`)."""
        return self.symbols + 1

    @property
    def pad(self) -> int:
        """The id that fills short rows (pad_token_id in `generate`)."""
        return self.symbols + 2

    @property
    def null(self) -> int:
        """The id that a null prefix repeats."""
        return self.symbols + 3

    @property
    def prefixes(self) -> range:
        """The ids that seed prefixes are drawn from."""
        return range(self.symbols + 4, self.size)

    @property
    def size(self) -> int:
        """Number of all ids (vocab_size of the model)."""
        return self.symbols + 4 + self.prefix_tokens

    def null_prefixes(self, count: int, length: int) -> np.ndarray:
        """int64 (count, length), all `null`: a prefix that says nothing, as long as the one it is compared with."""
        check_count("count", count, 1, "ask for at least one prefix")
        check_count("length", length, 1, "a prefix has at least one token; leave it out for none")
        return np.full((count, length), self.null, dtype=np.int64)

    def seed_prefixes(self, count: int, length: int, seed: int) -> np.ndarray:
        """int64 (count, length) of uniform prefix tokens, row i the prefix of example i.

        For training, one seed gives every example id its fixed string; for testing, another seed gives fresh ones. Rows
        may repeat: by chance, about count²/(2 · prefix_tokensˡᵉⁿᵍᵗʰ) pairs do. Raises ValueError without prefix tokens.
        """
        check_count("count", count, 1, "ask for at least one prefix")
        check_count("length", length, 1, "a prefix has at least one token; leave it out for none")
        if not self.prefix_tokens:
            raise ValueError(
                "prefix_tokens=0 leaves nothing to draw prefixes from: set it on the task, for example to 64"
            )
        stream = open_stream(Purpose.PREFIXES, seed)
        return stream.integers(self.prefixes.start, self.prefixes.stop, size=(count, length), dtype=np.int64)

    def body(self, sample: TokenSample) -> tuple[int, ...] | None:
        """The tokens before the first `end`; None if there is no end, or a token before it is no symbol.

        Whatever stands after the end is ignored: decoding stops there. Raises ValueError if the sample does not
        consist of integers.
        """
        try:
            tokens = [operator.index(token) for token in sample]
        except TypeError:
            raise ValueError(f"sample={sample!r} is no row of integers: pass the ids written after a prompt") from None
        if self.end not in tokens:
            return None
        body = tuple(tokens[: tokens.index(self.end)])
        return body if all(0 <= token < self.symbols for token in body) else None
