"""What makes texts of prompts: the model here, in this process, or vLLM, which Ray spreads over machines.

An engine maps batches to their texts, in order, each batch by itself: nothing is carried from one to the next, so it
may compute any number of them at once and anywhere. Filters, duplicates and commits follow in one place, in order.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
import transformers

from stochroute.applications.writer import Writer, Written
from stochroute.engines.token_writer import TokenWriter
from stochroute.paths import derive_paths

# Batches that another engine gets at once. On Ray each time starts engines anew, which takes a minute, so there must be
# work for several: of 8 rows with 4 paths these are 4,096 texts. What a kill loses is at most this.
WINDOW = 128


@dataclass(frozen=True)
class Prompt:
    """One source row's prompt, with the ids of the paths that are to continue it."""

    index: int
    text: str
    paths: tuple[int, ...]


class Engine(Protocol):
    """Turns batches of prompts into batches of texts.

    Attributes:
        name: with its version, as rows name it.
    """

    name: str

    def write(self, batches: Iterable[Sequence[Prompt]]) -> Iterator[list[list[Written]]]:
        """For each batch, in order: for each prompt one text a path."""
        ...


class LocalEngine:
    """One batch after another, on the model's own device."""

    name = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def __init__(self, writer: Writer):
        self._writer = writer

    def write(self, batches: Iterable[Sequence[Prompt]]) -> Iterator[list[list[Written]]]:
        """See `Engine.write`."""
        for batch in batches:
            tokens = [self._writer.encode(prompt.text, f"row {prompt.index + 1}") for prompt in batch]
            yield self._writer.write(tokens, [list(prompt.paths) for prompt in batch])


class HostedEngine:
    """A window of batches at a time, greedily, on an engine that schedules and spreads their texts itself."""

    def __init__(self, writer: Writer, hosted: TokenWriter):
        """
        Args:
            writer: gives prompts their tokens and tokens their texts; its model writes nothing.
            hosted: writes the tokens, along paths of the same routing.
        """
        self.name = hosted.engine
        self._writer, self._hosted = writer, hosted
        self._generated = writer.routed.config.span == "generated"

    def write(self, batches: Iterable[Sequence[Prompt]]) -> Iterator[list[list[Written]]]:
        """See `Engine.write`."""
        batches, writer = iter(batches), self._writer
        while window := list(islice(batches, WINDOW)):
            asked = [prompt for batch in window for prompt in batch]
            tokens = [writer.encode(prompt.text, f"row {prompt.index + 1}") for prompt in asked]
            given = [ids for ids, prompt in zip(tokens, asked, strict=True) for _ in prompt.paths]
            paths = [path for prompt in asked for path in prompt.paths]
            starts = [len(ids) - 1 if self._generated else 0 for ids in given]
            new = self._hosted.write(given, paths, starts, writer.new_tokens, sorted(writer.loaded.stops))
            texts = (writer.read(ids, one) for ids, one in zip(given, new, strict=True))
            for batch in window:
                yield [list(islice(texts, len(prompt.paths))) for prompt in batch]


def prompt(index: int, text: str, seed: int, paths: int, spread: bool) -> Prompt:
    """The prompt of source row `index`, whose paths hang on the seed and that number alone."""
    return Prompt(index, text, tuple(derive_paths(seed, paths, prompt=index, spread=spread)))
