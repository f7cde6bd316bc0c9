"""The integer noise of `stochroute.noise`, bit for bit, made in registers where a kernel needs it.

`attention_noise` and `vector_noise` write it out, so that its bits can be held against the reference.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.triton.launch import launch
from stochroute.noise import Kind

_KEY_MULTIPLIER = tl.constexpr(0x85EBCA6B)
_MIX_1 = tl.constexpr(0x7FEB352D)
_MIX_2 = tl.constexpr(0x846CA68B)
_DITHER_MULTIPLIER = tl.constexpr(0x9E3779B1)
_NORMAL_STEP = tl.constexpr(1.0 / ((2 << 16) * math.sqrt(8 + 1 / 12)))
_THREE_HALVES = tl.constexpr(1.5 * 2**23)  # whose last bit is worth 1
_THREE_HALVES_BITS = tl.constexpr(0x4B400000)
_UNIFORM_STEP = tl.constexpr(math.sqrt(3) / (1 << 24))

_BLOCK = 64  # queries or keys in a block where the noise is written out


@triton.jit
def score_words(key_0, key_1, key_positions):
    """One uint32 word for each pair, from uint32 row keys and int64 key positions that broadcast to a tile."""
    x = (tl.maximum(key_positions, 0).to(tl.uint32) * _KEY_MULTIPLIER) ^ key_0
    x = x ^ (x >> 16)
    x = x * _MIX_1
    x = x ^ (x >> 15)
    x = x + key_1
    x = x * _MIX_2
    return x ^ (x >> 16)


@triton.jit
def popcount(word):
    """Number of set bits, uint32."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    # LLVM makes one instruction of this pattern, unless its last shift has been merged with what follows; the minimum
    # keeps them apart until then and goes away itself
    return tl.minimum((word * 0x01010101) >> 24, 32)


@triton.jit
def unit_variance(word, DISTRIBUTION: tl.constexpr):
    """float32 numbers of mean 0 and variance 1, one for each word: exact in integers up to one product."""
    if DISTRIBUTION == "normal":
        dither = ((word * _DITHER_MULTIPLIER) >> 16).to(tl.int32)
        doubled = (((popcount(word).to(tl.int32) - 16) << 16) + dither) * 2 - 65535
        # to float32 through its bits, exact below 2²²: the conversion of the hardware runs at a quarter of the speed
        unit = ((doubled + _THREE_HALVES_BITS).to(tl.float32, bitcast=True) - _THREE_HALVES) * _NORMAL_STEP
    elif DISTRIBUTION == "uniform":
        odd = (word >> 8).to(tl.int32) * 2 - 16777215
        unit = odd.to(tl.float32) * _UNIFORM_STEP
    else:
        tl.static_assert(DISTRIBUTION == "rademacher")
        unit = (1 - (word >> 31).to(tl.int32) * 2).to(tl.float32)
    return unit


@triton.jit
def in_a_row(word_0, word_1, word_2, word_3, SIZE: tl.constexpr):
    """(SIZE,): the four words of each counter at neighbouring places."""
    return tl.reshape(tl.join(tl.join(word_0, word_2), tl.join(word_1, word_3)), (SIZE,))


@triton.jit
def draw_vector(key_0, key_1, block, layer, KIND: tl.constexpr, DISTRIBUTION: tl.constexpr, SIZE: tl.constexpr):
    """float32 (SIZE,): the noise of one site at one position, from int64 keys and block and an int32 layer."""
    counter = tl.arange(0, SIZE // 4).to(tl.uint32)
    zero = counter * 0
    word_0, word_1, word_2, word_3 = tl.philox_impl(
        counter,
        zero + block.to(tl.uint32),
        zero + layer.to(tl.uint32),
        zero + KIND,
        zero + key_0.to(tl.uint32),
        zero + key_1.to(tl.uint32),
    )
    return unit_variance(in_a_row(word_0, word_1, word_2, word_3, SIZE), DISTRIBUTION)


def as_int32(word: int) -> int:
    """The int32 of a 32-bit word's bits: Triton gives larger integers another type, and with it another kernel."""
    return word - (1 << 32) if word >> 31 else word


@triton.jit
def _attention_noise(
    out, row_keys, row_strides, key_positions, position_strides, heads, queries, keys,
    DISTRIBUTION: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    row = tl.arange(0, BLOCK_Q) + tl.program_id(0) * BLOCK_Q
    column = tl.arange(0, BLOCK_K) + tl.program_id(1) * BLOCK_K
    batch, head = (tl.program_id(2) // heads).to(tl.int64), (tl.program_id(2) % heads).to(tl.int64)
    pair = row_keys + batch * row_strides[0] + head * row_strides[1] + row * row_strides[2]
    key_0 = tl.load(pair, mask=row < queries, other=0).to(tl.uint32)
    key_1 = tl.load(pair + row_strides[3], mask=row < queries, other=0).to(tl.uint32)
    at = key_positions + batch * position_strides[0] + column * position_strides[1]
    position = tl.load(at, mask=column < keys, other=0)
    drawn = unit_variance(score_words(key_0[:, None], key_1[:, None], position[None, :]), DISTRIBUTION)
    start = out + ((batch * heads + head) * queries + row[:, None]) * keys + column[None, :]
    tl.store(start, drawn, mask=(row < queries)[:, None] & (column < keys)[None, :])


@triton.jit(do_not_specialize=["layer"])
def _vector_noise(out, keys, blocks, n, layer, KIND: tl.constexpr, DISTRIBUTION: tl.constexpr, SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    key_0, key_1 = tl.load(keys + row * 2), tl.load(keys + row * 2 + 1)
    drawn = draw_vector(key_0, key_1, tl.load(blocks + row), layer, KIND, DISTRIBUTION, SIZE)
    column = tl.arange(0, SIZE)
    tl.store(out + row * n + column, drawn, mask=column < n)


def attention_noise(row_keys: Tensor, key_positions: Tensor, distribution: str = "normal") -> Tensor:
    """float32 (b, h, q, k): see `stochroute.noise.attention_noise`, whose bits these are."""
    batch, heads, queries, _ = row_keys.shape
    positions = key_positions.expand(batch, -1)
    keys = positions.shape[1]
    out = torch.empty(batch, heads, queries, keys, dtype=torch.float32, device=row_keys.device)
    grid = (triton.cdiv(queries, _BLOCK), triton.cdiv(keys, _BLOCK), batch * heads)
    launch(
        _attention_noise, grid, out, row_keys, row_keys.stride(), positions, positions.stride(), heads, queries, keys,
        DISTRIBUTION=distribution, BLOCK_Q=_BLOCK, BLOCK_K=_BLOCK
    )  # fmt: skip
    return out


def vector_noise(keys: Tensor, n: int, block: Tensor, layer: int, kind: Kind, distribution: str = "normal") -> Tensor:
    """float32 (..., n): see `stochroute.noise.vector_noise`, whose bits these are."""
    keys = keys.expand(*block.shape, 2).contiguous()
    block = block.contiguous()
    out = torch.empty(*block.shape, n, dtype=torch.float32, device=keys.device)
    launch(
        _vector_noise, (block.numel(),), out, keys, block, n, as_int32(layer),
        KIND=int(kind), DISTRIBUTION=distribution, SIZE=max(4, triton.next_power_of_2(n))
    )  # fmt: skip
    return out
