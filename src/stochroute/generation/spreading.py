"""Spread token routing: the texts of one prompt share the model's distribution out among them.

Arithmetic sampling (Vilnis et al. 2022, arXiv 2210.15458): a point of [0, 1) picks the text whose interval it falls
into, when the interval is divided token by token in proportion to the probabilities. A uniform point is an exact
sample. Siblings have evenly spaced points: where n is a power of two and the siblings see the same probabilities, an
answer of probability p is given by ⌊np⌋ or ⌈np⌉ of n. Every text alone is distributed as without spreading.

A point says nothing more once the interval is narrower than the distance between siblings; from there on the draws
are those of `TokenRouting`. That also bounds what rounding can do, since each division widens an error in the
probabilities by as much as it narrows the interval.
"""

from typing import Any

import torch
from torch import Tensor

from stochroute.generation.token_routing import TokenRouting
from stochroute.noise import code_points, key_words
from stochroute.paths import SIBLING_BITS, read_sibling

_NARROWEST = 2.0**-SIBLING_BITS


class SpreadTokenRouting(TokenRouting):
    """Token routing whose first tokens are chosen by each path's point."""

    def __init__(self, paths: list[int], prompt_lengths: Tensor, keep_scores: bool, streamer: Any = None):
        """As in `TokenRouting`."""
        super().__init__(paths, prompt_lengths, keep_scores, streamer)
        families, numbers = zip(*map(read_sibling, paths), strict=True)
        device = prompt_lengths.device
        self._points = code_points(
            key_words(list(families), device),
            torch.tensor(numbers, device=device),
            prompt_lengths,
            SIBLING_BITS,
        )
        self._widths = torch.ones_like(self._points)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = super().__call__(input_ids, scores)
        coded = self._widths >= _NARROWEST
        if bool(coded.any()):
            chosen = self._divide(scores.double().softmax(-1))
            drawn[coded, chosen[coded]] = torch.inf
        return drawn

    def _divide(self, probabilities: Tensor) -> Tensor:
        """The token whose part of its row's interval holds the point, int64 (rows,); the part becomes the interval."""
        ends = probabilities.cumsum(-1)
        chosen = (ends <= (self._points * ends[:, -1])[:, None]).sum(-1)
        # rounding may put a point on the very end, behind which there are only tokens that cannot come
        last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).int().argmax(-1)
        chosen = torch.minimum(chosen, last)
        width = probabilities.gather(-1, chosen[:, None])[:, 0]
        begin = ends.gather(-1, chosen[:, None])[:, 0] - width
        self._points = ((self._points * ends[:, -1] - begin) / width).clamp(0, 1 - 2.0**-53)
        self._widths = self._widths * width
        return chosen
