"""What the tests of the Triton attention kernels share: the kernels, and their results held against the reference."""

from dataclasses import replace

import torch
from torch import Tensor

from attention_inputs import exact
from stochroute.kernels import AttentionInputs
from stochroute.kernels.scores import AttentionGradients
from triton_device import on_device, triton_for_tests

with triton_for_tests():
    from stochroute.kernels.triton.attention_backward import backward
    from stochroute.kernels.triton.attention_forward import forward


def relative(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value, or over 0.5 where all are smaller (gradients that cancel)."""
    return ((actual.double() - expected).abs().max() / expected.abs().max().clamp_min(0.5)).item()


def rows_of(given: AttentionInputs, rows: slice) -> AttentionInputs:
    """The same for some rows of the batch; without buckets or an explicit mask."""
    noise, visibility = given.noise, given.visibility
    assert noise is not None
    return replace(
        given,
        query=given.query[rows],
        key=given.key[rows],
        value=given.value[rows],
        visibility=replace(visibility, key_slots=visibility.key_slots[rows], query_slots=visibility.query_slots[rows]),
        noise=replace(
            noise,
            row_keys=noise.row_keys[rows],
            key_positions=noise.key_positions[rows],
            amplitude=noise.amplitude[rows],
        ),
    )


def in_order_of_leaves(found: AttentionGradients) -> list[Tensor]:
    """The gradients that there are, as `attention_inputs.exact` orders them."""
    ordered = [found.amplitude, found.mean, found.sigma, found.sinks, found.query, found.key, found.value]
    return [gradient for gradient in ordered if gradient is not None]


def check(given: AttentionInputs, tolerance: float, gradient_tolerance: float) -> None:
    """Result and gradients against the reference in float64."""
    given = on_device(given)
    out, lse = forward(given)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    expected, expected_gradients = exact(given, grad_out)
    found = backward(given, out, lse, grad_out)
    assert out.dtype == given.value.dtype
    assert lse.dtype == torch.float32
    assert relative(out, expected) <= tolerance
    buckets = given.noise and given.noise.buckets
    of = [given.noise and given.noise.amplitude, buckets and buckets.mean, buckets and buckets.sigma, given.sinks]
    of = [tensor for tensor in of if tensor is not None] + [given.query, given.key, given.value]
    for tensor, gradient, reference in zip(of, in_order_of_leaves(found), expected_gradients, strict=True):
        assert gradient.dtype == tensor.dtype
        assert gradient.shape == tensor.shape
        assert relative(gradient, reference) <= gradient_tolerance
