"""The Triton kernels of attention against the reference in float64; in Triton's interpreter where there is no GPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

import stochroute as sr
from attention_inputs import CASES, attention_inputs, exact
from matrix import PATHS
from triton_checks import check, in_order_of_leaves, relative, rows_of
from triton_device import DEVICE, on_device, triton_for_tests

with triton_for_tests():
    from stochroute.kernels.triton import noise as triton_noise
    from stochroute.kernels.triton.attention import attention
    from stochroute.kernels.triton.attention_backward import backward
    from stochroute.kernels.triton.attention_decode import DECODE_QUERIES, decode
    from stochroute.kernels.triton.attention_forward import forward


pytestmark = pytest.mark.usefixtures("triton_here")


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
full_cases = pytest.mark.parametrize("case", ["all of them", "all of them, explicit"])


@every_case
def test_the_kernels_compute_the_formula_and_its_gradients(case):
    # scores of 1,000: float32 keeps four digits of them, and their gradients cancel
    tolerances = (1e-4, 2e-2) if case.get("scaling") == 400 else (2e-6, 2e-5)
    check(attention_inputs(dtype=torch.float32, **case), *tolerances)


@full_cases
def test_several_blocks_of_queries_and_keys(case):
    check(attention_inputs(20, 36, dtype=torch.float32, **CASES[case]), 2e-6, 2e-5)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 33), (16, 16), (33, 50), (33, 7)])
def test_odd_lengths(queries, keys):
    """The last one has queries from before the first key, which see nothing."""
    given = attention_inputs(queries, max(queries, keys), 1, 1, 16, dtype=torch.float32)
    given = replace(given, key=given.key[:, :, :keys], value=given.value[:, :, :keys])
    noise, visibility = given.noise, given.visibility
    assert noise is not None
    given = replace(
        given,
        noise=replace(noise, key_positions=noise.key_positions[:, :keys]),
        visibility=replace(
            visibility,
            key_slots=visibility.key_slots[:, :keys],
            query_slots=visibility.query_slots - max(0, queries - keys),
        ),
    )
    check(given, 2e-6, 2e-5)


def test_every_distance_falls_into_its_bucket():
    """Next to powers of two above 2²⁴ float32 no longer tells integers apart."""
    edges = [2**n + step for n in (1, 5, 24, 25, 30) for step in (-2, -1)] + [0, 1, 2**31 - 2]
    given = attention_inputs(1, len(edges), 1, 1, dtype=torch.float32, buckets=32)
    noise = given.noise
    assert noise is not None
    assert noise.buckets is not None
    newest = torch.full((3, 1), 2**31 - 2)
    given = replace(
        given,
        noise=replace(
            noise,
            key_positions=newest - torch.tensor(edges),
            buckets=replace(noise.buckets, query_positions=newest),
        ),
    )
    check(given, 2e-6, 2e-5)


@pytest.mark.parametrize(("width", "value_width"), [(16, 16), (20, 33), (96, 64)])
def test_any_head_size(width, value_width):
    given = attention_inputs(9, 20, 2, 1, width, value_width=value_width, dtype=torch.float32, scaling=width**-0.5)
    check(given, 2e-6, 2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["plain", "no noise", "all of them"])
def test_half_precision_agrees_at_rounding(dtype, case):
    # the interpreter cuts bfloat16 off where a GPU rounds
    tolerances = (2e-2, 6e-2) if dtype == torch.bfloat16 else (2e-3, 1e-2)
    check(attention_inputs(9, 13, width=16, dtype=dtype, **CASES[case]), *tolerances)


@every_case
def test_decoding_computes_the_formula(case):
    given = on_device(attention_inputs(1, 40, dtype=torch.float32, **case))
    expected, _ = exact(given, torch.zeros(3, 4, 1, given.value.shape[3], device=DEVICE))
    assert relative(decode(given)[0], expected) <= (1e-4 if case.get("scaling") == 400 else 2e-6)


@full_cases
def test_decoding_several_queries_is_the_forward_pass(case):
    """Eighteen pairs of head and query for each key head: more than a block of them."""
    given = on_device(attention_inputs(9, 40, dtype=torch.float32, **CASES[case]))
    (out, lse), (expected, expected_lse) = decode(given), forward(given)
    assert relative(out, expected.double()) <= 1e-6
    assert relative(lse, expected_lse.double()) <= 1e-6


def test_the_number_of_queries_chooses_the_kernel():
    for queries, kernel in ((1, decode), (DECODE_QUERIES, decode), (DECODE_QUERIES + 1, forward)):
        given = on_device(attention_inputs(queries, 17, 1, 1, dtype=torch.float32))
        assert torch.equal(attention(given)[0], kernel(given)[0])


@pytest.mark.parametrize("kernel", [forward, decode])
def test_the_output_lies_as_the_models_projection_reads_it(kernel):
    out, lse = kernel(on_device(attention_inputs(3, 5, dtype=torch.float32)))
    assert out.shape == (3, 4, 3, 8)
    assert out.transpose(1, 2).is_contiguous()
    assert lse.shape == (3, 4, 3)


@pytest.mark.parametrize("distribution", ["normal", "uniform", "rademacher"])
def test_the_noise_has_the_bits_of_the_reference(distribution):
    positions = torch.cat((torch.arange(-2, 70), torch.tensor([4095, 2**20 + 1, 2**31 + 5, 2**40 + 3])))
    own = torch.arange(70).expand(3, -1)
    rows = sr.noise.attention_row_keys(sr.noise.key_words(PATHS), 2, own, 3)
    apart = torch.zeros(3, 2, 70, 4, dtype=torch.int64)
    apart[..., ::2] = rows
    for given_rows, given_positions in ((rows, positions), (apart[..., ::2], positions.flip(0).expand(3, -1))):
        drawn = triton_noise.attention_noise(given_rows.to(DEVICE), given_positions.to(DEVICE), distribution)
        assert torch.equal(drawn.cpu(), sr.noise.attention_noise(given_rows, given_positions, distribution))


def test_the_noise_inside_the_kernel_is_the_same():
    """With one key and no scores the log-sum-exp is the noise: all its 22 bits, to the rounding of base 2."""
    given = attention_inputs(33, 33, 2, 1, dtype=torch.float32)
    noise = given.noise
    assert noise is not None
    rows, positions = noise.row_keys, torch.full((3, 1), 2**20 + 1)
    given = replace(
        given,
        scaling=0.0,
        key=given.key[:, :, :1],
        value=given.value[:, :, :1],
        visibility=replace(given.visibility, key_slots=torch.zeros(3, 1, dtype=torch.int64)),
        noise=replace(noise, key_positions=positions, amplitude=torch.ones(3, 2, 33)),
    )
    expected = sr.noise.attention_noise(rows, positions)[..., 0]
    for kernel in (forward, decode):
        _, lse = kernel(on_device(given))
        assert (lse.cpu() - expected).abs().max() <= 1e-6


def test_strided_inputs_are_read_where_they_lie():
    """Projections as models make them, a cache with room at the end, every second channel, a broadcast mask."""
    plain = attention_inputs(5, 20, 4, 2, 16, dtype=torch.float32, explicit=True, buckets=3)
    query = plain.query.transpose(1, 2).contiguous().transpose(1, 2)
    room = torch.full((3, 2, 50, 16), torch.nan)
    room[:, :, :20] = plain.key
    wide = torch.full((3, 2, 20, 32), torch.nan)
    wide[..., ::2] = plain.value
    noise, visibility = plain.noise, plain.visibility
    assert noise is not None
    assert noise.buckets is not None
    assert visibility.explicit is not None
    plain = replace(plain, visibility=replace(visibility, explicit=visibility.explicit[:1].repeat(3, 1, 1)))
    keys = torch.full((3, 4, 5, 4), -1)
    keys[..., ::2] = noise.row_keys
    strided = replace(
        plain,
        query=query,
        key=room[:, :, :20],
        value=wide[..., ::2],
        noise=replace(
            noise,
            row_keys=keys[..., ::2],
            amplitude=noise.amplitude.transpose(1, 2).contiguous().transpose(1, 2),
            buckets=replace(noise.buckets, mean=noise.buckets.mean.T.contiguous().T),
        ),
        visibility=replace(
            visibility,
            explicit=visibility.explicit[:1].mT.contiguous().mT.expand(3, -1, -1),
            query_slots=visibility.query_slots[:1].expand(3, -1),
        ),
    )
    grad = torch.ones(1, device=DEVICE).expand(3, 4, 5, 16)
    found = []
    for given in (on_device(plain), on_device(strided)):
        out, lse = forward(given)
        found.append([out, lse, decode(given)[0], *in_order_of_leaves(backward(given, out, lse, grad))])
    for one, other in zip(*found, strict=True):
        # a GPU sums in another order where the layout is another
        assert torch.equal(one, other) or (DEVICE == "cuda" and (one - other).norm() <= 2e-6 * one.norm())


def test_a_key_of_one_head_may_be_spread_over_all():
    given = attention_inputs(5, 20, 4, 4, 16, dtype=torch.float32)
    check(replace(given, key=given.key[:, :1].expand(-1, 4, -1, -1)), 2e-6, 2e-5)


def test_keys_in_any_order_of_slots():
    """A ring buffer: the newest key may stand before older ones."""
    given = attention_inputs(9, 40, 2, 1, dtype=torch.float32, window=20)
    turn = torch.randperm(40, generator=torch.Generator().manual_seed(2))
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
    given = on_device(given)
    assert relative(decode(on_device(turned))[0], forward(given)[0].double()) <= 2e-6


def test_runs_give_the_same_bits():
    given = on_device(attention_inputs(17, 17, 1, 1, 16, dtype=torch.float32, buckets=6, sinks=torch.ones(1)))
    found = []
    for _ in range(2):
        out, lse = forward(given)
        found.append([out, *decode(given), *in_order_of_leaves(backward(given, out, lse, out))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_row_decodes_to_the_same_bits_alone_and_in_a_batch():
    given = attention_inputs(1, 40, dtype=torch.float32)
    alone = rows_of(given, slice(1, 2))
    assert torch.equal(decode(on_device(alone))[0], decode(on_device(given))[0][1:2])


def test_every_kernel_compiles_for_an_h100(tmp_path):
    """In a process of its own, where nothing is interpreted; what a block takes of shared memory must be there."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "triton_compilation.py"
    ended = subprocess.run(
        [sys.executable, script],
        check=False,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    kernels = json.loads(ended.stdout)
    assert {kernel["kernel"] for kernel in kernels} == {
        *("_forward", "_query_gradients", "_key_gradients", "_key_spans", "_query_spans"),
        *("_decode_split", "_decode_combine"),
        *("_add_noise", "_add_noise_gradients", "_attention_noise", "_vector_noise", "_philox_grid"),
        *("_add_unit_noise", "_add_unit_noise_gradients"),
    }
    assert max(kernel["shared"] for kernel in kernels) <= 227 << 10
    # the compiler sees through the count of bits, see `stochroute.kernels.triton.noise.popcount`
    counting = {"_forward", "_query_gradients", "_key_gradients", "_decode_split", "_add_noise", "_attention_noise"}
    assert all(kernel["popc"] for kernel in kernels if kernel["kernel"] in counting)
