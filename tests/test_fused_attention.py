"""The compiled attention kernels, each instruction set of them, against the reference in float64 and against SDPA."""

import gc
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import stochroute as sr
from attention_inputs import CASES, NO_WINDOW, attention_inputs, exact, with_leaves
from levels import LEVELS
from matrix import PATHS
from stochroute.kernels import AttentionInputs, ScoreNoise, Visibility, attend
from stochroute.kernels.operators import fused_attention

pytestmark = pytest.mark.skipif(not LEVELS, reason="the package was installed without a C++ compiler")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference over the largest value, or over 0.5 where all are smaller (gradients that cancel)."""
    return ((actual.double() - expected).abs().max() / expected.abs().max().clamp_min(0.5)).item()


def check(given: AttentionInputs, tolerance: float, gradient_tolerance: float) -> None:
    """Result and gradients against the reference in float64."""
    leafy, leaves = with_leaves(given)
    out = fused_attention(leafy)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    gradients = torch.autograd.grad(out, leaves, grad_out)
    expected, expected_gradients = exact(given, grad_out)
    assert out.dtype == given.value.dtype
    assert relative(out.detach(), expected) <= tolerance
    for leaf, gradient, reference in zip(leaves, gradients, expected_gradients, strict=True):
        assert gradient.dtype == leaf.dtype
        assert gradient.shape == leaf.shape
        assert relative(gradient, reference) <= gradient_tolerance


@every_case
def test_every_instruction_set_computes_the_formula_and_its_gradients(case, level):
    # scores of 1,000: float32 keeps four digits of them, and their gradients cancel
    tolerances = (1e-4, 2e-2) if case.get("scaling") == 400 else (2e-6, 2e-5)
    check(attention_inputs(dtype=torch.float32, **case), *tolerances)


@every_case
def test_decoding_computes_the_formula(case, level):
    for queries in (1, 2, 4):
        given = attention_inputs(queries, 200, dtype=torch.float32, **case)
        expected, _ = exact(given, torch.zeros(3, 4, queries, given.value.shape[3]))
        assert relative(fused_attention(given), expected) <= (1e-4 if case.get("scaling") == 400 else 2e-6)


@pytest.mark.parametrize("case", ["plain", "all of them", "explicit", "many buckets"])
@pytest.mark.parametrize("length", [1, 7, 96, 97, 129, 1000])
def test_odd_lengths(length, case, level):
    keys = {1: 1, 129: 200}.get(length, length)
    check(attention_inputs(length, keys, 2, 1, 16, dtype=torch.float32, **{**CASES[case], "sinks": None}), 2e-6, 2e-5)


@pytest.mark.parametrize("width", [16, 20, 33, 64, 80, 96, 128, 256])
def test_any_head_size(width, level):
    check(attention_inputs(70, 70, width=width, dtype=torch.float32, scaling=width**-0.5), 2e-6, 2e-5)


@pytest.mark.parametrize("case", ["plain", "all of them", "no noise"])
def test_bfloat16_agrees_at_rounding(case, level):
    check(attention_inputs(100, 130, width=32, dtype=torch.bfloat16, **CASES[case]), 5e-3, 2e-2)


def test_strided_inputs_are_read_where_they_lie(level):
    """Projections as models make them, a cache with room at the end, and every second channel."""
    plain = attention_inputs(40, 60, 4, 2, 16, dtype=torch.float32)
    query = plain.query.transpose(1, 2).contiguous().transpose(1, 2)
    room = torch.full((3, 2, 100, 16), torch.nan)
    room[:, :, :60] = plain.key
    wide = torch.full((3, 2, 60, 32), torch.nan)
    wide[..., ::2] = plain.value
    noise = plain.noise
    assert noise is not None
    keys = torch.full((3, 4, 40, 4), -1)
    keys[..., ::2] = noise.row_keys
    amplitude = noise.amplitude.transpose(1, 2).contiguous().transpose(1, 2)
    strided = replace(
        plain,
        query=query,
        key=room[:, :, :60],
        value=wide[..., ::2],
        noise=replace(noise, row_keys=keys[..., ::2], amplitude=amplitude),
    )
    assert torch.equal(fused_attention(strided), fused_attention(plain))
    check(strided, 2e-6, 2e-5)


def test_a_key_of_one_head_may_be_spread_over_all(level):
    given = attention_inputs(20, 20, 4, 4, 16, dtype=torch.float32)
    spread = replace(given, key=given.key[:, :1].expand(-1, 4, -1, -1))
    check(spread, 2e-6, 2e-5)


def test_rows_that_see_nothing_and_empty_batches(level):
    given = attention_inputs(dtype=torch.float32)
    given.visibility.key_slots[1] = -1
    check(given, 2e-6, 2e-5)
    assert (fused_attention(given)[1] == 0).all()
    for queries in (1, 9):
        empty = attention_inputs(queries, dtype=torch.float32)
        visibility, noise = empty.visibility, empty.noise
        assert noise is not None
        empty = replace(
            empty,
            query=empty.query[:0],
            key=empty.key[:0],
            value=empty.value[:0],
            visibility=replace(visibility, key_slots=visibility.key_slots[:0], query_slots=visibility.query_slots[:0]),
            noise=replace(
                noise,
                row_keys=noise.row_keys[:0],
                key_positions=noise.key_positions[:0],
                amplitude=noise.amplitude[:0].requires_grad_(True),
            ),
        )
        out = fused_attention(empty)
        assert out.shape == (0, 4, queries, 8)
        out.sum().backward()


def test_keys_in_any_order_of_slots(level):
    """A ring buffer: the newest key may stand before older ones."""
    given = attention_inputs(30, 200, dtype=torch.float32, window=50)
    turn = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    noise, visibility = given.noise, given.visibility
    assert noise is not None
    turned = replace(
        given,
        key=given.key[:, :, turn],
        value=given.value[:, :, turn],
        visibility=replace(visibility, key_slots=visibility.key_slots[:, turn]),
        noise=replace(noise, key_positions=noise.key_positions[:, turn]),
    )
    check(turned, 2e-6, 2e-5)


def grid_numbers(given: AttentionInputs, positions: torch.Tensor) -> torch.Tensor:
    """The integers that the kernel's own normal noise stands for, (b, h, q, k), read off its log-sums one key at a
    time: with a single visible key and scores of 0 the log-sum is the noise itself."""
    found = []
    for j in range(len(positions)):
        visible = torch.zeros(3, given.query.shape[2], len(positions), dtype=torch.bool)
        visible[:, :, j] = True
        only = replace(given, visibility=replace(given.visibility, explicit=visible))
        noise = only.noise
        assert noise is not None
        _, lse = torch.ops.stochroute.attention(
            *(only.query, only.key, only.value, None, noise.amplitude, None, None),
            *(only.visibility.key_slots, only.visibility.query_slots, NO_WINDOW, visible),
            *(noise.row_keys, noise.key_positions, None, "normal", 1.0, 0.0),
        )
        found.append(lse)
    return (torch.stack(found, -1).double() * 2**17 * (8 + 1 / 12) ** 0.5).round().long()


@pytest.mark.parametrize("queries", [1, 33])
def test_the_noise_has_the_bits_of_the_reference(queries, level):
    """The noise is an odd integer over 2¹⁷ √(8 + 1/12), and float32 tells neighbouring ones apart."""
    positions = torch.cat((torch.arange(20), torch.tensor([4095, 2**20 + 1, 2**31 - 1])))
    own = torch.arange(5, 5 + queries).expand(3, -1)
    rows = sr.noise.attention_row_keys(sr.noise.key_words(PATHS), 2, own, 3)
    slots = torch.arange(len(positions)).expand(3, -1)
    zeros = torch.zeros(3, 2, queries, 16)
    keys = torch.zeros(3, 2, len(positions), 16)
    noise = ScoreNoise(rows, positions.expand(3, -1), torch.ones(3, 2, queries), "normal")
    given = AttentionInputs(zeros, keys, keys, Visibility(slots, own, NO_WINDOW, None), noise, 1.0)
    drawn = sr.noise.attention_noise(rows, positions)
    expected = (drawn.double() * 2**17 * (8 + 1 / 12) ** 0.5).round().long()
    assert (expected % 2 == 1).all()
    assert torch.equal(grid_numbers(given, positions), expected)


@pytest.mark.parametrize("what", ["query", "key", "value"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("length", [40, 300])
def test_nan_and_infinity_behave_as_in_sdpa(what, value, length, level):
    given = attention_inputs(length, length, 2, 2, 16, dtype=torch.float32, noise=False)
    given = replace(given, query=given.query[:1], key=given.key[:1], value=given.value[:1], scaling=16**-0.5)
    slots = torch.arange(length)[None]
    given = replace(given, visibility=Visibility(slots, slots, NO_WINDOW, None))
    getattr(given, what)[0, 0, 20, 3] = value
    out = fused_attention(given)
    stock = scaled_dot_product_attention(given.query, given.key, given.value, is_causal=True)
    assert torch.equal(out.isnan(), stock.isnan())
    assert torch.equal(out.isposinf(), stock.isposinf())
    assert torch.equal(out.isneginf(), stock.isneginf())
    finite = out.isfinite()
    assert relative(out[finite], stock[finite].double()) <= 2e-6
    assert relative(out[:, 1], stock[:, 1].double()) <= 2e-6  # the other head is untouched


def test_scores_that_are_all_minus_infinity_give_zeros_as_in_sdpa():
    query = torch.full((1, 1, 4, 16), torch.inf)
    key = -torch.ones(1, 1, 4, 16)
    slots = torch.arange(4)[None]
    given = AttentionInputs(query, key, key, Visibility(slots, slots, NO_WINDOW, None), None, 1.0)
    assert torch.equal(fused_attention(given), scaled_dot_product_attention(query, key, key, is_causal=True, scale=1.0))


def test_without_noise_it_is_sdpa(level):
    given = attention_inputs(300, 300, 4, 2, 64, dtype=torch.float32, noise=False)
    slots = torch.arange(300).expand(3, -1)
    given = replace(given, visibility=Visibility(slots, slots, NO_WINDOW, None))
    stock = scaled_dot_product_attention(
        given.query, given.key, given.value, is_causal=True, scale=0.3, enable_gqa=True
    )
    assert relative(fused_attention(given), stock.double()) <= 2e-6


def test_runs_and_threads_give_the_same_bits():
    given = attention_inputs(300, 300, 4, 2, 32, dtype=torch.float32, buckets=6)
    found = []
    for threads in (1, 1, 2):
        torch.set_num_threads(threads)
        try:
            leafy, leaves = with_leaves(given)
            out = fused_attention(leafy)
            found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
        finally:
            torch.set_num_threads(1)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


OPERATOR_CASES = ["plain", "no noise", "all of them", "explicit"]


def operator_arguments(case: str, dtype: torch.dtype = torch.float32) -> tuple:
    given, _ = with_leaves(attention_inputs(5, 7, dtype=dtype, **CASES[case]))
    noise = given.noise
    buckets = None if noise is None else noise.buckets
    return (
        *(given.query, given.key, given.value, given.sinks),
        *(None if noise is None else noise.amplitude, buckets and buckets.mean, buckets and buckets.sigma),
        *(given.visibility.key_slots, given.visibility.query_slots),
        *(given.visibility.window, given.visibility.explicit),
        *(None if noise is None else noise.row_keys, None if noise is None else noise.key_positions),
        buckets and buckets.query_positions,
        *("normal" if noise is None else noise.distribution, given.scaling, given.softcap or 0.0),
    )


@pytest.mark.parametrize("case", OPERATOR_CASES)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_operator_is_what_torch_asks_of_one(case):
    torch.library.opcheck(torch.ops.stochroute.attention.default, operator_arguments(case), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", OPERATOR_CASES)
@pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double:UserWarning")
def test_gradients_are_slopes(case):
    """torch's gradcheck, with the wide steps that float32 needs; `check` holds them against float64 more sharply."""
    arguments = operator_arguments(case)
    assert torch.autograd.gradcheck(
        lambda *tensors: torch.ops.stochroute.attention(*tensors, *arguments[7:])[0],
        arguments[:7],
        eps=2e-2,
        atol=2e-3,
        rtol=2e-2,
        nondet_tol=0.0,
    )


def test_gradcheck_of_the_reference_in_float64():
    given, leaves = with_leaves(attention_inputs(4, 6, **CASES["all of them"]))
    places = [given.query, given.key, given.value]

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        query, key, value = tensors
        return attend(replace(given, query=query, key=key, value=value), "reference")

    assert torch.autograd.gradcheck(function, places)
    assert len(leaves) == 7


def test_nothing_of_queries_by_keys_is_in_memory_and_nothing_leaks():
    """Peak resident memory of the process grows by less than half of the scores of a single head."""
    import resource

    length = 3000
    given = attention_inputs(length, length, 4, 4, 16, dtype=torch.float32)
    small = attention_inputs(10, 10, 4, 4, 16, dtype=torch.float32)
    for warm in (small, given):
        leafy, leaves = with_leaves(warm)
        torch.autograd.grad(fused_attention(leafy).sum(), leaves)
    del leafy, leaves
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        leafy, leaves = with_leaves(given)
        torch.autograd.grad(fused_attention(leafy).sum(), leaves)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < length * length * 4 / 2
