"""The Triton kernels of structural noise against the reference in float64; interpreted where there is no GPU."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

import stochroute as sr
from matrix import PATHS
from stochroute.kernels.feed_forward import FeedForwardNoise
from stochroute.kernels.feed_forward import add_noise as reference_add_noise
from stochroute.noise import SHARED_LAYER, Kind
from triton_device import DEVICE, on_device, triton_for_tests

with triton_for_tests():
    from stochroute.kernels.triton import feed_forward
    from stochroute.kernels.triton import noise as triton_noise

KEYS = sr.noise.key_words([*PATHS[:2], 2**64 - 1])
DISTRIBUTIONS = ["normal", "uniform", "rademacher"]


pytestmark = pytest.mark.usefixtures("triton_here")


def arguments(
    length: int = 7, width: int = 37, relative: bool = True, dtype: torch.dtype = torch.float32, **changes
) -> tuple[Tensor, FeedForwardNoise]:
    """States (3, length, width), the first of them all zeros, and their noise."""
    stream = torch.Generator().manual_seed(0)
    states = torch.randn(3, length, width, generator=stream).to(dtype)
    states[0, 0] = 0
    noise = FeedForwardNoise(
        keys=KEYS,
        blocks=torch.arange(length).repeat(3, 1) // 2,
        layer=3,
        distribution="normal",
        factor=torch.rand(3, length, generator=stream),
        relative=relative,
        mu=torch.randn(width, generator=stream),
        sigma=torch.randn(width, generator=stream),
    )
    return states.to(DEVICE), on_device(replace(noise, **changes))


def worst(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


def check(states: Tensor, noise: FeedForwardNoise, tolerance: float, gradient_tolerance: float) -> None:
    """Result and gradients against the reference in float64."""
    leaves = [t.double().requires_grad_() for t in (states, noise.mu, noise.sigma)]
    expected = reference_add_noise(leaves[0], replace(noise, mu=leaves[1], sigma=leaves[2]))
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(states)
    expected_gradients = torch.autograd.grad(expected, leaves, grad.double())
    out = feed_forward.add_noise(states, noise)
    found = feed_forward.add_noise_backward(grad, states, noise)
    assert out.dtype == states.dtype
    assert out.shape == states.shape
    assert worst(out, expected.detach()) <= tolerance
    for gradient, reference, of in zip(found, expected_gradients, (states, noise.mu, noise.sigma), strict=True):
        assert gradient.dtype == of.dtype
        assert gradient.shape == of.shape
        assert worst(gradient, reference) <= gradient_tolerance


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("layer", [0, 1, SHARED_LAYER])
def test_the_kernels_compute_the_formula_and_its_gradients(relative, distribution, layer):
    check(*arguments(relative=relative, distribution=distribution, layer=layer), 1e-6, 3e-6)


@pytest.mark.parametrize(("length", "width"), [(1, 1), (2, 3), (2, 16), (20, 65), (1, 300)])
def test_any_width_and_length(length, width):
    """Twenty positions of three rows take several programs in the backward pass."""
    check(*arguments(length, width), 1e-6, 3e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float64, 1e-12)]
)
def test_every_dtype_agrees_at_rounding(dtype, tolerance):
    states, noise = arguments(dtype=dtype)
    if dtype == torch.float64:
        noise = replace(noise, mu=noise.mu.double(), sigma=noise.sigma.double(), factor=noise.factor.double())
    check(states, noise, tolerance, tolerance)


def test_strided_states_and_gradients_are_read_where_they_lie():
    states, noise = arguments(6, 20)
    spread = noise.factor[:1].expand(3, -1)
    plain = replace(noise, factor=spread.contiguous(), mu=noise.mu.contiguous())
    lying = replace(
        noise,
        factor=spread,
        blocks=noise.blocks[:1].expand(3, -1),
        mu=torch.stack((noise.mu, noise.mu), -1)[:, 0],
        keys=noise.keys.T.contiguous().T,
    )
    turned = states.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    grad = torch.ones(1, device=DEVICE).expand(states.shape)
    assert torch.equal(feed_forward.add_noise(turned, lying), feed_forward.add_noise(states, plain))
    pairs = zip(
        feed_forward.add_noise_backward(grad, turned, lying),
        feed_forward.add_noise_backward(grad.contiguous(), states, plain),
        strict=True,
    )
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("layer", [0, 1, SHARED_LAYER])
def test_the_noise_has_the_bits_of_the_reference(distribution, layer):
    blocks = torch.tensor([[0, 1], [2**31, 2**32 - 1], [77, 5]])
    for n in (1, 4, 37):
        given = KEYS[:, None], n, blocks, layer, Kind.FFN, distribution
        moved = [argument.to(DEVICE) if isinstance(argument, Tensor) else argument for argument in given]
        assert torch.equal(triton_noise.vector_noise(*moved).cpu(), sr.noise.vector_noise(*given))


def test_the_noise_inside_the_kernel_is_the_same():
    """On states of 0, with a factor and a sigma of 1, the result is the noise."""
    states, noise = arguments(relative=False)
    noise = replace(
        noise,
        factor=torch.ones_like(noise.factor),
        mu=torch.zeros_like(noise.mu),
        sigma=torch.ones_like(noise.sigma),
    )
    assert torch.equal(feed_forward.add_noise(torch.zeros_like(states), noise), noise.draw())


def test_states_of_zero_have_no_norm_and_finite_gradients():
    states, noise = arguments()
    assert (feed_forward.add_noise(states, noise)[0, 0] == 0).all()
    d_states, _, _ = feed_forward.add_noise_backward(torch.ones_like(states), states, noise)
    assert torch.equal(d_states[0, 0], torch.ones_like(states[0, 0]))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy tells of what a GPU passes over in silence
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinity_stay_in_their_row(value):
    states, noise = arguments()
    states[1, 2, 5] = value
    out, expected = feed_forward.add_noise(states, noise), reference_add_noise(states, noise)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isfinite(), expected.isfinite())
    assert 0 < (~out.isfinite()).sum() <= states.shape[-1]


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_no_rows_and_no_positions(shape):
    states, noise = arguments()
    states, rows, positions = states[: shape[0], : shape[1]], slice(shape[0]), slice(shape[1])
    noise = replace(
        noise,
        keys=noise.keys[rows],
        blocks=noise.blocks[rows, positions],
        factor=noise.factor[rows, positions],
    )
    assert feed_forward.add_noise(states, noise).shape == states.shape
    d_states, d_mu, d_sigma = feed_forward.add_noise_backward(states, states, noise)
    assert d_states.shape == states.shape
    assert (d_mu == 0).all()
    assert (d_sigma == 0).all()


def test_runs_give_the_same_bits():
    states, noise = arguments(20, 40)
    first, second = (feed_forward.add_noise_backward(states, states, noise) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
