"""The settings of a task: how they are checked, and which random stream each of them opens."""

from enum import IntEnum

import numpy as np

from stochroute.paths import check_integer, check_seed


class Purpose(IntEnum):
    """What random numbers are drawn for.

    Each purpose has a stream of its own: sample(n, seed=0) of a task with seed 0 must not be its training set.
    """

    GRAPH = 0
    TRAINING = 1
    EDGES = 2
    PREFIXES = 3
    SAMPLES = 4
    NAMES = 5
    TURNS = 6


def open_stream(purpose: Purpose, seed: int) -> np.random.Generator:
    """A PCG64 generator that depends on (purpose, seed) alone; ValueError for a seed outside [0, 2⁶⁴)."""
    return np.random.default_rng([int(purpose), check_seed(seed)])


def check_count(name: str, value: int, low: int, remedy: str) -> int:
    """The value itself, when it is an integer of at least `low`; ValueError with the remedy otherwise."""
    value = check_integer(name, value, remedy)
    if value < low:
        raise ValueError(f"{name}={value} is less than {low}: {remedy}")
    return value
