"""Paths in one vLLM engine in this process: what is written, whatever else is scheduled.

python -m pytest -m vllm tests/engines
"""

from pathlib import Path

import pytest
import torch
from engine_models import (
    SETTINGS,
    check_against_transformers,
    load,
    outputs_of,
    random_prompts,
    sampling,
    save_model,
    text_of,
    texts_of,
)

import stochroute as sr
from routing_folders import learn
from stochroute.config import Schedule
from stochroute.engines.vllm.support import check_engine
from stochroute.paths import format_path

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # vLLM and what it imports have many
]
STRONG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.5))
ROUTINGS = {
    "shared": STRONG,
    "independent, learned, all positions": sr.RoutingConfig(
        structural=sr.Structural(
            form="independent",
            layers=(1, 3),
            strength=(0.3, 0.6),
            hold=3,
            scale="absolute",
            schedule=Schedule("cosine", 60),
        ),
        span="all",
    ),
    "latent, learned, per token": sr.RoutingConfig(
        structural=sr.Structural(form="latent", layers="all", strength=0.1, rank=5, hold=1)
    ),
    "signs per token, fading": sr.RoutingConfig(
        structural=sr.Structural(
            layers="all", strength=0.6, hold=1, distribution="rademacher", schedule=Schedule("linear", 40)
        ),
        span="all",
    ),
}
PATHS = sr.derive_paths(11, 64)


@pytest.fixture(scope="module")
def llm(engine, model):
    return engine(model, STRONG)


@pytest.mark.parametrize("name", ROUTINGS)
def test_every_form_of_structural_noise_writes_what_transformers_writes(name, engine, model, tmp_path):
    routed = sr.route(load(model), ROUTINGS[name])
    if "learned" in name:
        learn(routed)
    routed.save_pretrained(tmp_path)
    prompts = random_prompts(6, 3, 90)
    paths = [*PATHS[:4], None, PATHS[0]]  # the last walks the first one's path from another prompt
    texts = texts_of(engine(model, str(tmp_path)), prompts, paths, 30)
    check_against_transformers(model, str(tmp_path), prompts, paths, texts)
    clean = texts_of(engine(model), prompts, [None] * 6, 30)
    assert all(a.tokens != b.tokens for a, b, path in zip(texts, clean, paths, strict=True) if path is not None)


@pytest.mark.parametrize(("family", "settings"), [("qwen3", {}), ("gpt2", {"hidden_size": 128})])
def test_another_family_writes_what_transformers_writes(family, settings, engine, tmp_path):
    folder = save_model(tmp_path / family, family, **settings)
    prompts = random_prompts(4, 3, 40)
    paths = [*PATHS[:3], None]
    texts = texts_of(engine(folder, STRONG), prompts, paths, 20)
    check_against_transformers(folder, STRONG, prompts, paths, texts)


def test_plain_requests_are_what_an_engine_without_routing_computes_bit_for_bit(llm, engine, model):
    prompts = random_prompts(12, 2, 80)
    plain = engine(model)
    wanted = outputs_of(plain, prompts, sampling(24, logprobs=5, prompt_logprobs=1))
    got = outputs_of(llm, prompts, sampling(24, logprobs=5, prompt_logprobs=1))
    assert [o.outputs[0].logprobs for o in got] == [o.outputs[0].logprobs for o in wanted]
    assert [o.prompt_logprobs for o in got] == [o.prompt_logprobs for o in wanted]
    assert [o.outputs[0].token_ids for o in got] == [o.outputs[0].token_ids for o in wanted]

    # and beside routed requests too: every second one now walks a path, the batches keep their shapes
    mixed = [sampling(24, PATHS[i] if i % 2 else None, logprobs=5) for i in range(12)]
    wanted = outputs_of(plain, prompts, sampling(24, logprobs=5))
    got = outputs_of(llm, prompts, mixed)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert (a.outputs[0].logprobs == b.outputs[0].logprobs) == (i % 2 == 0)


