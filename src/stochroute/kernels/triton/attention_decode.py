"""Attention of few queries over many keys, split over the keys (Dao et al., Flash-Decoding, 2023).

The query heads of one key head stand in one block, so that keys and values are read once; how the keys are split
depends on their number alone, so that a row has the same bits in every batch of that length.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.scores import AttentionInputs, empty_output
from stochroute.kernels.triton.arguments import (
    bucket_tensors,
    noise_tensors,
    padded_width,
    strided,
    visibility_tensors,
)
from stochroute.kernels.triton.blocks import INTERPRETED, case_of, decode_blocks
from stochroute.kernels.triton.launch import launch
from stochroute.kernels.triton.online_softmax import attend, close_softmax
from stochroute.kernels.triton.scores import store_rows
from stochroute.kernels.triton.visibility import chunk_size, key_span, visible_slots

DECODE_QUERIES = 16  # up to as many queries this kernel is the one to call

_SPLIT_KEYS = 16 if INTERPRETED else 128  # the least that a split handles
_MOST_SPLITS = 64


@triton.jit(do_not_specialize=["queries", "keys", "split_keys"])
def _decode_split(
    query, key, value, visibility, noise, buckets, partial_top, partial_total, partial_out,
    queries, keys, members, split_keys, splits, scaling, softcap,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_K: tl.constexpr, CHUNK: tl.constexpr, DISTRIBUTION: tl.constexpr
):  # fmt: skip
    split, group, batch = tl.program_id(0) % splits, tl.program_id(1), tl.program_id(2).to(tl.int64)
    pairs = (tl.program_id(0) // splits) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = pairs < members * queries
    pairs = tl.where(inside, pairs, 0)
    heads, rows = group * members + pairs // queries, pairs % queries
    first, last = visible_slots(visibility, batch, rows, inside)
    start = split * split_keys
    stop = tl.minimum(start + split_keys, keys)
    begin, end = key_span(visibility, batch, first, last, rows, start, stop, CHUNK)
    top, total, gathered = attend(
        query, key, value, visibility, noise, buckets,
        batch, heads, group, rows, inside, first, last, begin, end, keys, scaling, softcap,
        WIDTH, VALUE_WIDTH, BLOCK_WIDTH, BLOCK_VALUE, BLOCK_K, DISTRIBUTION
    )  # fmt: skip
    row = (batch * tl.num_programs(1) * members + heads) * queries + rows
    tl.store(partial_top + row * splits + split, top, mask=inside)
    tl.store(partial_total + row * splits + split, total, mask=inside)
    columns = tl.arange(0, BLOCK_VALUE)
    at = partial_out + (row * splits + split)[:, None] * VALUE_WIDTH + columns[None, :]
    tl.store(at, gathered, mask=inside[:, None] & (columns < VALUE_WIDTH)[None, :])


@triton.jit(do_not_specialize=["queries"])
def _decode_combine(
    partial_top, partial_total, partial_out, sinks, out, lse, queries, splits,
    VALUE_WIDTH: tl.constexpr, BLOCK_VALUE: tl.constexpr, SPLITS: tl.constexpr
):  # fmt: skip
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = (batch * tl.num_programs(1) + head) * queries + tl.program_id(0)
    split, columns = tl.arange(0, SPLITS), tl.arange(0, BLOCK_VALUE)
    present = split < splits
    tops = tl.load(partial_top + row * splits + split, mask=present, other=float("-inf"))
    totals = tl.load(partial_total + row * splits + split, mask=present, other=0.0)
    at = partial_out + (row * splits + split)[:, None] * VALUE_WIDTH + columns[None, :]
    outs = tl.load(at, mask=present[:, None] & (columns < VALUE_WIDTH)[None, :], other=0.0)
    top = tl.max(tops, 0)
    shrink = tl.exp2(tops - top)
    # one row, as a block of rows has it
    one = tl.zeros((1,), tl.int32)
    heads, inside = one + head, one == 0
    result, row_lse = close_softmax(
        top + one,
        tl.sum(totals * shrink, 0) + one,
        tl.sum(outs * shrink[:, None], 0, keep_dims=True),
        sinks,
        heads,
        inside,
    )
    store_rows(out, batch, heads, one + tl.program_id(0), inside, result, VALUE_WIDTH, BLOCK_VALUE)
    tl.store(lse + row + one, row_lse)


def decode(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """The same as `stochroute.kernels.triton.attention_forward.forward`, faster for few queries."""
    batch, heads, queries, width = inputs.query.shape
    groups, keys, value_width = inputs.key.shape[1], inputs.key.shape[2], inputs.value.shape[3]
    members = heads // groups
    block_width, block_value = padded_width(width), padded_width(value_width)
    blocks = decode_blocks(case_of(inputs, max(block_width, block_value)), members * queries)
    split_keys = max(_SPLIT_KEYS, triton.next_power_of_2(triton.cdiv(keys, _MOST_SPLITS)))
    splits = max(1, triton.cdiv(keys, split_keys))
    out = empty_output(inputs.query, inputs.value)

    def partial(*width: int) -> Tensor:
        return torch.empty(batch, heads, queries, splits, *width, dtype=torch.float32, device=out.device)

    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=out.device)
    partials = partial(), partial(), partial(value_width)
    launch(
        _decode_split, (splits * triton.cdiv(members * queries, blocks.queries), groups, batch),
        strided(inputs.query), strided(inputs.key), strided(inputs.value), visibility_tensors(inputs.visibility),
        noise_tensors(inputs.noise), bucket_tensors(inputs.noise), *partials,
        queries, keys, members, split_keys, splits, inputs.scaling, inputs.softcap,
        WIDTH=width, VALUE_WIDTH=value_width, BLOCK_WIDTH=block_width, BLOCK_VALUE=block_value,
        BLOCK_ROWS=blocks.queries, BLOCK_K=blocks.keys, CHUNK=min(split_keys, chunk_size(inputs.visibility)),
        DISTRIBUTION="normal" if inputs.noise is None else inputs.noise.distribution, **blocks.options()
    )  # fmt: skip
    launch(
        _decode_combine, (queries, heads, batch),
        *partials, None if inputs.sinks is None else strided(inputs.sinks), strided(out), lse, queries, splits,
        VALUE_WIDTH=value_width, BLOCK_VALUE=block_value, SPLITS=triton.next_power_of_2(splits)
    )  # fmt: skip
    return out, lse
