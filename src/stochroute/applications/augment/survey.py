"""A first pass over the source: every row is checked before anything is written, and what it holds becomes known."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stochroute.applications.augment.duplicates import Seen
from stochroute.applications.augment.filters import Classifier, label_index
from stochroute.applications.augment.settings import PROVENANCE, Augmentation
from stochroute.applications.augment.template import Shots
from stochroute.applications.writer import Writer


@dataclass
class Survey:
    """What the source holds.

    Attributes:
        rows: how many.
        columns: those of its rows, in order.
        digest: SHA-256 over all rows, 64 hex digits.
        pool: its first rows, for examples.
    """

    rows: int = 0
    columns: dict[str, None] = field(default_factory=dict)
    digest: str = ""
    pool: list[Mapping[str, Any]] = field(default_factory=list)


def survey(
    source: Iterable[Mapping[str, Any]],
    settings: Augmentation,
    writer: Writer,
    classifier: Classifier | None,
    seen: Seen,
) -> Survey:
    """Reads all rows once.

    Args:
        source: the rows, iterable more than once.
        settings: what is to be made of them.
        writer: every prompt must fit its model.
        classifier: every label must be one of its.
        seen: the texts are added to it.

    Raises:
        ValueError: there are no rows, or one lacks a column, has an unknown label, too few examples, a prompt that does
            not fit, or something that JSON cannot hold.
    """
    if iter(source) is source:
        raise ValueError("the source can be read only once: give a list, a dataset, or open_source(file)")
    found = Survey()
    total = hashlib.sha256()
    for row in source:
        found.rows += 1
        _check_row(row, found.rows, settings, classifier)
        total.update(_as_json(row, found.rows).encode() + b"\n")
        found.columns |= dict.fromkeys(row)
        if settings.shots is not None and len(found.pool) < settings.shots.pool:
            found.pool.append(dict(row))
        seen.add([str(row[settings.column])])
    if not found.rows:
        raise ValueError("the source is empty: give rows to make others of")
    for index, prompt in enumerate(prompts(source, settings, found.pool)):
        writer.encode(prompt, f"row {index + 1}")
    found.digest = total.hexdigest()
    return found


def prompts(
    source: Iterable[Mapping[str, Any]], settings: Augmentation, pool: list[Mapping[str, Any]]
) -> Iterator[str]:
    """The prompt of every row."""
    return (prompt_of(settings, row, index, pool) for index, row in enumerate(source))


def prompt_of(settings: Augmentation, row: Mapping[str, Any], index: int, pool: list[Mapping[str, Any]]) -> str:
    """The prompt of a row: examples, where they are asked for, and the template."""
    shots: Shots | None = settings.shots
    before = "" if shots is None else shots.before(index, row, pool, settings.label, settings.seed)
    return before + settings.template.fill(row)


def _check_row(row: Mapping[str, Any], number: int, settings: Augmentation, classifier: Classifier | None) -> None:
    for name in settings.columns:
        if row.get(name) is None:
            raise ValueError(
                f"row {number}: has no column {name!r}, only {', '.join(map(repr, row)) or 'nothing'}: fill it in, "
                f"leave the row out, or name another column"
            )
    taken = [name for name in PROVENANCE if name in row]
    if taken:
        raise ValueError(
            f"row {number}: has a column {taken[0]!r} already, which new rows need: rename it, or take it out"
        )
    if not str(row[settings.column]).strip():
        raise ValueError(f"row {number}: its {settings.column!r} is empty: fill it in, or leave the row out")
    if classifier is not None:
        assert settings.label is not None, "a classifier needs a label column"
        try:
            label_index(classifier, row[settings.label])
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error


def _as_json(row: Mapping[str, Any], number: int) -> str:
    for name, value in row.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"row {number}: its {name!r} holds a {type(value).__name__} that JSON has no form for ({error}): turn "
                f"the column into texts or numbers, or take it out"
            ) from error
    return json.dumps(dict(row), ensure_ascii=False)
