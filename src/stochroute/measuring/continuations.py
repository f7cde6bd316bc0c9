"""How likely given continuations are along given paths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    same: dict[tuple[tuple[int, ...], int | None, int], list[int]] = {}
    for index, row in enumerate(rows):
        start = len(row.context) - 1 if generated else 0
        same.setdefault((row.inputs, row.path, start if row.path is not None else 0), []).append(index)
    # rows of one length stand together; clean ones apart, so that they are the original model's to the bit
    distinct = sorted(same, key=lambda key: (key[1] is not None, -len(key[0])))
    clean = [key for key in distinct if key[1] is None]
    for group in (clean, distinct[len(clean) :]):
        for first in range(0, len(group), rows_at_once):
            chunk = group[first : first + rows_at_once]
            logits = _forward(routed, chunk)
            for key, row_logits in zip(chunk, logits, strict=True):
                for index in same[key]:
                    # (tokens, v): the positions whose output predicts the continuation
                    last = len(key[0])
                    own = row_logits[last - len(rows[index].tokens) : last]
                    yield index, own.log_softmax(-1, dtype=torch.promote_types(own.dtype, torch.float32))


def _forward(routed: RoutedModel, chunk: list[tuple[tuple[int, ...], int | None, int]]) -> Tensor:
    """Logits (rows, longest, v) of rows padded at the right."""
    device, width = routed.model.device, max(len(inputs) for inputs, _, _ in chunk)
    ids = torch.tensor([[*inputs, *[0] * (width - len(inputs))] for inputs, _, _ in chunk], device=device)
    mask = torch.tensor([[1] * len(inputs) + [0] * (width - len(inputs)) for inputs, _, _ in chunk], device=device)
    if chunk[0][1] is None:
        with routed.suspended():
            return routed.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    with routed.follow([path for _, path, _ in chunk], [start for _, _, start in chunk]):
        return routed.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
