"""The compiled kernel of structural noise, each instruction set of it, against the reference."""

from dataclasses import replace

import pytest
import torch

import stochroute as sr
from levels import LEVELS
from matrix import PATHS
from stochroute.kernels import FeedForwardNoise
from stochroute.kernels.feed_forward import add_noise
from stochroute.kernels.operators import fused_add_noise
from stochroute.noise import SHARED_LAYER

pytestmark = pytest.mark.skipif(not LEVELS, reason="the package was installed without a C++ compiler")


def noise_of(length: int, hidden: int, seed: int = 0, **changes) -> FeedForwardNoise:
    stream = torch.Generator().manual_seed(seed)
    made = FeedForwardNoise(
        keys=sr.noise.key_words(PATHS),
        blocks=torch.arange(length).expand(3, -1) // 2 + torch.tensor([[0], [2**31], [7]]),
        layer=2,
        distribution="normal",
        factor=torch.rand(3, length, generator=stream),
        relative=True,
        mu=torch.randn(hidden, generator=stream),
        sigma=torch.randn(hidden, generator=stream),
    )
    return replace(made, **changes)


def states_of(length: int, hidden: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, length, hidden, generator=torch.Generator().manual_seed(5)).to(dtype)


CASES = {
    "relative": {},
    "absolute": {"relative": False},
    "shared": {"layer": SHARED_LAYER},
    "uniform": {"distribution": "uniform"},
    "rademacher": {"distribution": "rademacher"},
    "one draw a sequence": {"blocks": torch.zeros(3, 1, dtype=torch.int64)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("length", "hidden"), [(1, 32), (9, 100), (70, 257)])
def test_result_and_gradients_are_those_of_the_reference(case, length, hidden, level):
    found = []
    for function, dtype in ((fused_add_noise, torch.float32), (add_noise, torch.float64)):
        states = states_of(length, hidden).to(dtype).requires_grad_(True)
        noise = noise_of(length, hidden, **case)
        mu, sigma = (t.to(dtype).requires_grad_(True) for t in (noise.mu, noise.sigma))
        out = function(states, replace(noise, mu=mu, sigma=sigma))
        grad_out = torch.randn(3, length, hidden, generator=torch.Generator().manual_seed(6))
        found.append([out.detach(), *torch.autograd.grad(out, (states, mu, sigma), grad_out.to(dtype))])
    for fused, reference, limit in zip(*found, (1e-6, 2e-6, 5e-6, 5e-6), strict=True):
        assert fused.dtype == torch.float32
        assert (fused - reference).abs().max() <= limit * reference.abs().max()


@pytest.mark.parametrize("distribution", sr.noise.DISTRIBUTIONS)
@pytest.mark.parametrize("hidden", [1, 4, 63, 300])
def test_the_noise_has_the_bits_of_the_reference(distribution, hidden, level):
    silent, loud = torch.zeros(hidden), torch.ones(hidden)
    noise = noise_of(
        11, hidden, distribution=distribution, mu=silent, sigma=loud, factor=torch.ones(3, 11), relative=False
    )
    assert torch.equal(fused_add_noise(torch.zeros(3, 11, hidden), noise), noise.draw())


def test_bfloat16_is_rounded_once(level):
    states, noise = states_of(20, 64, torch.bfloat16), noise_of(20, 64)
    exact = add_noise(states.double(), noise)
    out = fused_add_noise(states, noise)
    assert out.dtype == torch.bfloat16
    assert ((out.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()


def test_a_position_without_noise_keeps_its_bits_and_its_gradient(level):
    states = states_of(8, 48).requires_grad_(True)
    noise = noise_of(8, 48)
    noise.factor[:, :5] = 0
    out = fused_add_noise(states, noise)
    assert torch.equal(out[:, :5], states[:, :5])
    assert not torch.equal(out[:, 5], states[:, 5])
    (gradient,) = torch.autograd.grad(out.sum(), states)
    assert (gradient[:, :5] == 1).all()


def test_zero_states_have_finite_gradients(level):
    states, noise = torch.zeros(3, 4, 32, requires_grad=True), noise_of(4, 32)
    mu = noise.mu.requires_grad_(True)
    gradients = torch.autograd.grad(fused_add_noise(states, noise).sum(), (states, mu))
    assert all(g.isfinite().all() for g in gradients)


def test_nan_and_infinity_stay_in_their_position(level):
    states, noise = states_of(6, 32), noise_of(6, 32)
    states[0, 2, 3], states[1, 4, 0] = torch.nan, torch.inf
    out = fused_add_noise(states, noise)
    assert torch.equal(out.isfinite().all(-1), states.isfinite().all(-1))


def test_strided_states_and_an_empty_batch(level):
    noise = noise_of(10, 64)
    states = states_of(10, 128)[..., ::2]
    assert torch.equal(fused_add_noise(states, noise), fused_add_noise(states.contiguous(), noise))
    turned = states_of(64, 10).transpose(1, 2)
    assert torch.equal(fused_add_noise(turned, noise), fused_add_noise(turned.contiguous(), noise))
    empty = replace(noise, keys=noise.keys[:0], blocks=noise.blocks[:0], factor=noise.factor[:0])
    assert fused_add_noise(torch.zeros(0, 10, 64), empty).shape == (0, 10, 64)


def test_runs_and_threads_give_the_same_bits():
    states, noise = states_of(300, 64).requires_grad_(True), noise_of(300, 64)
    mu, sigma = noise.mu.requires_grad_(True), noise.sigma.requires_grad_(True)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            out = fused_add_noise(states, noise)
            found.append([out, *torch.autograd.grad(out.square().sum(), (states, mu, sigma))])
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_operator_is_what_torch_asks_of_one(relative):
    noise = noise_of(5, 20)
    arguments = (
        *(states_of(5, 20).requires_grad_(True), noise.mu.requires_grad_(True), noise.sigma.requires_grad_(True)),
        *(noise.keys, noise.blocks, noise.layer, noise.distribution, noise.factor, relative),
    )
    torch.library.opcheck(torch.ops.stochroute.add_noise.default, arguments, atol=1e-5, rtol=1e-4)


def test_no_temporary_is_larger_than_the_activation():
    """In torch alone the draw is int64 words and float32 numbers of the activation's shape."""
    from test_attention import Largest

    states, noise = states_of(200, 256, torch.bfloat16), noise_of(200, 256)
    sizes = {}
    for function in (fused_add_noise, add_noise):
        with Largest() as largest:
            function(states, noise)
        sizes[function] = largest.bytes
    assert sizes[fused_add_noise] <= states.numel() * 2
    assert sizes[add_noise] > 3 * states.numel() * 2  # the measure sees what it should