def test_a_path_writes_the_same_alone_and_among_others(llm, model):
    prompts = random_prompts(24, 2, 120, seed=3)
    paths = [None if i % 5 == 0 else PATHS[i] for i in range(24)]
    together = texts_of(llm, prompts, paths, 20)
    check_against_transformers(model, STRONG, prompts, paths, together)
    alone = [texts_of(llm, [prompts[i]], [paths[i]], 20)[0] for i in range(6)]
    check_against_transformers(model, STRONG, prompts[:6], paths[:6], alone)


def test_prompts_in_chunks_are_noised_at_their_own_positions(engine, model):
    routing = ROUTINGS["signs per token, fading"]  # on all positions
    llm = engine(model, routing, max_num_batched_tokens=32, enable_chunked_prefill=True, max_num_seqs=4)
    prompts = random_prompts(6, 70, 200, seed=4)
    paths = [PATHS[0], None, *PATHS[1:5]]
    check_against_transformers(model, routing, prompts, paths, texts_of(llm, prompts, paths, 20))


def test_preempted_requests_take_their_paths_up_again(engine, model, monkeypatch):
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted = []
    preempt = Scheduler._preempt_request
    monkeypatch.setattr(
        Scheduler, "_preempt_request", lambda self, r, *a, **k: (preempted.append(r), preempt(self, r, *a, **k))[1]
    )
    llm = engine(model, STRONG, num_gpu_blocks_override=14, max_model_len=256, enable_prefix_caching=False)
    prompts = random_prompts(8, 20, 60, seed=5)
    paths = [*PATHS[:6], None, None]
    texts = texts_of(llm, prompts, paths, 90)
    assert len(preempted) >= 4
    check_against_transformers(model, STRONG, prompts, paths, texts)


def cached_tokens(llm, prompt: list[int], path: int | None) -> int:
    return outputs_of(llm, [prompt], sampling(8, path))[0].num_cached_tokens


@pytest.mark.parametrize("span", ["generated", "all"])
def test_clean_blocks_are_shared_by_all_paths_and_noised_ones_only_within_one(span, engine, model):
    routing = sr.RoutingConfig(structural=STRONG.structural, span=span)
    llm = engine(model, routing, enable_prefix_caching=True)
    prompt = random_prompts(1, 165, 165, seed=6)[0]  # five whole blocks of 32, and a rest
    shared = 160 if span == "generated" else 0
    assert cached_tokens(llm, prompt, PATHS[0]) == 0
    assert cached_tokens(llm, prompt, PATHS[1]) == shared
    assert cached_tokens(llm, prompt, PATHS[0]) == 160
    assert cached_tokens(llm, prompt, None) == shared
    assert cached_tokens(llm, prompt, None) == 160
    assert cached_tokens(llm, prompt, PATHS[1]) == 160

    # a longer prompt that begins with a routed text: its noised blocks are no prompt of anybody else
    paths = [PATHS[0], None, PATHS[1], PATHS[0]]
    first = outputs_of(llm, [prompt], sampling(40, PATHS[0]))[0].outputs[0].token_ids
    longer = [*prompt, *first]
    texts = texts_of(llm, [longer] * 4, paths, 20)
    check_against_transformers(model, routing, [longer] * 4, paths, texts)


def test_each_of_n_choices_walks_its_own_path_and_replays_alone(llm, model):
    prompt = random_prompts(1, 9, 9)[0]
    ids = [format_path(path) for path in sr.derive_paths(7, 4)]
    for fields in ({"stochroute_seed": 7}, {"stochroute_paths": ids}):
        together = outputs_of(llm, [prompt], sampling(20, n=4, logprobs=0, extra_args=fields))[0].outputs
        texts = [text_of(choice) for choice in sorted(together, key=lambda choice: choice.index)]
        check_against_transformers(model, STRONG, [prompt] * 4, sr.derive_paths(7, 4), texts)
        assert len({tuple(text.tokens) for text in texts}) == 4
    # sampled choices keep their own paths too: vLLM hands one object to all children where there is no seed
    for seed in (None, 5):
        sampled = sampling(3, n=4, temperature=1e-4, seed=seed, extra_args={"stochroute_paths": ids})
        choices = outputs_of(llm, [prompt], sampled)[0].outputs
        assert [list(c.token_ids) for c in sorted(choices, key=lambda c: c.index)] == [t.tokens[:3] for t in texts]


