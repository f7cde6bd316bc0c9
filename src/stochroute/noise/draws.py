"""The draws of each kind of site: which counter and key stand for which number.

A path id is the Philox key (low word first). The counter is (index ÷ 4, position block, layer, kind); the four
words that come out serve the four neighbouring indices. This layout is part of noise version 1 and never changes
under that version.
"""

from enum import IntEnum

import torch
from torch import Tensor

from stochroute.compiled import library
from stochroute.compiled.philox import philox_grid
from stochroute.noise.distributions import unit_variance
from stochroute.noise.philox import WORD, philox_words

NOISE_VERSION = 1
SHARED_LAYER = WORD  # stands in the layer's place where all layers share one draw

_TURNS = 8  # siblings that share their numbers, each turned another way
_NEGATIVE = 0x3950  # bit 4 · turn + place: where left multiplication by 1, i, j, k changes the sign

_KEY_MULTIPLIER = 0x85EBCA6B
_MIX_1 = 0x7FEB352D
_MIX_2 = 0x846CA68B


class Kind(IntEnum):
    """The last word of the counter: it keeps the streams of one path apart."""

    PATH = 0
    FFN = 1
    ATTENTION = 2
    EXPERT = 3
    TOKEN = 4
    BASIS = 5
    CODE = 6
    SIBLING = 7


def key_words(paths: list[int], device: torch.device | str | None = None) -> Tensor:
    """The path ids as Philox keys: int64 (n, 2), low word first."""
    return torch.tensor([[p & WORD, p >> 32] for p in paths], dtype=torch.int64, device=device)


# define and impl, not custom_op, whose first call imports the whole compiler
torch.library.define(
    "stochroute::philox_grid", "(Tensor c0, Tensor c1, Tensor c2, Tensor c3, Tensor k0, Tensor k1) -> Tensor"
)
torch.library.define("stochroute::score_words", "(Tensor row_keys, Tensor key_positions) -> Tensor")
_philox_grid = torch.ops.stochroute.philox_grid
_score_words = torch.ops.stochroute.score_words


def philox_grid_in_torch(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor, k1: Tensor) -> Tensor:
    """Philox words for counters and keys that broadcast: int64 (..., 4).

    Opaque to torch.compile on purpose: inductor (torch 2.13, CPU) turns counters made in the graph, such as an
    arange over heads, into index arithmetic and returns other bits.
    """
    return torch.stack(philox_words((c0, c1, c2, c3), (k0, k1)), dim=-1)


def _philox_grid_on_cpu(*counters_and_keys: Tensor) -> Tensor:
    words = None if library() is None else philox_grid(counters_and_keys)
    return philox_grid_in_torch(*counters_and_keys) if words is None else words


torch.library.impl("stochroute::philox_grid", "CompositeExplicitAutograd", philox_grid_in_torch)
torch.library.impl("stochroute::philox_grid", "CPU", _philox_grid_on_cpu)


@torch.library.register_fake("stochroute::philox_grid")
def _shape_of_philox_grid(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor, k1: Tensor) -> Tensor:
    return c0.new_empty((*torch.broadcast_shapes(*(t.shape for t in (c0, c1, c2, c3, k0, k1))), 4))


@torch.library.impl("stochroute::score_words", "CompositeExplicitAutograd")
def _compute_score_words(row_keys: Tensor, key_positions: Tensor) -> Tensor:
    """One word for each (query, key) pair: int64 (b, h, q, k). Opaque for the same reason."""
    x = ((key_positions * _KEY_MULTIPLIER) & WORD) ^ row_keys[..., 0, None]
    x = x ^ (x >> 16)
    x = (x * _MIX_1) & WORD
    x = x ^ (x >> 15)
    x = (x + row_keys[..., 1, None]) & WORD
    x = (x * _MIX_2) & WORD
    return x ^ (x >> 16)


@torch.library.register_fake("stochroute::score_words")
def _shape_of_score_words(row_keys: Tensor, key_positions: Tensor) -> Tensor:
    return row_keys.new_empty(torch.broadcast_shapes(row_keys[..., 0, None].shape, key_positions.shape))


