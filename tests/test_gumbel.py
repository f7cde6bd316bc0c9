"""Gumbel noise is standard, finite and independent, and an argmax with it is a draw from the softmax."""

import numpy as np
import pytest
import torch
from scipy import stats

from noise_draws import PATHS, ZERO, N
from stochroute import derive_paths
from stochroute.noise import gumbel_noise, key_words


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
