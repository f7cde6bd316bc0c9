"""Prompts, computed once: for all rows of a request, and for all requests of a round that share them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stochroute.generation.padding import pad_left
from stochroute.generation.prefill import prefill
from stochroute.serving.jobs import Row
from stochroute.serving.noise import Noise, Variants

_TOKENS_AT_ONCE = 8192  # padding included; bounds the memory of one forward pass over prompts


@dataclass(frozen=True, eq=False)
class Source:
    """Where the keys and values of all tokens of a prompt but the last lie.

    Attributes:
        cache: transformers' cache, padded at the left; None where there is no such token.
        row: the row of the cache.
        length: how many tokens.
    """

    cache: Any
    row: int
    length: int


class Prefiller:
    """Computes prompts for a scheduler."""

    def __init__(self, variants: Variants, pad: int):
        self._variants = variants
        self._pad = pad

    def compute(self, rows: list[Row]) -> list[Source]:
        """The source of each row: of clean prompts one for all that share it, of noised ones one a row."""
        noised = [row for row in rows if row.job.work.all_noised]
        own: dict[int, Source] = {}
        for noise in dict.fromkeys(row.noise for row in noised):
            alike = [row for row in noised if row.noise == noise]
            sources = self._along_paths(noise, alike)
            own |= {id(row): source for row, source in zip(alike, sources, strict=True)}
        clean = [row for row in rows if id(row) not in own]
        known = {prompt: source for row in clean for prompt, source in row.job.prefilled.items()}
        missing = list(dict.fromkeys(row.prompt for row in clean if row.prompt not in known))
        known |= zip(missing, self._clean(missing), strict=True)
        for row in clean:
            row.job.prefilled[row.prompt] = known[row.prompt]
        return [own.get(id(row)) or known[row.prompt] for row in rows]

    def _clean(self, prompts: list[tuple[int, ...]]) -> list[Source]:
        sources: list[Source] = []
        for some in _portions(prompts):
            with self._variants.routed.suspended():
                sources += self._forward(some)
        return sources

    def _along_paths(self, noise: Noise, rows: list[Row]) -> list[Source]:
        sources: list[Source] = []
        for some in _portions([row.prompt for row in rows]):
            paths = [row.path for row in rows[len(sources) : len(sources) + len(some)]]
            with self._variants.follow(noise, paths, [0] * len(paths)):
                sources += self._forward(some)
        return sources

    def _forward(self, prompts: list[tuple[int, ...]]) -> list[Source]:
        if max(map(len, prompts)) == 1:
            return [Source(None, 0, 0)] * len(prompts)
        padded = pad_left(prompts, self._pad)
        rows = list(range(len(prompts)))
        found = prefill(self._variants.routed.model, padded["input_ids"], padded["attention_mask"], rows)
        return [Source(found.cache, row, len(prompt) - 1) for row, prompt in enumerate(prompts)]


def _portions(prompts: list[tuple[int, ...]]) -> Iterable[list[tuple[int, ...]]]:
    """The prompts in order, as many at once as fit into one forward pass."""
    some: list[tuple[int, ...]] = []
    for prompt in prompts:
        if some and max(len(prompt), *map(len, some)) * (len(some) + 1) > _TOKENS_AT_ONCE:
            yield some
            some = []
        some.append(prompt)
    if some:
        yield some
