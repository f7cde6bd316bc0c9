"""The noise has the statistics it claims, the same bits for ever and everywhere, and no memory.

Every number here is a pure function of fixed indices, so no test can fail by bad luck: a bound of five standard
errors was either met once and for all or is broken by a change. Known defects (see the controls at the end) show
that these tests can fail.
"""

import hashlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from stochroute import derive_paths
from stochroute.noise import (
    DISTRIBUTIONS,
    NOISE_VERSION,
    SHARED_LAYER,
    Kind,
    attention_noise,
    attention_row_keys,
    gumbel_noise,
    key_words,
    philox4x32,
    unit_variance,
    vector_noise,
)

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

PATHS = derive_paths(7, 64)
N = 1 << 20
ZERO = torch.zeros(1, dtype=torch.int64)
NAMES = ["normal", "uniform", "rademacher"]
every_distribution = pytest.mark.parametrize("distribution", NAMES)
every_source = pytest.mark.parametrize("source", ["vector", "attention"])

Array = NDArray[np.float64]


def vector(
    n: int,
    path: int = PATHS[0],
    block: int = 0,
    layer: int = 0,
    kind: Kind = Kind.FFN,
    distribution: str = "normal",
) -> Array:
    """n neighbouring numbers of one site."""
    draw = vector_noise(key_words([path]), n, torch.tensor([block]), layer, kind, distribution)
    return draw[0].double().numpy()


def matrix(
    queries: int,
    keys: int,
    path: int = PATHS[0],
    layer: int = 0,
    heads: int = 1,
    first_query: int = 0,
    first_key: int = 0,
    distribution: str = "normal",
) -> Array:
    """Attention noise (heads, queries, keys) of one path and layer."""
    blocks = torch.arange(first_query, first_query + queries)[None]
    rows = attention_row_keys(key_words([path]), heads, blocks, layer)
    return attention_noise(rows, torch.arange(first_key, first_key + keys), distribution)[0].double().numpy()


def diagonal(n: int) -> Array:
    """Attention noise of the pairs (i, i), i < n."""
    rows = attention_row_keys(key_words(PATHS[:1]), 1, torch.arange(n)[None], 0).reshape(n, 1, 1, 2)
    return attention_noise(rows, torch.arange(n)[:, None]).flatten().double().numpy()


def sample(source: str, distribution: str) -> Array:
    """2²⁰ numbers: one site of 2²⁰ channels, or 4 heads of 512 × 512."""
    if source == "vector":
        return vector(N, distribution=distribution)
    return matrix(512, 512, heads=4, distribution=distribution).reshape(-1)


@pytest.fixture(scope="module")
def raw_words() -> Iterator[None]:
    """Makes "word" a distribution that hands out the 32-bit words themselves."""
    DISTRIBUTIONS["word"] = lambda word: word
    yield
    del DISTRIBUTIONS["word"]


def bits_of(words: Array) -> Array:
    """(…, 32): the bits of 32-bit words as −1 and 1."""
    return ((words.astype(np.int64)[..., None] >> np.arange(32)) & 1) * 2.0 - 1.0


# --- the shape of each distribution


@every_source
@every_distribution
def test_mean_is_zero_and_variance_one(source, distribution):
    x = sample(source, distribution)
    fourth = {"normal": 3 - 0.06, "uniform": 9 / 5, "rademacher": 1.0}[distribution]
    assert abs(x.mean()) < 5 / N**0.5
    assert abs((x**2).mean() - 1) < 5 * (fourth - 1) ** 0.5 / N**0.5 + 1e-12
    assert abs((x**3).mean()) < 5 * 15**0.5 / N**0.5


@every_source
def test_normal_is_close_to_the_standard_normal(source):
    x = sample(source, "normal")
    assert stats.kstest(x, "norm", method="asymp").statistic < 4e-3
    assert abs(stats.kurtosis(x) + 0.06) < 5 * (24 / N) ** 0.5
    assert abs(stats.skew(x)) < 5 * (6 / N) ** 0.5
    assert 4.5 < np.abs(x).max() < 5.81
    for quantile in (0.5, 1, 2):  # its tails beyond are lighter: 24 % fewer than the normal has past 3
        assert (np.abs(x) > quantile).mean() == pytest.approx(2 * stats.norm.sf(quantile), rel=0.05)


