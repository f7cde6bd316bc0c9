"""Which path a training example walks: a pure function of (seed, the example's id), so that no shuffling, epoch,
resume, worker or process can part the two.

    key = example_key("story-17")                      # any id becomes one integer
    example_paths(seed=7, keys=[key], draws=1)         # its bound path, the same in every epoch
    example_paths(seed=7, keys=[key], draws=1, step=3)  # a fresh path of step 3
"""

import hashlib
from collections.abc import Sequence

from torch import Tensor

from stochroute.config import Span
from stochroute.measuring.nats import IGNORED
from stochroute.paths import check_seed, derive_grid

EVALUATION = (1 << 32) - 1  # the step whose fresh paths evaluation walks; training never gets there

# sample indices that only seeds of other derivations are taken from, so that bound and fresh paths share no stream
_STEP_SEEDS, _WIDE_SEEDS = (1 << 32) - 1, (1 << 32) - 2


def example_key(example: int | str) -> int:
    """The integer in [0, 2⁶⁴) that stands for an example's id: an integer for itself, a text for 64 bits of its
    BLAKE2b hash.

    Raises:
        ValueError: the id is neither, is empty, or is an integer outside of [0, 2⁶⁴).
    """
    if isinstance(example, str) and example:
        return int.from_bytes(hashlib.blake2b(example.encode(), digest_size=8).digest(), "little")
    if isinstance(example, int) and not isinstance(example, bool) and 0 <= example < 1 << 64:
        return example
    raise ValueError(f"example id {example!r} is neither an integer in [0, 2⁶⁴) nor a text: give every example one")


def example_paths(seed: int, keys: Sequence[int], draws: int, step: int | None = None) -> list[int]:
    """`draws` path ids for each example, those of one example together; len(keys) × draws in all.

    The bound paths (`step` None) of an example with a key below 2³² are `derive_paths(seed, draws, prompt=key)`;
    larger keys use their upper half in the derivation of the seed. A step's fresh paths come from a seed derived for
    that step, so that examples, steps and draws never share a path by addition.

    Args:
        seed: integer in [0, 2⁶⁴).
        keys: from `example_key`; may also be given modulo 2⁶⁴ as signed integers, as an int64 column holds them.
        draws: how many for each example.
        step: None for paths that last through all of training; the number of a training step for fresh ones.

    Raises:
        ValueError: the seed is out of its range.
    """
    seed = check_seed(seed)
    if step is not None:
        seed = derive_grid([seed], [_STEP_SEEDS], [step])[0]
    halves = [divmod(key % (1 << 64), 1 << 32) for key in keys]
    seeds = [seed] * len(halves)
    if any(high for high, _ in halves):
        wide = derive_grid(seeds, [_WIDE_SEEDS], [high for high, _ in halves])
        seeds = [seed if not high else other for (high, _), other in zip(halves, wide, strict=True)]
    return derive_grid(seeds, range(draws), [low for _, low in halves])


def start_positions(labels: Tensor, attention_mask: Tensor, span: Span) -> list[int]:
    """The first position that carries noise, one a row: with span "generated" the one before the first label, whose
    output predicts it; with "all" 0.

    Args:
        labels: int64 (b, s), −100 where nothing is to be predicted; a label in the first column is predicted by
            nothing and does not count.
        attention_mask: int64 (b, s), 0 where there is padding, on either side.
        span: as in RoutingConfig.
    """
    if span == "all":
        return [0] * labels.shape[0]
    first = (labels[:, 1:] != IGNORED).long().argmax(-1)  # the slot before the first label
    positions = (attention_mask.cumsum(-1) - 1).clamp_min(0)
    return [int(p) for p in positions.gather(1, first[:, None]).flatten().tolist()]
