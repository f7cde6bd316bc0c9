"""How likely given continuations are along given paths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stochroute.routed import RoutedModel


@dataclass(frozen=True)
class Continuation:
    """A continuation to be scored along one path.

    Attributes:
        context: token ids before it, at least one.
        tokens: its own token ids, at least one.
        path: a path id; None for the original model.
    """

    context: tuple[int, ...]
    tokens: tuple[int, ...]
    path: int | None

    @property
    def inputs(self) -> tuple[int, ...]:
        """The token ids that the model reads: all but the last."""
        return (*self.context, *self.tokens[:-1])


class _Pass(NamedTuple):
    """What one row of a forward pass reads."""

    inputs: tuple[int, ...]
    path: int | None
    start: int


@torch.no_grad()
def log_probabilities(
    routed: RoutedModel, rows: Sequence[Continuation], rows_at_once: int
) -> Iterator[tuple[int, Tensor]]:
    """For each row its index and the log-probabilities of all next tokens where its own tokens are predicted:
    (tokens, v) in nats, float64 for a float64 model and else float32. In no particular order.

    Noise begins where `generate` lets it: at the last token of the context with span "generated", at the first with
    "all". Rows that read the same tokens from the same start along the same path are computed once.

    Args:
        routed: the model with its routing.
        rows: what to score.
        rows_at_once: rows to compute together, at most.
    """
    generated = routed.config.span == "generated"
    indices: dict[_Pass, list[int]] = {}
    for index, row in enumerate(rows):
        start = len(row.context) - 1 if generated and row.path is not None else 0
        indices.setdefault(_Pass(row.inputs, row.path, start), []).append(index)
    # rows of one length stand together; clean ones apart, so that the original model computes them
    clean = sorted((one for one in indices if one.path is None), key=lambda one: -len(one.inputs))
    along = sorted((one for one in indices if one.path is not None), key=lambda one: -len(one.inputs))
    for group in (clean, along):
        for first in range(0, len(group), rows_at_once):
            chunk = group[first : first + rows_at_once]
            for one, logits in zip(chunk, _forward(routed, chunk), strict=True):
                for index in indices[one]:
                    # (tokens, v): the positions whose output predicts the continuation
                    own = logits[len(one.inputs) - len(rows[index].tokens) : len(one.inputs)]
                    yield index, own.log_softmax(-1, dtype=torch.promote_types(own.dtype, torch.float32))


def _forward(routed: RoutedModel, chunk: list[_Pass]) -> Tensor:
    """Logits (rows, longest, v), of rows padded at the right."""
    device, width = routed.model.device, max(len(one.inputs) for one in chunk)
    padding = [width - len(one.inputs) for one in chunk]
    arguments: dict[str, Any] = {
        "input_ids": torch.tensor(
            [[*one.inputs, *[0] * n] for one, n in zip(chunk, padding, strict=True)], device=device
        ),
        "attention_mask": torch.tensor([[1] * (width - n) + [0] * n for n in padding], device=device),
        "use_cache": False,
    }
    if chunk[0].path is None:
        with routed.suspended():
            return routed.model(**arguments).logits
    with routed.follow([one.path for one in chunk], [one.start for one in chunk]):
        return routed.model(**arguments).logits
