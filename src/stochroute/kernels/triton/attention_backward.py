"""The gradients of attention, scores and noise computed again: one kernel for each query's, one for each key's.

Every sum has a fixed order. What many blocks share (sinks, buckets) is written block by block and summed by torch.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.scores import AttentionGradients, AttentionInputs, like_projection
from stochroute.kernels.triton.arguments import (
    bucket_tensors,
    noise_tensors,
    padded_width,
    strided,
    visibility_tensors,
)
from stochroute.kernels.triton.blocks import case_of, key_gradient_blocks, query_gradient_blocks
from stochroute.kernels.triton.launch import launch
from stochroute.kernels.triton.noise import score_words, unit_variance
from stochroute.kernels.triton.online_softmax import load_sinks
from stochroute.kernels.triton.scores import (
    LOG2_E,
    bucket_values,
    cap_scores,
    distance_bucket,
    load_key_positions,
    load_query_positions,
    load_row_noise,
    load_rows,
    product,
    store_rows,
    unit_noise,
)
from stochroute.kernels.triton.visibility import (
    is_visible,
    key_spans,
    load_key_slots,
    load_span,
    query_spans,
    visible_slots,
)


@triton.jit(do_not_specialize=["queries", "keys"])
def _query_gradients(
    query, key, value, out, grad_out, visibility, noise, buckets, sinks, spans, lse,
    d_query, d_amplitude, delta, d_sinks, d_mean, d_sigma,
    queries, keys, members, scaling, softcap,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BUCKETS: tl.constexpr, DISTRIBUTION: tl.constexpr
):  # fmt: skip
    # the last queries of a causal layer have the most to do and begin
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    line = batch * tl.num_programs(1) + head
    rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = rows < queries
    heads = tl.zeros((BLOCK_Q,), tl.int32) + head
    row_query = load_rows(query, batch, heads, rows, inside, WIDTH, BLOCK_WIDTH)
    row_grad = load_rows(grad_out, batch, heads, rows, inside, VALUE_WIDTH, BLOCK_VALUE)
    row_out = load_rows(out, batch, heads, rows, inside, VALUE_WIDTH, BLOCK_VALUE)
    row_delta = tl.sum(row_grad.to(tl.float32) * row_out.to(tl.float32), 1, keep_dims=True)
    tl.store(delta + line * queries + rows[:, None], row_delta, mask=inside[:, None])
    row_lse = tl.load(lse + line * queries + rows, mask=inside, other=float("inf")) * LOG2_E
    if sinks is not None:
        lost = tl.where(inside, -tl.exp2(load_sinks(sinks, heads, inside) - row_lse), 0.0)
        tl.store(d_sinks + line * tl.num_programs(0) + block, tl.sum(tl.sum(lost[:, None] * row_delta, 1), 0))
    if noise is not None:
        key_0, key_1, amplitude = load_row_noise(noise, batch, heads, rows, inside)
        row_amplitude_grad = tl.zeros((BLOCK_Q,), tl.float32)
    if buckets is not None:
        positions = load_query_positions(buckets, batch, rows, inside)
        numbers = tl.arange(0, BUCKETS)
        row_mean_grad = tl.zeros((BLOCK_Q, BUCKETS), tl.float32)
        row_sigma_grad = tl.zeros((BLOCK_Q, BUCKETS), tl.float32)
    first, last = visible_slots(visibility, batch, rows, inside)
    begin, end = load_span(spans, block)
    row_query_grad = tl.zeros((BLOCK_Q, BLOCK_WIDTH), tl.float32)
    for start in range(begin // BLOCK_K * BLOCK_K, end, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        present = columns < keys
        tile = load_rows(key, batch, head // members, columns, present, WIDTH, BLOCK_WIDTH)
        scores, slope = cap_scores(product(row_query, tl.trans(tile)), scaling, softcap)
        if noise is not None:
            key_positions = load_key_positions(noise, batch, columns, present)[None, :]
            drawn = unit_variance(score_words(key_0[:, None], key_1[:, None], key_positions), DISTRIBUTION)
            unit = drawn
            if buckets is not None:
                bucket = distance_bucket(buckets, positions[:, None], key_positions)
                sigma = bucket_values(buckets.sigma, heads[:, None], bucket)
                unit = bucket_values(buckets.mean, heads[:, None], bucket) + sigma * drawn
            scores += (amplitude * LOG2_E)[:, None] * unit
        slots = load_key_slots(visibility, batch, columns, present)
        seen = is_visible(
            visibility, batch, first[:, None], last[:, None], slots[None, :], rows[:, None], columns[None, :]
        )
        weights = tl.exp2(tl.where(seen, scores, float("-inf")) - row_lse[:, None])
        values = load_rows(value, batch, head // members, columns, present, VALUE_WIDTH, BLOCK_VALUE)
        score_grad = weights * (product(row_grad, tl.trans(values)) - row_delta)
        if noise is not None:
            row_amplitude_grad += tl.sum(score_grad * unit, 1)  # pyright: ignore[reportOperatorIssue]
        if buckets is not None:
            scaled = score_grad * amplitude[:, None]
            # far from the diagonal a tile lies within one or two buckets
            lowest, highest = tl.min(tl.min(bucket, 1), 0), tl.max(tl.max(bucket, 1), 0)
            for number in range(lowest, highest + 1):  # pyright: ignore[reportArgumentType, reportOperatorIssue]
                of_bucket = tl.where(bucket == number, scaled, 0.0)
                place = numbers[None, :] == number
                row_mean_grad += tl.where(place, tl.sum(of_bucket, 1, keep_dims=True), 0.0)
                row_sigma_grad += tl.where(place, tl.sum(of_bucket * drawn, 1, keep_dims=True), 0.0)
        row_query_grad = product((score_grad * slope).to(tile.dtype), tile, row_query_grad)
    store_rows(d_query, batch, heads, rows, inside, row_query_grad * scaling, WIDTH, BLOCK_WIDTH)
    if noise is not None:
        amplitude_strides = d_amplitude.strides
        at = d_amplitude.start + batch * amplitude_strides[0] + head * amplitude_strides[1]
        at += rows * amplitude_strides[2]
        tl.store(at, row_amplitude_grad.to(d_amplitude.start.dtype.element_ty), mask=inside)
    if buckets is not None:
        at = (line * tl.num_programs(0) + block) * buckets.count + numbers
        tl.store(d_mean + at, tl.sum(row_mean_grad, 0), mask=numbers < buckets.count)
        tl.store(d_sigma + at, tl.sum(row_sigma_grad, 0), mask=numbers < buckets.count)


@triton.jit(do_not_specialize=["queries", "keys"])
def _key_gradients(
    query, key, value, grad_out, visibility, noise, buckets, spans, lse, delta, d_key, d_value,
    queries, keys, members, scaling, softcap,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DISTRIBUTION: tl.constexpr
):  # fmt: skip
    """Tiles stand on their side here, (keys, queries), so that their products need no turning."""
    group, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    present = columns < keys
    column_key = load_rows(key, batch, group, columns, present, WIDTH, BLOCK_WIDTH)
    column_value = load_rows(value, batch, group, columns, present, VALUE_WIDTH, BLOCK_VALUE)
    slots = load_key_slots(visibility, batch, columns, present)
    if noise is not None:
        key_positions = load_key_positions(noise, batch, columns, present)[:, None]
    begin, end = load_span(spans, tl.program_id(0))
    column_key_grad = tl.zeros((BLOCK_K, BLOCK_WIDTH), tl.float32)
    column_value_grad = tl.zeros((BLOCK_K, BLOCK_VALUE), tl.float32)
    for member in range(members):
        head = group * members + member
        line = (batch * tl.num_programs(1) * members + head) * queries
        for start in range(begin // BLOCK_Q * BLOCK_Q, end, BLOCK_Q):
            rows = start + tl.arange(0, BLOCK_Q)
            inside = rows < queries
            tile = load_rows(query, batch, head, rows, inside, WIDTH, BLOCK_WIDTH)
            scores, slope = cap_scores(product(column_key, tl.trans(tile)), scaling, softcap)
            if noise is not None:
                key_0, key_1, amplitude = load_row_noise(noise, batch, head, rows, inside)
                query_positions = rows
                if buckets is not None:
                    query_positions = load_query_positions(buckets, batch, rows, inside)
                unit = unit_noise(
                    key_0[None, :], key_1[None, :], key_positions,
                    query_positions[None, :], head, buckets, DISTRIBUTION
                )  # fmt: skip
                scores += (amplitude * LOG2_E)[None, :] * unit
            first, last = visible_slots(visibility, batch, rows, inside)
            seen = is_visible(
                visibility, batch, first[None, :], last[None, :], slots[:, None], rows[None, :], columns[:, None]
            )
            row_lse = tl.load(lse + line + rows, mask=inside, other=float("inf")) * LOG2_E
            weights = tl.exp2(tl.where(seen, scores, float("-inf")) - row_lse[None, :])
            grad = load_rows(grad_out, batch, head, rows, inside, VALUE_WIDTH, BLOCK_VALUE)
            column_value_grad = product(weights.to(grad.dtype), grad, column_value_grad)
            row_delta = tl.load(delta + line + rows, mask=inside, other=0.0)
            score_grad = weights * (product(column_value, tl.trans(grad)) - row_delta[None, :])
            column_key_grad = product((score_grad * slope).to(tile.dtype), tile, column_key_grad)
    store_rows(d_key, batch, group, columns, present, column_key_grad * scaling, WIDTH, BLOCK_WIDTH)
    store_rows(d_value, batch, group, columns, present, column_value_grad, VALUE_WIDTH, BLOCK_VALUE)


class _Shared(NamedTuple):
    """What both kernels take, under the names of their parameters."""

    scaling: float
    softcap: float | None
    WIDTH: int
    VALUE_WIDTH: int
    BLOCK_WIDTH: int
    BLOCK_VALUE: int
    DISTRIBUTION: str


def backward(inputs: AttentionInputs, out: Tensor, lse: Tensor, grad_out: Tensor) -> AttentionGradients:
    """The gradients of all that `inputs` holds, from `forward`'s or `decode`'s results and the output's gradient."""
    batch, heads, queries, width = inputs.query.shape
    groups, keys, value_width = inputs.key.shape[1], inputs.key.shape[2], inputs.value.shape[3]
    noise, sinks = inputs.noise, inputs.sinks
    buckets = None if noise is None else noise.buckets
    block_width, block_value = padded_width(width), padded_width(value_width)
    case = case_of(inputs, max(block_width, block_value))
    query_blocks, key_blocks = query_gradient_blocks(case), key_gradient_blocks(case)
    grid = (triton.cdiv(queries, query_blocks.queries), heads, batch)
    shared = _Shared(
        scaling=inputs.scaling,
        softcap=inputs.softcap,
        WIDTH=width,
        VALUE_WIDTH=value_width,
        BLOCK_WIDTH=block_width,
        BLOCK_VALUE=block_value,
        DISTRIBUTION="normal" if noise is None else noise.distribution,
    )._asdict()
    visibility = visibility_tensors(inputs.visibility)
    noise_given, buckets_given = noise_tensors(noise), bucket_tensors(noise)

    def partial(*shape: int) -> Tensor:
        return torch.empty(batch, heads, *shape, dtype=torch.float32, device=out.device)

    d_query, d_key, d_value = (like_projection(t) for t in (inputs.query, inputs.key, inputs.value))
    d_amplitude = None if noise is None else torch.empty_like(noise.amplitude)
    delta = partial(queries)
    d_sinks = None if sinks is None else partial(grid[0])
    d_mean, d_sigma = (None if buckets is None else partial(grid[0], buckets.mean.shape[1]) for _ in range(2))
    launch(
        _query_gradients, grid,
        strided(inputs.query), strided(inputs.key), strided(inputs.value), strided(out), strided(grad_out),
        visibility, noise_given, buckets_given, None if sinks is None else strided(sinks),
        key_spans(inputs.visibility, query_blocks.queries), lse, strided(d_query),
        None if d_amplitude is None else strided(d_amplitude), delta, d_sinks, d_mean, d_sigma,
        queries, keys, heads // groups, BLOCK_Q=query_blocks.queries, BLOCK_K=query_blocks.keys,
        BUCKETS=1 if buckets is None else triton.next_power_of_2(buckets.mean.shape[1]),
        **shared, **query_blocks.options()
    )  # fmt: skip
    launch(
        _key_gradients, (triton.cdiv(keys, key_blocks.keys), groups, batch),
        strided(inputs.query), strided(inputs.key), strided(inputs.value), strided(grad_out),
        visibility, noise_given, buckets_given, query_spans(inputs.visibility, key_blocks.keys), lse, delta,
        strided(d_key), strided(d_value), queries, keys, heads // groups,
        BLOCK_Q=key_blocks.queries, BLOCK_K=key_blocks.keys, **shared, **key_blocks.options()
    )  # fmt: skip
    return AttentionGradients(
        query=d_query,
        key=d_key,
        value=d_value,
        sinks=_summed(d_sinks, (0, 2), sinks),
        amplitude=d_amplitude,
        mean=_summed(d_mean, (0, 2), None if buckets is None else buckets.mean),
        sigma=_summed(d_sigma, (0, 2), None if buckets is None else buckets.sigma),
    )


def _summed(partial: Tensor | None, axes: tuple[int, ...], like: Tensor | None) -> Tensor | None:
    if partial is None or like is None:
        return None
    return partial.sum(axes).to(like.dtype)
