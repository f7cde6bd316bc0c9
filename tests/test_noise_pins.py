"""The noise has the same bits for ever and everywhere, and no memory."""

import hashlib
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noise_draws import NAMES, PATHS, ZERO, every_distribution
from stochroute.noise import (
    NOISE_VERSION,
    SHARED_LAYER,
    Kind,
    attention_noise,
    attention_row_keys,
    gumbel_noise,
    key_words,
    vector_noise,
)

# --- pinned bits


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def small_draws(distribution: str) -> dict[str, Tensor]:
    """A few numbers of every draw, over all the indices that enter it."""
    keys = key_words([0, 0x00C0FFEE00C0FFEE, 2**64 - 1])
    blocks = torch.tensor([[0, 1, 2, 1000], [5, 6, 7, 8], [0, 0, 2**31, 2**32 - 1]])
    rows = attention_row_keys(keys, 3, blocks, 5)
    return {
        "structural": vector_noise(keys[:, None], 11, blocks, 3, Kind.FFN, distribution),
        "shared": vector_noise(keys[:, None], 11, blocks, SHARED_LAYER, Kind.FFN, distribution),
        "expert": vector_noise(keys[:, None], 6, blocks, 3, Kind.EXPERT, distribution),
        "basis": vector_noise(keys[:, None], 6, blocks, 3, Kind.BASIS, distribution),
        "row keys": rows,
        "attention": attention_noise(rows, torch.arange(9), distribution),
        "attention, padded": attention_noise(
            rows, torch.tensor([[-1, 0, 1], [0, 1, 2], [7, 100_000, 2**20]]), distribution
        ),
    }


PINNED: dict[str, dict[str, str]] = {
    "normal": {
        "structural": "9dc983c317ded371",
        "shared": "72157ba6ac2aabfd",
        "expert": "12b7654d35a53ba5",
        "basis": "95eef528e584014c",
        "row keys": "8a90382af8e85c3e",
        "attention": "bddbd5ad7b02b3b4",
        "attention, padded": "5a2c77ae8d01a376",
    },
    "uniform": {
        "structural": "b0ea0ad7e8ec6936",
        "shared": "64829b3aa3d0d3d4",
        "expert": "a7bb830d18f96a05",
        "basis": "38efb1274d44bd84",
        "row keys": "8a90382af8e85c3e",
        "attention": "57004cc8211a2c9f",
        "attention, padded": "0835a354805ebcd3",
    },
    "rademacher": {
        "structural": "73380c9b10de5b7d",
        "shared": "36376ab2e748fbb7",
        "expert": "847cf04f341a1ae7",
        "basis": "626ff53015e9cc3e",
        "row keys": "8a90382af8e85c3e",
        "attention": "38d4d39aef07fd76",
        "attention, padded": "f78ab260a8c03d76",
    },
}


@every_distribution
def test_the_bits_of_every_draw_never_change_under_noise_version_1(distribution):
    assert NOISE_VERSION == 1
    assert [kind.value for kind in (Kind.PATH, Kind.FFN, Kind.ATTENTION, Kind.EXPERT, Kind.TOKEN)] == [0, 1, 2, 3, 4]
    assert Kind.BASIS == 5
    assert {name: digest(draw) for name, draw in small_draws(distribution).items()} == PINNED[distribution]


def test_a_few_numbers_in_plain_sight():
    keys = key_words([0x00C0FFEE00C0FFEE])
    assert vector_noise(keys, 5, ZERO, 0, Kind.FFN)[0].tolist() == [
        0.4998021423816681,
        -0.10379347950220108,
        0.6919860243797302,
        -0.6955764889717102,
        -2.468548059463501,
    ]
    rows = attention_row_keys(keys, 1, torch.tensor([[7]]), 2)
    assert rows.flatten().tolist() == [147597542, 3943309015]
    assert attention_noise(rows, torch.arange(4)).flatten().tolist() == [
        0.46121400594711304,
        0.9321609139442444,
        1.4589506387710571,
        -0.03568731248378754,
    ]
    gumbel = gumbel_noise(keys, 4, torch.tensor([7]))[0]
    np.testing.assert_allclose(
        gumbel.numpy(), [1.3453778380606922, 0.35272694265942056, -0.7112058219287348, 1.5507325739019973], rtol=1e-12
    )  # its logarithms may differ in the last bits


# --- a pure function


@settings(max_examples=30)
@given(
    paths=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    first=st.integers(0, 1000),
    length=st.integers(1, 6),
    n=st.integers(1, 13),
    layer=st.sampled_from([0, 1, 31, SHARED_LAYER]),
    kind=st.sampled_from(list(Kind)),
    distribution=st.sampled_from(NAMES),
    data=st.data(),
)
def test_vector_noise_has_the_same_bits_in_any_arrangement_of_the_batch(
    paths, first, length, n, layer, kind, distribution, data
):
    positions = torch.arange(first, first + length)
    order = data.draw(st.permutations(range(len(paths))))
    together = vector_noise(key_words([paths[i] for i in order])[:, None], n, positions, layer, kind, distribution)
    assert together.dtype == torch.float32
    assert together.shape == (len(paths), length, n)
    for row, i in enumerate(order):
        for column, position in enumerate(positions.tolist()):
            alone = vector_noise(key_words([paths[i]]), n, torch.tensor([position]), layer, kind, distribution)[0]
            assert torch.equal(together[row, column], alone)
    wider = vector_noise(key_words(paths), n + 7, ZERO, layer, kind, distribution)
    assert torch.equal(wider[:, :n], vector_noise(key_words(paths), n, ZERO, layer, kind, distribution))


