"""Philox4x32-10 against its published vectors and against a second implementation in plain Python integers."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from levels import LEVELS
from stochroute import compiled
from stochroute.compiled.philox import philox_grid
from stochroute.noise.philox import philox_words

WORDS = st.integers(0, 2**32 - 1)
COUNTERS = st.lists(WORDS, min_size=4, max_size=4)
KEYS = st.lists(WORDS, min_size=2, max_size=2)

# counter, key, output: from the known-answer file of Random123, the authors' own implementation
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def oracle(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as the paper states it (section 3.3), on Python's unbounded integers."""
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * x0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * x2, 2**32)
        x0, x1, x2, x3 = high_1 ^ x1 ^ k0, low_1, high_0 ^ x3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [x0, x1, x2, x3]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_the_published_known_answers_come_out(counter, key, output):
    assert sr.noise.philox4x32(torch.tensor(words(counter)), torch.tensor(words(key))).tolist() == words(output)
    assert oracle(words(counter), words(key)) == words(output)


def test_the_known_answers_come_out_of_one_batch_too():
    counters, keys, outputs = (torch.tensor([words(row[i]) for row in KNOWN_ANSWERS]) for i in range(3))
    assert torch.equal(sr.noise.philox4x32(counters, keys), outputs)


@given(rows=st.lists(st.tuples(COUNTERS, KEYS), min_size=1, max_size=12))
def test_it_agrees_with_plain_integers_on_any_counters_and_keys(rows):
    result = sr.noise.philox4x32(torch.tensor([c for c, _ in rows]), torch.tensor([k for _, k in rows]))
    assert result.tolist() == [oracle(c, k) for c, k in rows]


@given(counters=st.lists(COUNTERS, min_size=1, max_size=4), keys=st.lists(KEYS, min_size=1, max_size=3))
def test_leading_dimensions_broadcast(counters, keys):
    grid = sr.noise.philox4x32(torch.tensor(counters)[None], torch.tensor(keys)[:, None])
    assert grid.shape == (len(keys), len(counters), 4)
    assert grid.tolist() == [[oracle(c, k) for c in counters] for k in keys]
    one_key = sr.noise.philox4x32(torch.tensor(counters), torch.tensor(keys[0]))
    assert torch.equal(one_key, grid[0])
    one_counter = sr.noise.philox4x32(torch.tensor(counters[0]), torch.tensor(keys))
    assert torch.equal(one_counter, grid[:, 0])


def test_the_extremes_of_every_word_stay_in_32_bits():
    edges = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    counters = torch.cartesian_prod(edges, edges, edges, edges)[:, None]
    keys = torch.cartesian_prod(edges, edges)
    result = sr.noise.philox4x32(counters, keys)
    assert result.dtype == torch.int64
    assert result.shape == (5**4, 5**2, 4)
    assert int(result.min()) >= 0
    assert int(result.max()) < 2**32
    for i, j in ((0, 0), (5**4 - 1, 5**2 - 1), (314, 7), (555, 13)):
        assert result[i, j].tolist() == oracle(counters[i, 0].tolist(), keys[j].tolist())


@given(counter=COUNTERS, key=KEYS, word=st.integers(0, 3), bit=st.integers(0, 31))
def test_a_flipped_bit_of_the_counter_gives_other_words_and_the_inputs_stay_as_they_were(counter, key, word, bit):
    given_counter, given_key = torch.tensor(counter), torch.tensor(key)
    first = sr.noise.philox4x32(given_counter, given_key)
    assert given_counter.tolist() == counter
    assert given_key.tolist() == key
    given_counter[word] ^= 1 << bit
    assert not torch.equal(sr.noise.philox4x32(given_counter, given_key), first)


def test_an_empty_batch_gives_no_words():
    empty = sr.noise.philox4x32(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert empty.shape == (0, 4)


@pytest.mark.parametrize(("counter", "key"), [((3,), (2,)), ((4,), (3,)), ((5, 4, 1), (2,)), ((), (2,)), ((4,), ())])
def test_a_wrong_number_of_words_is_refused_with_the_shapes(counter, key):
    with pytest.raises(ValueError, match="counter must end in 4 words and key in 2") as refused:
        sr.noise.philox4x32(torch.zeros(counter, dtype=torch.int64), torch.zeros(key, dtype=torch.int64))
    assert str(counter) in str(refused.value)
    assert str(key) in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32, torch.bool])
def test_another_dtype_than_int64_is_refused(dtype):
    wide = {"counter": torch.zeros(4, dtype=torch.int64), "key": torch.zeros(2, dtype=torch.int64)}
    for name, tensor in wide.items():
        with pytest.raises(ValueError, match=f"must be int64, got .*{dtype}"):
            sr.noise.philox4x32(**{**wide, name: tensor.to(dtype)})


@pytest.mark.parametrize("level", LEVELS)
@given(data=st.data())
def test_the_compiled_grid_has_the_words_of_the_reference(level, data):
    """Counters and keys of any shapes that broadcast, sliced and expanded ones among them."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=0, max_size=6))
    if data.draw(st.booleans()) and shape:
        shape[-1] = 37  # more than two vectors
    stream = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    grid = []
    for _ in range(6):
        keep = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        own = [n if kept else 1 for n, kept in zip(shape, keep, strict=True)]
        words = torch.randint(0, 2**32, (*own, 2), generator=stream)[..., 1]  # strided
        grid.append(words)
    with mock.patch.object(compiled, "level", return_value=compiled.LEVELS.index(level)):
        found = philox_grid(tuple(grid))
    expected = torch.stack(torch.broadcast_tensors(*philox_words(tuple(grid[:4]), tuple(grid[4:]))), dim=-1)
    assert torch.equal(found, expected.expand(found.shape))
