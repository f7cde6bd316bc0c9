"""The fused kernels as torch operators, with shapes for the compiler and gradients: one operator, one implementation
for each device.

Made with `torch.library.define`, not `custom_op`, whose first call imports the whole compiler.
"""

import functools
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import stochroute.kernels.cpu.attention as cpu_attention
import stochroute.kernels.cpu.feed_forward as cpu_feed_forward
from stochroute.kernels.feed_forward import FeedForwardNoise
from stochroute.kernels.scores import (
    AttentionGradients,
    AttentionInputs,
    DistanceBuckets,
    ScoreNoise,
    Visibility,
    empty_output,
    like_projection,
)
from stochroute.noise.draws import philox_grid_in_torch

_ATTENTION = (
    "Tensor query, Tensor key, Tensor value, Tensor? sinks, Tensor? amplitude, Tensor? mean, Tensor? sigma, "
    "Tensor key_slots, Tensor query_slots, Tensor window, Tensor? explicit, Tensor? row_keys, Tensor? key_positions, "
    "Tensor? query_positions, str distribution, float scaling, float softcap"
)
_NOISE = (
    "Tensor mu, Tensor sigma, Tensor keys, Tensor blocks, int layer, str distribution, Tensor factor, bool relative"
)
_UNIT = "Tensor states, Tensor unit, Tensor factor, bool relative"
_SEVEN = ", ".join(["Tensor"] * len(AttentionGradients._fields))
torch.library.define("stochroute::attention", f"({_ATTENTION}) -> (Tensor, Tensor)")
torch.library.define(
    "stochroute::attention_backward", f"(Tensor grad_out, Tensor out, Tensor lse, {_ATTENTION}) -> ({_SEVEN})"
)
torch.library.define("stochroute::add_noise", f"(Tensor states, {_NOISE}) -> Tensor")
torch.library.define(
    "stochroute::add_noise_backward", f"(Tensor grad_out, Tensor states, {_NOISE}) -> (Tensor, Tensor, Tensor)"
)
torch.library.define("stochroute::add_unit_noise", f"({_UNIT}) -> Tensor")
torch.library.define("stochroute::add_unit_noise_backward", f"(Tensor grad_out, {_UNIT}) -> (Tensor, Tensor)")
_operators = torch.ops.stochroute


@functools.cache  # asked in every call, and a module that is missing is looked for on the disk
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def fused_attention(inputs: AttentionInputs) -> Tensor:
    """See `stochroute.kernels.scores.AttentionInputs`. The dropout has to be 0."""
    noise, visibility = inputs.noise, inputs.visibility
    buckets = None if noise is None else noise.buckets
    return _operators.attention(
        inputs.query,
        inputs.key,
        inputs.value,
        _float(inputs.sinks),
        None if noise is None else noise.amplitude.float(),
        None if buckets is None else buckets.mean.float(),
        None if buckets is None else buckets.sigma.float(),
        visibility.key_slots,
        visibility.query_slots,
        visibility.window,
        visibility.explicit,
        None if noise is None else noise.row_keys,
        None if noise is None else noise.key_positions,
        None if buckets is None else buckets.query_positions,
        "normal" if noise is None else noise.distribution,
        inputs.scaling,
        inputs.softcap or 0.0,
    )[0]


def fused_add_noise(states: Tensor, noise: FeedForwardNoise) -> Tensor:
    """States (b, s, hidden) with their noise, see `stochroute.kernels.feed_forward.add_noise`."""
    return _operators.add_noise(
        states,
        noise.mu.float(),
        noise.sigma.float(),
        noise.keys,
        noise.blocks.expand(states.shape[:2]),
        noise.layer,
        noise.distribution,
        noise.factor,
        noise.relative,
    )


