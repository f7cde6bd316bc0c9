"""Expert routing: noise on the router logits, before the top-k choice."""

import copy
from typing import Any

import pytest
import torch

import stochroute as sr
from families import EXPERT_FAMILIES, FAMILIES
from matrix import PATHS, assert_differ, assert_same, logits_of, padded, random_ids, routed_model, stock_model

IDS = random_ids(3, 12)
EXPERTS, CHOSEN = 4, 2
every_expert_family = pytest.mark.parametrize("family", EXPERT_FAMILIES)


def experts_only(strength: float | tuple[float, ...] = 1.0, **settings) -> sr.RoutingConfig:
    return sr.RoutingConfig(structural=None, experts=sr.Experts(strength=strength, **settings), span="all")


def routers_of(model) -> dict[int, torch.nn.Module]:
    """The router of each layer that has one."""
    return {
        index: module
        for index, layer in enumerate(model.model.layers)
        for module in layer.modules()
        if type(module).__name__.endswith("TopKRouter")
    }


@torch.no_grad()
def choices(model, routed, paths=PATHS, ids=IDS, mask=None, start=0) -> dict[int, tuple]:
    """What each router returns along the paths: logits, weights and indices, each (tokens, …), by layer."""
    seen = {}
    handles = [
        router.register_forward_hook(lambda _, __, out, index=index: seen.__setitem__(index, out))
        for index, router in routers_of(model).items()
    ]
    try:
        with routed.follow(paths, start=start):
            model(input_ids=ids, attention_mask=mask)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def blind_copy(family: str) -> Any:
    """The model with routers of weight 0, so that their logits are the noise alone."""
    model = copy.deepcopy(stock_model(family))
    with torch.no_grad():
        for router in routers_of(model).values():
            for parameter in router.parameters():
                parameter.zero_()
    return model


def shares_of(outcome: tuple) -> torch.Tensor:
    """The weight that each token gives to each expert, (tokens, experts), from a router's weights and indices."""
    _, weights, indices = outcome
    shares = torch.zeros(indices.shape[0], EXPERTS, dtype=weights.dtype)
    return shares.scatter(1, indices, weights) if weights.shape == indices.shape else weights


@every_expert_family
def test_every_token_still_goes_to_as_many_experts_with_the_weights_of_its_noisy_logits(family):
    model = copy.deepcopy(stock_model(family))
    with torch.no_grad():
        clean = choices(model, sr.route(model, experts_only()), start=10**6)
    model = copy.deepcopy(stock_model(family))
    noised = choices(model, sr.route(model, experts_only(strength=2.0)))
    for index in noised:
        shares = shares_of(noised[index])
        assert ((shares > 0).sum(-1) == CHOSEN).all()
        assert not torch.equal(noised[index][2], clean[index][2]), "the choice itself never changed"


@every_expert_family
@pytest.mark.parametrize("hold", [1, 3, "sequence"])
def test_the_choice_is_that_of_the_published_draw(family, hold):
    """Blind routers leave the noise alone to choose: the two largest draws, weighted by their own logits."""
    model = blind_copy(family)
    outcomes = choices(model, sr.route(model, experts_only(hold=hold)))
    keys = sr.noise.key_words(PATHS)
    for index, outcome in outcomes.items():
        for position in range(12):
            block = torch.full((3,), 0 if hold == "sequence" else position // hold)
            drawn = sr.noise.vector_noise(keys, EXPERTS, block, index, sr.noise.Kind.EXPERT).double()
            shares = shares_of(outcome).view(3, 12, EXPERTS)[:, position].double()
            best = drawn.topk(CHOSEN, dim=-1).indices
            assert torch.equal((shares > 0).nonzero()[:, 1].view(3, CHOSEN), best.sort(-1).values)
            kept = shares.gather(1, best)
            odds = (kept[:, 0] / kept[:, 1]).log()
            expected = drawn.gather(1, best)[:, 0] - drawn.gather(1, best)[:, 1]
            assert torch.allclose(odds, expected, atol=1e-5)


@every_expert_family
def test_strength_is_in_nats_of_router_logits(family):
    """The log-odds of the two chosen experts grow in proportion to the strength."""
    odds = []
    for strength in (0.5, 1.5):
        model = blind_copy(family)
        outcomes = choices(model, sr.route(model, experts_only(strength)))
        shares = torch.cat([shares_of(outcome) for outcome in outcomes.values()]).double()
        first, second = shares.topk(CHOSEN, dim=-1).values.unbind(-1)
        odds.append((first / second).log())
    assert torch.allclose(odds[1], 3 * odds[0], atol=1e-4)


@every_expert_family
def test_choices_are_the_same_alone_and_padded(family):
    lengths = [12, 5, 9]
    ids, mask = padded(IDS, lengths, 14)
    with routed_model(family, experts_only(strength=2.0, hold=3)) as routed:
        batch = choices(routed.model, routed, ids=ids, mask=mask)
        for row, length in enumerate(lengths):
            alone = choices(routed.model, routed, [PATHS[row]], IDS[row : row + 1, :length])
            for index in batch:
                real = mask.bool().flatten() & (torch.arange(3).repeat_interleave(14) == row)
                assert_same(shares_of(batch[index])[real], shares_of(alone[index]), 1e-5)


@every_expert_family
@torch.no_grad()
def test_only_the_layers_asked_for_are_noised(family):
    last = 2
    with routed_model(family, experts_only(strength=(2.0,), layers=(last,))) as routed:
        clean = routed.model(input_ids=IDS, output_hidden_states=True).hidden_states
        with routed.follow(PATHS):
            noised = routed.model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert_same(noised[last], clean[last])
    assert_differ(noised[last + 1], clean[last + 1])


def test_layers_without_a_router_are_left_out_and_asking_for_one_is_an_error():
    with routed_model("qwen3_moe", experts_only()) as routed:  # its layer 0 is dense
        assert routed.experts.layers == [1, 2]
    with pytest.raises(ValueError, match=r"\[0\]"):
        sr.route(stock_model("qwen3_moe"), experts_only(layers=(0, 1)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_without_experts_is_a_clear_error_and_stays_as_it_was(family):
    model = FAMILIES[family].build()
    before = {name: vars(module).copy() for name, module in model.named_modules()}
    with pytest.raises(ValueError, match="experts=None"):
        sr.route(model, experts_only())
    assert {name: vars(module) for name, module in model.named_modules()} == before


@every_expert_family
@torch.no_grad()
def test_the_experts_own_implementation_does_not_matter(family):
    """Noise enters before the choice, so transformers' loop over experts and its batched form see the same."""
    logits = []
    for implementation in ("eager", "batched_mm"):
        routed = sr.route(FAMILIES[family].build(torch.float64, experts=implementation), experts_only())
        with routed.follow(PATHS):
            logits.append(logits_of(routed.model, IDS))
    assert_same(logits[0], logits[1])


@every_expert_family
def test_detach_gives_every_router_its_own_forward_back(family):
    model = copy.deepcopy(stock_model(family))
    routed = sr.route(model, experts_only())
    choices(model, routed)
    routed.detach()
    assert all("forward" not in vars(router) for router in routers_of(model).values())
