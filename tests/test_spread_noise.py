"""Spread noise: the z of eight siblings point away from each other, and each alone is drawn as ever."""

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import stochroute as sr
from matrix import random_ids, routed_model
from stochroute.noise import SHARED_LAYER, Kind, key_words, sibling_noise, vector_noise
from stochroute.paths import read_sibling

EIGHT = torch.arange(8)
DISTRIBUTIONS = ("normal", "uniform", "rademacher")
LEAST_P = 1e-4
PROMPT = random_ids(1, 7)
LATENT = sr.Structural(form="latent", rank=4, layers="all", strength=0.4)
SPREAD = sr.RoutingConfig(structural=sr.Structural(form="latent", rank=4, layers="all", strength=0.4, spread=True))


def z_of(families: list[int], numbers: Tensor, rank: int, block: int = 0, distribution: str = "normal") -> Tensor:
    """float64 (families, numbers, rank)."""
    blocks = torch.full((len(families), len(numbers)), block)
    keys = key_words(families)[:, None].expand(-1, len(numbers), -1)
    return sibling_noise(keys, numbers.expand(len(families), -1), rank, blocks, distribution).double()


# -- among themselves


@given(
    family=st.integers(0, 2**52 - 1),
    first=st.integers(0, 511),
    rank=st.sampled_from([4, 8, 16, 64]),
    block=st.integers(0, 2**20),
    distribution=st.sampled_from(DISTRIBUTIONS),
)
def test_eight_siblings_are_opposite_in_pairs_and_else_at_right_angles(family, first, rank, block, distribution):
    z = z_of([family], 8 * first + EIGHT, rank, block, distribution)[0]
    length = z[0] @ z[0]
    assert length > 0
    expected = torch.kron(torch.eye(4), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).double() * length
    torch.testing.assert_close(z @ z.T, expected, rtol=0, atol=1e-12 * float(length))


@pytest.mark.parametrize("other", ["family", "eight", "block"])
def test_other_families_eights_and_blocks_are_independent(other):
    families = list(range(500))
    one = z_of(families, EIGHT[:1], 16)
    two = {
        "family": lambda: z_of([f + 500 for f in families], EIGHT[:1], 16),
        "eight": lambda: z_of(families, EIGHT[:1] + 8, 16),
        "block": lambda: z_of(families, EIGHT[:1], 16, block=1),
    }[other]()
    pairs = (one * two).sum(-1).flatten() / 4  # of variance 1
    assert stats.kstest((pairs / pairs.std()).numpy(), "norm").pvalue > LEAST_P
    assert abs(pairs.mean()) < 4 / math.sqrt(len(pairs))


# -- each alone


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("number", [*range(8), 13, 4095])
def test_each_sibling_alone_is_drawn_as_ever(number, distribution):
    families = list(range(3000))
    z = z_of(families, torch.tensor([number]), 4, distribution=distribution)[:, 0]
    block = torch.zeros(len(families), dtype=torch.int64)
    ordinary = vector_noise(key_words(families), 4, block, SHARED_LAYER, Kind.FFN, distribution).double()
    assert (torch.cov(z.T) - torch.eye(4)).abs().max() < 6 / math.sqrt(len(families))
    if distribution == "rademacher":
        assert set(z.flatten().tolist()) == {-1.0, 1.0}
    else:
        assert stats.ks_2samp(z.flatten().numpy(), ordinary.flatten().numpy()).pvalue > LEAST_P


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=6, unique=True))
def test_ids_that_are_no_siblings_share_nothing(paths):
    families = {read_sibling(path)[0] for path in paths}
    z = z_of(sorted(families), EIGHT[:1], 8)[:, 0]
    assert len({tuple(row.abs().sort().values.tolist()) for row in z}) == len(families)


PINNED = {
    "normal": "7b5fe11a08076afb",
    "uniform": "3fdc967703327224",
    "rademacher": "5fcc009a8e528a27",
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_bits_never_change(distribution):
    z = z_of([0, 7, 2**52 - 1], torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 4095]), 8, 5, distribution).float()
    assert hashlib.sha256(z.contiguous().numpy().tobytes()).hexdigest()[:16] == PINNED[distribution]


# -- in a model


def test_a_number_of_paths_means_siblings_and_each_replays_alone():
    with routed_model("llama", SPREAD) as routed:
        out = routed.generate(PROMPT, paths=8, seed=7, max_new_tokens=8)
        assert out.paths == sr.derive_paths(7, 8, spread=True)
        for row, path in enumerate(out.paths):
            alone = routed.generate(PROMPT, paths=[path], max_new_tokens=8)
            assert torch.equal(alone.sequences[0], out.sequences[row])
        assert len({tuple(row) for row in out.sequences.tolist()}) > 4


def test_opposite_siblings_push_the_model_in_opposite_directions():
    paths = sr.derive_paths(7, 2, spread=True)
    with routed_model("llama", sr.RoutingConfig(structural=SPREAD.structural, span="all")) as routed:
        layer = routed.model.model.layers[0].mlp
        seen = []
        handle = layer.register_forward_hook(lambda module, args, output: seen.append(output))
        for path in (None, *paths):
            with routed.follow([path], 0):
                routed.model(PROMPT)
        handle.remove()
    clean, one, two = seen
    torch.testing.assert_close(one - clean, clean - two, rtol=1e-6, atol=1e-9)
    assert (one - clean).abs().max() > 0.01


def test_spread_noise_and_spread_tokens_go_together():
    asked = {"do_sample": True, "top_k": 0, "max_new_tokens": 4, "spread": True}
    with routed_model("llama", SPREAD) as routed:
        out = routed.generate(PROMPT, paths=4, seed=3, **asked)
        alone = routed.generate(PROMPT, paths=[out.paths[2]], **asked)
    assert out.paths == sr.derive_paths(3, 4, spread=True)
    assert torch.equal(alone.sequences[0], out.sequences[2])


# -- the config


def test_a_config_without_spread_noise_is_written_as_before():
    assert "spread" not in sr.RoutingConfig(structural=LATENT).to_dict()["structural"]
    assert SPREAD.to_dict()["structural"]["spread"] is True
    assert sr.RoutingConfig.from_dict(SPREAD.to_dict()) == SPREAD
    assert SPREAD.spreads
    assert not sr.RoutingConfig(structural=LATENT).spreads
    assert not sr.RoutingConfig(structural=None).spreads


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"spread": True}, "spread=True has no effect on form='shared': leave it out, or choose 'latent'"),
        ({"form": "latent", "rank": 6, "spread": True}, "rank=6 is no multiple of 4: give 4, 8 or 16"),
        ({"form": "latent", "spread": "yes"}, "spread='yes' is neither True nor False"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        sr.Structural(**settings)
