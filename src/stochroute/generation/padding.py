"""Prompts of different lengths as one batch."""

from collections.abc import Sequence
from typing import Any

import torch


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device | str | None = None) -> dict[str, Any]:
    """The arguments input_ids and attention_mask of a forward pass or of `generate`: int64 (rows, longest) each.

    Args:
        rows: token ids of each prompt, at least one prompt.
        pad: stands before the shorter ones.
        device: of the tensors.
    """
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in rows], device=device),
        "attention_mask": torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows], device=device),
    }
