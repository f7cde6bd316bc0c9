"""Spread token routing: the paths of one prompt share its distribution out, and each alone is sampled as ever."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import stochroute as sr
from matrix import padded, random_ids, routed_model, stock_model
from stochroute.generation.spreading import Point, SpreadTokenRouting, points_of
from stochroute.generation.token_routing import TokenRouting
from stochroute.paths import SIBLING_BITS, read_sibling

NO_NOISE = sr.RoutingConfig(structural=None)
NOISE = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.4, hold=1))
CONFIGS = {"no other noise": NO_NOISE, "other noise": NOISE}
IDS = random_ids(3, 9)
PROMPT = IDS[:1]
LENGTHS = [9, 4, 1]
MANY, MANY_MASK = padded(IDS, LENGTHS, 9)
ASKED = {"do_sample": True, "temperature": 1.2, "top_p": 0.95, "max_new_tokens": 8, "spread": True}
FAMILY = 1 << SIBLING_BITS
WIDER_THAN_A_FAMILY = FAMILY + 1  # tokens: one draw among so many equal ones uses a point up
LEAST_P = 1e-4


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def routed(request) -> Iterator[sr.RoutedModel]:
    with routed_model("llama", request.param) as routed:
        yield routed


@pytest.fixture
def sampler() -> Iterator[sr.RoutedModel]:
    with routed_model("llama", NO_NOISE) as routed:
        yield routed


def points(paths: list[int], position: int = 5) -> Tensor:
    found = points_of(paths, torch.full((len(paths),), position))
    return torch.tensor([point.at for point in found], dtype=torch.float64)


def choose(routing: TokenRouting, scores: list[Tensor]) -> Tensor:
    """The tokens of every step, int64 (rows, steps), chosen from scores that do not look at the tokens before."""
    tokens = torch.zeros(len(scores[0]), 1, dtype=torch.int64)
    for step in scores:
        tokens = torch.cat((tokens, routing(tokens, step).argmax(-1, keepdim=True)), 1)
    return tokens[:, 1:]


# -- ids


@given(st.integers(0, 2**64 - 1))
def test_every_id_has_one_family_and_number_of_its_own(path):
    family, number = read_sibling(path)
    assert 0 <= family < 2**52
    assert 0 <= number < FAMILY
    neighbours = {read_sibling(path ^ 1 << bit) for bit in range(64)}
    assert (family, number) not in neighbours
    assert len({f for f, _ in neighbours}) == 64


@given(seed=st.integers(0, 2**64 - 1), n=st.integers(1, 40), prompt=st.integers(0, 2**32 - 1))
def test_spread_ids_are_numbered_siblings_of_a_family_of_their_own(seed, n, prompt):
    paths = sr.derive_paths(seed, n, prompt, spread=True)
    families, numbers = zip(*map(read_sibling, paths), strict=True)
    assert len(set(families)) == 1
    assert numbers == tuple(range(n))
    others = sr.derive_paths(seed, 1, prompt ^ 1, spread=True) + sr.derive_paths(seed ^ 1, 1, prompt, spread=True)
    assert not {read_sibling(p)[0] for p in others} & set(families)
    assert set(paths).isdisjoint(sr.derive_paths(seed, n, prompt))


def test_the_first_spread_ids_do_not_depend_on_how_many_are_asked_for_and_never_change():
    paths = sr.derive_paths(7, FAMILY + 2, spread=True)
    assert sr.derive_paths(7, 3, spread=True) == paths[:3]
    assert [sr.format_path(p) for p in paths[:3]] == PINNED_SEED_7
    (first, last), (other, zero) = read_sibling(paths[FAMILY - 1]), read_sibling(paths[FAMILY])
    assert (last, zero) == (FAMILY - 1, 0)
    assert first != other


PINNED_SEED_7 = ["4546716518f2ba4d", "039bcbc07e406d55", "10fb94cc3b5a4b1b"]


# -- points


@pytest.mark.parametrize("n", [1, 2, 8, 64, FAMILY])
def test_the_points_of_siblings_are_evenly_spaced(n):
    found = points(sr.derive_paths(3, n, spread=True)).sort().values
    assert torch.allclose(found.diff(), torch.full((n - 1,), 1 / n, dtype=torch.float64), rtol=0, atol=1e-15)
    assert 0 <= found[0] < 1 / n


def test_odd_numbers_of_siblings_leave_no_wide_gap():
    found = points(sr.derive_paths(3, 10, spread=True)).sort().values
    assert found.diff().max() <= 1 / 8 + 1e-12


@pytest.mark.parametrize("number", [0, 1, 777])
def test_each_point_alone_is_uniform_and_another_at_another_position(number):
    paths = [sr.derive_paths(seed, number + 1, spread=True)[number] for seed in range(400)]
    here, there = points(paths), points(paths, position=6)
    assert stats.kstest(here.numpy(), "uniform").pvalue > LEAST_P
    assert stats.kstest(there.numpy(), "uniform").pvalue > LEAST_P
    assert abs(stats.pearsonr(here.numpy(), there.numpy()).statistic) < 4 / math.sqrt(400)


def test_points_of_any_ids_are_independent():
    paths = sr.derive_paths(7, 5000)
    found = points(paths).numpy()
    assert stats.kstest(found, "uniform").pvalue > LEAST_P
    assert abs(stats.pearsonr(found[1:], found[:-1]).statistic) < 4 / math.sqrt(5000)


# -- texts


@torch.no_grad()
def chances_of_pairs() -> Tensor:
    """float64 (vocabulary, vocabulary): the stock model's probability of every two tokens after the prompt."""
    model = stock_model("llama")
    first = model(PROMPT).logits[0, -1].double().softmax(-1)
    pairs = torch.cat((PROMPT.expand(len(first), -1), torch.arange(len(first))[:, None]), 1)
    return first[:, None] * model(pairs).logits[:, -1].double().softmax(-1)


