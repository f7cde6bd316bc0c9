"""Path ids: derive them, read them, print them.

A path id is an unsigned 64-bit integer. People and files see it as exactly 16 hex digits.
"""

# pyright: reportUnnecessaryIsInstance=false, reportUnknownMemberType=false
import operator
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import cast

_LIMIT = 1 << 64
_HEX_DIGITS = re.compile(r"[0-9a-fA-F]{16}")


def draw_seed() -> int:
    """A fresh seed in [0, 2⁶⁴) from the operating system."""
    return secrets.randbits(64)


def derive_paths(seed: int, n: int, prompt: int = 0) -> list[int]:
    """n path ids for one prompt, mixed from (seed, sample index, prompt index) by Philox4x32-10.

        >>> [format_path(p) for p in derive_paths(7, 2)] == [format_path(p) for p in derive_paths(7, 9)[:2]]
        True

    The seed is the key and (sample, prompt, 0, 0) the counter, so neighbouring seeds share no ids, the first n ids
    do not depend on n, and prompt 5 gets the same ids whichever prompts stand beside it.

    Args:
        seed: integer in [0, 2⁶⁴).
        n: how many ids, in [1, 2³²).
        prompt: index of the prompt, in [0, 2³²).

    Raises:
        ValueError: an argument is out of its range or no integer.
    """
    seed = check_seed(seed)
    _check_range("n", n, 1, 1 << 32, "ask for at least one path")
    _check_range("prompt", prompt, 0, 1 << 32, "number the prompts 0, 1, …")

    return derive_grid([seed], range(n), [prompt])


def derive_grid(seeds: Sequence[int], samples: Sequence[int], prompts: Sequence[int]) -> list[int]:
    """The path ids of many (seed, prompt) pairs, each for all the samples, those of one pair together.

    Args:
        seeds: one a pair, in [0, 2⁶⁴).
        samples: sample indices, in [0, 2³²).
        prompts: one a pair, in [0, 2³²).
    """
    import torch

    from stochroute.noise import Kind, key_words, philox4x32

    counter = torch.zeros(len(prompts), len(samples), 4, dtype=torch.int64)
    counter[..., 0] = torch.tensor(samples)
    counter[..., 1] = torch.tensor(prompts)[:, None]
    counter[..., 3] = int(Kind.PATH)
    words = philox4x32(counter, key_words(list(seeds))[:, None])[..., :2].flatten(0, 1)
    return [high << 32 | low for low, high in cast(list[list[int]], words.tolist())]


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
