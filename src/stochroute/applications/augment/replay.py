"""Makes rows of an augmented dataset again, from nothing but the row and the model, and compares."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stochroute.applications.augment.run import new_text
from stochroute.applications.augment.settings import PATH, PROMPT, PROVENANCE, SETTINGS
from stochroute.applications.writer import Writer
from stochroute.config import RoutingConfig
from stochroute.embedded import EMBEDDED, routing_folder
from stochroute.generation.decoding import Decoding
from stochroute.generation.receipts import fingerprint, routing_hash
from stochroute.loading import LoadedModel
from stochroute.noise import NOISE_VERSION
from stochroute.paths import parse_path
from stochroute.routed import RoutedModel, route
from stochroute.storage import read_record


@dataclass(frozen=True)
class Replayed:
    """One row, made again.

    Attributes:
        row: its number in the table, from 0.
        path: its path id.
        was, now: the text in the table, and the text that the path gives today, in transformers.
        engine: what wrote the one in the table. Another than today's may have decided a tie of two tokens otherwise.
    """

    row: int
    path: str
    was: str
    now: str
    engine: str

    @property
    def same(self) -> bool:
        """Whether they are the same."""
        return self.was == self.now


def read_settings(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What a new row says about how it was made; ValueError when it says nothing, or something else."""
    missing = [name for name in PROVENANCE if row.get(name) in (None, "")]
    if missing:
        raise ValueError(
            f"row {number + 1}: has no {missing[0]!r}, so nobody knows how it was made; name a table of augment"
        )
    try:
        found = json.loads(row[SETTINGS])
        RoutingConfig.from_dict(found["routing"])
        Decoding(**found["decoding"])
        parse_path(row[PATH])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"row {number + 1}: its {SETTINGS!r} or {PATH!r} is corrupt ({error!r})") from error
    return found


def new_rows(rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """The rows that were made, with their numbers; those of the source that were kept beside them are left out."""
    return ((number, row) for number, row in enumerate(rows) if row.get(PATH) not in (None, ""))


def replay(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    load: Callable[[str | None, str], LoadedModel],
    routing: str | None = None,
) -> Iterable[Replayed]:
    """Makes each row's text again, alone.

    Args:
        rows: (number, row), from `new_rows`.
        load: called once for each model and dtype that rows name, None for the embedded model.
        routing: the folder of a routing with learned parameters; others are in the rows.

    Raises:
        ValueError: a row does not say how it was made, or the model or routing at hand is another.
    """
    writers: dict[str, Writer] = {}
    models: dict[tuple[str | None, str], LoadedModel] = {}
    try:
        for number, row in rows:
            settings = read_settings(row, number)
            if row[SETTINGS] not in writers:
                for writer in writers.values():  # a model has one routing at a time
                    writer.routed.detach()
                writers.clear()
                key = (settings["model"], settings["dtype"])
                if key not in models:
                    models[key] = load(*key)
                writers[row[SETTINGS]] = _writer(settings, models[key], routing, number)
            writer = writers[row[SETTINGS]]
            tokens = writer.encode(row[PROMPT], f"row {number + 1}")
            written = writer.write([tokens], [[parse_path(row[PATH])]])[0][0]
            now = new_text(row[PROMPT], written, settings["keep_prompt"])
            yield Replayed(number, row[PATH], str(row[settings["column"]]), now, settings["engine"])
    finally:
        for writer in writers.values():
            writer.routed.detach()


def _writer(settings: dict[str, Any], loaded: LoadedModel, routing: str | None, number: int) -> Writer:
    where = f"row {number + 1}"
    if settings["noise_version"] != NOISE_VERSION:
        raise ValueError(
            f"{where}: was made with noise version {settings['noise_version']}, this is version {NOISE_VERSION}; "
            f"use the stochroute version that made it"
        )
    if fingerprint(loaded.model) != settings["fingerprint"]:
        raise ValueError(
            f"{where}: was made by a model {settings['fingerprint']}, and {loaded.name} is "
            f"{fingerprint(loaded.model)}; name the model that made it"
        )
    if routing is None and loaded.embedded and settings["routing"] == read_record(routing_folder()).routing:
        routing = EMBEDDED
    if routing is None:
        routed = route(loaded.model, RoutingConfig.from_dict(settings["routing"]))
    else:
        routed = RoutedModel.from_pretrained(loaded.model, routing)
    if routing_hash(routed) != settings["routing_hash"]:
        routed.detach()
        raise ValueError(
            f"{where}: was made with a routing {settings['routing_hash']} that has learned parameters, or is not the "
            f"one at hand; name its folder as the routing"
        )
    decoding = Decoding(**settings["decoding"])
    return Writer(loaded, routed, decoding, settings["new_tokens"], tuple(settings["stop"]), settings["chat"])
