"""Attention routing: softmax((QKᵀ + N)/√d_k) V, against the formula written out once more."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

import stochroute as sr
from attention_inputs import CASES, attention_inputs, with_leaves, written_out
from families import FAMILIES
from matrix import PATHS, assert_differ, assert_same, logits_of, padded, random_ids, routed_model, stock_model
from stochroute.kernels import ATTENTION

IDS = random_ids(3, 12)


def attention_only(strength: float | tuple[float, ...] = 1.0, **settings) -> sr.RoutingConfig:
    return sr.RoutingConfig(structural=None, attention=sr.Attention(strength=strength, **settings), span="all")


TORCH_KERNELS = ("blocked", "reference")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
TWO_QUERIES = 3 * 4 * 13 * 2  # scores of a block that holds two queries of `attention_inputs`


@pytest.mark.parametrize("kernel", TORCH_KERNELS)
@every_case
def test_every_torch_kernel_computes_the_formula(kernel, case, monkeypatch):
    monkeypatch.setattr("stochroute.kernels.blocked.BLOCK_ELEMENTS", TWO_QUERIES)
    given = attention_inputs(**case)
    assert_same(ATTENTION[kernel](given), written_out(given))


@every_case
def test_the_blocked_kernel_has_the_gradients_of_the_reference(case, monkeypatch):
    monkeypatch.setattr("stochroute.kernels.blocked.BLOCK_ELEMENTS", TWO_QUERIES)
    given, leaves = with_leaves(attention_inputs(**case), torch.float64)
    found = []
    for kernel in TORCH_KERNELS:
        out = ATTENTION[kernel](given)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(out.square().sum(), leaves)]))
    assert_same(found[0], found[1])


def test_bfloat16_queries_are_softmaxed_in_float32():
    given = attention_inputs(dtype=torch.bfloat16)
    out = ATTENTION["blocked"](given)
    assert out.dtype == torch.bfloat16
    assert_same(out.double(), written_out(given), 2e-2)


@pytest.mark.parametrize("kernel", TORCH_KERNELS)
def test_a_query_that_sees_no_key_gives_zeros_and_finite_gradients(kernel):
    given, leaves = with_leaves(attention_inputs())
    given.visibility.key_slots[1] = -1
    out = ATTENTION[kernel](given)
    assert (out[1] == 0).all()
    assert (out[0] != 0).any()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), leaves))


class Largest(TorchDispatchMode):
    """Notes the number of elements, and of bytes, of the largest tensor that any operation makes."""

    elements = bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


def test_the_blocked_kernel_never_holds_queries_by_keys_in_forward_or_backward(monkeypatch):
    length, limit = 384, 1 << 14
    monkeypatch.setattr("stochroute.kernels.blocked.BLOCK_ELEMENTS", limit)
    sizes, saved = {}, 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved = max(saved, tensor.numel())
        return tensor

    for kernel in TORCH_KERNELS:
        given, leaves = with_leaves(attention_inputs(length, length))
        saved = 0
        with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            torch.autograd.grad(ATTENTION[kernel](given).sum(), leaves)
        sizes[kernel] = largest.elements, saved
    inputs = given.query.numel()
    assert max(sizes["blocked"]) <= max(inputs, limit)
    assert max(sizes["reference"]) > 10 * max(inputs, limit)  # the measure sees what it should


@torch.no_grad()
def test_a_routed_model_never_holds_queries_by_keys_under_padding_and_windows(monkeypatch):
    length = 120
    monkeypatch.setattr("stochroute.kernels.blocked.BLOCK_ELEMENTS", 1 << 12)
    ids, mask = padded(random_ids(2, length), [length, 70], length)
    with routed_model("qwen2", attention_only()) as routed, routed.follow(PATHS[:2]), Largest() as largest:
        routed.model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    assert largest.elements < 2 * length * length


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_oss", "mistral"])
def test_the_reference_kernel_and_the_blocked_one_give_one_model(family):
    ids, mask = padded(IDS, [12, 5, 9], 12)
    logits = []
    for kernel in TORCH_KERNELS:
        with routed_model(family, attention_only(), attention_kernel=kernel) as routed, routed.follow(PATHS):
            logits.append(logits_of(routed.model, ids, mask))
    assert_same(logits[0][mask.bool()], logits[1][mask.bool()])


@torch.no_grad()
def log_odds(family: str, strength: float, paths: list[int]) -> torch.Tensor:
    """What noise adds to the log-odds of neighbouring keys in layer 0: (pairs, paths), in nats.

    The values are a one-hot of the position, so that the output of the attention is its weights.
    """
    model = stock_model(family)
    attention, length = model.model.layers[0].self_attn, 8
    last = {}

    def weights_of(module, query, key, value, *args, **kwargs):
        eye = torch.eye(length, dtype=value.dtype).expand(*value.shape[:2], length, length)
        out = stock(module, query, key, eye, *args, **kwargs)
        last["weights"] = out[0]  # (b, q, h, k)
        return stock(module, query, key, value, *args, **kwargs)

    found = []
    for on in (False, True):
        routing = attention_only(strength, layers=(0,))
        with routed_model(family, routing) as routed, routed.follow(paths, start=0 if on else 99):
            name = model.config._attn_implementation
            stock = AttentionInterface()[name]
            AttentionInterface.register(name, weights_of)
            try:
                hook = attention.register_forward_hook(lambda *_: found.append(last["weights"].log()))
                logits_of(model, IDS[:1, :length].expand(len(paths), -1), use_cache=False)
                hook.remove()
            finally:
                AttentionInterface.register(name, stock)
    change = found[1] - found[0]
    return torch.stack([change[:, 7, :, k] - change[:, 7, :, k + 1] for k in (3, 5)]).flatten(1).T / 2**0.5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss"])
def test_strength_is_the_standard_deviation_in_nats_whatever_the_models_scaling(family):
    """Two keys carry independent noise, so their log-odds move by √2 times the strength, which is divided out."""
    moved = log_odds(family, 0.7, sr.derive_paths(5, 200))
    assert moved.std().item() == pytest.approx(0.7, rel=0.06)
    assert abs(moved.mean().item()) < 0.1


def test_softcap_is_applied_before_the_noise_so_that_strength_stays_in_nats():
    """A cap after the noise would shrink it; gemma2's cap of 5 with scores beyond it would show."""
    given = attention_inputs(softcap=0.01, scaling=1.0)
    noise_only = written_out(replace(given, query=torch.zeros_like(given.query), softcap=None))
    assert_same(ATTENTION["blocked"](given), noise_only, 0.05)


