"""Whole models on an NVIDIA GPU: the original outside of a path, the path of the CPU inside, alone or in any batch,
cached, compiled, trained. Skipped where there is no GPU; the kernels themselves are tested everywhere."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import StaticCache

import stochroute as sr
from compiling import Counting, fresh_compiler
from families import EXPERT_FAMILIES
from matrix import (
    PATHS,
    assert_differ,
    assert_equal_or_tied,
    assert_same,
    covering_set,
    every_family,
    every_pair,
    generates_in,
    kinds_of,
    logits_in_chunks,
    logits_of,
    padded,
    pads_in,
    random_ids,
    routed_model,
    stock_model,
)
from stochroute.training import BoundPaths
from training_runs import losses, tiny_trainer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    # inductor's own imports use deprecated parts of torch
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
]

DEVICE = "cuda"
IDS, MASK = padded(random_ids(3, 13), [13, 6, 9], 13)
STARTS = [0, 2, 5]
EXACT = ("gpt2", "gpt_bigcode", "opt")  # families without rotary angles, which compute in float64 throughout
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
some_families = pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma2", "gpt_oss", "mixtral"])


def on_gpu(family: str, kind: str | sr.RoutingConfig, dtype: torch.dtype = torch.float32) -> sr.RoutedModel:
    """A copy of the family's model on the GPU, routed."""
    config = kinds_of(family)[kind] if isinstance(kind, str) else kind
    return sr.route(copy.deepcopy(stock_model(family, dtype)).to(DEVICE), config)


def walked(routed: sr.RoutedModel, rows: slice = slice(None)) -> torch.Tensor:
    """The logits of the real tokens of some rows, each along its path, in float64 on the CPU."""
    ids, mask = (t[rows].to(routed.model.device) for t in (IDS, MASK))
    with routed.follow(PATHS[rows], start=STARTS[rows]):
        return logits_of(routed.model, ids, mask, use_cache=False)[mask.bool()].double().cpu()


@every_pair
@torch.no_grad()
def test_a_path_on_the_gpu_is_that_of_the_cpu(family, kind):
    """In float64, which the formula computes, to rounding. What is float32 in every model rounds as that does:
    rotary angles, some norms, the factors of a schedule."""
    dtype = pads_in(family, kind)
    exact = family in EXACT and kind != "mixed" and dtype == torch.float64
    with routed_model(family, kind, dtype) as routed:
        expected = walked(routed)
    assert_same(walked(on_gpu(family, kind, dtype)), expected, 1e-9 if exact else 1e-4)


@pytest.mark.parametrize("distribution", sr.noise.DISTRIBUTIONS)
def test_the_noise_of_the_formula_has_the_same_bits_on_the_gpu(distribution):
    def draws(device: str) -> list[torch.Tensor]:
        keys, blocks = sr.noise.key_words(PATHS, device), torch.arange(3, device=device)
        rows = sr.noise.attention_row_keys(keys, 4, blocks[:, None].expand(3, 5), 2)
        positions = torch.arange(40, device=device)
        vectors = sr.noise.vector_noise(keys, 37, blocks, 1, sr.noise.Kind.FFN, distribution)
        return [rows.cpu(), vectors.cpu(), sr.noise.attention_noise(rows, positions, distribution).cpu()]

    for here, there in zip(draws(DEVICE), draws("cpu"), strict=True):
        assert torch.equal(here, there)


@every_pair
@torch.no_grad()
def test_the_kernels_give_the_path_of_the_formula_alone_or_in_a_batch(family, kind):
    routed = on_gpu(family, kind)
    with routed_model(family, kind, torch.float32, attention_kernel="reference") as reference:
        expected = walked(reference)
    together = walked(routed)
    assert_same(together, expected, 1e-4)
    begin = 0
    for row, length in enumerate(MASK.sum(1).tolist()):
        assert_same(walked(routed, slice(row, row + 1)), together[begin : begin + length], 1e-4)
        begin += length


