"""Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
(SC'11), in torch integers."""

import torch
from torch import Tensor

WORD = 0xFFFFFFFF  # the low 32 bits; a 32-bit word travels in an int64 tensor, so that products wrap harmlessly

_ROUNDS = 10
_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Four random 32-bit words for each counter and key.

    Args:
        counter: int64 tensor (..., 4) of words in [0, 2³²).
        key: int64 tensor (..., 2) of words in [0, 2³²); leading dimensions broadcast against the counter's.

    Returns:
        int64 tensor (..., 4) of words in [0, 2³²), the output of Philox4x32 with ten rounds.

    Raises:
        ValueError: the last dimension is not 4 (counter) or 2 (key), or a dtype is not int64.
    """
    if counter.shape[-1:] != (4,) or key.shape[-1:] != (2,):
        raise ValueError(
            f"counter must end in 4 words and key in 2, got shapes {tuple(counter.shape)} and {tuple(key.shape)}"
        )
    if counter.dtype != torch.int64 or key.dtype != torch.int64:
        raise ValueError(f"counter and key must be int64, got {counter.dtype} and {key.dtype}: call .long()")
    return torch.stack(philox_words(counter.unbind(-1), key.unbind(-1)), dim=-1)


def philox_words(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 on words that are held apart and broadcast against each other, so that a large counter grid
    is never written out."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        # the product fills 64 bits and the shift drags the sign along, which the mask removes
        c0, c2 = ((product_1 >> 32) & WORD) ^ c1 ^ k0, ((product_0 >> 32) & WORD) ^ c3 ^ k1
        c1, c3 = product_1 & WORD, product_0 & WORD
        k0, k1 = (k0 + _WEYL_0) & WORD, (k1 + _WEYL_1) & WORD
    return c0, c1, c2, c3
