"""h' = h + factor · ‖h‖ · (μ + σ ⊙ ξ) in one pass, its noise drawn from Philox in registers, with its gradients.

A program holds whole rows: a norm needs all channels, and the second look at them must not read memory again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.feed_forward import FeedForwardNoise
from stochroute.kernels.triton.arguments import Strided, strided
from stochroute.kernels.triton.launch import launch
from stochroute.kernels.triton.noise import as_int32, draw_vector
from stochroute.noise import Kind

_FFN = tl.constexpr(int(Kind.FFN))
_MOST_PROGRAMS = 256  # of the backward pass; each writes a row of partial sums
_LEAST_ROWS = 8  # of such a program, so that partial sums stay smaller than the states


@triton.jit
def load_row(tensor, batch, position, columns, inside):
    """One row of a `Strided` of three dimensions."""
    row = tensor.start + batch * tensor.strides[0] + position * tensor.strides[1]
    return tl.load(row + columns * tensor.strides[2], mask=inside, other=0.0)


@triton.jit
def store_row(tensor, batch, position, columns, inside, values):
    """The same row, in the tensor's dtype."""
    row = tensor.start + batch * tensor.strides[0] + position * tensor.strides[1]
    tl.store(row + columns * tensor.strides[2], values.to(tensor.start.dtype.element_ty), mask=inside)


@triton.jit
def load_factor(factor, batch, position):
    """One number of a `Strided` of two dimensions."""
    return tl.load(factor.start + batch * factor.strides[0] + position * factor.strides[1])


@triton.jit
def through_the_norm(above, clean, noise, scale, width):
    """The gradient of a row of states whose noise is multiplied by its norm, and that factor times the norm."""
    size = tl.sqrt(tl.sum(clean * clean, 0) / width)
    along = tl.sum(above * noise, 0) * scale
    # the gradient of the norm at 0 is 0
    below = above + clean * tl.where(size > 0, along / tl.where(size > 0, size * width, 1.0), 0.0)
    return below, scale * size


@triton.jit
def _draw(keys, blocks, batch, position, layer, DISTRIBUTION: tl.constexpr, SIZE: tl.constexpr):
    pair = keys.start + batch * keys.strides[0]
    block = tl.load(blocks.start + batch * blocks.strides[0] + position * blocks.strides[1])
    return draw_vector(tl.load(pair), tl.load(pair + keys.strides[1]), block, layer, _FFN, DISTRIBUTION, SIZE)


@triton.jit(do_not_specialize=["length", "layer"])
def _add_noise(
    states, out, keys, blocks, factor, mu, sigma, length, width, layer,
    RELATIVE: tl.constexpr, DISTRIBUTION: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    batch, position = (tl.program_id(0) // length).to(tl.int64), (tl.program_id(0) % length).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < width
    clean = load_row(states, batch, position, columns, inside).to(WIDE)
    scale = load_factor(factor, batch, position).to(WIDE)
    if RELATIVE:
        scale *= tl.sqrt(tl.sum(clean * clean, 0) / width)
    drawn = _draw(keys, blocks, batch, position, layer, DISTRIBUTION, SIZE).to(WIDE)
    mean = tl.load(mu.start + columns * mu.strides[0], mask=inside, other=0.0).to(WIDE)
    spread = tl.load(sigma.start + columns * sigma.strides[0], mask=inside, other=0.0).to(WIDE)
    store_row(out, batch, position, columns, inside, clean + scale * (mean + spread * drawn))


@triton.jit(do_not_specialize=["rows", "rows_each", "length", "layer"])
def _add_noise_gradients(
    grad, states, d_states, d_mu, d_sigma, keys, blocks, factor, mu, sigma, rows, rows_each, length, width, layer,
    RELATIVE: tl.constexpr, DISTRIBUTION: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    columns = tl.arange(0, SIZE)
    inside = columns < width
    mean = tl.load(mu.start + columns * mu.strides[0], mask=inside, other=0.0).to(WIDE)
    spread = tl.load(sigma.start + columns * sigma.strides[0], mask=inside, other=0.0).to(WIDE)
    mean_grad = tl.zeros((SIZE,), WIDE)
    spread_grad = tl.zeros((SIZE,), WIDE)
    begin = tl.program_id(0) * rows_each
    for row in range(begin, tl.minimum(begin + rows_each, rows)):
        batch, position = (row // length).to(tl.int64), (row % length).to(tl.int64)
        above = load_row(grad, batch, position, columns, inside).to(WIDE)
        scale = load_factor(factor, batch, position).to(WIDE)
        drawn = _draw(keys, blocks, batch, position, layer, DISTRIBUTION, SIZE).to(WIDE)
        below = above
        if RELATIVE:
            clean = load_row(states, batch, position, columns, inside).to(WIDE)
            below, scale = through_the_norm(above, clean, mean + spread * drawn, scale, width)
        mean_grad += scale * above
        spread_grad += scale * above * drawn
        store_row(d_states, batch, position, columns, inside, below)
    at = tl.program_id(0).to(tl.int64) * width + columns
    tl.store(d_mu + at, mean_grad, mask=inside)
    tl.store(d_sigma + at, spread_grad, mask=inside)


def add_noise(states: Tensor, noise: FeedForwardNoise) -> Tensor:
    """See `stochroute.kernels.feed_forward.add_noise`: states (b, s, hidden) with their noise, in their dtype."""
    batch, length, width = states.shape
    out = torch.empty_like(states)
    launch(
        _add_noise, (batch * length,),
        strided(states), strided(out), *_noise_tensors(noise), length, width, as_int32(noise.layer),
        **_settings(states, noise)
    )  # fmt: skip
    return out


def add_noise_backward(grad: Tensor, states: Tensor, noise: FeedForwardNoise) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `add_noise` from that of its result.

    Returns:
        d_states: as the states.
        d_mu, d_sigma: (hidden,), as mu and sigma.
    """
    batch, length, width = states.shape
    rows = batch * length
    rows_each = max(_LEAST_ROWS, triton.cdiv(rows, _MOST_PROGRAMS))
    programs = triton.cdiv(rows, rows_each)
    d_states = torch.empty_like(states)
    wide = torch.promote_types(states.dtype, torch.float32)
    d_mu, d_sigma = (torch.empty(programs, width, dtype=wide, device=states.device) for _ in range(2))
    launch(
        _add_noise_gradients, (programs,),
        strided(grad), strided(states), strided(d_states), d_mu, d_sigma, *_noise_tensors(noise),
        rows, rows_each, length, width, as_int32(noise.layer), **_settings(states, noise)
    )  # fmt: skip
    return d_states, d_mu.sum(0).to(noise.mu.dtype), d_sigma.sum(0).to(noise.sigma.dtype)


def _noise_tensors(noise: FeedForwardNoise) -> tuple[Strided, ...]:
    return tuple(strided(t) for t in (noise.keys, noise.blocks, noise.factor, noise.mu, noise.sigma))


def _settings(states: Tensor, noise: FeedForwardNoise) -> dict[str, object]:
    """The constants and launch options of both kernels."""
    return {"RELATIVE": noise.relative, "DISTRIBUTION": noise.distribution, **row_options(states)}


def row_options(states: Tensor) -> dict[str, object]:
    """Those of a kernel whose programs hold whole rows of the states."""
    size = max(16, triton.next_power_of_2(states.shape[-1]))
    return {
        "SIZE": size,
        "WIDE": tl.float64 if states.dtype == torch.float64 else tl.float32,
        "num_warps": min(16, max(1, size // 256)),
    }