def fused_add_unit_noise(states: Tensor, unit: Tensor, factor: Tensor, relative: bool) -> Tensor:
    """See `stochroute.kernels.feed_forward.add_unit_noise`. On CUDA only."""
    return _operators.add_unit_noise(states, unit.expand(states.shape), factor, relative)


def _float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()


def _inputs(*arguments: Any) -> AttentionInputs:
    """The operator's arguments as the kernels take them."""
    query, key, value, sinks, amplitude, mean, sigma, *rest = arguments
    key_slots, query_slots, window, explicit, row_keys, key_positions, query_positions, *rest = rest
    distribution, scaling, softcap = rest
    buckets = None if mean is None else DistanceBuckets(mean, sigma, query_positions)
    noise = None if amplitude is None else ScoreNoise(row_keys, key_positions, amplitude, distribution, buckets)
    visibility = Visibility(key_slots, query_slots, window, explicit)
    return AttentionInputs(query, key, value, visibility, noise, scaling, softcap or None, sinks)


def _dense(gradients: AttentionGradients, like: Tensor) -> tuple[Tensor, ...]:
    """An operator returns tensors only: an empty one stands where there is no gradient."""
    return tuple(like.new_empty(0) if g is None else g for g in gradients)


@torch.library.impl("stochroute::philox_grid", "CUDA")
def _philox_grid_on_cuda(*counters_and_keys: Tensor) -> Tensor:
    words = None
    if has_triton():
        from stochroute.kernels.triton.philox import philox_grid

        words = philox_grid(counters_and_keys)
    return philox_grid_in_torch(*counters_and_keys) if words is None else words


@torch.library.impl("stochroute::attention", "CPU")
def _attention_on_cpu(*arguments: Any) -> tuple[Tensor, Tensor]:
    return cpu_attention.forward(_inputs(*arguments))


@torch.library.impl("stochroute::attention", "CUDA")
def _attention_on_cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    from stochroute.kernels.triton.attention import attention

    return attention(_inputs(*arguments))


