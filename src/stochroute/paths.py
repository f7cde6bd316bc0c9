"""Path ids: derive them, read them, print them.

A path id is an unsigned 64-bit integer. People and files see it as exactly 16 hex digits.
"""

# pyright: reportUnnecessaryIsInstance=false, reportUnknownMemberType=false
import operator
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import cast

SIBLING_BITS = 12  # 4,096 spread paths know of each other

_LIMIT = 1 << 64
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_UNMIX_1, _UNMIX_2 = pow(_MIX_1, -1, _LIMIT), pow(_MIX_2, -1, _LIMIT)
_HEX_DIGITS = re.compile(r"[0-9a-fA-F]{16}")


def draw_seed() -> int:
    """A fresh seed in [0, 2⁶⁴) from the operating system."""
    return secrets.randbits(64)


def derive_paths(seed: int, n: int, prompt: int = 0, spread: bool = False) -> list[int]:
    """n path ids for one prompt, mixed from (seed, sample index, prompt index) by Philox4x32-10.

        >>> [format_path(p) for p in derive_paths(7, 2)] == [format_path(p) for p in derive_paths(7, 9)[:2]]
        True

    The seed is the key and (sample, prompt, 0, 0) the counter, so neighbouring seeds share no ids, the first n ids
    do not depend on n, and prompt 5 gets the same ids whichever prompts stand beside it.

    Spread ids hold, well mixed, which family they belong to (52 bits of the Philox words with 1 in the counter's third
    place) and which number they have in it. `generate(…, spread=True)` reads that; to everything else they are ids
    like others. 4,096 of them make a family.

    Args:
        seed: integer in [0, 2⁶⁴).
        n: how many ids, in [1, 2³²).
        prompt: index of the prompt, in [0, 2³²).
        spread: whether the ids are to be walked with `spread=True`.

    Raises:
        ValueError: an argument is out of its range or no integer.
    """
    seed = check_seed(seed)
    _check_range("n", n, 1, 1 << 32, "ask for at least one path")
    _check_range("prompt", prompt, 0, 1 << 32, "number the prompts 0, 1, …")

    if spread:
        return _derive_spread(seed, n, prompt)
    return derive_grid([seed], range(n), [prompt])


def read_sibling(path: int) -> tuple[int, int]:
    """The family of a path id in [0, 2⁵²) and its number there in [0, 2¹²); any id has both."""
    plain = _unmix(path)
    return plain >> SIBLING_BITS, plain % (1 << SIBLING_BITS)


def _derive_spread(seed: int, n: int, prompt: int) -> list[int]:
    families = -(-n >> SIBLING_BITS)
    words = _path_words([seed], range(families), [prompt], third=1)[0]
    numbers = ((words[i >> SIBLING_BITS], i % (1 << SIBLING_BITS)) for i in range(n))
    return [_mix(word >> SIBLING_BITS << SIBLING_BITS | number) for word, number in numbers]


def _mix(x: int) -> int:
    """A bijection of 64-bit integers whose every output bit hangs on every input bit (splitmix64's: Steele, Lea &
    Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)."""
    x = (x ^ x >> 30) * _MIX_1 % _LIMIT
    x = (x ^ x >> 27) * _MIX_2 % _LIMIT
    return x ^ x >> 31


def _unmix(x: int) -> int:
    """The inverse of `_mix`."""
    x = (x ^ x >> 31 ^ x >> 62) * _UNMIX_2 % _LIMIT
    x = (x ^ x >> 27 ^ x >> 54) * _UNMIX_1 % _LIMIT
    return x ^ x >> 30 ^ x >> 60


def derive_grid(seeds: Sequence[int], samples: Sequence[int], prompts: Sequence[int]) -> list[int]:
    """The path ids of many (seed, prompt) pairs, each for all the samples, those of one pair together.

    Args:
        seeds: one a pair, in [0, 2⁶⁴).
        samples: sample indices, in [0, 2³²).
        prompts: one a pair, in [0, 2³²).
    """
    return [path for row in _path_words(seeds, samples, prompts, third=0) for path in row]


def _path_words(seeds: Sequence[int], samples: Sequence[int], prompts: Sequence[int], third: int) -> list[list[int]]:
    """64 random bits for each sample of each (seed, prompt) pair; `third` keeps two uses of the counter apart."""
    import torch

    from stochroute.noise import Kind, key_words, philox4x32

    counter = torch.zeros(len(prompts), len(samples), 4, dtype=torch.int64)
    counter[..., 0] = torch.tensor(samples)
    counter[..., 1] = torch.tensor(prompts)[:, None]
    counter[..., 2] = third
    counter[..., 3] = int(Kind.PATH)
    words = philox4x32(counter, key_words(list(seeds))[:, None])[..., :2]
    rows = cast(list[list[list[int]]], words.tolist())
    return [[high << 32 | low for low, high in row] for row in rows]


def check_seed(seed: int) -> int:
    """The seed itself, when it is an integer in [0, 2⁶⁴); ValueError otherwise."""
    return _check_range("seed", seed, 0, _LIMIT, "give an integer of at most 64 bits, or none to have one drawn")


def parse_path(path: int | str) -> int:
    """The path id as an integer in [0, 2⁶⁴).

    Args:
        path: an integer, or a string of exactly 16 hex digits.

    Raises:
        ValueError: the integer is out of range, or the string is not 16 hex digits.
    """
    if isinstance(path, str):
        if not _HEX_DIGITS.fullmatch(path):
            raise ValueError(f"path id {path!r} is not 16 hex digits, such as '00c0ffee00c0ffee'")
        return int(path, 16)
    return _check_range("path id", path, 0, _LIMIT, "an id is an unsigned 64-bit integer or 16 hex digits")


def parse_paths(paths: Iterable[int | str]) -> list[int]:
    """Each path id as an integer; ValueError for the first that is none, or when there are none at all."""
    ids = [parse_path(p) for p in paths]
    if not ids:
        raise ValueError("paths=[] names no path: give at least one id, or a number of paths")
    return ids


def format_path(path: int | str) -> str:
    """The path id as 16 lower-case hex digits; ValueError when it is no path id."""
    return f"{parse_path(path):016x}"


def check_integer(name: str, value: int, remedy: str) -> int:
    """The value as a Python integer; ValueError with the remedy when it is none."""
    # a truth value can pass for an integer, but True as a seed is a slip of the pen
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r} is no integer: {remedy}") from None


def _check_range(name: str, value: int, low: int, high: int, remedy: str) -> int:
    value = check_integer(name, value, remedy)
    if not low <= value < high:
        raise ValueError(f"{name}={value} is outside [{low}, {high}): {remedy}")
    return value
