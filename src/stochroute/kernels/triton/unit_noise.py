"""h' = h + factor · ‖h‖ · ε in one pass, for noise ε that was drawn before, with its gradients."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.triton.arguments import strided
from stochroute.kernels.triton.feed_forward import load_factor, load_row, row_options, store_row, through_the_norm
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
    scale = load_factor(factor, batch, position).to(WIDE)
    if RELATIVE:
        scale *= tl.sqrt(tl.sum(clean * clean, 0) / width)
    store_row(out, batch, position, columns, inside, clean + scale * noise)


@triton.jit(do_not_specialize=["length"])
def _add_unit_noise_gradients(
    grad, states, d_states, d_unit, unit, factor, length, width,
    RELATIVE: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    batch, position = (tl.program_id(0) // length).to(tl.int64), (tl.program_id(0) % length).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < width
    above = load_row(grad, batch, position, columns, inside).to(WIDE)
    scale = load_factor(factor, batch, position).to(WIDE)
    below = above
    if RELATIVE:
        clean = load_row(states, batch, position, columns, inside).to(WIDE)
        noise = load_row(unit, batch, position, columns, inside).to(WIDE)
        below, scale = through_the_norm(above, clean, noise, scale, width)
    store_row(d_states, batch, position, columns, inside, below)
    store_row(d_unit, batch, position, columns, inside, scale * above)


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
    d_unit = unit.new_empty(unit.shape)  # a row for each position, also where one was spread over all
    launch(
        _add_unit_noise_gradients, (batch * length,),
        strided(grad), strided(states), strided(d_states), strided(d_unit), strided(unit), strided(factor),
        length, width, RELATIVE=relative, **row_options(states)
    )  # fmt: skip
    return d_states, d_unit
