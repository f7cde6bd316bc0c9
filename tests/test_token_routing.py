"""Sampling as the last site of a path: exact draws from the warped softmax, replayed from one integer."""

from collections.abc import Iterator

import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import stochroute as sr
from matrix import padded, random_ids, routed_model, stock_model

NO_NOISE = sr.RoutingConfig(structural=None)
NOISE = sr.RoutingConfig(
    structural=sr.Structural(layers="all", strength=0.4, hold=1), attention=sr.Attention(strength=1.0)
)
CONFIGS = {"no other noise": NO_NOISE, "other noise": NOISE}
IDS = random_ids(3, 9)
PROMPT = IDS[:1]
LENGTHS = [9, 4, 1]
MANY, MANY_MASK = padded(IDS, LENGTHS, 9)
ASKED = {"do_sample": True, "temperature": 1.2, "top_p": 0.95, "max_new_tokens": 8}
DRAWS = 8000
LEAST_EXPECTED = 5  # below this a cell is merged with others, as the chi-square test asks
LEAST_P = 1e-4


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def routed(request) -> Iterator[sr.RoutedModel]:
    with routed_model("llama", request.param) as routed:
        yield routed


@pytest.fixture
def sampler() -> Iterator[sr.RoutedModel]:
    with routed_model("llama", NO_NOISE) as routed:
        yield routed


# -- replay


def test_a_sampled_text_replays_alone_and_in_any_order(routed):
    out = routed.generate(PROMPT, paths=6, seed=7, **ASKED)
    assert len({tuple(row) for row in out.generated.tolist()}) == 6
    for order in ([3], [5, 0, 2], [4, 4, 1]):
        again = routed.generate(PROMPT, paths=[out.paths[i] for i in order], **ASKED)
        assert torch.equal(again.sequences, out.sequences[order])


def test_sampled_texts_of_left_padded_prompts_are_those_of_each_prompt_alone(routed):
    out = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, **ASKED)
    for row, (prompt, path) in enumerate(zip(out.prompt_index, out.paths, strict=True)):
        alone = routed.generate(IDS[prompt : prompt + 1, : LENGTHS[prompt]], paths=[path], **ASKED)
        assert torch.equal(alone.generated[0], out.generated[row])


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_sampled_texts_are_the_same_in_chunks(routed, rows_at_once):
    out = routed.generate(MANY, attention_mask=MANY_MASK, paths=3, seed=5, **ASKED)
    again = routed.generate(MANY, attention_mask=MANY_MASK, paths=out.paths, rows_at_once=rows_at_once, **ASKED)
    assert torch.equal(again.sequences, out.sequences)


@pytest.mark.parametrize("cache", ["dynamic", "static", None])
def test_sampled_texts_are_the_same_with_any_cache(routed, cache):
    out = routed.generate(PROMPT, paths=4, seed=5, use_cache=False, **ASKED)
    again = routed.generate(PROMPT, paths=4, seed=5, cache_implementation=cache, **ASKED)
    assert torch.equal(again.sequences, out.sequences)


def test_a_sampled_continuation_goes_on_where_the_text_was_cut(sampler):
    """The draws are keyed by position, so the text so far, taken as the prompt, leads to the same rest."""
    out = sampler.generate(PROMPT, paths=1, seed=7, **ASKED)
    rest = sampler.generate(out.sequences[:, :12], paths=out.paths, **(ASKED | {"max_new_tokens": 5}))
    assert torch.equal(rest.sequences, out.sequences)


def test_one_path_draws_anew_at_every_position(sampler):
    """With logits that never change, the tokens of one path still do."""
    flat = LogitsProcessorList([lambda ids, scores: torch.zeros_like(scores)])
    out = sampler.generate(PROMPT, paths=40, seed=1, max_new_tokens=20, do_sample=True, logits_processor=flat)
    counts = out.generated.flatten().bincount(minlength=97)
    assert stats.chisquare(counts.numpy()).pvalue > LEAST_P
    repeats = (out.generated[:, 1:] == out.generated[:, :-1]).sum().item()
    assert stats.binomtest(repeats, 40 * 19, 1 / 97).pvalue > LEAST_P


