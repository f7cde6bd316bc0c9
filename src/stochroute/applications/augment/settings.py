"""Everything that decides which rows come out of a dataset, apart from the models."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from stochroute.applications.augment.duplicates import Near
from stochroute.applications.augment.filters import Filters
from stochroute.applications.augment.template import Shots, Template
from stochroute.generation.decoding import GREEDY, Decoding
from stochroute.paths import check_integer, check_seed

SOURCE_ID, PATH, PROMPT, SETTINGS = "source_id", "path", "prompt", "settings"
PROVENANCE = (SOURCE_ID, PATH, PROMPT, SETTINGS)  # the columns that a new row has beside those of its source


@dataclass(frozen=True)
class Augmentation:
    """What is made of each row.

    Attributes:
        template: the prompt.
        column: holds the row's text; a new row holds its new text there, and else what its source row holds.
        label: the column of the label, for a classifier and for examples of the same label.
        source_id: the column that names a row; None for its number, from 0.
        paths: new texts a row, before filters.
        seed: derives the path ids: row n walks `derive_paths(seed, paths, prompt=n)`, spread where the decoding or
            the routing is.
        shots: examples before each prompt; None for none.
        decoding: how tokens are chosen.
        new_tokens: of a text, at most.
        stop: strings that end a text and do not belong to it.
        chat: whether each prompt is a user's turn in the chat template.
        keep_prompt: whether a new text is the prompt and its continuation, rather than the continuation alone.
        filters: which new texts are kept.
        near: which count as near-duplicates; None: only exact ones are dropped.
        keep_source: whether the source's rows stand in the output, each before what was made of it.
        batch: rows computed and committed together; with `paths` the shape of every batch.
    """

    template: Template
    column: str = "text"
    label: str | None = None
    source_id: str | None = None
    paths: int = 4
    seed: int = 0
    shots: Shots | None = None
    decoding: Decoding = GREEDY
    new_tokens: int = 128
    stop: tuple[str, ...] = ()
    chat: bool = False
    keep_prompt: bool = False
    filters: Filters = field(default_factory=Filters)
    near: Near | None = None
    keep_source: bool = False
    batch: int = 8

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("paths", "batch", "new_tokens"):
            if check_integer(name, getattr(self, name), "give a number of at least 1") < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if any(not text for text in self.stop):
            raise ValueError("stop: an empty string stands in every text; write what ends one")
        if self.chat and self.keep_prompt:
            raise ValueError("chat and keep_prompt exclude each other: an answer to a turn does not continue it")

    @property
    def columns(self) -> list[str]:
        """The columns that a row must have, each once."""
        named = [self.column, *self.template.columns]
        named += [] if self.shots is None else self.shots.template.columns
        named += [column for column in (self.label, self.source_id) if column is not None]
        return list(dict.fromkeys(named))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return json.loads(json.dumps(asdict(self)))


def digest(value: Any) -> str:
    """16 hex digits over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
