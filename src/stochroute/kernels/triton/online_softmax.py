"""Attention of one block of rows over a range of keys, with the softmax taken as the keys come by (Milakov and
Gimelshein, 2018; Dao et al., FlashAttention, 2022), and noise drawn where it is added."""

import triton
import triton.language as tl

from stochroute.kernels.triton.scores import (
    LN_2,
    LOG2_E,
    cap_scores,
    load_key_positions,
    load_query_positions,
    load_row_noise,
    load_rows,
    product,
    unit_noise,
)
from stochroute.kernels.triton.visibility import is_visible, load_key_slots

# stands for the maximum of no scores: finite, so that no difference of infinities arises
_LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def attend(
    query, key, value, visibility, noise, buckets,
    batch, heads, group, queries, inside, first, last, begin, end, keys, scaling, softcap,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_K: tl.constexpr, DISTRIBUTION: tl.constexpr
):  # fmt: skip
    """What rows of (head, query) that share the key head `group` gather from the keys in [begin, end).

    Returns the maximum of each row's scores and the sum of their powers of two below it, float32 (rows,), and the
    sum of values under these weights, float32 (rows, BLOCK_VALUE).
    """
    rows = load_rows(query, batch, heads, queries, inside, WIDTH, BLOCK_WIDTH)
    query_positions = queries
    if noise is not None:
        key_0, key_1, amplitude = load_row_noise(noise, batch, heads, queries, inside)
        amplitude *= LOG2_E
    if buckets is not None:
        query_positions = load_query_positions(buckets, batch, queries, inside)
    top = tl.full(queries.shape, _LOWEST, tl.float32)
    total = tl.zeros(queries.shape, tl.float32)
    gathered = tl.zeros((queries.shape[0], BLOCK_VALUE), tl.float32)
    for start in range(begin // BLOCK_K * BLOCK_K, end, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        present = columns < keys
        tile = load_rows(key, batch, group, columns, present, WIDTH, BLOCK_WIDTH)
        scores, _ = cap_scores(product(rows, tl.trans(tile)), scaling, softcap)
        if noise is not None:
            positions = load_key_positions(noise, batch, columns, present)
            unit = unit_noise(
                key_0[:, None], key_1[:, None], positions[None, :],
                query_positions[:, None], heads[:, None], buckets, DISTRIBUTION
            )  # fmt: skip
            scores += amplitude[:, None] * unit
        slots = load_key_slots(visibility, batch, columns, present)
        seen = is_visible(
            visibility, batch, first[:, None], last[:, None], slots[None, :], queries[:, None], columns[None, :]
        )
        scores = tl.where(seen, scores, float("-inf"))
        raised = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - raised[:, None])
        shrink = tl.exp2(top - raised)
        total = total * shrink + tl.sum(weights, 1)
        tile = load_rows(value, batch, group, columns, present, VALUE_WIDTH, BLOCK_VALUE)
        gathered = product(weights.to(tile.dtype), tile, gathered * shrink[:, None])
        top = raised
    return top, total, gathered


@triton.jit
def load_sinks(sinks, heads, inside):
    """float32 (rows,), in units of log 2."""
    return tl.load(sinks.start + heads * sinks.strides[0], mask=inside, other=0.0).to(tl.float32) * LOG2_E


@triton.jit
def close_softmax(top, total, gathered, sinks, heads, inside):
    """Divides by the sum, the sink's share included: the rows' outputs and their log-sum-exp in nats.

    A row that saw no key gives zeros; without a sink its log-sum-exp is +inf, so that every exp(score − it) is 0.
    """
    if sinks is not None:
        sink = load_sinks(sinks, heads, inside)
        raised = tl.maximum(top, sink)
        shrink = tl.exp2(top - raised)
        total = total * shrink + tl.exp2(sink - raised)
        gathered = gathered * shrink[:, None]
        top = raised
    divisor = tl.where(total == 0, 1.0, total)
    lse = tl.where(total == 0, float("inf"), (top + tl.log2(divisor)) * LN_2)
    return gathered / divisor[:, None], lse
