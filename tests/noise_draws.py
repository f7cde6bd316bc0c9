"""Draws of noise as NumPy arrays, for the tests of its statistics and of its bits."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stochroute import derive_paths
from stochroute.noise import Kind, attention_noise, attention_row_keys, key_words, vector_noise

PATHS = derive_paths(7, 64)
N = 1 << 20
ROOM = 1 << 16  # numbers compared of each stream
ZERO = torch.zeros(1, dtype=torch.int64)
NAMES = ["normal", "uniform", "rademacher"]
every_distribution = pytest.mark.parametrize("distribution", NAMES)

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