def test_a_given_start_replays_the_rest_of_a_text(llm):
    prompt = random_prompts(1, 9, 9)[0]
    whole = texts_of(llm, [prompt], [PATHS[0]], 20)[0].tokens
    fields = {"stochroute_path": format_path(PATHS[0]), "stochroute_start": 8}
    rest = outputs_of(llm, [[*prompt, *whole[:7]]], sampling(13, extra_args=fields))[0].outputs[0].token_ids
    assert list(rest) == whole[7:]


BAD = [
    ({"stochroute_path": 7}, 1),
    ({"stochroute_path": "c0ffee"}, 1),
    ({"stochroute_path": "00c0ffee00c0ffee"}, 2),
    ({"stochroute_paths": ["00c0ffee00c0ffee"]}, 2),
    ({"stochroute_seed": -1}, 1),
    ({"stochroute_start": 0}, 1),
    ({"stochroute_typo": 0}, 1),
]


def test_a_bad_request_is_refused_and_the_engine_goes_on(llm):
    prompt = random_prompts(1, 9, 9)[0]
    before = texts_of(llm, [prompt], [PATHS[0]], 5)
    for fields, n in BAD:
        with pytest.raises(ValueError, match="stochroute_"):
            outputs_of(llm, [prompt], sampling(5, n=n, extra_args=fields))
        assert not llm.llm_engine.has_unfinished_requests()
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match="greedy"):
        outputs_of(llm, [prompt], sampling(5, n=2))
    assert texts_of(llm, [prompt], [PATHS[0]], 5) == before


def test_an_engine_without_a_routing_refuses_a_path(engine, model):
    with pytest.raises(ValueError, match="this engine has no routing"):
        outputs_of(engine(model), [[5, 6]], sampling(5, PATHS[0]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"enable_lora": True}, "LoRA"),
        ({"additional_config": {"stochroute": {"strength": 1}}}, "is no routing"),
        (
            {"additional_config": {"stochroute": {"config": {"structural": None, "attention": {"strength": 1.0}}}}},
            "attention routing is not offered on vLLM",
        ),
    ],
)
def test_an_engine_that_could_not_walk_paths_truly_does_not_start(options, reason, engine, model):
    with pytest.raises(ValueError, match=reason):
        engine(model, **{"additional_config": {"stochroute": {"config": STRONG.to_dict()}}, **options})


def test_model_runner_v2_is_refused(model, monkeypatch):
    vllm_config = pytest.importorskip("vllm.config")
    from vllm.engine.arg_utils import EngineArgs

    config = EngineArgs(model=model, **SETTINGS).create_engine_config()
    check_engine(config)
    # by itself it would ask for Triton before it came so far
    monkeypatch.setattr(vllm_config.VllmConfig, "use_v2_model_runner", True)
    with pytest.raises(ValueError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        check_engine(config)


def test_a_routing_of_another_model_is_refused(engine, model, tmp_path: Path):
    other = save_model(tmp_path / "other", num_hidden_layers=2)
    sr.route(load(other), STRONG).save_pretrained(tmp_path / "routing")
    with pytest.raises(ValueError, match="was made for another model"):
        engine(model, tmp_path / "routing")


def test_nothing_random_is_read_or_moved(llm):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    texts_of(llm, [[5, 6, 7]], [PATHS[0]], 5)
    assert torch.equal(torch.get_rng_state(), before)
