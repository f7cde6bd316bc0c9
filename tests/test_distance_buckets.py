"""A mean and a σ for each range of distances between query and key: attention noise that can learn where to act."""

import copy

import pytest
import torch

import stochroute as sr
from families import FAMILIES
from matrix import PATHS, assert_differ, assert_same, logits_of, padded, random_ids, routed_model, stock_model
from stochroute.kernels import DistanceBuckets

IDS, MASK = padded(random_ids(3, 14), [14, 5, 9], 14)


def bucketed(n: int | None = 4, **settings) -> sr.RoutingConfig:
    attention = sr.Attention(strength=0.8, distance_buckets=n, **settings)
    return sr.RoutingConfig(structural=None, attention=attention, span="all")


def moved(routed: sr.RoutedModel) -> sr.RoutedModel:
    """Parameters away from their start."""
    stream = torch.Generator().manual_seed(4)
    for parameter in routed.noise_parameters().values():
        parameter.copy_(torch.randn(parameter.shape, generator=stream))
    return routed


def test_bucket_n_begins_at_distance_two_to_the_n_minus_one():
    positions = torch.tensor([[2**31 - 1]])
    distances = torch.tensor([0, 1, 2, 3, 6, 7, 14, 15, 2**24 - 1, 2**24, 2**30 - 2, 2**30 - 1, 2**31 - 2, 2**31 - 1])
    expected = [0, 1, 1, 2, 2, 3, 3, 4, 24, 24, 29, 30, 30, 31]
    buckets = DistanceBuckets(torch.zeros(1, 32), torch.zeros(1, 32), positions)
    assert buckets.expand(positions - distances)[0, 0].tolist() == expected
    few = DistanceBuckets(torch.zeros(1, 3), torch.zeros(1, 3), positions)
    assert few.expand(positions - distances)[0, 0].tolist() == [min(2, n) for n in expected]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_at_its_start_it_is_the_noise_without_buckets(dtype):
    found = []
    for n in (None, 5):
        with routed_model("llama", bucketed(n), dtype) as routed, routed.follow(PATHS):
            found.append(logits_of(routed.model, IDS, MASK)[MASK.bool()])
    assert_same(found[0], found[1])


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "opt"])
def test_learned_means_and_sigmas_replay_alone_in_a_batch_and_token_by_token(family):
    with routed_model(family, bucketed()) as routed:
        moved(routed)
        with routed.follow(PATHS):
            batch = logits_of(routed.model, IDS, MASK)
        for row, length in enumerate([14, 5, 9]):
            alone = IDS[row : row + 1, 14 - length :]
            with routed.follow(PATHS[row : row + 1]):
                assert_same(logits_of(routed.model, alone)[0], batch[row, 14 - length :])
                cache, steps = None, []
                for token in alone.split(1, dim=1):
                    out = routed.model(input_ids=token, past_key_values=cache, use_cache=True)
                    cache = out.past_key_values
                    steps.append(out.logits)
            assert_same(torch.cat(steps, 1)[0], batch[row, 14 - length :])


@torch.no_grad()
def test_the_mean_acts_without_any_sigma_and_only_from_the_start_on():
    with routed_model("llama", bucketed()) as routed:
        noise = routed.noise_parameters()
        noise["attention.sigma"].zero_()
        noise["attention.mean"].copy_(torch.randn(noise["attention.mean"].shape))
        with routed.follow(PATHS, start=6):
            some = logits_of(routed.model, IDS[:1].expand(3, -1))
        with routed.suspended():
            clean = logits_of(routed.model, IDS[:1].expand(3, -1))
    assert_same(some[:, :6], clean[:, :6])
    assert_differ(some[:, 6:], clean[:, 6:])
    assert_same(some[0], some[2])  # no σ, no difference between paths


def test_gradients_reach_mean_and_sigma_in_the_fused_kernel_as_in_torch():
    found = []
    for dtype in (torch.float64, torch.float32):
        routed = moved(sr.route(FAMILIES["llama"].build(dtype), bucketed()))
        with routed.follow(PATHS):
            routed.model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
        attention = routed.attention
        assert attention is not None
        assert attention.mean.grad is not None
        assert attention.sigma.grad is not None
        found.append(torch.stack((attention.mean.grad, attention.sigma.grad)))
    assert found[0].abs().amax(-1).min() > 0
    assert_same(found[1], found[0].float(), 1e-3)


@torch.no_grad()
def test_it_saves_and_loads(tmp_path):
    routed = moved(sr.route(copy.deepcopy(stock_model("llama", torch.float32)), bucketed()))
    routed.save_pretrained(tmp_path)
    with routed.follow(PATHS):
        before = logits_of(routed.model, IDS)
    again = sr.RoutedModel.from_pretrained(copy.deepcopy(stock_model("llama", torch.float32)), tmp_path)
    assert again.config == routed.config
    assert routed.noise_parameters()["attention.mean"].shape == (3, 4, 4)
    with again.follow(PATHS):
        assert torch.equal(logits_of(again.model, IDS), before)


@pytest.mark.parametrize("n", [0, 1, 33, -2, 2.0, True, "4"])
def test_a_bad_number_of_buckets_is_an_error_that_names_it(n):
    with pytest.raises(ValueError, match="distance_buckets="):
        sr.Attention(distance_buckets=n)