def test_equal_prompts_of_one_seed_get_paths_and_texts_of_their_own(sampler):
    out = sampler.generate(PROMPT.expand(2, -1), paths=1, seed=7, **ASKED)
    assert out.paths[0] != out.paths[1]
    assert not torch.equal(out.sequences[0], out.sequences[1])


# -- exactness


WARPERS = {  # top_k=0, because transformers cuts at 50 where nothing is said
    "default": ({}, [TopKLogitsWarper(50)]),
    "temperature": ({"temperature": 1.7, "top_k": 0}, [TemperatureLogitsWarper(1.7)]),
    "cold": ({"temperature": 0.5, "top_k": 0}, [TemperatureLogitsWarper(0.5)]),
    "top-k": ({"top_k": 12}, [TopKLogitsWarper(12)]),
    "top-p": ({"temperature": 1.5, "top_k": 0, "top_p": 0.8}, [TemperatureLogitsWarper(1.5), TopPLogitsWarper(0.8)]),
    "min-p": ({"temperature": 1.5, "top_k": 0, "min_p": 0.1}, [TemperatureLogitsWarper(1.5), MinPLogitsWarper(0.1)]),
    "all": (
        {"temperature": 1.3, "top_k": 30, "top_p": 0.95, "min_p": 0.01},
        [TemperatureLogitsWarper(1.3), TopKLogitsWarper(30), TopPLogitsWarper(0.95), MinPLogitsWarper(0.01)],
    ),
}


@torch.no_grad()
def chances(prefix: Tensor, warpers: list) -> Tensor:
    """float64 (vocabulary,): the softmax of the stock model's warped logits after one prefix (1, length)."""
    logits = stock_model("llama")(prefix).logits[:, -1].float()
    return LogitsProcessorList(warpers)(prefix, logits)[0].double().softmax(-1)


