"""A tile of scores inside a kernel: products of queries and keys, softcap and noise, in units of log 2.

Scores are kept as multiples of log 2, because the hardware has the power of two and not that of e.
"""

import math

import triton
import triton.language as tl

from stochroute.kernels.triton.blocks import INTERPRETED
from stochroute.kernels.triton.noise import score_words, unit_variance

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2.0))
_EXPONENT_BIAS = tl.constexpr(127)

# the interpreter multiplies the bit patterns of bfloat16
_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def product(a, b, onto=None):
    """a @ b (+ onto) in float32, without the tensor cores' shortened float32."""
    if _INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, onto, input_precision="ieee")


@triton.jit
def _places(tensor, batch, head, rows, inside, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Pointers (rows, BLOCK) into a tensor (batch, head, row, WIDTH) and which of them are inside; head is one for all
    or one a row."""
    strides = tensor.strides
    columns = tl.arange(0, BLOCK)
    row = tensor.start + batch * strides[0] + head.to(tl.int64) * strides[1] + rows.to(tl.int64) * strides[2]
    mask = inside[:, None]
    if WIDTH != BLOCK:
        mask = mask & (columns < WIDTH)[None, :]
    return row[:, None] + columns[None, :] * strides[3], mask


@triton.jit
def load_rows(tensor, batch, head, rows, inside, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """(rows, BLOCK) of a tensor (batch, head, row, WIDTH), zeros outside; head is one for all or one a row."""
    at, mask = _places(tensor, batch, head, rows, inside, WIDTH, BLOCK)
    return tl.load(at, mask=mask, other=0.0)


@triton.jit
def store_rows(tensor, batch, head, rows, inside, tile, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Writes what `load_rows` would read, in the tensor's dtype."""
    at, mask = _places(tensor, batch, head, rows, inside, WIDTH, BLOCK)
    tl.store(at, tile.to(tensor.start.dtype.element_ty), mask=mask)


@triton.jit
def cap_scores(products, scaling, softcap):
    """Scores without noise in units of log 2, and the derivative of the softcap at each."""
    if softcap is None:
        scores = products * (scaling * LOG2_E)
        slope = 1.0
    else:
        ratio = products * (scaling / softcap)
        # tanh from the falling exponential, which cannot overflow
        falling = tl.exp2(tl.abs(ratio) * (-2.0 * LOG2_E))
        size = (1.0 - falling) / (1.0 + falling)
        scores = tl.where(ratio < 0, -size, size) * (softcap * LOG2_E)
        slope = 1.0 - size * size
    return scores, slope


@triton.jit
def load_row_noise(noise, batch, heads, queries, inside):
    """The two uint32 row keys and the float32 amplitude, in nats, of each row."""
    keys, amplitude = noise.row_keys, noise.amplitude
    head = heads.to(tl.int64)
    at = keys.start + batch * keys.strides[0] + head * keys.strides[1] + queries * keys.strides[2]
    key_0 = tl.load(at, mask=inside, other=0).to(tl.uint32)
    key_1 = tl.load(at + keys.strides[3], mask=inside, other=0).to(tl.uint32)
    at = amplitude.start + batch * amplitude.strides[0] + head * amplitude.strides[1] + queries * amplitude.strides[2]
    return key_0, key_1, tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_key_positions(noise, batch, keys, inside):
    """int64, 0 for keys not inside."""
    positions = noise.key_positions
    return tl.load(positions.start + batch * positions.strides[0] + keys * positions.strides[1], mask=inside, other=0)


@triton.jit
def load_query_positions(buckets, batch, queries, inside):
    """int64, 0 for queries not inside."""
    positions = buckets.query_positions
    at = positions.start + batch * positions.strides[0] + queries * positions.strides[1]
    return tl.load(at, mask=inside, other=0)


@triton.jit
def distance_bucket(buckets, query_positions, key_positions):
    """int32 tile: ⌊log₂(distance + 1)⌋, at most the last bucket; distances lie below 2³¹."""
    distance = tl.maximum(query_positions.to(tl.int32) - tl.maximum(key_positions, 0).to(tl.int32), 0)
    above = (distance + 1).to(tl.uint32)
    # with the second highest bit cleared, rounding to float32 never reaches the next power of two
    rounded = (above & ~(above >> 1)).to(tl.float32)
    exponent = (rounded.to(tl.int32, bitcast=True) >> 23) - _EXPONENT_BIAS
    return tl.minimum(exponent, buckets.count - 1)


@triton.jit
def bucket_values(table, heads, bucket):
    """float32 tile: the entry of a (h, n) table for each head, which broadcasts, and bucket."""
    return tl.load(table.start + heads * table.strides[0] + bucket * table.strides[1]).to(tl.float32)


@triton.jit
def unit_noise(key_0, key_1, key_positions, query_positions, heads, buckets, DISTRIBUTION: tl.constexpr):
    """float32 tile: ξ, or with buckets mean + sigma · ξ; all arguments broadcast to the tile."""
    drawn = unit_variance(score_words(key_0, key_1, key_positions), DISTRIBUTION)
    if buckets is not None:
        bucket = distance_bucket(buckets, query_positions, key_positions)
        mean = bucket_values(buckets.mean, heads, bucket)
        drawn = mean + bucket_values(buckets.sigma, heads, bucket) * drawn
    return drawn
