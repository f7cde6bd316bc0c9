"""Suspended, detached or with every strength 0, a model is the original: bit for bit, on its own attention."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import stochroute as sr
from families import FAMILIES
from matrix import (
    PATHS,
    assert_differ,
    assert_same,
    every_family,
    every_pair,
    kinds_of,
    logits_of,
    padded,
    random_ids,
    routed_model,
    stock_model,
)

IDS = random_ids(3, 12)
STOCK_ROUNDING = {"gemma2": 1e-5}  # its stock attention works in float32 in every model
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def traces_of(model) -> dict:
    """All that a routing could leave behind: attributes, hooks and config of every module."""
    return {
        name: (
            {key: id(value) for key, value in vars(module).items()},
            {
                key: list(value)
                for key, value in vars(module).items()
                if isinstance(value, dict) and "hook" in key and value
            },
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.named_modules()
    }


@every_pair
@DTYPES
@torch.no_grad()
def test_a_routed_model_outside_of_follow_or_suspended_is_the_original(family, kind, dtype):
    model = stock_model(family, dtype)
    original = logits_of(model, IDS)
    with routed_model(family, kind, dtype) as routed:
        assert torch.equal(logits_of(model, IDS), original)
        assert torch.equal(routed(input_ids=IDS).logits, original)
        with routed.follow(PATHS), routed.suspended():
            assert torch.equal(logits_of(model, IDS), original)
        with routed.follow(PATHS):
            with routed.suspended():
                pass
            assert_differ(logits_of(model, IDS), original)
        assert torch.equal(logits_of(model, IDS), original)


@every_pair
@DTYPES
@torch.no_grad()
def test_a_followed_path_of_strength_zero_is_the_original(family, kind, dtype):
    model = stock_model(family, dtype)
    original = logits_of(model, IDS)
    with routed_model(family, kinds_of(family, strength=0.0)[kind], dtype) as routed, routed.follow(PATHS):
        assert torch.equal(logits_of(model, IDS), original)


@every_pair
@torch.no_grad()
def test_detach_leaves_no_trace(family, kind):
    model = copy.deepcopy(stock_model(family))
    before, original, config = traces_of(model), logits_of(model, IDS), model.config.to_dict()
    routed = sr.route(model, kinds_of(family)[kind])
    with routed.follow(PATHS):
        logits_of(model, IDS)
    assert routed.detach() is model
    assert traces_of(model) == before
    assert model.config.to_dict() == config
    assert torch.equal(logits_of(model, IDS), original)


@every_family
@torch.no_grad()
def test_a_clean_row_in_a_mixed_batch_agrees_with_the_original_to_rounding(family):
    model = stock_model(family)
    original = logits_of(model, IDS)
    with routed_model(family, "mixed") as routed, routed.follow([PATHS[0], None, PATHS[2]]):
        mixed = logits_of(model, IDS)
    assert_same(mixed[1], original[1], STOCK_ROUNDING.get(family))
    assert_differ(mixed[0], original[0])
    assert_differ(mixed[2], original[2])


@every_family
@torch.no_grad()
def test_positions_before_the_start_agree_with_the_original_to_rounding(family):
    model = stock_model(family)
    original = logits_of(model, IDS)
    with routed_model(family, "mixed") as routed, routed.follow(PATHS, start=[4, 7, 0]):
        late = logits_of(model, IDS)
    assert_same(late[0, :4], original[0, :4], STOCK_ROUNDING.get(family))
    assert_same(late[1, :7], original[1, :7], STOCK_ROUNDING.get(family))
    for row, start in enumerate([4, 7, 0]):
        assert_differ(late[row, start], original[row, start])


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"gpt_oss", "gemma2"}))
@torch.no_grad()
def test_a_model_on_eager_attention_gets_its_eager_attention_back(family):
    model = copy.deepcopy(stock_model(family))
    model.set_attn_implementation("eager")
    ids, mask = padded(IDS, [12, 9, 12], 12, side="right")
    original = logits_of(model, ids, mask)
    routed = sr.route(model, kinds_of(family)["mixed"])
    with routed.follow(PATHS):
        assert_differ(logits_of(model, ids, mask)[mask.bool()], original[mask.bool()])
    assert torch.equal(logits_of(model, ids, mask), original)
    routed.detach()
    assert model.config._attn_implementation == "eager"


@every_family
@torch.no_grad()
def test_our_attention_with_vanishing_noise_is_the_stock_attention(family):
    """The kernel itself, not the switch back: window, softcap, sinks, scaling and grouped heads of the family."""
    model = stock_model(family)
    original = logits_of(model, IDS)
    config = sr.RoutingConfig(structural=None, attention=sr.Attention(strength=1e-14), span="all")
    with routed_model(family, config) as routed, routed.follow(PATHS):
        assert_same(logits_of(model, IDS), original, STOCK_ROUNDING.get(family))


@torch.no_grad()
def test_generate_of_the_model_itself_is_the_original_while_it_is_routed():
    model = stock_model("llama")
    original = model.generate(IDS, max_new_tokens=6, do_sample=False)
    with routed_model("llama", "mixed"):
        assert torch.equal(model.generate(IDS, max_new_tokens=6, do_sample=False), original)


class FromTheHost(TorchDispatchMode):
    """Counts the tensors that are made of Python's numbers: on a GPU the host waits for each, and none fits into a CUDA
    graph."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))


@every_pair
@torch.no_grad()
def test_a_path_takes_no_number_from_the_host_during_a_forward(family, kind):
    with routed_model(family, kind, torch.float32) as routed:
        with FromTheHost() as stock:
            logits_of(routed.model, IDS, use_cache=False)
        with routed.follow(PATHS), FromTheHost() as along:
            logits_of(routed.model, IDS, use_cache=False)
    assert along.count == stock.count
