"""What `routed.generate` returns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stochroute.generation.receipts import Receipt


@dataclass(frozen=True, eq=False)
class RoutedOutput:
    """Texts and the paths they were written along; rows of one prompt stand together.

    Attributes:
        sequences: int64 (rows, length), prompt included, padded at the right with the pad token.
        paths: the path id of each row.
        starts: the first position of each row that carried noise.
        receipts: what a replay of each row needs.
        seed: the seed that the paths were derived from, None when the caller named the paths.
        prompt_index: which prompt each row continues.
        prompt_width: columns of `sequences` that the (padded) prompts take.
        scores: for each step, float32 (rows, vocabulary): the logits after all processors and warpers, without token
            routing's noise; NaN where a row's chunk had ended. None unless output_scores was asked for.
        logits: likewise, the raw logits. None unless output_logits was asked for.
    """

    sequences: Tensor
    paths: list[int]
    starts: list[int]
    receipts: list[Receipt]
    seed: int | None
    prompt_index: list[int]
    prompt_width: int
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None

    @property
    def generated(self) -> Tensor:
        """int64 (rows, new tokens): the sequences without their prompts."""
        return self.sequences[:, self.prompt_width :]


def stack_rows(chunks: list[Tensor], pad: int) -> Tensor:
    """(rows, length) of all chunks together, padded at the right to the longest."""
    width = max(chunk.shape[1] for chunk in chunks)
    return torch.cat([torch.nn.functional.pad(chunk, (0, width - chunk.shape[1]), value=pad) for chunk in chunks])


def stack_steps(chunks: list[tuple[Tensor, ...] | None]) -> tuple[Tensor, ...] | None:
    """The steps of all chunks together, with NaN for a chunk that ended earlier; None when there are none."""
    present = [chunk for chunk in chunks if chunk is not None]
    if len(present) != len(chunks):
        return None
    steps = max(len(chunk) for chunk in present)
    return tuple(
        torch.cat([c[i] if i < len(c) else torch.full_like(c[0], torch.nan) for c in present]) for i in range(steps)
    )