@pytest.mark.parametrize("n", [8, 64, 1024])
def test_a_text_of_probability_p_comes_np_times_rounded_up_or_down(sampler, n):
    chances = chances_of_pairs()
    out = sampler.generate(PROMPT, paths=n, seed=5, do_sample=True, top_k=0, max_new_tokens=2, spread=True)
    counts = torch.zeros_like(chances).index_put(
        tuple(out.generated.T), torch.ones(n, dtype=torch.float64), accumulate=True
    )
    assert bool((counts >= (n * chances - 1e-5).floor()).all())
    assert bool((counts <= (n * chances + 1e-5).ceil()).all())


def test_each_text_alone_is_an_exact_sample(sampler):
    """Over many families: the second sibling's two tokens against their chances."""
    flat = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    second = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4], [1.0, 0, 0, 0]]).log()
    paths = [sr.derive_paths(seed, 2, spread=True)[1] for seed in range(6000)]
    routing = SpreadTokenRouting(paths, torch.full((6000,), 4), keep_scores=False)
    tokens = torch.zeros(6000, 1, dtype=torch.int64)
    one = routing(tokens, flat.expand(6000, -1)).argmax(-1, keepdim=True)
    two = routing(torch.cat((tokens, one), 1), second[one[:, 0]]).argmax(-1)
    expected = (flat.exp()[:, None] * second.exp()).flatten() * 6000
    counts = (one[:, 0] * 4 + two).bincount(minlength=16)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible].numpy(), expected[possible].numpy(), sum_check=False).pvalue > LEAST_P


def test_once_a_point_is_used_up_the_draws_are_those_of_token_routing():
    paths = sr.derive_paths(3, 8, spread=True)
    scores = [torch.zeros(8, WIDER_THAN_A_FAMILY) for _ in range(4)]
    spread = choose(SpreadTokenRouting(paths, torch.full((8,), 4), keep_scores=False), scores)
    plain = choose(TokenRouting(paths, torch.full((8,), 4), keep_scores=False), scores)
    assert torch.equal(spread[:, 1:], plain[:, 1:])
    assert not torch.equal(spread[:, 0], plain[:, 0])


