"""How much of a path reaches the output: the decomposition of entropy, token by token and for whole answers."""

from stochroute.transmission.decomposition import (
    TokenNats,
    decompose,
    decompose_each,
    log_likelihoods,
    transmission_of_answers,
)
from stochroute.transmission.strip import HeatStrip, write_picture

__all__ = [
    "HeatStrip",
    "TokenNats",
    "decompose",
    "decompose_each",
    "log_likelihoods",
    "transmission_of_answers",
    "write_picture",
]
