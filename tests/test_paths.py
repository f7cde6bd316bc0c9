"""Path ids: derived by mixing, printed as 16 hex digits, read in both forms, refused in every other."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from stochroute.noise import Kind, philox4x32
from stochroute.paths import check_seed, draw_seed, parse_paths

WORD = 0xFFFFFFFF
IDS = st.integers(0, 2**64 - 1)
COUNTS = st.integers(1, 64)
PROMPTS = st.integers(0, 2**32 - 1)

NO_INTEGERS = [True, False, 1.0, 7.5, float("nan"), None, b"00c0ffee00c0ffee", [1], (1,), 1j, np.float64(1.0)]
OUT_OF_RANGE = [-1, -(2**63), 2**64, 2**64 + 7, 10**30]
NO_HEX = [
    "",
    " ",
    "c0ffee",
    "00c0ffee00c0ffe",  # 15 digits
    "00c0ffee00c0ffee0",  # 17 digits
    "0x00c0ffee00c0ff",  # 16 characters
    "0x00c0ffee00c0ffee",
    "00c0ffee00c0ffeg",
    "00c0ffee 0c0ffee",
    "00c0ffee_0c0ffee",
    "+0c0ffee00c0ffee",
    "-0c0ffee00c0ffee",
    " 0c0ffee00c0ffee",
    "00c0ffee00c0ffee\n",
    "\n00c0ffee00c0ffee",
    "００c0ffee00c0ffee",  # full-width digits
    "٠٠c0ffee00c0ffee",  # Arabic digits, which int() would read
]
PINNED_SEED_7 = ["c009f9dcf4607a2d", "cb97bc13682e8e9b", "0229fbb4018e23c0"]
PINNED_SEED_7_PROMPT_1 = ["249ef5f42ec4f55d", "219512253cbe7593", "498ff58b8db4ce21"]
PINNED_LARGEST = ["422820ce69d460b8"]  # the largest seed and prompt index


# --- derivation


def test_the_first_paths_of_seed_7_never_change_under_noise_version_1():
    assert sr.noise.NOISE_VERSION == 1
    assert [sr.format_path(p) for p in sr.derive_paths(7, 3)] == PINNED_SEED_7
    assert [sr.format_path(p) for p in sr.derive_paths(7, 3, prompt=1)] == PINNED_SEED_7_PROMPT_1
    assert [sr.format_path(p) for p in sr.derive_paths(2**64 - 1, 1, prompt=2**32 - 1)] == PINNED_LARGEST


@given(seed=IDS, sample=st.integers(0, 40), prompt=PROMPTS)
def test_a_path_id_is_the_philox_word_pair_at_its_seed_sample_and_prompt(seed, sample, prompt):
    counter = torch.tensor([sample, prompt, 0, int(Kind.PATH)])
    low, high, _, _ = philox4x32(counter, torch.tensor([seed & WORD, seed >> 32])).tolist()
    assert sr.derive_paths(seed, sample + 1, prompt)[sample] == low + 2**32 * high


@given(seed=IDS, n=COUNTS, prompt=PROMPTS)
def test_ids_are_distinct_plain_integers_in_range(seed, n, prompt):
    paths = sr.derive_paths(seed, n, prompt)
    assert len(paths) == n
    assert len(set(paths)) == n
    assert all(type(p) is int and 0 <= p < 2**64 for p in paths)


@given(seed=IDS, n=COUNTS, more=COUNTS, prompt=PROMPTS)
def test_the_first_ids_do_not_depend_on_how_many_are_asked_for(seed, n, more, prompt):
    assert sr.derive_paths(seed, n + more, prompt)[:n] == sr.derive_paths(seed, n, prompt)


@given(seed=IDS, prompts=st.lists(PROMPTS, min_size=2, max_size=4, unique=True))
def test_prompts_share_no_ids_and_do_not_depend_on_each_other(seed, prompts):
    together = {prompt: sr.derive_paths(seed, 8, prompt) for prompt in prompts}
    for prompt in reversed(prompts):
        assert sr.derive_paths(seed, 8, prompt) == together[prompt]
    assert len({p for paths in together.values() for p in paths}) == 8 * len(prompts)


@given(seed=st.integers(0, 2**64 - 9))
def test_neighbouring_seeds_share_nothing(seed):
    neighbours = [sr.derive_paths(seed + step, 16) for step in range(8)]
    assert len({p for paths in neighbours for p in paths}) == 8 * 16


@given(seed=IDS, bit=st.integers(0, 63))
def test_every_bit_of_the_seed_counts(seed, bit):
    assert set(sr.derive_paths(seed, 8)).isdisjoint(sr.derive_paths(seed ^ (1 << bit), 8))


def test_a_hundred_thousand_ids_are_distinct_and_use_every_bit_evenly():
    paths = np.array(sr.derive_paths(7, 100_000), dtype=np.uint64)
    assert len(np.unique(paths)) == len(paths)
    share = ((paths[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(len(paths))


def test_deriving_neither_reads_nor_moves_a_global_generator():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = sr.derive_paths(3, 5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (random.getstate(), np.random.get_state()[1].tolist())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert sr.derive_paths(3, 5) == first


def test_a_drawn_seed_is_a_seed_and_differs_each_time():
    seeds = {draw_seed() for _ in range(64)}
    assert len(seeds) == 64
    assert all(check_seed(seed) == seed for seed in seeds)


# --- printing and reading


@given(path=IDS)
def test_an_id_survives_print_and_parse(path):
    text = sr.format_path(path)
    assert len(text) == 16
    assert text == text.lower()
    assert sr.parse_path(text) == sr.parse_path(text.upper()) == sr.parse_path(path) == path
    assert sr.format_path(text) == sr.format_path(text.upper()) == text


@given(path=IDS)
def test_the_text_is_the_plain_hexadecimal_number(path):
    assert int(sr.format_path(path), 16) == path


@pytest.mark.parametrize("path", [np.uint64(2**64 - 1), np.int32(7), torch.tensor(7)])
def test_integers_of_other_libraries_are_read_as_plain_ones(path):
    assert type(sr.parse_path(path)) is int
    assert sr.parse_path(path) == int(path)


@given(paths=st.lists(st.one_of(IDS, IDS.map(sr.format_path)), min_size=1, max_size=8))
def test_lists_may_mix_both_forms(paths):
    expected = [p if isinstance(p, int) else int(p, 16) for p in paths]
    assert parse_paths(paths) == expected
    assert parse_paths(iter(paths)) == expected


def test_an_empty_list_names_no_path():
    with pytest.raises(ValueError, match=r"paths=\[\] names no path"):
        parse_paths([])


# --- bad input


@pytest.mark.parametrize("text", NO_HEX)
@pytest.mark.parametrize("read", [sr.parse_path, sr.format_path, lambda text: parse_paths([1, text])])
def test_a_string_that_is_not_16_hex_digits_is_refused_by_name(read, text):
    with pytest.raises(ValueError, match="is not 16 hex digits") as refused:
        read(text)
    assert repr(text) in str(refused.value)


@given(text=st.text(max_size=20))
def test_only_16_hex_digits_are_an_id(text):
    if len(text) == 16 and all(c in "0123456789abcdefABCDEF" for c in text):
        assert sr.parse_path(text) == int(text, 16)
    else:
        with pytest.raises(ValueError, match="is not 16 hex digits"):
            sr.parse_path(text)


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (sr.parse_path, "path id"),
        (sr.format_path, "path id"),
        (check_seed, "seed"),
        (lambda value: sr.derive_paths(value, 1), "seed"),
        (lambda value: sr.derive_paths(7, value), "n"),
        (lambda value: sr.derive_paths(7, 1, prompt=value), "prompt"),
    ],
)
def test_what_is_no_integer_is_refused_by_name(call, name, value):
    with pytest.raises(ValueError, match=f"^{name}=.* is no integer"):
        call(value)


@pytest.mark.parametrize("seed", ["7", "00c0ffee00c0ffee"])
def test_a_seed_is_no_string(seed):
    with pytest.raises(ValueError, match=r"^seed=.* is no integer"):
        sr.derive_paths(seed, 1)


@pytest.mark.parametrize(
    "value", [torch.tensor(True), torch.tensor(1.0), torch.tensor([1, 2]), np.array([1, 2])], ids=repr
)
@pytest.mark.parametrize("call", [sr.parse_path, check_seed], ids=["path id", "seed"])
def test_a_tensor_that_is_no_integer_is_refused_as_any_other_value(call, value):
    with pytest.raises(ValueError, match="is no integer"):
        call(value)


@pytest.mark.parametrize("value", OUT_OF_RANGE)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (sr.parse_path, "path id"),
        (sr.format_path, "path id"),
        (check_seed, "seed"),
        (lambda value: sr.derive_paths(value, 1), "seed"),
    ],
)
def test_an_integer_outside_64_bits_is_refused_by_name_and_value(call, name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value} is outside \[0, {2**64}\)"):
        call(value)


@pytest.mark.parametrize("n", [0, -1, 2**32, 2**64])
def test_a_number_of_paths_that_cannot_be_derived_is_refused(n):
    with pytest.raises(ValueError, match=f"^n={n} is outside .*at least one path"):
        sr.derive_paths(7, n)


@pytest.mark.parametrize("prompt", [-1, 2**32])
def test_a_prompt_index_outside_32_bits_is_refused(prompt):
    with pytest.raises(ValueError, match=f"^prompt={prompt} is outside"):
        sr.derive_paths(7, 1, prompt=prompt)


def test_the_first_bad_id_of_a_list_is_named():
    def ids() -> Iterator[int | str]:
        yield from (1, "ffffffffffffffff", -3, "nonsense")

    with pytest.raises(ValueError, match=r"^path id=-3 "):
        parse_paths(ids())
