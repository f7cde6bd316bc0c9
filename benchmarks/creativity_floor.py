"""A floor under the nats of each sample of the training set, so that none is learned by heart.

Flooding (Ishida et al. 2020, arXiv 2002.08709), row by row: |nats − floor| + floor, whose gradient turns where a row
has become likelier than the floor says.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

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

    def loss(self, outputs: CausalLMOutputWithPast, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
        """Nats a token, as Trainer's `compute_loss_func`."""
        assert outputs.logits is not None
        return self.total(outputs.logits, labels) / num_items_in_batch


@dataclass(frozen=True)
class FlooredFreshPaths(FreshPaths):
    """Fresh paths over a floor."""

    floor: Floor

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        return self.floor.total(logits, labels)
