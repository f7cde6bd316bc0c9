"""torch.compile: one whole graph, the same paths, and no recompilation for new ones.

Three families run by default; the others are marked `compile_all`. MoE families use transformers' batched experts,
since a loop over the experts that were hit is no single graph in the stock model either.
"""

import shutil

import pytest
import torch

import stochroute as sr
from compiling import Counting, fresh_compiler
from families import FAMILIES
from matrix import PATHS, assert_differ, assert_same, kinds_of, logits_of, padded, random_ids

# inductor's own imports use deprecated parts of torch
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

DEFAULT = ("llama", "gpt2", "qwen2")  # rotary and grouped, learned positions, sliding windows
IDS, MASK = padded(random_ids(3, 10), [10, 6, 8], 10)
LATER_IDS, LATER_MASK = padded(random_ids(3, 10, seed=9), [7, 10, 9], 10)

COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(not COMPILER, reason="inductor needs a C++ compiler")
compiled_families = pytest.mark.parametrize(
    "family", [pytest.param(f, marks=() if f in DEFAULT else pytest.mark.compile_all) for f in FAMILIES]
)


def routed_copy(family: str, dtype: torch.dtype) -> sr.RoutedModel:
    return sr.route(FAMILIES[family].build(dtype, experts="batched_mm"), kinds_of(family)["mixed"])


@compiled_families
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("aot_eager", torch.float64), pytest.param("inductor", torch.float32, marks=needs_compiler)],
    ids=["aot_eager", "inductor"],
)
@torch.no_grad()
def test_a_compiled_model_walks_the_same_paths_and_new_ones_need_no_new_graph(family, backend, dtype):
    routed, counting = routed_copy(family, dtype), Counting(backend)
    batches = [(IDS, MASK), (LATER_IDS, LATER_MASK)]
    # other paths, other starts, a clean row, other padding
    walks = [(PATHS, [0, 2, 5]), (PATHS[::-1], [1, 0, 0]), ([PATHS[1], None, 5], [3, 3, 3])]
    expected = []
    for number, (paths, start) in enumerate(walks):
        with routed.follow(paths, start=start):
            expected.append(logits_of(routed.model, *batches[number % 2], use_cache=False))
    with fresh_compiler():
        compiled = torch.compile(routed.model, backend=counting, fullgraph=True, dynamic=False)
        graphs = 0
        for number, (paths, start) in enumerate(walks):
            ids, mask = batches[number % 2]
            with routed.follow(paths, start=start):
                logits = logits_of(compiled, ids, mask, use_cache=False)
            assert_same(logits[mask.bool()], expected[number][mask.bool()])
            graphs = graphs or counting.graphs
            assert counting.graphs == graphs  # one; stock gemma2 and gemma3 take two
    assert_differ(expected[2][MASK.bool()], expected[0][MASK.bool()])


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=() if f == "llama" else pytest.mark.compile_all) for f in FAMILIES]
)
def test_compiled_gradients_are_the_eager_ones(family):
    routed = routed_copy(family, torch.float64)
    parameters = [p for p in routed.parameters() if p.requires_grad]

    def gradients(model) -> list[torch.Tensor]:
        routed.zero_grad()
        with routed.follow(PATHS):
            logits_of(model, IDS, use_cache=False).square().sum().backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]

    expected = gradients(routed.model)
    with fresh_compiler():
        compiled = gradients(torch.compile(routed.model, backend="aot_eager", fullgraph=True, dynamic=False))
    for parameter, gradient, reference in zip(parameters, compiled, expected, strict=True):
        if reference.abs().max() > 0:
            assert_same(gradient, reference, 1e-5 if parameter.dtype == torch.float32 else 1e-8)


@torch.no_grad()
def test_a_compiled_model_outside_of_follow_is_the_original():
    model = FAMILIES["llama"].build()
    original = logits_of(model, IDS, MASK, use_cache=False)
    routed = sr.route(model, kinds_of("llama")["mixed"])
    with fresh_compiler():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
        assert_same(logits_of(compiled, IDS, MASK, use_cache=False)[MASK.bool()], original[MASK.bool()])
        with routed.follow(PATHS):
            assert_differ(logits_of(compiled, IDS, MASK, use_cache=False)[MASK.bool()], original[MASK.bool()])
        assert_same(logits_of(compiled, IDS, MASK, use_cache=False)[MASK.bool()], original[MASK.bool()])


def test_compiled_noise_has_the_same_bits():
    """ξ itself, for every distribution: the reason why it is integer arithmetic until one last product."""
    keys, blocks = sr.noise.key_words(PATHS), torch.arange(3)
    positions, numbers = torch.arange(40), torch.tensor([3, 4, 777])

    def draws(distribution: str) -> tuple[torch.Tensor, ...]:
        rows = sr.noise.attention_row_keys(keys, 4, blocks[:, None].expand(3, 5), 2)
        vectors = sr.noise.vector_noise(keys, 37, blocks, 1, sr.noise.Kind.FFN, distribution)
        siblings = sr.noise.sibling_noise(keys, numbers, 36, blocks, distribution)
        return vectors, siblings, sr.noise.attention_noise(rows, positions, distribution)

    with fresh_compiler():
        compiled = torch.compile(draws, fullgraph=True, backend="inductor" if COMPILER else "aot_eager")
        for distribution in sr.noise.DISTRIBUTIONS:
            for eager, fast in zip(draws(distribution), compiled(distribution), strict=True):
                assert torch.equal(eager, fast)
