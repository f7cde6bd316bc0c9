"""The noise has the statistics it claims: its moments, its distributions, its spectra, and no correlation.

Every number here is a pure function of fixed indices, so no test can fail by bad luck: a bound of five standard
errors was either met once and for all or is broken by a change. Known defects (see the controls at the end) show
that these tests can fail.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from noise_draws import PATHS, ROOM, ZERO, Array, N, every_distribution, matrix, vector
from stochroute import derive_paths
from stochroute.noise import (
    SHARED_LAYER,
    Kind,
    attention_noise,
    attention_row_keys,
    gumbel_noise,
    key_words,
    vector_noise,
)

every_source = pytest.mark.parametrize("source", ["vector", "attention"])


def diagonal(n: int) -> Array:
    """Attention noise of the pairs (i, i), i < n."""
    rows = attention_row_keys(key_words(PATHS[:1]), 1, torch.arange(n)[None], 0).reshape(n, 1, 1, 2)
    return attention_noise(rows, torch.arange(n)[:, None]).flatten().double().numpy()


def sample(source: str, distribution: str) -> Array:
    """2²⁰ numbers: one site of 2²⁰ channels, or 4 heads of 512 × 512."""
    if source == "vector":
        return vector(N, distribution=distribution)
    return matrix(512, 512, heads=4, distribution=distribution).reshape(-1)


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


# --- correlation over every index that enters a key

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