@pytest.mark.parametrize(("family", "kind"), [pair for pair in covering_set() if pair[0] not in EXPERT_FAMILIES])
@pytest.mark.parametrize("dtype", HALF)
@torch.no_grad()
def test_in_half_precision_a_path_is_as_near_as_the_model_without_one(family, kind, dtype):
    with routed_model(family, kind, torch.float32) as exact:
        expected = walked(exact)
        with exact.suspended():
            clean = logits_of(exact.model, IDS, MASK, use_cache=False)[MASK.bool()].double()
    routed = on_gpu(family, kind, HALF[dtype])
    ids, mask = IDS.to(DEVICE), MASK.to(DEVICE)
    own = logits_of(routed.model, ids, mask, use_cache=False)[mask.bool()].double().cpu()
    rounding = (own - clean).norm() / clean.norm()
    assert (walked(routed) - expected).norm() / expected.norm() < max(4 * rounding, 0.02)


@every_family
@torch.no_grad()
def test_outside_of_a_path_the_model_is_the_original(family):
    model = copy.deepcopy(stock_model(family, torch.float32)).to(DEVICE)
    ids = IDS.to(DEVICE)
    original = logits_of(model, ids)
    routed = sr.route(model, kinds_of(family)["mixed"])
    assert torch.equal(logits_of(model, ids), original)
    with routed.follow(PATHS):
        assert_differ(logits_of(model, ids), original)
        with routed.suspended():
            assert torch.equal(logits_of(model, ids), original)
    silent = kinds_of(family, strength=0)["mixed"]
    routed.detach()
    routed = sr.route(model, silent)
    with routed.follow(PATHS):
        assert torch.equal(logits_of(model, ids), original)


@every_pair
@torch.no_grad()
def test_decoding_into_a_static_cache_gives_the_logits_of_one_pass(family, kind):
    routed = on_gpu(family, kind)
    whole = walked(routed)
    cache = StaticCache(config=routed.model.config, max_cache_len=16)
    with routed.follow(PATHS, start=STARTS):
        chunks = logits_in_chunks(routed.model, cache, IDS.to(DEVICE), MASK.to(DEVICE), [7, 1, 3, 1, 1])
    assert_same(chunks.double().cpu(), whole, 1e-4)


@every_family
@pytest.mark.parametrize("samples", [False, True], ids=["greedy", "sampled"])
@torch.no_grad()
def test_a_text_replays_on_the_gpu_alone_and_on_the_cpu(family, samples):
    dtype = generates_in(family, "all")
    asked: dict[str, Any] = {"max_new_tokens": 9, "output_logits": True, "do_sample": samples}
    if samples:
        asked |= {"temperature": 1.3, "top_k": 0}
    with routed_model(family, "mixed", dtype) as routed:
        expected = routed.generate(input_ids=IDS, attention_mask=MASK, paths=2, seed=7, **asked)
    routed = on_gpu(family, "mixed", dtype)
    ids, mask = IDS.to(DEVICE), MASK.to(DEVICE)
    out = routed.generate(input_ids=ids, attention_mask=mask, paths=2, seed=7, **asked)
    assert out.sequences.device.type == DEVICE
    assert out.generated.tolist() == expected.generated.tolist()
    for row, path in enumerate(out.paths):
        prompt = ids[out.prompt_index[row]][mask[out.prompt_index[row]].bool()]
        alone = routed.generate(input_ids=prompt[None], paths=[path], cache_implementation="dynamic", **asked)
        assert alone.generated[0].tolist() == out.generated[row].tolist()


@some_families
@torch.no_grad()
def test_in_bfloat16_generated_tokens_part_only_at_ties(family):
    routed = on_gpu(family, "mixed", torch.bfloat16)
    ids, mask = IDS.to(DEVICE), MASK.to(DEVICE)
    asked: dict[str, Any] = {"max_new_tokens": 16, "output_logits": True}
    together = routed.generate(input_ids=ids, attention_mask=mask, paths=[[p] for p in PATHS], **asked)
    assert together.logits is not None
    for row, path in enumerate(PATHS):
        alone = routed.generate(input_ids=ids[row][mask[row].bool()][None], paths=[path], **asked)
        assert alone.logits is not None
        assert_equal_or_tied(
            alone.generated,
            together.generated[row : row + 1],
            alone.logits,
            tuple(step[row : row + 1] for step in together.logits),
        )


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@torch.no_grad()
def test_a_compiled_model_walks_the_same_paths_and_new_ones_need_no_new_graph(family):
    routed = on_gpu(family, "mixed")
    ids, mask = IDS.to(DEVICE), MASK.to(DEVICE)
    counting = Counting("inductor")
    with fresh_compiler():
        compiled = torch.compile(routed.model, backend=counting, fullgraph=True, dynamic=False)
        for paths, start in ((PATHS, STARTS), (PATHS[::-1], [1, 0, 0]), ([PATHS[1], None, 5], [3, 3, 3])):
            with routed.follow(paths, start=start):
                expected = logits_of(routed.model, ids, mask, use_cache=False)
                assert_same(logits_of(compiled, ids, mask, use_cache=False)[mask.bool()], expected[mask.bool()], 1e-4)
    assert counting.graphs == 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@torch.no_grad()
