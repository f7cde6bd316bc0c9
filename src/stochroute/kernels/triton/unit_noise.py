"""h' = h + factor · ‖h‖ · ε in one pass, for noise ε that was drawn before, with its gradients."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.triton.arguments import strided
from stochroute.kernels.triton.feed_forward import load_row, row_options
from stochroute.kernels.triton.launch import launch


@triton.jit(do_not_specialize=["length"])
def _add_unit_noise(
    states, out, unit, factor, length, width,
    RELATIVE: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    batch, position = (tl.program_id(0) // length).to(tl.int64), (tl.program_id(0) % length).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < width
    clean = load_row(states, batch, position, columns, inside).to(WIDE)
    noise = load_row(unit, batch, position, columns, inside).to(WIDE)
    scale = tl.load(factor.start + batch * factor.strides[0] + position * factor.strides[1]).to(WIDE)
    if RELATIVE:
        scale *= tl.sqrt(tl.sum(clean * clean, 0) / width)
    row = out.start + batch * out.strides[0] + position * out.strides[1]
    noisy = (clean + scale * noise).to(out.start.dtype.element_ty)
    tl.store(row + columns * out.strides[2], noisy, mask=inside)


@triton.jit(do_not_specialize=["length"])
def _add_unit_noise_gradients(
    grad, states, d_states, d_unit, unit, factor, length, width,
    RELATIVE: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    batch, position = (tl.program_id(0) // length).to(tl.int64), (tl.program_id(0) % length).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < width
    above = load_row(grad, batch, position, columns, inside).to(WIDE)
    scale = tl.load(factor.start + batch * factor.strides[0] + position * factor.strides[1]).to(WIDE)
    below = above
    if RELATIVE:
        clean = load_row(states, batch, position, columns, inside).to(WIDE)
        noise = load_row(unit, batch, position, columns, inside).to(WIDE)
        size = tl.sqrt(tl.sum(clean * clean, 0) / width)
        along = tl.sum(above * noise, 0) * scale
        # the gradient of the norm at 0 is 0
        below += clean * tl.where(size > 0, along / tl.where(size > 0, size * width, 1.0), 0.0)
        scale *= size
    row = d_states.start + batch * d_states.strides[0] + position * d_states.strides[1]
    tl.store(row + columns * d_states.strides[2], below.to(d_states.start.dtype.element_ty), mask=inside)
    row = d_unit.start + batch * d_unit.strides[0] + position * d_unit.strides[1]
    tl.store(row + columns * d_unit.strides[2], (scale * above).to(d_unit.start.dtype.element_ty), mask=inside)


def add_unit_noise(states: Tensor, unit: Tensor, factor: Tensor, relative: bool) -> Tensor:
    """See `stochroute.kernels.feed_forward.add_unit_noise`; here the unit noise has the shape of the states."""
    batch, length, width = states.shape
    out = torch.empty_like(states)
    launch(
        _add_unit_noise, (batch * length,),
        strided(states), strided(out), strided(unit), strided(factor), length, width,
        RELATIVE=relative, **row_options(states)
    )  # fmt: skip
    return out


def add_unit_noise_backward(
    grad: Tensor, states: Tensor, unit: Tensor, factor: Tensor, relative: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of `add_unit_noise` from that of its result: of the states and of the unit noise, as they are."""
    batch, length, width = states.shape
    d_states = torch.empty_like(states)
    d_unit = torch.empty(
        unit.shape, dtype=unit.dtype, device=unit.device
    )  # a noise that is spread out has rows of its own
    launch(
        _add_unit_noise_gradients, (batch * length,),
        strided(grad), strided(states), strided(d_states), strided(d_unit), strided(unit), strided(factor),
        length, width, RELATIVE=relative, **row_options(states)
    )  # fmt: skip
    return d_states, d_unit
