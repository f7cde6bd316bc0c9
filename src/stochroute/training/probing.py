"""What is measured while a model trains: whether its paths still reach the output, and what became of σ."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stochroute.config import Span
from stochroute.measuring.nats import IGNORED, divergence, target_log_probabilities, transmission
from stochroute.routed import RoutedModel
from stochroute.training.binding import EVALUATION, example_paths, start_positions
from stochroute.training.walked import whole


class Probe:
    """A fixed batch with K fresh paths an example, the same ones at every measurement."""

    def __init__(self, batch: Mapping[str, Tensor], paths: int, seed: int, span: Span):
        self._batch = batch
        keys = [int(key) for key in batch["example"].tolist()]
        self._paths = example_paths(seed, keys, paths, EVALUATION)
        self._starts = start_positions(batch["labels"], batch["attention_mask"], span)
        self._draws = paths

    @torch.no_grad()
    def measure(self, model: nn.Module, routed: RoutedModel, device: torch.device) -> dict[str, float]:
        """Means over the positions that predict a label, in nats:

            transmission: I(next token; path) over K paths, see `measures.transmission`;
            kl_routed_clean: mean_k KL(p_k ‖ p_clean).

        Args:
            model: called with input_ids and attention_mask, gives logits; put into eval mode meanwhile.
            routed: its routing.
            device: where the model is.
        """
        was_training = model.training
        model.eval()
        sums, targets = torch.zeros(2, dtype=torch.float64), 0
        try:
            for example in range(len(self._starts)):  # one at a time: K + 1 rows of logits are all that is kept
                labels = self._batch["labels"][example : example + 1].to(device)
                inputs = {
                    name: self._batch[name][example : example + 1].repeat(self._draws + 1, 1).to(device)
                    for name in ("input_ids", "attention_mask")
                }
                first = example * self._draws
                with routed.follow([*self._paths[first : first + self._draws], None], self._starts[example]):
                    log_p = target_log_probabilities(model(**inputs), labels, self._draws + 1)
                along, clean = log_p[:-1], log_p[-1]
                sums[0] += transmission(along).sum().item()
                sums[1] += divergence(along, clean).mean(0).sum().item()
                targets += int((labels[:, 1:] != IGNORED).sum())
        finally:
            model.train(was_training)
        return {"transmission": sums[0].item() / targets, "kl_routed_clean": sums[1].item() / targets}


@torch.no_grad()
def mean_deviations(routed: RoutedModel) -> dict[str, float]:
    """The mean |σ| of each noised layer by "sigma/KIND.LAYER", over its strength: 1 where training begins.

    In the latent form σ of a channel is the length of its row of U, z being of unit variance; there the root mean
    square over the channels is given, which begins at 1.
    """
    found: dict[str, float] = {}
    for kind, noise in (
        ("structural", routed.structural),
        ("attention", routed.attention),
        ("experts", routed.experts),
    ):
        if noise is None:
            continue
        basis: Tensor | None = getattr(noise, "basis", None)
        if basis is None:
            layers = whole(noise.sigma).abs().flatten(1).mean(1)
        else:
            layers = whole(basis).square().sum(-1).mean(-1).sqrt()
        found |= {f"sigma/{kind}.{layer}": value for layer, value in zip(noise.layers, layers.tolist(), strict=True)}
    return found