def test_generation_with_transformers_own_compilation_writes_the_same_text(family):
    """A static cache and CUDA graphs: what `disable_compile=False` asks transformers for."""
    routed = on_gpu(family, replace(kinds_of(family)["mixed"], span="generated"))
    ids = IDS[:1].to(DEVICE)
    with fresh_compiler():
        for seed in (7, 8):
            asked: dict[str, Any] = {"max_new_tokens": 9, "paths": 4, "seed": seed}
            eager = routed.generate(input_ids=ids, **asked)
            compiled = routed.generate(input_ids=ids, disable_compile=False, **asked)
            assert torch.equal(compiled.sequences, eager.sequences)


@pytest.mark.parametrize("kind", kinds_of("llama"))
@torch.no_grad()
def test_a_forward_can_be_captured_and_replayed_as_a_cuda_graph(kind):
    """Nothing in it waits for the host, nor comes from it."""
    routed = on_gpu("llama", kind)
    ids, mask = IDS.to(DEVICE), MASK.to(DEVICE)
    graph = torch.cuda.CUDAGraph()
    with routed.follow(PATHS, start=STARTS):
        expected = logits_of(routed.model, ids, mask, use_cache=False)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            captured = logits_of(routed.model, ids, mask, use_cache=False)
        graph.replay()
    assert_same(captured[mask.bool()], expected[mask.bool()], 1e-6)


@pytest.mark.parametrize(("family", "kind"), [pair for pair in covering_set() if pair[0] in ("llama", "gpt_oss")])
def test_gradients_are_those_of_the_cpu(family, kind):
    def gradients(routed: sr.RoutedModel) -> dict[str, torch.Tensor]:
        ids = IDS[:, -6:].to(routed.model.device)
        with routed.follow(PATHS, start=[0, 2, 1]):
            routed.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return {name: p.grad.double().cpu() for name, p in routed.named_parameters() if p.grad is not None}

    expected = gradients(sr.route(copy.deepcopy(stock_model(family)), kinds_of(family)[kind]))
    found = gradients(on_gpu(family, kind))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


def test_training_gives_the_losses_of_the_cpu_and_resumes_to_them(tmp_path: Path):
    def run(device: str, resumed: bool = False) -> dict[int, float]:
        AcceleratorState._reset_state(reset_partial_state=True)  # it holds the device of the trainer before
        output = tmp_path / device
        saved = {"save_strategy": "steps", "save_steps": 5, "learning_rate": 1e-3}
        trainer = tiny_trainer(output, BoundPaths(), use_cpu=device == "cpu", **saved)
        trainer.train(resume_from_checkpoint=str(output / "checkpoint-5") if resumed else None)
        assert trainer.args.device.type == device
        return losses(trainer)

    whole = run(DEVICE)
    assert whole == pytest.approx(run("cpu"), rel=1e-3)
    assert run(DEVICE, resumed=True) == pytest.approx(whole, rel=1e-5)


@some_families
def test_calibration_finds_the_strengths_of_the_cpu(family):
    found = []
    for device in ("cpu", DEVICE):
        config = sr.RoutingConfig(structural=sr.Structural(strength="auto"), attention=sr.Attention(strength="auto"))
        routed = sr.route(copy.deepcopy(stock_model(family, torch.float32)).to(device), config)
        report = routed.calibrate(random_ids(4, 12).tolist(), budget=0.05, pairs=16)
        found.append([report.config.structural.strength, report.config.attention.strength])
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_what_runs_on_the_gpu_is_triton():
    said = str(on_gpu("llama", "mixed").explain())
    assert "Triton" in said
