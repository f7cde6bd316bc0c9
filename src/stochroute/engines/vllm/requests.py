"""What a request says about its path, checked when it is admitted, so that nothing can fail inside the engine.

A request carries fields in `SamplingParams.extra_args`, over HTTP in `vllm_xargs`:

    stochroute_path    the path to walk, 16 hex digits
    stochroute_paths   a list of n of them, one for each of n choices
    stochroute_seed    in place of ids: choice i walks `derive_paths(seed, n)[i]`, its spread form where noise is spread
    stochroute_start   the first noised position; left out, the routing's span says it

On the way to the workers every request has been split into its choices, and says its path and its start.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stochroute.config import RoutingConfig, Span
from stochroute.paths import check_integer, derive_paths, format_path, parse_path

PREFIX = "stochroute_"
PATH, PATHS, SEED, START = (PREFIX + name for name in ("path", "paths", "seed", "start"))
_FIELDS = (PATH, PATHS, SEED, START)

Fields = Mapping[str, Any] | None


@dataclass(frozen=True)
class Walk:
    """One choice's path, and the first position that carries its noise."""

    path: int
    start: int


def names_paths(fields: Fields) -> bool:
    """Whether any of the fields is one of ours, well spelt or not; None stands for a field that is left out."""
    return any(name.startswith(PREFIX) and value is not None for name, value in (fields or {}).items())


def admit(fields: Mapping[str, Any], choices: int, prompt_length: int, routing: RoutingConfig) -> dict[str, Any]:
    """The fields as the engine hands them on: with explicit paths, one a choice, and an explicit start.

    Args:
        fields: of the request; those of others are passed on untouched.
        choices: n of the request.
        prompt_length: in tokens.
        routing: of the engine.

    Raises:
        ValueError: a field is unknown, malformed, or says nothing beside another.
    """
    ours = {name: value for name, value in fields.items() if name.startswith(PREFIX) and value is not None}
    for name in ours.keys() - set(_FIELDS):
        meant = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0)[0]
        raise ValueError(f"{name} is no field of a request: did you mean {meant}? There are {', '.join(_FIELDS)}")
    paths = [format_path(path) for path in _paths(ours, choices, routing.spreads)]
    admitted = {name: value for name, value in fields.items() if not name.startswith(PREFIX)}
    admitted[START] = _start(ours.get(START), prompt_length, routing.span)
    return {**admitted, PATHS: paths} if choices > 1 else {**admitted, PATH: paths[0]}


def of_choice(fields: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The admitted fields of one of several choices."""
    return {**{name: value for name, value in fields.items() if name != PATHS}, PATH: fields[PATHS][index]}


def walk_of(fields: Fields) -> Walk | None:
    """The walk that admitted fields name; None for a plain request."""
    if not fields or fields.get(PATH) is None:
        return None
    return Walk(parse_path(fields[PATH]), fields[START])


def _paths(ours: Mapping[str, Any], choices: int, spread: bool) -> list[int]:
    given = [name for name in (PATH, PATHS, SEED) if name in ours]
    if len(given) != 1:
        raise ValueError(f"a request that walks a path gives one of {PATH}, {PATHS} and {SEED}, got {', '.join(ours)}")
    value = ours[given[0]]
    if given == [SEED]:
        try:
            return derive_paths(value, choices, spread=spread)
        except ValueError as error:
            raise ValueError(f"{PREFIX}{error}") from error
    if given == [PATH]:
        if choices > 1:
            raise ValueError(
                f"n={choices} choices would all walk {PATH}={value!r}: give {PATHS}, a list of {choices} ids, or {SEED}"
            )
        return [_path(PATH, value)]
    if not isinstance(value, list) or len(value) != choices:
        got = f"{len(value)} ids" if isinstance(value, list) else repr(value)
        raise ValueError(f"{PATHS} has to be a list of one id for each of n={choices} choices, got {got}")
    return [_path(PATHS, item) for item in value]


def _path(name: str, value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(
            f"{name}={value!r}: an id in a request is a text of 16 hex digits, since JSON numbers lose digits; "
            f"format_path makes it from an integer"
        )
    try:
        return parse_path(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _start(value: Any, prompt_length: int, span: Span) -> int:
    if value is None:
        # the last prompt token's output predicts the first generated token
        return prompt_length - 1 if span == "generated" else 0
    start = check_integer(START, value, "give the first noised position, an integer ≥ 0")
    if not 0 <= start < 1 << 31:
        raise ValueError(f"{START}={start} is no position: give an integer in [0, 2³¹)")
    return start