@every_source
def test_normal_is_exactly_a_binomial_with_a_uniform_dither(source):
    edges = np.arange(34) - 16.5  # each of the 33 counts is spread evenly over a cell of width 1
    below = np.concatenate([[0.0], stats.binom.cdf(np.arange(33), 32, 0.5)])
    x = sample(source, "normal") * (8 + 1 / 12) ** 0.5
    assert stats.kstest(x, lambda value: np.interp(value, edges, below), method="asymp").pvalue > 1e-3
    fraction = x - np.floor(x - 0.5) - 0.5
    assert stats.kstest(fraction, "uniform", method="asymp").pvalue > 1e-3


@every_source
def test_uniform_is_uniform_between_minus_and_plus_root_three(source):
    x = sample(source, "uniform")
    root = 3**0.5
    assert stats.kstest(x, "uniform", args=(-root, 2 * root), method="asymp").pvalue > 1e-3
    assert np.abs(x).max() <= root
    assert np.abs(x).max() > root * (1 - 20 / N)
    counts, _ = np.histogram(x, bins=1024, range=(-root, root))
    assert stats.chisquare(counts).pvalue > 1e-3


@every_source
def test_rademacher_is_a_fair_sign(source):
    x = sample(source, "rademacher")
    assert set(np.unique(x)) == {-1.0, 1.0}
    assert stats.binomtest(int((x > 0).sum()), N).pvalue > 1e-3
    runs = int((x[1:] != x[:-1]).sum())
    assert stats.binomtest(runs, N - 1).pvalue > 1e-3


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


# --- correlation over every index that enters a key

ROOM = 1 << 16  # numbers compared of each stream
BIT_FLIPS = [PATHS[0], *(PATHS[0] ^ (1 << bit) for bit in (0, 1, 7, 31, 32, 33, 47, 63))]

STREAMS: dict[str, Callable[[], list[Array]]] = {
    "vector: derived paths": lambda: [vector(ROOM, path=p) for p in PATHS[:16]],
    "vector: sequential path ids": lambda: [vector(ROOM, path=p) for p in range(16)],
    "vector: path ids one bit apart": lambda: [vector(ROOM, path=p) for p in BIT_FLIPS],
    "vector: first path of sequential seeds": lambda: [vector(ROOM, path=derive_paths(s, 1)[0]) for s in range(16)],
    "vector: first path of sequential prompts": lambda: [
        vector(ROOM, path=derive_paths(7, 1, prompt=p)[0]) for p in range(8)
    ],
    "vector: layer": lambda: [vector(ROOM, layer=layer) for layer in (*range(15), SHARED_LAYER)],
    "vector: position block": lambda: [vector(ROOM, block=block) for block in (*range(14), 4096, 2**31)],
    "vector: kind": lambda: [vector(ROOM, kind=kind) for kind in Kind],
    "vector: channel": lambda: list(vector(16 * ROOM).reshape(ROOM, 16).T),
    "vector: channel, across positions": lambda: list(
        vector_noise(key_words(PATHS[:1]), 16, torch.arange(ROOM), 0, Kind.FFN).double().numpy().T
    ),
    "vector: channel, across paths": lambda: list(
        vector_noise(key_words(list(range(ROOM))), 16, ZERO, 0, Kind.FFN).double().numpy().T
    ),
    "attention: derived paths": lambda: [matrix(256, 256, path=p).ravel() for p in PATHS[:16]],
    "attention: sequential path ids": lambda: [matrix(256, 256, path=p).ravel() for p in range(16)],
    "attention: path ids one bit apart": lambda: [matrix(256, 256, path=p).ravel() for p in BIT_FLIPS],
    "attention: first path of sequential seeds": lambda: [
        matrix(256, 256, path=derive_paths(s, 1)[0]).ravel() for s in range(16)
    ],
    "attention: layer": lambda: [matrix(256, 256, layer=layer).ravel() for layer in (*range(15), SHARED_LAYER)],
    "attention: head": lambda: list(matrix(256, 256, heads=16).reshape(16, -1)),
    "attention: query": lambda: list(matrix(16, ROOM)[0]),
    "attention: key": lambda: list(matrix(ROOM, 16)[0].T),
    "attention: key, far from the first": lambda: list(matrix(ROOM, 16, first_key=100_000)[0].T),
    "attention: key, across paths": lambda: list(
        attention_noise(
            attention_row_keys(key_words(list(range(ROOM))), 1, torch.zeros(ROOM, 1, dtype=torch.int64), 0),
            torch.arange(16),
        )[:, 0, 0]
        .double()
        .numpy()
        .T
    ),
    "one path: attention, structural, expert and token noise": lambda: [
        matrix(1, ROOM).ravel(),
        vector(ROOM, kind=Kind.FFN),
        vector(ROOM, kind=Kind.EXPERT),
        gumbel_noise(key_words(PATHS[:1]), ROOM, ZERO)[0].numpy(),
        matrix(ROOM, 1).ravel(),
        vector_noise(key_words(PATHS[:1]), 1, torch.arange(ROOM), 0, Kind.FFN)[:, 0].double().numpy(),
    ],
}