def _as_words(value: int | Tensor, keys: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(keys.device, torch.int64)
    return torch.full((), value, dtype=torch.int64, device=keys.device)  # a copy from the host would wait for a GPU


def _words(keys: Tensor, n: int, block: Tensor, layer: int | Tensor, kind: Kind) -> Tensor:
    """n words for each key and block: keys (..., 2), block (...) -> (..., n)."""
    lanes = _philox_grid(
        torch.arange((n + 3) // 4, device=keys.device),
        block[..., None],
        _as_words(layer, keys)[..., None],
        _as_words(int(kind), keys),
        keys[..., 0, None],
        keys[..., 1, None],
    )
    return lanes.flatten(-2)[..., :n]


def vector_noise(
    keys: Tensor,
    n: int,
    block: Tensor,
    layer: int | Tensor,
    kind: Kind,
    distribution: str = "normal",
) -> Tensor:
    """The noise of one site for n neighbouring indices (channels, experts, latent dimensions).

    Args:
        keys: int64 (..., 2), from `key_words`.
        n: numbers wanted for each key.
        block: int64 (...), the position block: position // hold, or 0 where one draw serves the whole sequence.
        layer: the layer's index, or SHARED_LAYER.
        kind: the kind of site.
        distribution: "normal", "uniform" or "rademacher".

    Returns:
        float32 (..., n) of mean 0 and variance 1.
    """
    return unit_variance(_words(keys, n, block, layer, kind), distribution)


def sibling_noise(families: Tensor, numbers: Tensor, n: int, block: Tensor, distribution: str = "normal") -> Tensor:
    """n numbers for each sibling of a family: distributed like `vector_noise` for each alone, far apart together.

    Siblings 8 k … 8 k + 7 turn the same numbers, read as n/4 quaternions, by the units 1, −1, i, −i, j, −j, k, −k. So
    their vectors are of equal length, each is the opposite of one other and exactly orthogonal to the remaining six. A
    turn only moves numbers and changes signs, which leaves independent symmetric numbers what they are. Orthogonal
    random features (Yu et al. 2016, arXiv 1610.09072) do this by a random rotation, with a length for each.

    Args:
        families: int64 (..., 2), the families as Philox keys.
        numbers: int64 (...), the number of each path in its family.
        n: numbers wanted, a multiple of 4.
        block: int64 (...), as in `vector_noise`.
        distribution: "normal", "uniform" or "rademacher", all of them symmetric.

    Returns:
        float32 (..., n) of mean 0 and variance 1.
    """
    words = _words(families, n, block, numbers // _TURNS, Kind.SIBLING)
    drawn = unit_variance(words, distribution)
    turn = (numbers % _TURNS // 2)[..., None]
    place = torch.arange(n, device=drawn.device)
    moved = drawn.gather(-1, (place ^ turn).expand(drawn.shape))
    negative = ((_NEGATIVE >> (4 * turn + place % 4)) + numbers[..., None]) & 1
    return moved * (1 - 2 * negative)


def attention_row_keys(keys: Tensor, heads: int, block: Tensor, layer: int | Tensor) -> Tensor:
    """Two words for each (path, head, query): int64 (b, heads, q, 2), from keys (b, 2) and query blocks (b, q).

    `layer` may be an int64 tensor (n,): then all of n layers are drawn at once, as (n, b, heads, q, 2).
    """
    return _philox_grid(
        torch.arange(heads, device=keys.device)[:, None],
        block[:, None, :],
        _as_words(layer, keys)[..., None, None, None],
        _as_words(int(Kind.ATTENTION), keys),
        keys[:, 0, None, None],
        keys[:, 1, None, None],
    )[..., :2]


def attention_noise(row_keys: Tensor, key_positions: Tensor, distribution: str = "normal") -> Tensor:
    """The noise of every (query, key) pair: float32 (b, heads, q, k) of mean 0 and variance 1.

    A pair costs one keyed 32-bit mix (two multiply–xorshift rounds of the lowbias32 family, with the second row
    key added between them), because s² of these are drawn for each head.

    Args:
        row_keys: int64 (b, heads, q, 2), from `attention_row_keys`.
        key_positions: int64 (b, k) or (k,), the position of each key; negative ones (padding) count as 0.
        distribution: "normal", "uniform" or "rademacher".
    """
    if key_positions.dim() == 2:
        key_positions = key_positions[:, None, None, :]
    return unit_variance(_score_words(row_keys, key_positions.clamp_min(0)), distribution)


def gumbel_noise(keys: Tensor, vocabulary: int, position: Tensor) -> Tensor:
    """Standard Gumbel noise for the choice of the next token.

    argmax(log p + Gumbel) is a draw from p (the Gumbel-max trick). −log(−log u) goes through float64; u is the
    centre of one of 2³² equal cells, so the largest value is 22.9.

    Args:
        keys: int64 (rows, 2).
        vocabulary: number of token ids.
        position: int64 (rows,), the position of the token that is chosen.

    Returns:
        float64 (rows, vocabulary).
    """
    u = _words(keys, vocabulary, position, 0, Kind.TOKEN).to(torch.float64).add_(0.5).mul_(2.0**-32)
    return u.log_().neg_().log_().neg_()  # in place: rows × vocabulary numbers at every token


def code_points(families: Tensor, numbers: Tensor, position: Tensor, bits: int) -> Tensor:
    """One number in [0, 1) for each sibling: uniform for each alone, evenly spaced over a family.

    The bits of a sibling's number, backwards, lead the fraction (van der Corput's sequence: the first n siblings are
    evenly spaced for every n that is a power of two, and nearly so for others). The family's own words shift them and
    follow them, others at every position.

    Args:
        families: int64 (rows, 2), the families as Philox keys.
        numbers: int64 (rows,) in [0, 2^bits), the number of each path in its family.
        position: int64 (rows,), where the text begins.
        bits: of a number, at most 32.

    Returns:
        float64 (rows,), multiples of 2⁻⁵³.
    """
    shift, high, low, _ = _words(families, 4, position, 0, Kind.CODE).unbind(-1)
    backwards = torch.zeros_like(numbers)
    for bit in range(bits):
        backwards |= (numbers >> bit & 1) << (bits - 1 - bit)
    rest = (high << 31 | low >> 1) >> (10 + bits)  # 63 bits, of which 53 − bits are kept
    return ((backwards ^ shift >> (32 - bits)) << (53 - bits) | rest).to(torch.float64) * 2.0**-53
