"""An engine that is not vLLM: it writes each text alone, with a routed transformers model of its own."""

from collections.abc import Sequence

import torch

import stochroute as sr


class Elsewhere:
    """Knows nothing of strings that stop.

    Attributes:
        engine: its name and version.
        calls: how many texts each call asked for.
    """

    def __init__(self, routed: sr.RoutedModel, stops: frozenset[int], engine: str = "elsewhere 1"):
        """`stops` are the tokens that it expects to be told, since its model ends at them anyway."""
        self.engine = engine
        self.calls: list[int] = []
        self._routed = routed
        self._stops = stops

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        paths: Sequence[int],
        starts: Sequence[int],
        new_tokens: int,
        stops: Sequence[int],
    ) -> list[list[int]]:
        assert set(stops) == self._stops
        self.calls.append(len(prompts))
        texts: list[list[int]] = []
        for prompt, path, start in zip(prompts, paths, starts, strict=True):
            out = self._routed.generate(torch.tensor([list(prompt)]), paths=[path], max_new_tokens=new_tokens)
            assert out.receipts[0].start == start
            texts.append(out.generated[0].tolist())
        return texts