def worst_correlation(streams: list[Array]) -> float:
    """The largest |r|·√n among all pairs, of the numbers and of their squares with each other."""
    x = np.stack(streams)
    assert x.shape[1] == ROOM
    rows = np.concatenate([x, x**2])
    rows = rows - rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    r = rows @ rows.T
    k = len(streams)
    r[np.arange(2 * k), np.arange(2 * k)] = 0
    r[np.arange(k), np.arange(k) + k] = r[np.arange(k) + k, np.arange(k)] = 0  # a number and its own square
    return float(np.abs(r).max()) * ROOM**0.5


@pytest.mark.parametrize("index", STREAMS)
def test_streams_that_differ_in_one_index_are_uncorrelated(index):
    assert worst_correlation(STREAMS[index]()) < 5


def worst_autocorrelation(x: Array) -> float:
    """The largest |r|·√n over all lags up to half of the length."""
    x = x - x.mean()
    spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    r = np.fft.irfft(spectrum)[: len(x) // 2 + 1]
    overlap = len(x) - np.arange(1, len(r))
    return float(np.abs(r[1:] / r[0] * len(x) / overlap**0.5).max())


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: vector(ROOM), id="along the channels"),
        pytest.param(
            lambda: vector_noise(key_words(PATHS[:1]), 1, torch.arange(ROOM), 0, Kind.FFN)[:, 0].double().numpy(),
            id="along the positions",
        ),
        pytest.param(
            lambda: vector_noise(key_words(list(range(ROOM))), 1, ZERO, 0, Kind.FFN)[:, 0].double().numpy(),
            id="along sequential path ids",
        ),
        pytest.param(lambda: matrix(1, ROOM).ravel(), id="along the keys"),
        pytest.param(lambda: matrix(ROOM, 1).ravel(), id="along the queries"),
        pytest.param(lambda: matrix(256, 256).ravel(), id="along a whole matrix"),
        pytest.param(lambda: np.ascontiguousarray(matrix(256, 256)[0].T).ravel(), id="down a whole matrix"),
        pytest.param(lambda: diagonal(ROOM), id="along the diagonal"),
    ],
)
def test_no_lag_is_correlated(draw):
    x = draw()
    assert worst_autocorrelation(x) < 5.5  # of up to 32,768 lags, so the largest is near 4.3
    assert worst_autocorrelation(x**2) < 5.5