@torch.library.impl("stochroute::attention_backward", "CPU")
def _attention_backward_on_cpu(grad_out: Tensor, out: Tensor, lse: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return _dense(cpu_attention.backward(_inputs(*arguments), out, lse, grad_out), lse)


@torch.library.impl("stochroute::attention_backward", "CUDA")
def _attention_backward_on_cuda(grad_out: Tensor, out: Tensor, lse: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    from stochroute.kernels.triton.attention_backward import backward

    return _dense(backward(_inputs(*arguments), out, lse, grad_out), lse)


@torch.library.register_fake("stochroute::attention")
def _attention_shapes(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, heads, queries, _ = query.shape
    return empty_output(query, value), query.new_empty(batch, heads, queries, dtype=torch.float32)


@torch.library.register_fake("stochroute::attention_backward")
def _attention_backward_shapes(grad_out: Tensor, out: Tensor, lse: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    projections = [like_projection(t) for t in arguments[:3]]
    return *projections, *(lse.new_empty(0 if t is None else t.shape) for t in arguments[3:7])


def _remember_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(out, lse, *inputs[:-3])
    ctx.settings = inputs[-3:]


def _differentiate_attention(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Any, ...]:
    out, lse, *tensors = ctx.saved_tensors
    found = _operators.attention_backward(grad_out, out, lse, *tensors, *ctx.settings)
    gradients = [None if t is None else g for t, g in zip(tensors[:7], found, strict=True)]
    return (*gradients, *[None] * (len(tensors) - 7 + 3))


torch.library.register_autograd("stochroute::attention", _differentiate_attention, setup_context=_remember_attention)


@torch.library.impl("stochroute::add_noise", "CPU")
def _add_noise_on_cpu(states: Tensor, mu: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
    return cpu_feed_forward.add_noise(states, _noise(mu, sigma, *rest))


@torch.library.impl("stochroute::add_noise", "CUDA")
def _add_noise_on_cuda(states: Tensor, mu: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
    from stochroute.kernels.triton.feed_forward import add_noise

    return add_noise(states, _noise(mu, sigma, *rest))


@torch.library.impl("stochroute::add_noise_backward", "CPU")
def _add_noise_backward_on_cpu(grad_out: Tensor, states: Tensor, *noise: Any) -> tuple[Tensor, Tensor, Tensor]:
    return cpu_feed_forward.add_noise_backward(grad_out, states, _noise(*noise))


@torch.library.impl("stochroute::add_noise_backward", "CUDA")
def _add_noise_backward_on_cuda(grad_out: Tensor, states: Tensor, *noise: Any) -> tuple[Tensor, Tensor, Tensor]:
    from stochroute.kernels.triton.feed_forward import add_noise_backward

    return add_noise_backward(grad_out, states, _noise(*noise))


@torch.library.register_fake("stochroute::add_noise")
def _add_noise_shapes(states: Tensor, *noise: Any) -> Tensor:
    return torch.empty_like(states)


@torch.library.register_fake("stochroute::add_noise_backward")
def _add_noise_backward_shapes(grad_out: Tensor, states: Tensor, mu: Tensor, sigma: Tensor, *rest: Any) -> Any:
    return torch.empty_like(states), torch.empty_like(mu), torch.empty_like(sigma)


def _noise(mu: Tensor, sigma: Tensor, *rest: Any) -> FeedForwardNoise:
    keys, blocks, layer, distribution, factor, relative = rest
    return FeedForwardNoise(keys, blocks, layer, distribution, factor, relative, mu, sigma)


def _remember_noise(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    states, mu, sigma, keys, blocks, layer, distribution, factor, relative = inputs
    ctx.save_for_backward(states, mu, sigma, keys, blocks, factor)
    ctx.settings = layer, distribution, relative


def _differentiate_noise(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    states, mu, sigma, keys, blocks, factor = ctx.saved_tensors
    layer, distribution, relative = ctx.settings
    gradients = _operators.add_noise_backward(
        grad_out, states, mu, sigma, keys, blocks, layer, distribution, factor, relative
    )
    return (*gradients, None, None, None, None, None, None)


torch.library.register_autograd("stochroute::add_noise", _differentiate_noise, setup_context=_remember_noise)


@torch.library.impl("stochroute::add_unit_noise", "CUDA")
def _add_unit_noise_on_cuda(states: Tensor, unit: Tensor, factor: Tensor, relative: bool) -> Tensor:
    from stochroute.kernels.triton.unit_noise import add_unit_noise

    return add_unit_noise(states, unit, factor, relative)


@torch.library.impl("stochroute::add_unit_noise_backward", "CUDA")
def _add_unit_noise_backward_on_cuda(
    grad_out: Tensor, states: Tensor, unit: Tensor, factor: Tensor, relative: bool
) -> tuple[Tensor, Tensor]:
    from stochroute.kernels.triton.unit_noise import add_unit_noise_backward

    return add_unit_noise_backward(grad_out, states, unit, factor, relative)


@torch.library.register_fake("stochroute::add_unit_noise")
def _add_unit_noise_shapes(states: Tensor, unit: Tensor, factor: Tensor, relative: bool) -> Tensor:
    return torch.empty_like(states)


@torch.library.register_fake("stochroute::add_unit_noise_backward")
def _add_unit_noise_backward_shapes(
    grad_out: Tensor, states: Tensor, unit: Tensor, factor: Tensor, relative: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(states), unit.new_empty(unit.shape)


def _remember_unit_noise(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    states, unit, factor, ctx.relative = inputs
    ctx.save_for_backward(states, unit, factor)


def _differentiate_unit_noise(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    return (*_operators.add_unit_noise_backward(grad_out, *ctx.saved_tensors, ctx.relative), None, None)


torch.library.register_autograd(
    "stochroute::add_unit_noise", _differentiate_unit_noise, setup_context=_remember_unit_noise
)
