"""The 32-bit words under the noise: where they come from, how fair their bits are, and the numbers made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noise_draws import NAMES, PATHS, ZERO, Array, matrix, vector
from stochroute.noise import (
    Kind,
    attention_noise,
    attention_row_keys,
    key_words,
    philox4x32,
    unit_variance,
    vector_noise,
)

# --- from indices to words


@pytest.mark.usefixtures("raw_words")
@settings(max_examples=30)
@given(path=st.integers(0, 2**64 - 1), position=st.integers(0, 2**31), layer=st.integers(0, 99), head=st.integers(0, 7))
def test_counters_keys_and_the_attention_mix_are_laid_out_as_noise_version_1_says(path, position, layer, head):
    key = torch.tensor([path % 2**32, path >> 32])
    blocks = torch.tensor([position])

    def philox(index: int, kind: int) -> list[int]:
        return philox4x32(torch.tensor([index, position, layer, kind]), key).tolist()

    for kind in Kind:
        words = vector_noise(key_words([path]), 10, blocks, layer, kind, "word")[0].tolist()
        assert words == [*philox(0, int(kind)), *philox(1, int(kind)), *philox(2, int(kind))[:2]]

    rows = attention_row_keys(key_words([path]), head + 1, blocks[None], layer)[:, head:]
    r0, r1, _, _ = philox(head, 2)
    assert rows.flatten().tolist() == [r0, r1]
    places = [0, 1, 77, position]
    for place, word in zip(places, attention_noise(rows, torch.tensor(places), "word").flatten().tolist(), strict=True):
        x = place * 0x85EBCA6B % 2**32 ^ r0
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = ((x ^ x >> 15) + r1) * 0x846CA68B % 2**32
        assert word == x ^ x >> 16


# --- the bits of a word


def bits_of(words: Array) -> Array:
    """(…, 32): the bits of 32-bit words as −1 and 1."""
    return ((words.astype(np.int64)[..., None] >> np.arange(32)) & 1) * 2.0 - 1.0


@pytest.mark.usefixtures("raw_words")
@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: vector(1 << 18, distribution="word").reshape(-1, 1), id="along the channels"),
        pytest.param(lambda: matrix(1, 1 << 18, distribution="word").reshape(-1, 1), id="along the keys"),
        pytest.param(lambda: matrix(1 << 18, 1, distribution="word").reshape(-1, 1), id="along the queries"),
        pytest.param(lambda: vector(1 << 18, distribution="word").reshape(-1, 2), id="neighbouring channels"),
        pytest.param(lambda: matrix(1 << 17, 2, distribution="word").reshape(-1, 2), id="neighbouring keys"),
        pytest.param(lambda: matrix(2, 1 << 17, distribution="word")[0].T, id="neighbouring queries"),
        pytest.param(lambda: matrix(1, 1 << 17, heads=2, distribution="word")[:, 0].T, id="neighbouring heads"),
    ],
)
def test_every_bit_is_balanced_and_every_pair_of_bits_uncorrelated(draw):
    bits = bits_of(draw())  # (n, words, 32)
    bits = bits.reshape(len(bits), -1)
    bound = 5 / len(bits) ** 0.5
    assert np.abs(bits.mean(0)).max() < bound
    r = bits.T @ bits / len(bits)
    assert np.abs(r - np.diag(np.diag(r))).max() < bound


@pytest.mark.usefixtures("raw_words")
@pytest.mark.parametrize("bit", range(14))
def test_a_flipped_bit_of_the_key_position_flips_every_bit_of_the_word_half_of_the_time(bit):
    rows = attention_row_keys(key_words(PATHS[:1]), 1, torch.arange(1 << 14)[None], 0)
    places = torch.tensor([0, 5, 300, 4095])
    flips = attention_noise(rows, places, "word") ^ attention_noise(rows, places ^ (1 << bit), "word")
    share = (bits_of(flips[0, 0].numpy()) > 0).mean((0, 1))
    assert np.abs(share - 0.5).max() < 5 * 0.5 / flips.numel() ** 0.5


# --- from words to numbers


def test_the_extreme_words_map_to_the_extremes_of_each_distribution_and_the_maps_are_symmetric():
    words = torch.tensor([0, 2**32 - 1])
    assert unit_variance(words, "normal").abs().max() < 5.81
    low, high = unit_variance(words, "uniform").tolist()
    assert (low, high) == (-high, high)
    assert high == pytest.approx(3**0.5, rel=1e-7)
    assert unit_variance(words, "rademacher").tolist() == [1.0, -1.0]
    anything = philox4x32(torch.arange(4096).reshape(-1, 4), torch.zeros(2, dtype=torch.int64)).flatten()
    mirrored = torch.tensor(2**32 - 1) - anything
    for distribution in ("uniform", "rademacher"):
        assert torch.equal(unit_variance(mirrored, distribution), -unit_variance(anything, distribution))


def test_an_unknown_distribution_is_refused_with_the_ones_there_are():
    with pytest.raises(ValueError, match="distribution='gauss' is unknown: choose one of normal, uniform, rademacher"):
        unit_variance(torch.zeros(3, dtype=torch.int64), "gauss")
    with pytest.raises(ValueError, match="distribution='Normal' is unknown"):
        vector_noise(key_words([1]), 4, ZERO, 0, Kind.FFN, "Normal")


def oracle_normal(word: int) -> float:
    """The near-normal map on Python's integers and floats."""
    dither = ((word * 0x9E3779B1 % 2**32 >> 16) + 0.5) / 2**16 - 0.5
    return (word.bit_count() - 16 + dither) / (8 + 1 / 12) ** 0.5


@given(words=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_the_maps_agree_with_plain_numbers(words):
    drawn = {name: unit_variance(torch.tensor(words), name).tolist() for name in NAMES}
    assert drawn["normal"] == pytest.approx([oracle_normal(w) for w in words], rel=2e-7)
    assert drawn["uniform"] == pytest.approx([((w >> 8) + 0.5 - 2**23) / 2**23 * 3**0.5 for w in words], rel=2e-7)
    assert drawn["rademacher"] == [1.0 if w < 2**31 else -1.0 for w in words]
