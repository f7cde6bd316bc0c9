"""Training through the fused kernels, in whole models: checkpointing, compilation and float64 agree."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

import stochroute as sr
from families import FAMILIES
from levels import LEVELS
from matrix import PATHS, assert_same, kinds_of, logits_of, stock_model
from test_families_compile import IDS, fresh_compiler, needs_compiler
from test_families_gradients import checkpoint, gradients_of

pytestmark = [
    pytest.mark.skipif(not LEVELS, reason="the package was installed without a C++ compiler"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),  # inductor's own imports
]

CHOSEN = ("llama", "gpt2", "gemma2", "gpt_oss", "opt")  # grouped heads, learned positions, softcap, sinks, own scaling


def routed_copy(family: str, dtype: torch.dtype) -> sr.RoutedModel:
    return sr.route(copy.deepcopy(stock_model(family, dtype)), kinds_of(family)["mixed"])


@pytest.mark.parametrize("family", CHOSEN)
@pytest.mark.parametrize("reentrant", [False, True], ids=["saved tensors", "reentrant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_gives_the_same_gradients_bit_for_bit(family, reentrant, dtype):
    routed = routed_copy(family, dtype)
    assert {row.implementation for row in routed.explain().rows if row.kind != "experts"} == {"fused"}
    plain = gradients_of(routed)
    checkpoint(routed.model, reentrant=reentrant)
    if reentrant:  # without it no gradient would enter the first checkpointed layer
        routed.model.enable_input_require_grads()
    recomputed = gradients_of(routed)
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert torch.equal(recomputed[name], gradient), name


@pytest.mark.parametrize("family", CHOSEN)
def test_gradients_are_those_of_the_torch_kernels_in_float64(family):
    fused, exact = (gradients_of(routed_copy(family, dtype)) for dtype in (torch.float32, torch.float64))
    assert fused.keys() == exact.keys()
    for name, gradient in exact.items():
        if gradient.abs().max() > 1e-6:
            assert_same(fused[name].double(), gradient.double(), 1e-2 if family == "gpt_oss" else 1e-3)


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=() if f == "llama" else pytest.mark.compile_all) for f in CHOSEN]
)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=needs_compiler)])
def test_compiled_gradients_are_the_eager_ones(family, backend):
    model = FAMILIES[family].build(torch.float32, experts="batched_mm")
    routed = sr.route(model, kinds_of(family)["mixed"])

    def gradients(callable_model) -> dict[str, torch.Tensor]:
        routed.zero_grad()
        with routed.follow(PATHS, start=[0, 2, 1]):
            logits_of(callable_model, IDS, use_cache=False).square().mean().backward()
        return {name: p.grad.clone() for name, p in routed.named_parameters() if p.grad is not None}

    expected = gradients(model)
    with fresh_compiler():
        compiled = gradients(torch.compile(model, backend=backend, fullgraph=True, dynamic=False))
    assert compiled.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient.abs().max() > 1e-6:
            assert_same(compiled[name], gradient, 1e-3)


class Operations(TorchDispatchMode):
    """Counts what is launched one by one, which is what a step of a small batch costs on a GPU."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def operations(layers: int, config: sr.RoutingConfig) -> int:
    """Those of a training step, without what the step of the plain model has."""
    shape = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=layers
    )
    routed = sr.route(LlamaForCausalLM(shape), config).train()
    counts = []
    for along in (routed.follow(PATHS), routed.suspended()):
        with along:
            routed.model(IDS, labels=IDS).loss.backward()  # creates the gradients
            with Operations() as counted:
                routed.model(IDS, labels=IDS).loss.backward()
        counts.append(counted.count)
    return counts[0] - counts[1]


@pytest.mark.parametrize(
    "config",
    [
        *(
            sr.RoutingConfig(structural=sr.Structural(form=form, layers="all", hold=hold), span="all")
            for form in ("shared", "independent")
            for hold in ("sequence", 3)
        ),
        sr.RoutingConfig(structural=None, attention=sr.Attention(layers="all"), span="all"),
    ],
    ids=["shared", "shared, hold 3", "independent", "independent, hold 3", "attention"],
)
def test_a_layer_with_noise_adds_four_operations_to_a_training_step(config):
    assert operations(5, config) - operations(3, config) <= 4 * 2
