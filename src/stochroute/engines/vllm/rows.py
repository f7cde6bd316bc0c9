"""Where every token of one step stands on its path, in memory that stays where it is.

vLLM lays the tokens of all scheduled requests end to end, and compiled graphs read the same addresses at every
step. So the places are written into buffers before each forward pass. They are gathered from a small table of one row a
request, in which row 0 is the clean one: it stands for every plain request.
"""

import torch
from torch import Tensor

from stochroute.engines.vllm.requests import Walk
from stochroute.routing import walk as walking
from stochroute.routing.structural import Places, StructuralNoise


class StepPlaces:
    """The places of the tokens of a step; a token is a batch row of one position.

    Attributes:
        places: int64 keys (tokens, 2), int64 blocks (tokens, 1), float32 factor (tokens, 1) and, for the latent form,
            float32 z (tokens, 1, rank).
    """

    def __init__(self, noise: StructuralNoise, tokens: int, device: torch.device):
        self._noise = noise
        self._device = device
        self._noised = 0  # tokens that may carry noise since the last fill
        # as long as the same requests compute as many tokens, the walk of their tokens stays
        self._requests: tuple[list[Walk | None], list[int]] = [], []
        self._walk: walking.Walk
        rank = noise.config.rank
        self.places = Places(
            keys=torch.zeros(tokens, 2, dtype=torch.int64, device=device),
            blocks=torch.zeros(tokens, 1, dtype=torch.int64, device=device),
            factor=torch.zeros(tokens, 1, device=device),
            z=None if rank is None else torch.zeros(tokens, 1, rank, device=device),
        )

    def fill(self, walks: list[Walk | None], counts: list[int], positions: Tensor) -> None:
        """Writes the places of a step.

        Args:
            walks: one a request, in the order of the batch; None for a plain one.
            counts: how many tokens of each request are computed.
            positions: int64 (tokens or more,), the position of each token in its sequence.
        """
        if not any(walks):
            self._clear(0)
            return
        if (walks, counts) != self._requests:
            self._requests, self._walk = (walks, counts), self._walk_of_tokens(walks, counts)
            self.places.keys[: len(self._walk.keys)] = self._walk.keys
        tokens = len(self._walk.keys)
        passage = walking.Passage(self._walk, positions[:tokens, None].long())
        found = self._noise.places(passage)
        self.places.blocks[:tokens] = found.blocks
        self.places.factor[:tokens] = found.factor
        if self.places.z is not None and found.z is not None:
            self.places.z[:tokens] = found.z
        self._clear(tokens)

    def _walk_of_tokens(self, walks: list[Walk | None], counts: list[int]) -> walking.Walk:
        walked = [walk for walk in walks if walk is not None]
        row, rows = 0, []
        for walk in walks:
            row += walk is not None
            rows.append(row if walk is not None else 0)
        of_token = torch.tensor(rows).repeat_interleave(torch.tensor(counts)).to(self._device)
        paths: list[int | None] = [None, *(walk.path for walk in walked)]
        return walking.Walk.along(paths, [0, *(walk.start for walk in walked)], self._device).of_rows(of_token)

    def _clear(self, tokens: int) -> None:
        """Makes everything beyond the first `tokens` tokens clean."""
        if self._noised > tokens:
            self.places.factor[tokens : self._noised] = 0
        self._noised = tokens
