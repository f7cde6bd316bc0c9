"""Grids of Philox words in one launch, where torch's integers would take a hundred."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.triton.arguments import strided
from stochroute.kernels.triton.blocks import INTERPRETED
from stochroute.kernels.triton.launch import launch
from stochroute.kernels.triton.noise import in_a_row

_DIMENSIONS = 4  # of a grid, at most

_BLOCK = 16 if INTERPRETED else 256  # small, so that short tests span several


@triton.jit
def _word(tensor, first, second, third, fourth, inside):
    strides = tensor.strides
    at = first * strides[0] + second * strides[1] + third * strides[2] + fourth * strides[3]
    return tl.load(tensor.start + at, mask=inside, other=0).to(tl.uint32)


@triton.jit(do_not_specialize=["count", "seconds", "thirds", "fourths"])
def _philox_grid(out, c0, c1, c2, c3, k0, k1, count, seconds, thirds, fourths, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    place = begin + tl.arange(0, BLOCK)
    inside = place < count
    fourth, rest = place % fourths, place // fourths
    third, rest = rest % thirds, rest // thirds
    second, first = rest % seconds, rest // seconds
    word_0, word_1, word_2, word_3 = tl.philox_impl(
        _word(c0, first, second, third, fourth, inside),
        _word(c1, first, second, third, fourth, inside),
        _word(c2, first, second, third, fourth, inside),
        _word(c3, first, second, third, fourth, inside),
        _word(k0, first, second, third, fourth, inside),
        _word(k1, first, second, third, fourth, inside),
    )
    words = in_a_row(word_0, word_1, word_2, word_3, BLOCK * 4)
    at = begin * 4 + tl.arange(0, BLOCK * 4)
    tl.store(out + at, words.to(tl.int64), mask=at // 4 < count)


def philox_grid(counters_and_keys: tuple[Tensor, ...]) -> Tensor | None:
    """int64 (..., 4): Philox4x32-10 of the counters c0 … c3 and the keys k0, k1, int64 tensors that broadcast; None
    where they have too many dimensions for the kernel."""
    shape = torch.broadcast_shapes(*(t.shape for t in counters_and_keys))
    if len(shape) > _DIMENSIONS:
        return None
    whole = (1,) * (_DIMENSIONS - len(shape)) + tuple(shape)
    out = torch.empty((*shape, 4), dtype=torch.int64, device=counters_and_keys[0].device)
    count = math.prod(shape)
    if count:
        launch(
            _philox_grid, (triton.cdiv(count, _BLOCK),),
            out, *(strided(t.expand(whole)) for t in counters_and_keys), count, *whole[1:], BLOCK=_BLOCK
        )  # fmt: skip
    return out