@settings(max_examples=30)
@given(
    paths=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
    heads=st.integers(1, 4),
    queries=st.integers(1, 6),
    keys=st.integers(1, 9),
    layer=st.integers(0, 40),
    distribution=st.sampled_from(NAMES),
    data=st.data(),
)
def test_attention_noise_has_the_same_bits_in_any_arrangement_of_the_batch(
    paths, heads, queries, keys, layer, distribution, data
):
    words = key_words(paths)
    blocks = torch.arange(queries).expand(len(paths), queries)
    places = torch.arange(keys)
    whole = attention_noise(attention_row_keys(words, heads, blocks, layer), places, distribution)
    assert whole.dtype == torch.float32
    assert whole.shape == (len(paths), heads, queries, keys)
    # each row alone
    for i in range(len(paths)):
        alone = attention_row_keys(words[i : i + 1], heads, blocks[:1], layer)
        assert torch.equal(attention_noise(alone, places, distribution)[0], whole[i])
    # in blocks of queries and keys, as a decode step or a chunked prefill asks for them
    q, k = data.draw(st.integers(0, queries - 1)), data.draw(st.integers(0, keys - 1))
    corner = attention_noise(attention_row_keys(words, heads, blocks[:, q:], layer), places[k:], distribution)
    assert torch.equal(corner, whole[:, :, q:, k:])
    # fewer heads, several layers at once
    assert torch.equal(attention_noise(attention_row_keys(words, 1, blocks, layer), places, distribution), whole[:, :1])
    layered = attention_row_keys(words, heads, blocks, torch.tensor([layer + 1, layer]))
    assert torch.equal(attention_noise(layered[1], places, distribution), whole)
    # left-padded: real keys have the same numbers wherever they stand, padding is whatever position 0 is
    padded = torch.cat([torch.full((len(paths), 2), -1), places.expand(len(paths), -1)], dim=1)
    shifted = attention_noise(attention_row_keys(words, heads, blocks, layer), padded, distribution)
    assert torch.equal(shifted[..., 2:], whole)
    assert torch.equal(shifted[..., 0], whole[..., 0])


@settings(max_examples=30)
@given(
    paths=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    vocabulary=st.integers(1, 30),
    position=st.integers(0, 10**6),
)
def test_gumbel_noise_has_the_same_bits_alone_and_in_a_batch(paths, vocabulary, position):
    positions = position + torch.arange(len(paths))
    together = gumbel_noise(key_words(paths), vocabulary, positions)
    for i, path in enumerate(paths):
        assert torch.equal(gumbel_noise(key_words([path]), vocabulary, positions[i : i + 1])[0], together[i])
    assert torch.equal(gumbel_noise(key_words(paths), vocabulary + 5, positions)[:, :vocabulary], together)


@pytest.fixture
def other_surroundings() -> Iterator[None]:
    """Another default dtype, another number of threads, another global seed, inside inference mode."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(987)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)


@every_distribution
@pytest.mark.usefixtures("other_surroundings")
def test_the_bits_depend_on_no_default_dtype_thread_count_or_global_seed(distribution):
    draws = small_draws(distribution)
    assert {name: digest(draw) for name, draw in draws.items()} == PINNED[distribution]
    assert all(draw.dtype == torch.float32 for name, draw in draws.items() if name != "row keys")
    large = vector_noise(key_words(PATHS), 4096, torch.zeros(64, dtype=torch.int64), 1, Kind.FFN, distribution)
    torch.set_num_threads(1)
    again = vector_noise(key_words(PATHS), 4096, torch.zeros(64, dtype=torch.int64), 1, Kind.FFN, distribution)
    assert torch.equal(large, again)
    assert gumbel_noise(key_words([1]), 3, ZERO).dtype == torch.float64


def test_no_global_generator_is_read_or_moved():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for distribution in NAMES:
        small_draws(distribution)
    gumbel_noise(key_words(PATHS), 9, torch.arange(64))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()


def test_drawing_leaves_its_arguments_as_they_were():
    keys, blocks, places = key_words(PATHS[:2]), torch.tensor([[0, 4], [2, 9]]), torch.tensor([-1, 0, 5])
    copies = keys.clone(), blocks.clone(), places.clone()
    rows = attention_row_keys(keys, 2, blocks, 1)
    kept = rows.clone()
    attention_noise(rows, places)
    vector_noise(keys[:, None], 5, blocks, 1, Kind.FFN)
    for tensor, copy in zip((keys, blocks, places, rows), (*copies, kept), strict=True):
        assert torch.equal(tensor, copy)


def test_key_words_hold_the_path_s_low_word_first():
    assert key_words([0x0123456789ABCDEF, 2**64 - 1]).tolist() == [[0x89ABCDEF, 0x01234567], [2**32 - 1, 2**32 - 1]]
    assert key_words([0]).dtype == torch.int64


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inductor's own
def test_a_compiled_draw_has_the_same_bits():
    def draw(keys: Tensor, blocks: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        rows = attention_row_keys(keys, 3, blocks, 5)
        return (
            vector_noise(keys[:, None], 11, blocks, 3, Kind.FFN),
            vector_noise(keys[:, None], 11, blocks, SHARED_LAYER, Kind.FFN, "uniform"),
            attention_noise(rows, places),
            attention_noise(rows, places, "uniform"),
            attention_noise(rows, places, "rademacher"),
        )

    arguments = (
        key_words([0, 0x00C0FFEE00C0FFEE, 2**64 - 1]),
        torch.tensor([[0, 1], [5, 6], [0, 2**32 - 1]]),
        torch.arange(37),
    )
    compiled = torch.compile(draw, fullgraph=True)
    for eager, fast in zip(draw(*arguments), compiled(*arguments), strict=True):
        assert torch.equal(eager, fast)