@pytest.mark.parametrize(
    "pair", [(a, b) for a in Kind for b in Kind if a < b], ids=lambda p: f"{p[0].name}-{p[1].name}"
)
def test_streams_of_two_kinds_with_equal_other_indices_are_independent(pair):
    cells = [np.clip(np.floor(stats.norm.cdf(vector(ROOM, kind=kind)) * 8), 0, 7) for kind in pair]
    table, _, _ = np.histogram2d(*cells, bins=8, range=[(-0.5, 7.5)] * 2)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_neighbouring_pairs_in_an_attention_matrix_are_independent():
    cells = np.clip(np.floor(stats.norm.cdf(matrix(512, 512)[0]) * 8), 0, 7)
    for one, other in ((cells[:, 1:], cells[:, :-1]), (cells[1:], cells[:-1]), (cells[1:, 1:], cells[:-1, :-1])):
        table, _, _ = np.histogram2d(one.ravel(), other.ravel(), bins=8, range=[(-0.5, 7.5)] * 2)
        assert stats.chi2_contingency(table).pvalue > 1e-4


# --- spectra of noise matrices


def marchenko_pastur(ratio: float) -> Callable[[Array], Array]:
    """The distribution function of the singular values over √n of an (m, n) matrix with m/n = ratio ≤ 1."""
    low, high = 1 - ratio**0.5, 1 + ratio**0.5
    s = np.linspace(low, high, 20_001)
    density = np.sqrt(np.maximum((s**2 - low**2) * (high**2 - s**2), 0)) / (np.pi * ratio * np.maximum(s, 1e-12))
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(s))])
    assert below[-1] == pytest.approx(1, abs=1e-3)
    return lambda value: np.interp(value, s, below / below[-1])


@every_distribution
def test_a_square_attention_matrix_has_the_quarter_circle_s_singular_values(distribution):
    values = np.linalg.svd(matrix(512, 512, distribution=distribution)[0], compute_uv=False) / 512**0.5
    assert 1.96 < values.max() < 2.03
    assert values.min() < 0.02
    assert stats.kstest(values, marchenko_pastur(1.0)).statistic < 0.01  # eigenvalues repel: far stiffer than 1/√n
    assert (values**2).mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: matrix(256, 1024)[0], id="queries × keys"),
        pytest.param(lambda: matrix(1, 1024, heads=256)[:, 0], id="heads × keys"),
        pytest.param(lambda: matrix(1024, 256)[0].T, id="keys × queries"),
        pytest.param(
            lambda: vector_noise(key_words(PATHS[:1]), 1024, torch.arange(256), 0, Kind.FFN).double().numpy(),
            id="positions × channels",
        ),
        pytest.param(
            lambda: vector_noise(key_words(list(range(256))), 1024, ZERO, 0, Kind.FFN).double().numpy(),
            id="sequential paths × channels",
        ),
        pytest.param(lambda: np.stack([vector(1024, layer=i) for i in range(256)]), id="layers × channels"),
    ],
)
def test_an_oblong_noise_matrix_follows_marchenko_and_pastur(draw):
    values = np.linalg.svd(draw(), compute_uv=False) / 1024**0.5
    assert 1.47 < values.max() < 1.53
    assert 0.47 < values.min() < 0.53
    assert stats.kstest(values, marchenko_pastur(0.25)).statistic < 0.015


# --- bits


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


# --- Gumbel