@torch.no_grad()
def test_noise_differs_from_head_to_head_layer_to_layer_and_query_to_query():
    keys = sr.noise.key_words(PATHS)
    rows = [sr.noise.attention_row_keys(keys, 4, torch.arange(6).repeat(3, 1), layer) for layer in (0, 1)]
    first, second = (sr.noise.attention_noise(r, torch.arange(50)) for r in rows)  # (paths, heads, queries, keys)
    flat = torch.cat((first, second)).flatten(0, 2)
    correlations = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlations.abs().max() < 0.7  # 50 keys: a standard deviation of 0.14
    assert torch.unique(flat, dim=0).shape == flat.shape


@torch.no_grad()
def test_hold_counts_query_positions():
    """With hold 4 the queries of a block draw the same noise for the same key, those of the next block another."""
    positions = torch.arange(8)[None]
    rows = sr.noise.attention_row_keys(sr.noise.key_words(PATHS[:1]), 2, positions // 4, 0)
    drawn = sr.noise.attention_noise(rows, torch.arange(8))
    assert torch.equal(drawn[:, :, 0], drawn[:, :, 3])
    assert not torch.equal(drawn[:, :, 3], drawn[:, :, 4])
    with routed_model("llama", attention_only(hold=4)) as held, held.follow(PATHS):
        blocks = logits_of(held.model, IDS)
    with routed_model("llama", attention_only(hold="sequence")) as held, held.follow(PATHS):
        whole = logits_of(held.model, IDS)
    assert_same(blocks[:, :4], whole[:, :4])  # block 0 is the draw that "sequence" holds
    assert_differ(blocks[:, 4:], whole[:, 4:])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_oss", "opt"])
@torch.no_grad()
def test_rows_of_padding_stay_finite(family):
    ids, mask = padded(IDS, [12, 1, 3], 12)
    with routed_model(family, attention_only(strength=3.0)) as routed, routed.follow(PATHS):
        assert logits_of(routed.model, ids, mask).isfinite().all()


@torch.no_grad()
def test_a_layer_that_is_not_asked_for_keeps_its_attention():
    config = attention_only(strength=(2.0,), layers=(2,))
    hidden = []
    for on in (False, True):
        with routed_model("llama", config) as routed, routed.follow(PATHS if on else [None] * 3):
            hidden.append(routed.model(input_ids=IDS, output_hidden_states=True).hidden_states)
    assert_same(hidden[1][2], hidden[0][2])
    assert_differ(hidden[1][3], hidden[0][3])


@torch.no_grad()
def test_packed_sequences_stay_apart_and_count_their_own_positions():
    """Two texts in one row, told apart by their position ids, as transformers packs them."""
    first, second = IDS[0, :7], IDS[1, :5]
    packed = torch.cat((first, second))[None]
    positions = torch.cat((torch.arange(7), torch.arange(5)))[None]
    with routed_model("llama", attention_only()) as routed, routed.follow(PATHS[:1]):
        together = routed.model(input_ids=packed, position_ids=positions, use_cache=False).logits[0]
        assert_same(together[:7], logits_of(routed.model, first[None])[0])
        assert_same(together[7:], logits_of(routed.model, second[None])[0])


def test_a_four_dimensional_mask_is_a_clear_error():
    mask = torch.ones(3, 1, 12, 12, dtype=torch.bool).tril()
    positions = torch.arange(12)[None]
    with (
        routed_model("llama", attention_only()) as routed,
        routed.follow(PATHS),
        pytest.raises(ValueError, match="2-D"),
    ):
        routed.model(input_ids=IDS, attention_mask=mask, position_ids=positions)


def test_dropout_of_attention_weights_works_in_training():
    model = copy.deepcopy(stock_model("llama", torch.float32))
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    routed = sr.route(model, attention_only(strength=1e-9)).train()
    with routed.follow(PATHS), torch.no_grad():
        first, second = logits_of(model, IDS), logits_of(model, IDS)
    assert_differ(first, second)
    routed.eval()
    with routed.follow(PATHS), torch.no_grad():
        assert torch.equal(logits_of(model, IDS), logits_of(model, IDS))


def test_every_family_of_the_matrix_takes_attention_noise():
    assert all(sr.route(f.build(), attention_only()).attention is not None for f in FAMILIES.values())
