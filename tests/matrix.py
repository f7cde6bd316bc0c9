"""Which routings the matrix runs on which family, and the comparisons that every test of it makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import stochroute as sr
from families import EXPERT_FAMILIES, FAMILIES, VOCABULARY, positions_of

HOLDS = (1, 3, "sequence")
FORMS = ("shared", "independent", "latent")
PATHS = [0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x00C0FFEE00C0FFEE]


def structural(form: Any = "shared", hold: Any = 1, strength: float = 0.4, **settings) -> sr.Structural:
    """Structural noise in all layers, of a low rank where it is latent."""
    rank = 4 if form == "latent" else None
    return sr.Structural(form=form, layers="all", strength=strength, hold=hold, rank=rank, **settings)


def kinds_of(family: str, strength: float = 1.0) -> dict[str, sr.RoutingConfig]:
    """Every kind of routing that the family can have, by name; `strength` multiplies all their strengths."""
    only = {"structural": None, "span": "all"}
    kinds = {}
    for hold in HOLDS:
        for form in FORMS:
            part = structural(form, hold, 0.4 * strength)
            kinds[f"{form}-{hold}"] = sr.RoutingConfig(**{**only, "structural": part})
        kinds[f"attention-{hold}"] = sr.RoutingConfig(**only, attention=sr.Attention(strength=strength, hold=hold))
        if family in EXPERT_FAMILIES:
            kinds[f"experts-{hold}"] = sr.RoutingConfig(**only, experts=sr.Experts(strength=strength, hold=hold))
    spread = structural("latent", 3, 0.4 * strength, spread=True)
    kinds["spread-3"] = sr.RoutingConfig(**{**only, "structural": spread})
    fading = sr.config.Schedule("cosine", 9)
    kinds["mixed"] = sr.RoutingConfig(
        structural=structural("shared", 3, 0.4 * strength, schedule=fading),
        attention=sr.Attention(strength=strength, hold=1, schedule=sr.config.Schedule("linear", 20)),
        experts=sr.Experts(strength=strength, hold=1) if family in EXPERT_FAMILIES else None,
        span="all",
    )
    return kinds


def covering_set() -> list[tuple[str, str]]:
    """(family, kind) pairs: every kind in llama and gpt_oss; in the other families every form, attention and
    experts once, with holds that rotate from family to family."""
    pairs = []
    for number, family in enumerate(FAMILIES):
        names = list(kinds_of(family))
        if family not in ("llama", "gpt_oss"):
            turning = [f"{form}-{HOLDS[(number + i) % 3]}" for i, form in enumerate(FORMS)]
            turning += [f"attention-{HOLDS[number % 3]}", f"experts-{HOLDS[(number + 1) % 3]}", "mixed"]
            names = [name for name in turning if name in names]
        pairs += [(family, name) for name in names]
    return pairs


every_pair = pytest.mark.parametrize(("family", "kind"), covering_set())
every_family = pytest.mark.parametrize("family", FAMILIES)


_build = cache(lambda family, dtype: FAMILIES[family].build(dtype))


def stock_model(family: str, dtype: torch.dtype = torch.float64) -> Any:
    """The unrouted model, built once a run: leave it as you found it."""
    return _build(family, dtype)


@contextmanager
def routed_model(
    family: str, config: str | sr.RoutingConfig, dtype: torch.dtype = torch.float64, **options
) -> Iterator[Any]:
    """The family's model, routed by a config or by the name of one of its kinds; detached afterwards."""
    if isinstance(config, str):
        config = kinds_of(family)[config]
    routed = sr.route(stock_model(family, dtype), config, **options)
    try:
        yield routed
    finally:
        routed.detach()


def random_ids(rows: int, length: int, seed: int = 3) -> Tensor:
    """int64 (rows, length) of token ids that are neither padding nor the first token."""
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(ids: Tensor, lengths: list[int], width: int, side: str = "left") -> tuple[Tensor, Tensor]:
    """Ids and mask, both (rows, width): the first lengths[i] tokens of row i, with padding on one side."""
    batch, mask = torch.zeros(len(lengths), width, dtype=torch.int64), torch.zeros(len(lengths), width).long()
    for row, length in enumerate(lengths):
        place = slice(width - length, width) if side == "left" else slice(0, length)
        batch[row, place], mask[row, place] = ids[row, :length], 1
    return batch, mask


def logits_of(model: Any, ids: Tensor, mask: Tensor | None = None, **arguments) -> Tensor:
    """The logits (rows, length, vocabulary) of one forward, with position ids as transformers' generate gives them."""
    if mask is not None:
        arguments |= {"attention_mask": mask, "position_ids": positions_of(mask)[:, -ids.shape[1] :]}
    return model(input_ids=ids, **arguments).logits


def logits_in_chunks(model: Any, cache: Any, ids: Tensor, mask: Tensor, chunks: list[int]) -> Tensor:
    """The logits of all real tokens, computed chunk by chunk with a cache."""
    positions, logits, done = positions_of(mask), [], 0
    for chunk in chunks:
        new = slice(done, done + chunk)
        done += chunk
        arguments = {"attention_mask": mask[:, :done], "position_ids": positions[:, new]}
        step = model(input_ids=ids[:, new], past_key_values=cache, use_cache=True, **arguments)
        logits.append(step.logits)
    return torch.cat(logits, dim=1)[mask.bool()]


def pads_in(family: str, kind: str) -> torch.dtype:
    """float64, or float32 where the stock attention is at work and makes NaN of padding in float64."""
    stock_attention = "attention" not in kind and kind != "mixed"
    return torch.float32 if stock_attention and FAMILIES[family].narrow_softmax else torch.float64


def generates_in(family: str, span: str) -> torch.dtype:
    """Likewise for left-padded prompts, which span "generated" has computed clean, on the stock attention."""
    return torch.float32 if span == "generated" and FAMILIES[family].narrow_softmax else torch.float64


def assert_same(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Equal to 1e-9 of the largest value in float64, to 1e-4 in float32, or to the tolerance given."""
    if tolerance is None:
        tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-4
    worst = (actual - expected).abs().max() / expected.abs().max()
    assert worst <= tolerance, f"they differ by {worst:.1e} of the largest value"


def assert_differ(actual: Tensor, expected: Tensor) -> None:
    """Apart by more than a hundredth of the largest value."""
    worst = (actual - expected).abs().max() / expected.abs().max()
    assert worst > 1e-2, f"they differ by no more than {worst:.1e} of the largest value"


def assert_equal_or_tied(
    tokens: Tensor, expected: Tensor, logits: tuple[Tensor, ...], expected_logits: tuple[Tensor, ...]
) -> None:
    """Every row's tokens are equal, or part at a tie: the two best logits there are closer than twice the measured
    logit difference.

    Args:
        tokens: (rows, steps) generated along some paths; `expected` likewise, computed in another way.
        logits: for each step (rows, vocabulary), the logits that the tokens were chosen from; likewise for expected.
    """
    for row in range(tokens.shape[0]):
        parted = (tokens[row] != expected[row]).nonzero()
        if len(parted):
            step = int(parted[0])
            here, there = logits[step][row], expected_logits[step][row]
            best, second = here.topk(2).values
            rounding = (here - there).abs().max()
            assert best - second <= 2 * rounding, (
                f"row {row} parts at step {step}: margin {best - second:.1e}, measured difference {rounding:.1e}"
            )