def test_gumbel_noise_is_standard_gumbel():
    x = gumbel_noise(key_words(PATHS[:8]), N // 8, torch.zeros(8, dtype=torch.int64))
    assert x.dtype == torch.float64
    assert bool(x.isfinite().all())
    assert stats.kstest(x.flatten().numpy(), "gumbel_r", method="asymp").pvalue > 1e-3
    assert float(x.max()) < 22.9


def test_gumbel_noise_stays_finite_at_the_extreme_words(monkeypatch):
    extremes = torch.tensor([[0, 2**32 - 1]])
    monkeypatch.setattr("stochroute.noise.draws._words", lambda *arguments: extremes)
    low, high = gumbel_noise(key_words([1]), 2, ZERO)[0].tolist()
    assert low == pytest.approx(-np.log(-np.log(0.5 / 2**32)))
    assert high == pytest.approx(22.87, abs=0.01)


@pytest.mark.parametrize("position", [0, 17])
def test_the_argmax_with_gumbel_noise_is_a_draw_from_the_softmax(position):
    paths = derive_paths(7, 20_000)
    logits = torch.linspace(-3, 1.5, 24, dtype=torch.float64)[
        torch.randperm(24, generator=torch.Generator().manual_seed(1))
    ]
    noise = gumbel_noise(key_words(paths), 24, torch.full((len(paths),), position))
    counts = torch.bincount((logits + noise).argmax(-1), minlength=24).numpy()
    assert stats.chisquare(counts, logits.softmax(-1).numpy() * len(paths)).pvalue > 1e-3


def test_draws_at_neighbouring_positions_and_sequential_paths_are_independent():
    paths, n = list(range(20_000)), 6
    draws = [gumbel_noise(key_words(paths), n, torch.full((len(paths),), p)).argmax(-1).numpy() for p in (8, 9)]
    for one, other in ((draws[0], draws[1]), (draws[0][1:], draws[0][:-1])):
        table, _, _ = np.histogram2d(one, other, bins=n, range=[(-0.5, n - 0.5)] * 2)
        assert stats.chi2_contingency(table).pvalue > 1e-3
        assert stats.chisquare(table.ravel()).pvalue > 1e-3


# --- a third party's battery


@pytest.mark.parametrize("source", ["channels", "keys", "queries", "paths"])
@pytest.mark.usefixtures("raw_words")
def test_the_words_pass_nist_s_battery(source):
    passed = nist(
        {
            "channels": lambda: vector(1 << 14, distribution="word"),
            "keys": lambda: matrix(1, 1 << 14, distribution="word").ravel(),
            "queries": lambda: matrix(1 << 14, 1, distribution="word").ravel(),
            "paths": lambda: (
                vector_noise(key_words(list(range(1 << 14))), 1, ZERO, 0, Kind.FFN, "word").double().numpy().ravel()
            ),
        }[source]()
    )
    assert passed == dict.fromkeys(passed, True)


def test_nist_s_battery_can_fail():
    weyl = (np.arange(1 << 14) * 0x9E3779B1) % 2**32
    assert not all(nist(weyl).values())
    assert not nist(np.full(1 << 14, 0x7FFF7FFF))["monobit"]


def nist(words: Array) -> dict[str, bool]:
    """What the sound and quick ones of the package's tests of SP 800-22 say to 2¹⁹ bits, by name."""
    nistrng = pytest.importorskip("nistrng", reason="the NIST SP 800-22 battery is not installed")
    bits = np.unpackbits(words.astype("<u4").view(np.uint8)).astype(np.int8)
    names = (
        *("monobit", "frequency_within_block", "runs", "longest_run_ones_in_a_block", "binary_matrix_rank"),
        *("dft", "maurers_universal"),
    )
    verdicts = {}
    for name in names:
        # a copy, because some of the package's tests write into their argument; None: too biased to be tested
        outcome = nistrng.run_by_name_battery(name, bits.copy(), nistrng.SP800_22R1A_BATTERY)
        verdicts[name] = outcome is not None and bool(outcome[0].passed)
    return verdicts


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


# --- the tests above can fail


def test_the_checks_notice_known_defects():
    sequential = np.random.default_rng(0).standard_normal((2, ROOM))
    assert worst_correlation(list(sequential)) < 5
    assert worst_correlation([sequential[0], sequential[1] + 0.04 * sequential[0]]) > 5
    assert worst_correlation([sequential[0], np.abs(sequential[0]) * np.sign(sequential[1])]) > 5
    assert worst_autocorrelation(np.concatenate([sequential[0, : ROOM // 2]] * 2)) > 5.5
    low_rank = matrix(512, 512)[0] + 0.1 * np.outer(sequential[0, :512], sequential[1, :512])
    values = np.linalg.svd(low_rank, compute_uv=False) / 512**0.5
    assert values.max() > 2.03
