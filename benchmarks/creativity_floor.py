"""A floor under the nats of each sample of the training set, so that none is learned by heart.

Flooding (Ishida et al. 2020, arXiv 2002.08709), row by row: |nats − floor| + floor, whose gradient turns where a row
has become likelier than the floor says.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from stochroute.measuring.nats import IGNORED, row_nats
from stochroute.routed import RoutedModel
from stochroute.training import FreshPaths


@dataclass(frozen=True)
class Floor:
    """Where the nats of a row stop falling.

    Attributes:
        nats: of a sample; a uniform draw from all of them has the log of their number.
        length: labels of a sample; rows with fewer, the edges of triangle, are learned to the end.
    """

    nats: float
    length: int

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The nats of a batch, a scalar."""
        nats = row_nats(logits, labels)
        whole = (labels[:, 1:] != IGNORED).sum(1) == self.length
        return ((nats - self.nats).abs() + self.nats).where(whole, nats).sum()


class FlooredTrainer(Trainer):
    """Plain training over a floor; the other arguments are Trainer's."""

    def __init__(self, floor: Floor, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.floor = floor

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        loss = self.floor.total(logits, labels) / (labels[:, 1:] != IGNORED).sum()
        return (loss, logits) if return_outputs else loss


@dataclass(frozen=True)
class FlooredFreshPaths(FreshPaths):
    """Fresh paths over a floor."""

    floor: Floor

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        return self.floor.total(logits, labels)
