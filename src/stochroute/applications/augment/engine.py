"""What makes texts of prompts: here, in this process. An engine that spreads batches over machines takes its place.

An engine maps batches to their texts, in order, each batch by itself: nothing is carried from one to the next, so it
may compute any number of them at once and anywhere. Filters, duplicates and commits follow in one place, in order.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stochroute.applications.writer import Writer, Written
from stochroute.paths import derive_paths


@dataclass(frozen=True)
class Prompt:
    """One source row's prompt, with the ids of the paths that are to continue it."""

    index: int
    text: str
    paths: tuple[int, ...]


class Engine(Protocol):
    """Turns batches of prompts into batches of texts."""

    def write(self, batches: Iterable[Sequence[Prompt]]) -> Iterator[list[list[Written]]]:
        """For each batch, in order: for each prompt one text a path."""
        ...


class LocalEngine:
    """One batch after another, on the model's own device."""

    def __init__(self, writer: Writer):
        self._writer = writer

    def write(self, batches: Iterable[Sequence[Prompt]]) -> Iterator[list[list[Written]]]:
        """See `Engine.write`."""
        for batch in batches:
            tokens = [self._writer.encode(prompt.text, f"row {prompt.index + 1}") for prompt in batch]
            yield self._writer.write(tokens, [list(prompt.paths) for prompt in batch])


def prompt(index: int, text: str, seed: int, paths: int) -> Prompt:
    """The prompt of source row `index`, whose paths hang on the seed and that number alone."""
    return Prompt(index, text, tuple(derive_paths(seed, paths, prompt=index)))
