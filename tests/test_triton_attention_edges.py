"""The Triton kernels of attention at their edges: nothing to see, NaN and infinity, blocks left out, memory."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is not installed")

from attention_inputs import attention_inputs
from stochroute.kernels import Visibility
from stochroute.kernels.reference import reference_attention
from triton_checks import in_order_of_leaves, relative, rows_of
from triton_device import DEVICE, on_device, triton_for_tests

with triton_for_tests():
    from stochroute.kernels.triton.attention_backward import backward
    from stochroute.kernels.triton.attention_decode import decode
    from stochroute.kernels.triton.attention_forward import forward
    from stochroute.kernels.triton.visibility import key_spans, query_spans

# NumPy tells of what a GPU passes over in silence
nan_is_meant = pytest.mark.filterwarnings("ignore::RuntimeWarning")


pytestmark = pytest.mark.usefixtures("triton_here")


@pytest.mark.parametrize("sinks", [None, torch.tensor([0.5, -1.0, 2.0, 30.0])])
def test_rows_that_see_nothing_give_zeros_and_finite_gradients(sinks):
    given = attention_inputs(5, 20, dtype=torch.float32, sinks=sinks, buckets=2)
    given.visibility.key_slots[1] = -1
    given = on_device(given)
    for kernel in (decode, forward):
        out, lse = kernel(given)
        assert (out[1] == 0).all()
        assert (out[0] != 0).any()
        if sinks is None:
            assert (lse[1] == torch.inf).all()
        else:
            assert torch.allclose(lse[1], sinks.to(DEVICE)[:, None].expand(4, 5))
    found = backward(given, out, lse, torch.ones_like(out))
    assert all(gradient.isfinite().all() for gradient in in_order_of_leaves(found))
    assert all((gradient[1] == 0).all() for gradient in (found.query, found.key, found.value))


@pytest.mark.parametrize(("batch", "queries", "keys"), [(0, 3, 5), (3, 0, 5), (3, 3, 0)])
def test_nothing_to_attend_from_or_to(batch, queries, keys):
    given = rows_of(attention_inputs(3, 5, dtype=torch.float32).queries(slice(queries)), slice(batch))
    noise, visibility = given.noise, given.visibility
    assert noise is not None
    given = replace(
        given,
        key=given.key[:, :, :keys],
        value=given.value[:, :, :keys],
        visibility=replace(visibility, key_slots=visibility.key_slots[:, :keys]),
        noise=replace(noise, key_positions=noise.key_positions[:, :keys]),
    )
    given = on_device(given)
    for kernel in (forward, decode):
        out, lse = kernel(given)
        assert out.shape == (batch, 4, queries, 8)
        assert (out == 0).all()
        assert (lse == torch.inf).all()
    found = backward(given, out, lse, out)
    assert found.key.shape == (batch, 2, keys, 8)
    assert all((gradient == 0).all() for gradient in in_order_of_leaves(found))


def brute_spans(allowed: Tensor, block: int) -> list[tuple[int, int] | None]:
    """For each row of the batch and block along the first axis: the first and past the last true along the second."""
    found = []
    for tile in [row[start : start + block].any(0) for row in allowed for start in range(0, allowed.shape[1], block)]:
        seen = tile.nonzero()[:, 0].tolist()
        found.append((seen[0], seen[-1] + 1) if seen else None)
    return found


@pytest.mark.parametrize("case", ["causal", "window", "shuffled", "explicit", "blind"])
def test_spans_hold_exactly_what_is_seen(case):
    """They let a kernel leave out blocks, so they may be neither too narrow nor too wide. Where a block's slots do not
    ascend, all that lies between the lowest and the highest of them is held."""
    stream = torch.Generator().manual_seed(3)
    slots = torch.arange(200).repeat(3, 1)
    slots[1, :90] = -1
    own = torch.arange(160, 200).repeat(3, 1)
    window = torch.tensor(12 if case in ("window", "shuffled") else 2**63 - 1)
    explicit = None
    if case == "shuffled":
        slots = slots[:, torch.randperm(200, generator=stream)]
    if case == "explicit":
        explicit = torch.rand(3, 40, 200, generator=stream) < 0.003
    if case == "blind":
        own[2] = 80
        slots[2, :100] = -1
    visibility = on_device(Visibility(slots, own, window, explicit))
    allowed = visibility.allowed()[:, 0].cpu()
    for spans, tiles in ((key_spans, allowed), (query_spans, allowed.mT)):
        found = [(b, e) if b < e else None for b, e in spans(visibility, 16).flatten(0, 1).tolist()]
        expected = brute_spans(tiles, 16)
        if case == "shuffled":
            pairs = [(wide, narrow) for wide, narrow in zip(found, expected, strict=True) if narrow]
            assert all(wide and wide[0] <= narrow[0] and wide[1] >= narrow[1] for wide, narrow in pairs)
        else:
            assert found == expected
    assert case != "blind" or None in found


def test_blocks_that_nobody_sees_are_left_out():
    """NaN in them, which not even a weight of 0 would keep out of a sum, comes nowhere."""
    given = attention_inputs(17, 80, 1, 1, dtype=torch.float32, window=8)
    given.key[:, :, :48] = torch.nan
    given.value[:, :, :48] = torch.nan
    given = on_device(given)
    out, lse = forward(given)
    assert out.isfinite().all()
    assert decode(given)[0].isfinite().all()
    found = backward(given, out, lse, torch.ones_like(out))
    assert all(gradient.isfinite().all() for gradient in in_order_of_leaves(found))


@nan_is_meant
@pytest.mark.parametrize("kernel", [forward, decode])
@pytest.mark.parametrize("what", ["query", "key"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_behave_as_in_the_reference(kernel, what, value):
    given = attention_inputs(20, 20, 2, 2, 8, dtype=torch.float32)
    getattr(given, what)[0, 0, 10, 3] = value
    given = on_device(rows_of(given, slice(1)))
    out, expected = kernel(given)[0], reference_attention(given)
    assert 0 < out.isnan().sum() < out[0, 0].numel()
    assert torch.equal(out.isnan(), expected.isnan())
    finite = out.isfinite()
    assert relative(out[finite], expected[finite].double()) <= 2e-6


@nan_is_meant
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_among_the_values_reach_who_sees_them(value):
    given = attention_inputs(20, 20, 2, 2, 8, dtype=torch.float32)
    given.value[0, 0, 10, 3] = value
    given = on_device(rows_of(given, slice(1)))
    for kernel in (forward, decode):
        out = kernel(given)[0]
        assert (
            torch.equal(out[0, 0, 10:, 3], torch.full((10,), value, device=DEVICE)) or out[0, 0, 10:, 3].isnan().all()
        )
        out[0, 0, :, 3] = 0
        assert out.isfinite().all()


@nan_is_meant
def test_scores_that_are_all_minus_infinity_give_zeros():
    given = attention_inputs(4, 4, 1, 1, 16, dtype=torch.float32)
    given = replace(given, query=torch.full((3, 1, 4, 16), torch.inf), key=-torch.ones(3, 1, 4, 16))
    for kernel in (forward, decode):
        assert (kernel(on_device(given))[0] == 0).all()


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_nothing_of_queries_by_keys_is_made():
    given = on_device(attention_inputs(64, 64, 1, 1, 8, dtype=torch.float32))
    with Largest() as largest:
        out, lse = forward(given)
        backward(given, out, lse, out)
    assert largest.elements <= 3 * 64 * 8 * 4  # the interpreter copies tensors as bytes
    with Largest() as largest:
        reference_attention(given)
    assert largest.elements >= 3 * 64 * 64  # the measure sees what it should
