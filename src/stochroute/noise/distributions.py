"""From one random 32-bit word to one number of mean 0 and variance 1.

Each map is exact in integers up to a single float32 product, so the result has the same bits everywhere.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stochroute.noise.philox import WORD

_NORMAL_SD = math.sqrt(8 + 1 / 12)  # of popcount(32 bits) plus a dither uniform on a width of 1
_DITHER_MULTIPLIER = 0x9E3779B1
_DITHER_BITS = 16


def popcount(word: Tensor) -> Tensor:
    """Number of set bits of each 32-bit word, int64, same shape (the pairwise sum of Hacker's Delight, 5-2)."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) & WORD) >> 24


def normal(word: Tensor) -> Tensor:
    """float32 near-normal numbers: (popcount − 16 + dither) / √(8 + 1/12), |value| ≤ 5.81.

    The count of 32 fair bits is binomial with variance 8; the dither, 16 bits mixed from the same word and
    centred, fills the gaps between its integers and adds 1/12. Excess kurtosis −0.06.
    """
    dither = ((word * _DITHER_MULTIPLIER) & WORD) >> (32 - _DITHER_BITS)
    # doubled, so that the centre of the dither falls on an integer
    doubled = (((popcount(word) - 16) << _DITHER_BITS) + dither) * 2 + 1 - (1 << _DITHER_BITS)
    return doubled.to(torch.float32) * (1.0 / ((2 << _DITHER_BITS) * _NORMAL_SD))


def uniform(word: Tensor) -> Tensor:
    """float32 numbers uniform on (−√3, √3), from the upper 24 bits of the word."""
    odd = (word >> 8) * 2 + 1 - (1 << 24)
    return odd.to(torch.float32) * (math.sqrt(3) / (1 << 24))


def rademacher(word: Tensor) -> Tensor:
    """float32 signs, −1 or 1, from the top bit of the word."""
    return (1 - 2 * (word >> 31)).to(torch.float32)


DISTRIBUTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": normal,
    "uniform": uniform,
    "rademacher": rademacher,
}


def unit_variance(word: Tensor, distribution: str) -> Tensor:
    """float32 numbers of mean 0 and variance 1, one for each word, under the named distribution.

    Raises:
        ValueError: the distribution is unknown.
    """
    try:
        return DISTRIBUTIONS[distribution](word)
    except KeyError:
        raise ValueError(
            f"distribution={distribution!r} is unknown: choose one of {', '.join(DISTRIBUTIONS)}"
        ) from None
