"""The Triton kernels that add noise drawn before, against the reference in float64, and the operator made of them;
interpreted where there is no GPU."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from stochroute.kernels.feed_forward import add_unit_noise as reference
from stochroute.kernels.operators import fused_add_unit_noise
from triton_device import DEVICE, triton_for_tests

with triton_for_tests():
    from stochroute.kernels.triton.unit_noise import add_unit_noise, add_unit_noise_backward

pytestmark = pytest.mark.usefixtures("triton_here")


def arguments(length: int = 7, width: int = 37, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """States (3, length, width), the first of them all zeros, unit noise as wide as computed in, and the factor."""
    stream = torch.Generator().manual_seed(0)
    states, unit = (torch.randn(3, length, width, generator=stream).to(DEVICE) for _ in range(2))
    states[0, 0] = 0
    wide = torch.promote_types(dtype, torch.float32)
    return states.to(dtype), unit.to(wide), torch.rand(3, length, generator=stream).to(DEVICE, wide)


def check(states: Tensor, unit: Tensor, factor: Tensor, relative: bool, tolerance: float) -> None:
    """Result and gradients against the reference in float64."""
    leaves = [t.double().requires_grad_() for t in (states, unit)]
    expected = reference(*leaves, factor.double(), relative)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(states)
    gradients = torch.autograd.grad(expected, leaves, grad.double())
    out = add_unit_noise(states, unit, factor, relative)
    found = add_unit_noise_backward(grad, states, unit, factor, relative)
    for actual, of, exact in zip((out, *found), (states, states, unit), (expected, *gradients), strict=True):
        assert actual.dtype == of.dtype
        assert actual.shape == of.shape
        assert (actual.double() - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("length", "width"), [(7, 37), (1, 1), (2, 16), (20, 65), (1, 300)])
def test_the_kernels_compute_the_formula_and_its_gradients(relative, length, width):
    check(*arguments(length, width), relative, 1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float64, 1e-12)]
)
def test_every_dtype_agrees_at_rounding(dtype, tolerance):
    check(*arguments(dtype=dtype), True, tolerance)


def test_strided_tensors_are_read_where_they_lie():
    states, unit, factor = arguments(6, 20)
    turned = states.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    spread, plain = unit[:, :1].expand(states.shape), unit[:, :1].repeat(1, 6, 1)
    grad = torch.ones(1, device=DEVICE).expand(states.shape)
    one_factor = factor[:1].expand(3, -1)
    assert torch.equal(
        add_unit_noise(turned, spread, one_factor, True), add_unit_noise(states, plain, one_factor.contiguous(), True)
    )
    pairs = zip(
        add_unit_noise_backward(grad, turned, spread, one_factor, True),
        add_unit_noise_backward(grad.contiguous(), states, plain, one_factor.contiguous(), True),
        strict=True,
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_states_of_zero_have_no_norm_and_finite_gradients():
    states, unit, factor = arguments()
    assert (add_unit_noise(states, unit, factor, True)[0, 0] == 0).all()
    d_states, d_unit = add_unit_noise_backward(torch.ones_like(states), states, unit, factor, True)
    assert torch.equal(d_states[0, 0], torch.ones_like(states[0, 0]))
    assert (d_unit[0, 0] == 0).all()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_no_rows_and_no_positions(shape):
    states, unit, factor = (t[: shape[0], : shape[1]] for t in arguments())
    assert add_unit_noise(states, unit, factor, True).shape == states.shape
    assert all(g.shape == states.shape for g in add_unit_noise_backward(states, states, unit, factor, True))


# ---- the operator ----


@pytest.fixture
def operator() -> Iterator[None]:
    """On the tests' device, also where that is the CPU, which has no use for it else."""
    with torch.library._scoped_library("stochroute", "IMPL") as library:
        if DEVICE == "cpu":
            library.impl("add_unit_noise", add_unit_noise, "CPU")
            library.impl("add_unit_noise_backward", add_unit_noise_backward, "CPU")
        yield


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("held", [False, True], ids=["a draw a position", "a draw a sequence"])
def test_the_operator_has_the_gradients_of_the_formula(held):
    states, unit, factor = arguments()
    unit = unit[:, :1] if held else unit
    ours, exact = ([t.to(d).requires_grad_() for t in (states, unit)] for d in (torch.float32, torch.float64))
    grad = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = torch.autograd.grad(fused_add_unit_noise(*ours, factor, True), ours, grad)
    expected = torch.autograd.grad(reference(*exact, factor.double(), True), exact, grad.double())
    for actual, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, gradient.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_is_one_that_torch_can_trace(dtype):
    states, unit, factor = arguments(dtype=dtype)
    given = states.requires_grad_(), unit.requires_grad_(), factor, True
    torch.library.opcheck(torch.ops.stochroute.add_unit_noise.default, given)
