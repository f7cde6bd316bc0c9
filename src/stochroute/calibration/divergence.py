"""What the noise of a routing does to the next token: KL(routed ‖ clean) and transmission at each noised position."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from stochroute.calibration.prompts import Sample
from stochroute.measuring.nats import divergence, entropy
from stochroute.routing.attached import AttachedRouting

# A fixed size, not one by free memory: rounding depends on the batch shape, and a calibration has to repeat itself.
_LOGITS_AT_ONCE = 1 << 23
_ROWS_AT_ONCE = 256
_RESAMPLES = 2000
_Z = 1.96  # standard deviations of a normal distribution in half a 95 % interval
_SMALLEST = 1e-300  # instead of 0 where all pairs are the same


@dataclass(frozen=True)
class Measured:
    """Sums over the noised positions of P prompts and K paths of each.

    Attributes:
        divergence: float64 (P, K), Σ KL(routed ‖ clean) of each pair, in nats.
        transmission: float64 (P,), Σ I(next token; path) over the K paths, in nats, times K/(K − 1).
        positions: int64 (P,), noised positions of a prompt.
    """

    divergence: Tensor
    transmission: Tensor
    positions: Tensor

    def nats(self, quantity: str) -> float:
        """The mean over noised positions, in nats; `quantity` is "divergence" or "transmission"."""
        return (self._of_prompts(quantity).sum() / self.positions.sum()).item()

    def interval(self, quantity: str) -> tuple[float, float]:
        """The 95 % interval of `nats`: percentiles over resampled prompts, each with the paths that are its own."""
        found = bootstrap(
            (self._of_prompts(quantity).numpy(), self.positions.numpy()),
            lambda sums, positions, axis: sums.sum(axis) / positions.sum(axis),
            paired=True,
            vectorized=True,
            n_resamples=_RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        return float(found.low), float(found.high)

    def paths_needed(self, precision: float) -> int:
        """Paths of each prompt for a 95 % interval of ± `precision` × KL, or for paths to leave no more open than
        prompts do, since more of them cannot make up for few prompts.

        With σ_b² and σ_w² the variances of a pair's KL between and within prompts, the mean has the variance
        (σ_b² + σ_w²/K)/P.
        """
        prompts, paths = self.divergence.shape
        nats = self.divergence / self.positions[:, None]
        within = nats.var(1).mean().item()
        between = max(nats.mean(1).var().item() - within / paths, 0.0)
        allowed = prompts * (precision * nats.mean().item() / _Z) ** 2 - between
        return max(2, math.ceil(within / max(allowed, between, _SMALLEST)))

    def _of_prompts(self, quantity: str) -> Tensor:
        return self.divergence.mean(1) if quantity == "divergence" else self.transmission


@torch.no_grad()
def measure(routed: AttachedRouting, sample: Sample) -> Measured:
    """KL(routed ‖ clean) and transmission of the routing as it stands.

    Every prompt is read as it is (teacher forcing), once by the original model and once along each of its paths.
    Transmission from K paths is low by a factor of 1 − 1/K where noise is small, as a variance from K values is; this
    is made good. In training mode dropout would be measured too, so the model is put into evaluation mode meanwhile.

    Raises:
        ValueError: the original model's logits are not finite. What the noise makes of them comes back as it is.
    """
    model = routed.model
    was_training = model.training
    model.eval()
    try:
        found = [_measure_batch(routed, batch) for batch in _batches(sample, model.config.vocab_size)]
    finally:
        model.train(was_training)
    return Measured(*(torch.cat([getattr(part, name) for part in found]) for name in Measured.__dataclass_fields__))


def _batches(sample: Sample, vocabulary: int) -> Iterator[Sample]:
    """Prompts whose rows are computed together, in order."""
    first = 0
    while first < len(sample.rows):
        last = first + 1
        while last < len(sample.rows):
            longest, rows = max(map(len, sample.rows[first : last + 1])), sum(map(len, sample.paths[first : last + 1]))
            if rows > _ROWS_AT_ONCE or rows * longest * vocabulary > _LOGITS_AT_ONCE:
                break
            last += 1
        yield Sample(sample.rows[first:last], sample.starts[first:last], sample.paths[first:last])
        first = last


def _measure_batch(routed: AttachedRouting, batch: Sample) -> Measured:
    """One batch of prompts. The paths of a single prompt are cut into chunks where they are too many."""
    prompts, longest, each = len(batch.rows), max(map(len, batch.rows)), len(batch.paths[0])
    device = next(routed.model.parameters()).device
    # padding at the right: what is real counts its positions from 0 in every architecture
    ids = torch.zeros(prompts, longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(batch.rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    noised = (mask == 1) & (torch.arange(longest) >= torch.tensor(batch.starts)[:, None])  # (p, s)
    positions, owner = noised.sum(1), noised.nonzero()[:, 0]
    ids, mask, noised, owner = (t.to(device) for t in (ids, mask, noised, owner))

    with routed.suspended():
        clean = _log_probabilities(routed, ids, mask, noised)[:, 0]  # (n, v)
    if not bool(clean.isfinite().all()):
        raise ValueError("the model's own logits hold NaN or infinity: check its weights and dtype, or the prompts")

    fitting = max(1, _LOGITS_AT_ONCE // (prompts * longest * clean.shape[-1]))
    sums, mixed, entropies = [], torch.full_like(clean, -math.inf), torch.zeros_like(clean[:, 0])
    for first in range(0, each, fitting):
        chosen = [ids_of[first : first + fitting] for ids_of in batch.paths]
        count = len(chosen[0])
        starts = [start for start in batch.starts for _ in range(count)]
        with routed.follow([path for group in chosen for path in group], starts):
            rows = ids.repeat_interleave(count, 0), mask.repeat_interleave(count, 0)
            log_p = _log_probabilities(routed, *rows, noised)  # (n, count, v)
        nats = divergence(log_p, clean[:, None]).double()
        sums.append(torch.zeros(prompts, count, dtype=nats.dtype, device=device).index_add_(0, owner, nats))
        mixed = mixed.logaddexp(log_p.logsumexp(1))
        entropies += entropy(log_p).sum(1)
    transmitted = (entropy(mixed - math.log(each)) - entropies / each).double() * each / (each - 1)
    transmission = torch.zeros(prompts, dtype=torch.float64, device=device).index_add_(0, owner, transmitted)
    return Measured(torch.cat(sums, 1).cpu(), transmission.cpu(), positions)


def _log_probabilities(routed: AttachedRouting, ids: Tensor, mask: Tensor, noised: Tensor) -> Tensor:
    """At the noised positions: (n, rows a prompt, v), float32 or wider."""
    logits = routed.model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # (p · k, s, v)
    rows = logits.view(noised.shape[0], -1, *logits.shape[1:]).transpose(1, 2)[noised]
    return rows.to(torch.promote_types(rows.dtype, torch.float32)).log_softmax(-1)
