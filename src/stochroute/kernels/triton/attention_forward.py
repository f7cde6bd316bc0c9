"""softmax(cap(scaling · QKᵀ) + N/√d_k) V in one pass over the keys that a block of queries sees."""

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
from stochroute.kernels.triton.blocks import case_of, forward_blocks
from stochroute.kernels.triton.launch import launch
from stochroute.kernels.triton.online_softmax import attend, close_softmax
from stochroute.kernels.triton.scores import store_rows
from stochroute.kernels.triton.visibility import key_spans, load_span, visible_slots


@triton.jit(do_not_specialize=["queries", "keys"])
def _forward(
    query, key, value, visibility, noise, buckets, sinks, spans, out, lse,
    queries, keys, members, scaling, softcap,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DISTRIBUTION: tl.constexpr
):  # fmt: skip
    # the last queries of a causal layer have the most to do and begin
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = rows < queries
    heads = tl.zeros((BLOCK_Q,), tl.int32) + head
    first, last = visible_slots(visibility, batch, rows, inside)
    begin, end = load_span(spans, block)
    top, total, gathered = attend(
        query, key, value, visibility, noise, buckets,
        batch, heads, head // members, rows, inside, first, last, begin, end, keys, scaling, softcap,
        WIDTH, VALUE_WIDTH, BLOCK_WIDTH, BLOCK_VALUE, BLOCK_K, DISTRIBUTION
    )  # fmt: skip
    result, row_lse = close_softmax(top, total, gathered, sinks, heads, inside)
    store_rows(out, batch, heads, rows, inside, result, VALUE_WIDTH, BLOCK_VALUE)
    tl.store(lse + (batch * tl.num_programs(1) + head) * queries + rows, row_lse, mask=inside)


def forward(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """The output and what the backward pass needs of the softmax; dropout must be 0.

    Returns:
        out: (b, h, q, d_v) in the value's dtype, laid out (b, q, h, d_v); zeros for a query that sees no key.
        lse: float32 (b, h, q), the natural log-sum-exp of each query's scores and its sink; +inf for a query that
            sees no key and has no sink.
    """
    batch, heads, queries, width = inputs.query.shape
    groups, keys, value_width = inputs.key.shape[1], inputs.key.shape[2], inputs.value.shape[3]
    block_width, block_value = padded_width(width), padded_width(value_width)
    blocks = forward_blocks(case_of(inputs, max(block_width, block_value)))
    out = empty_output(inputs.query, inputs.value)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=out.device)
    launch(
        _forward, (triton.cdiv(queries, blocks.queries), heads, batch),
        strided(inputs.query), strided(inputs.key), strided(inputs.value), visibility_tensors(inputs.visibility),
        noise_tensors(inputs.noise), bucket_tensors(inputs.noise),
        None if inputs.sinks is None else strided(inputs.sinks),
        key_spans(inputs.visibility, blocks.queries), strided(out), lse,
        queries, keys, heads // groups, inputs.scaling, inputs.softcap,
        WIDTH=width, VALUE_WIDTH=value_width, BLOCK_WIDTH=block_width, BLOCK_VALUE=block_value,
        BLOCK_Q=blocks.queries, BLOCK_K=blocks.keys,
        DISTRIBUTION="normal" if inputs.noise is None else inputs.noise.distribution, **blocks.options()
    )  # fmt: skip
    return out, lse