def test_a_token_that_cannot_come_is_never_chosen_not_even_at_the_very_end():
    paths = sr.derive_paths(3, 8, spread=True)
    routing = SpreadTokenRouting(paths, torch.full((8,), 4), keep_scores=False)
    routing.points = [Point(at) for at in (0.0, 1 - 2.0**-53) * 4]
    possible = torch.tensor([False, True, True, False, True, False, False])
    scores = torch.randn(8, 7, generator=torch.Generator().manual_seed(1)).masked_fill(~possible, -torch.inf)
    chosen = routing(torch.zeros(8, 1, dtype=torch.int64), scores).argmax(-1)
    assert chosen.tolist() == [1, 4] * 4
    assert all(0 <= point.at < 1 for point in routing.points)


def test_spread_texts_say_more_different_things(sampler):
    """Short texts of 64 prompts' worth of seeds, at the same distribution."""
    asked = {"do_sample": True, "top_k": 4, "max_new_tokens": 1}
    distinct = {}
    for spread in (False, True):
        outs = [sampler.generate(PROMPT, paths=4, seed=s, spread=spread, **asked) for s in range(64)]
        distinct[spread] = sum(len(set(out.generated.flatten().tolist())) for out in outs)
    assert distinct[True] > distinct[False]


# -- replay


def test_a_spread_text_replays_alone_and_in_any_order(routed):
    out = routed.generate(PROMPT, paths=6, seed=7, **ASKED)
    assert out.paths == sr.derive_paths(7, 6, spread=True)
    for order in ([3], [5, 0, 2], [4, 4, 1]):
        again = routed.generate(PROMPT, paths=[out.paths[i] for i in order], **ASKED)
        assert torch.equal(again.sequences, out.sequences[order])


def test_spread_texts_of_left_padded_prompts_are_those_of_each_prompt_alone(routed):
    out = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, rows_at_once=4, **ASKED)
    for row, (prompt, path) in enumerate(zip(out.prompt_index, out.paths, strict=True)):
        alone = routed.generate(IDS[prompt : prompt + 1, : LENGTHS[prompt]], paths=[path], **ASKED)
        assert torch.equal(alone.generated[0], out.generated[row])


def test_the_receipt_says_that_a_text_was_spread(sampler):
    out = sampler.generate(PROMPT, paths=2, seed=7, **ASKED)
    assert out.receipts[0].decoding["spread"] is True
    with pytest.warns(sr.ReplayMismatch, match="spread"):
        sampler.generate(PROMPT, paths=[out.receipts[0]], **(ASKED | {"spread": False}))


def test_scores_are_those_before_the_draw(sampler):
    out = sampler.generate(PROMPT, paths=3, seed=7, output_scores=True, **ASKED)
    assert all(bool((step < torch.inf).all()) for step in out.scores)


def test_prompts_do_not_share_their_points(sampler):
    out = sampler.generate(PROMPT.expand(8, -1), paths=1, seed=7, **ASKED)
    assert len({tuple(row) for row in out.generated.tolist()}) == 8


@pytest.mark.parametrize("asked", [{}, {"do_sample": False}, {"num_beams": 2, "paths": 1}], ids=str)
def test_spread_without_sampling_is_an_error(sampler, asked):
    with pytest.raises(ValueError, match="spread=True has no effect without sampling: pass do_sample=True"):
        sampler.generate(PROMPT, **({"paths": 2, "seed": 1, "spread": True, "max_new_tokens": 2} | asked))


def test_a_family_of_all_numbers_is_a_permutation():
    found = points(sr.derive_paths(11, FAMILY, spread=True))
    assert sorted((found * FAMILY).long().tolist()) == list(range(FAMILY))