def fit(tokens: Tensor, expected: Tensor) -> float:
    """The p-value of drawn tokens against their chances, rare ones in one cell; impossible ones must not occur."""
    counts = tokens.bincount(minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    expected = expected * len(tokens)
    rare = expected < LEAST_EXPECTED
    observed = [*counts[~rare].tolist(), counts[rare].sum().item()]
    hoped = [*expected[~rare].tolist(), expected[rare].sum().item()]
    if hoped[-1] < LEAST_EXPECTED:  # too few even together
        hoped[-2:], observed[-2:] = [sum(hoped[-2:])], [sum(observed[-2:])]
    assert len(hoped) > 3
    return stats.chisquare(observed, torch.tensor(hoped) / sum(hoped) * sum(observed)).pvalue


@pytest.mark.parametrize(("arguments", "warpers"), WARPERS.values(), ids=WARPERS.keys())
def test_tokens_are_exact_draws_from_the_warped_softmax(sampler, arguments, warpers):
    out = sampler.generate(PROMPT, paths=DRAWS, seed=11, do_sample=True, max_new_tokens=1, **arguments)
    assert fit(out.generated[:, 0], chances(PROMPT, warpers)) > LEAST_P


def test_the_chi_square_test_tells_one_temperature_from_another(sampler):
    out = sampler.generate(PROMPT, paths=DRAWS, seed=11, do_sample=True, max_new_tokens=1, temperature=1.7, top_k=0)
    assert fit(out.generated[:, 0], chances(PROMPT, [TemperatureLogitsWarper(1.5)])) < LEAST_P


def test_tokens_are_exact_draws_also_along_paths_of_neighbouring_ids(sampler):
    out = sampler.generate(PROMPT, paths=range(DRAWS), do_sample=True, max_new_tokens=1, temperature=1.7, top_k=0)
    assert fit(out.generated[:, 0], chances(PROMPT, [TemperatureLogitsWarper(1.7)])) > LEAST_P


def test_the_second_token_given_the_first_is_an_exact_draw(sampler):
    out = sampler.generate(PROMPT, paths=DRAWS, seed=12, do_sample=True, max_new_tokens=2, top_k=3)
    for first in out.generated[:, 0].unique():
        seconds = out.generated[out.generated[:, 0] == first, 1]
        assert len(seconds) > 100
        prefix = torch.cat((PROMPT, first.view(1, 1)), dim=1)
        counts, expected = seconds.bincount(minlength=97), chances(prefix, [TopKLogitsWarper(3)])
        possible = expected > 0
        assert counts[~possible].sum() == 0
        hoped = expected[possible] / expected[possible].sum() * len(seconds)
        assert stats.chisquare(counts[possible].numpy(), hoped.numpy()).pvalue > LEAST_P


def test_the_draws_of_neighbouring_positions_are_independent(sampler):
    flat = LogitsProcessorList(
        [lambda ids, scores: torch.where(torch.arange(97) < 8, 0.0, -torch.inf).expand_as(scores)]
    )
    out = sampler.generate(PROMPT, paths=DRAWS, seed=3, do_sample=True, max_new_tokens=2, logits_processor=flat)
    table = torch.zeros(8, 8).index_put((out.generated[:, 0], out.generated[:, 1]), torch.ones(DRAWS), accumulate=True)
    assert stats.chi2_contingency(table.numpy()).pvalue > LEAST_P


def test_tokens_outside_the_top_k_are_never_drawn(sampler):
    out = sampler.generate(PROMPT, paths=500, seed=2, do_sample=True, temperature=50.0, top_k=3, max_new_tokens=1)
    allowed = stock_model("llama")(PROMPT).logits[0, -1].topk(3).indices
    assert set(out.generated.flatten().tolist()) == set(allowed.tolist())


@pytest.mark.parametrize("limit", [{"temperature": 1e-6}, {"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=str)
def test_the_limit_of_every_warper_is_greedy_decoding(routed, limit):
    greedy = routed.generate(MANY, attention_mask=MANY_MASK, paths=[[1], [2], [3]], max_new_tokens=8)
    asked = {"max_new_tokens": 8, "do_sample": True} | limit
    out = routed.generate(MANY, attention_mask=MANY_MASK, paths=greedy.paths, **asked)
    assert torch.equal(out.sequences, greedy.sequences)


# -- no hidden state


def test_the_global_generator_is_neither_read_nor_moved(routed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        out = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, **ASKED)
        unseeded = routed.generate(PROMPT, paths=2, **ASKED)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        again = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, **ASKED)
        torch.manual_seed(1)
        other = routed.generate(PROMPT, paths=2, **ASKED)
    assert torch.equal(again.sequences, out.sequences)
    assert unseeded.seed != other.seed


def test_a_step_of_sampling_is_the_argmax_of_warped_logits_and_noise_of_path_position_and_token(sampler):
    asked = ASKED | {"output_scores": True, "return_dict_in_generate": True}
    out = sampler.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, **asked)
    keys = sr.noise.key_words(out.paths)
    lengths = torch.tensor([LENGTHS[prompt] for prompt in out.prompt_index])
    for step, scores in enumerate(out.scores):
        noise = sr.noise.gumbel_noise(keys, 97, lengths + step)
        assert torch.equal((scores.double() + noise).argmax(-1), out.generated[:, step])


def test_the_models_sampling_outside_stays_that_of_transformers():
    model = stock_model("llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = model.generate(PROMPT, **ASKED)
        with routed_model("llama", NOISE) as routed:
            routed.generate(PROMPT, paths=3, **ASKED)
            torch.manual_seed(1)
            assert torch.equal(model.generate(PROMPT, **ASKED), expected)
