"""Timing against a rival: interleaved pairs, and a ratio with its interval."""

import time
from collections.abc import Callable

import numpy as np


def interleaved(ours: Callable[[], object], rival: Callable[[], object], pairs: int, warmup: int = 1) -> np.ndarray:
    """Seconds of each call, (pairs, 2): ours and the rival in turn, which of them goes first alternating."""
    for _ in range(warmup):
        ours()
        rival()
    seconds = np.empty((pairs, 2))
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            begin = time.perf_counter()
            (ours, rival)[which]()
            seconds[pair, which] = time.perf_counter() - begin
    return seconds


def ratio(numerator: np.ndarray, denominator: np.ndarray, resamples: int = 4000) -> dict[str, float]:
    """The median of the ratios pair by pair, with its 95 % bootstrap interval over pairs."""
    ratios = numerator / denominator
    drawn = np.random.default_rng(0).integers(len(ratios), size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high), "pairs": len(ratios)}
