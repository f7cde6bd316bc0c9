"""How good the texts of one prompt are, beyond what `scoring` says of each: pass@k, and MAUVE over all prompts."""

import logging
from math import comb

import numpy as np


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that k of n texts, drawn without replacement, hold a correct one: 1 − C(n − c, k)/C(n, k).

    Chen et al. 2021 (arXiv 2107.03374).

    Raises:
        ValueError: unless 0 ≤ correct ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= correct <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {n} texts with {correct} correct: k must be in 1 … n, correct in 0 … n")
    return 1 - comb(n - correct, k) / comb(n, k)


def mauve(features: np.ndarray, references: np.ndarray, seed: int) -> float:
    """MAUVE in [0, 1] between texts and references (Pillutla et al. 2021, arXiv 2102.01454), by mauve-text.

    Args:
        features, references: float32 (texts, width), of the same model.
        seed: of its k-means, in [0, 2³¹).

    Raises:
        ImportError: mauve-text is missing.
    """
    logging.getLogger("faiss.loader").setLevel("WARNING")
    from mauve import compute_mauve

    return float(compute_mauve(p_features=features, q_features=references, seed=seed, verbose=False).mauve)
