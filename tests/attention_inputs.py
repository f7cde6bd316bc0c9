"""Random inputs of an attention kernel, the formula in plain loops, and the cases that every kernel is held to."""

from dataclasses import replace
from typing import Any

import torch

import stochroute as sr
from matrix import PATHS
from stochroute.kernels import AttentionInputs, DistanceBuckets, ScoreNoise, Visibility
from stochroute.kernels.reference import reference_attention

NO_WINDOW = torch.tensor(2**30)


def attention_inputs(
    queries: int = 9,
    keys: int = 13,
    heads: int = 4,
    groups: int = 2,
    width: int = 8,
    value_width: int | None = None,
    dtype: torch.dtype = torch.float64,
    window: int = 0,
    distribution: str = "normal",
    buckets: int = 0,
    explicit: bool = False,
    noise: bool = True,
    seed: int = 0,
    **changes: Any,
) -> AttentionInputs:
    """Three rows; the last `queries` of the keys belong to the queries, row 1 is left-padded."""
    stream = torch.Generator().manual_seed(seed)
    batch = len(PATHS)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=stream, dtype=torch.float64).to(dtype)

    padding = min(4, keys - 1)
    slots = torch.arange(keys).repeat(batch, 1)
    slots[1, :padding] = -1
    positions = torch.where(slots >= 0, slots - torch.tensor([[0], [padding], [0]]), -1)
    own = torch.arange(keys - queries, keys).repeat(batch, 1)
    query_positions = positions[:, -queries:].clamp_min(0)
    visible = torch.rand(batch, queries, keys, generator=stream) < 0.5 if explicit else None
    wide = torch.promote_types(dtype, torch.float32)
    drawn = None
    if noise:
        rows = sr.noise.attention_row_keys(sr.noise.key_words(PATHS), heads, query_positions, 2)
        ranges = None
        if buckets:
            mean, sigma = draw(heads, buckets).to(wide), draw(heads, buckets).to(wide)
            ranges = DistanceBuckets(mean, sigma, query_positions)
        drawn = ScoreNoise(rows, positions, draw(batch, heads, queries).abs().to(wide), distribution, ranges)
    made = AttentionInputs(
        query=draw(batch, heads, queries, width),
        key=draw(batch, groups, keys, width),
        value=draw(batch, groups, keys, value_width or width),
        visibility=Visibility(slots, own, torch.tensor(window) if window else NO_WINDOW, visible),
        noise=drawn,
        scaling=0.3,
    )
    return replace(made, **changes)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no noise": {"noise": False},
    "window": {"window": 4},
    "explicit": {"explicit": True},
    "softcap": {"softcap": 1.5},
    "softcap far away": {"softcap": 50.0},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 2.0, 30.0])},
    "own scaling": {"scaling": 2.0},
    "uniform": {"distribution": "uniform"},
    "rademacher": {"distribution": "rademacher"},
    "one head a group": {"groups": 4},
    "one group": {"groups": 1},
    "values of another width": {"value_width": 12},
    "two buckets": {"buckets": 2},
    "many buckets": {"buckets": 9},
    "all of them": {
        "window": 7,
        "softcap": 2.0,
        "sinks": torch.tensor([1.0, 0.0, -3.0, 2.0]),
        "buckets": 3,
        "distribution": "uniform",
    },
    "all of them, explicit": {
        "explicit": True,
        "softcap": 2.0,
        "sinks": torch.tensor([1.0, 0.0, -3.0, 2.0]),
        "buckets": 3,
    },
    "large scores": {"scaling": 400.0},
}


def written_out(given: AttentionInputs) -> torch.Tensor:
    """The formula in loops over row, head and query: float64 (b, h, q, d), zeros where no key is visible."""
    query, key, value, noise = given.query.double(), given.key.double(), given.value.double(), given.noise
    visibility, window = given.visibility, int(given.visibility.window)
    out = torch.zeros(*query.shape[:3], value.shape[-1], dtype=torch.float64)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            group = h // (query.shape[1] // key.shape[1])
            for q in range(query.shape[2]):
                slots, own = visibility.key_slots[b], visibility.query_slots[b, q]
                seen = (slots >= 0) & (slots <= own) & (slots > own - window)
                if visibility.explicit is not None:
                    seen = (slots >= 0) & visibility.explicit[b, q]
                if not seen.any():
                    continue
                scores = given.scaling * key[b, group] @ query[b, h, q]
                if given.softcap is not None:
                    scores = given.softcap * torch.tanh(scores / given.softcap)
                if noise is not None:
                    row = noise.row_keys[b : b + 1, h : h + 1, q : q + 1]
                    unit = sr.noise.attention_noise(row, noise.key_positions[b], noise.distribution)[0, 0, 0].double()
                    if noise.buckets is not None:
                        last = noise.buckets.mean.shape[1] - 1
                        own_position = int(noise.buckets.query_positions[b, q])
                        for j, position in enumerate(noise.key_positions[b].tolist()):
                            distance = max(0, own_position - max(0, position))
                            n = min(last, (distance + 1).bit_length() - 1)
                            unit[j] = noise.buckets.mean[h, n] + noise.buckets.sigma[h, n] * unit[j]
                    scores = scores + noise.amplitude[b, h, q] * unit
                scores = scores[seen]
                if given.sinks is not None:
                    scores = torch.cat((scores, given.sinks[h : h + 1].double()))
                weights = torch.softmax(scores, 0)[: int(seen.sum())]
                out[b, h, q] = weights @ value[b, group][seen]
    return out


def with_leaves(given: AttentionInputs, dtype: torch.dtype | None = None) -> tuple[AttentionInputs, list[torch.Tensor]]:
    """The same inputs, converted, with a fresh leaf for everything that has a gradient, and those leaves."""
    leaves: list[torch.Tensor] = []

    def leaf(tensor: torch.Tensor) -> torch.Tensor:
        leaves.append(tensor.detach().to(dtype or tensor.dtype).requires_grad_(True))
        return leaves[-1]

    noise = given.noise
    if noise is not None:
        noise = replace(noise, amplitude=leaf(noise.amplitude))
        if noise.buckets is not None:
            buckets = replace(noise.buckets, mean=leaf(noise.buckets.mean), sigma=leaf(noise.buckets.sigma))
            noise = replace(noise, buckets=buckets)
    sinks = None if given.sinks is None else leaf(given.sinks)
    moved = replace(given, query=leaf(given.query), key=leaf(given.key), value=leaf(given.value))
    return replace(moved, noise=noise, sinks=sinks), leaves


def exact(given: AttentionInputs, grad_out: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The reference's result and gradients in float64."""
    wide, leaves = with_leaves(given, torch.float64)
    out = reference_attention(wide)
    return out.detach(), list(torch.autograd.grad(out, leaves, grad_out.double()))
