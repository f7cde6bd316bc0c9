"""The run: source rows in batches, each written, filtered and committed whole; then the output, all at once.

While a run is at work its batches stand in OUTPUT.journal; the output appears when it is complete, and the journal
goes. So at any moment there is the journal, or the output, or for an instant both, and every state can be gone on from.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochroute.applications.augment.duplicates import Seen
from stochroute.applications.augment.engine import Engine, LocalEngine, Prompt, prompt
from stochroute.applications.augment.filters import Classifier, Judge, by_classifier, by_judge
from stochroute.applications.augment.journal import Journal
from stochroute.applications.augment.settings import PATH, PROMPT, PROVENANCE, SETTINGS, SOURCE_ID, Augmentation, digest
from stochroute.applications.augment.survey import Survey, prompt_of, survey
from stochroute.applications.augment.tables import check_target, open_source, write_table
from stochroute.applications.writer import Writer, Written
from stochroute.generation.receipts import computed_in, fingerprint, routing_hash
from stochroute.loading import LoadedModel
from stochroute.noise import NOISE_VERSION
from stochroute.paths import format_path
from stochroute.routed import RoutedModel

if TYPE_CHECKING:
    from stochroute.evaluation.embedding import Embedder

Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        output: the file.
        sources: rows of the source.
        written: texts that were made, a path each.
        kept: new rows.
        dropped: reason -> number of texts.
        run: hash of all settings, 16 hex digits; every new row names it.
        seed: of the paths.
    """

    output: str
    sources: int
    written: int
    kept: int
    dropped: dict[str, int]
    run: str
    seed: int


def augment(
    source: Iterable[Mapping[str, Any]],
    output: str | Path,
    settings: Augmentation,
    loaded: LoadedModel,
    routed: RoutedModel,
    *,
    judge: Judge | None = None,
    classifier: Classifier | None = None,
    embedder: "Embedder | None" = None,
    start: Callable[[Writer], Engine] = LocalEngine,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report | None:
    """Makes the output file, and returns what came out; None when a resumed run turns out to be complete already.

    Args:
        source: the rows, iterable more than once: a list, a dataset, `open_source(file)`.
        output: a .jsonl, .csv or .parquet file.
        settings: what is made of each row.
        loaded: the model that writes.
        routed: its routing.
        judge: for `settings.filters.max_nats`; it may be the model that writes.
        classifier: keeps the texts in which it reads their row's label.
        embedder: for near-duplicates by embeddings.
        start: makes the engine that writes, when all else has been checked.
        resume: goes on with a run that was interrupted.
        overwrite: starts anew; an output that is there stays until the new one is complete.
        progress: called with (source rows done, all).

    Raises:
        ValueError: the output or an interrupted run is there and neither `resume` nor `overwrite` is given; the run to
            be resumed has other settings; see also `survey`. Nothing has then been changed.
        OSError: there is no room.
    """
    path, journal_path = Path(output), journal_of(output)
    check_output(output, resume, overwrite)
    _check(settings, judge, classifier, embedder)
    writer = Writer(loaded, routed, settings.decoding, settings.new_tokens, settings.stop, settings.chat)
    seen = Seen(settings.near, embedder)
    found = survey(source, settings, writer, classifier, seen)
    run = _Run(settings, writer, start(writer), judge, classifier, embedder, seen, found)
    identity = run.identity()
    if resume and path.exists() and not journal_path.exists():
        _check_complete(path, digest(identity))
        return None
    journal = Journal(journal_path, identity, anew=overwrite)
    try:
        counts = run.fill(source, journal, progress)
        columns = [*found.columns, *PROVENANCE]
        write_table(path, columns, lambda: (row for batch in journal.read() for row in batch["rows"]))
        journal.remove()
    finally:
        journal.close()
    kept = counts.pop("kept", 0)
    dropped = dict(sorted(counts.items()))
    return Report(str(output), found.rows, found.rows * settings.paths, kept, dropped, digest(identity), settings.seed)


def journal_of(output: str | Path) -> Path:
    """Where the batches of a run stand while it is at work."""
    return Path(output).with_name(Path(output).name + ".journal")


def check_output(output: str | Path, resume: bool, overwrite: bool) -> None:
    """ValueError when the output cannot be written, or something is there and nobody said what to do with it."""
    check_target(Path(output))
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: choose one")
    there = next((file for file in (journal_of(output), Path(output)) if file.exists()), None)
    if there is not None and not (resume or overwrite):
        what = "exists" if there == Path(output) else "is an interrupted run"
        raise ValueError(f"{there} {what}: go on by --resume, start anew by --overwrite, or choose another name")


def seed_of(output: str | Path) -> int | None:
    """The seed of the run that made the journal, or else the output; None where neither says one."""
    try:
        with journal_of(output).open("rb") as file:
            return int(json.loads(file.readline())["run"]["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if not Path(output).exists():
        return None
    found = {row[SETTINGS] for row in open_source(str(output)) if row.get(SETTINGS)}
    return int(json.loads(found.pop())["seed"]) if found else None


class _Run:
    """Everything that stays the same from batch to batch, and the texts seen so far."""

    def __init__(
        self,
        settings: Augmentation,
        writer: Writer,
        engine: Engine,
        judge: Judge | None,
        classifier: Classifier | None,
        embedder: "Embedder | None",
        seen: Seen,
        found: Survey,
    ):
        self.settings, self.writer, self.engine = settings, writer, engine
        self.judge, self.classifier = judge, classifier
        self.embedder, self.seen, self.found = embedder, seen, found
        self._receipt = receipt(settings, writer, engine.name)
        self._provenance = json.dumps({"run": digest(self.identity()), **self._receipt}, ensure_ascii=False)

    def identity(self) -> dict[str, Any]:
        """All that decides the output, as JSON types: what another run would differ in."""
        settings = self.settings.to_dict()
        return {
            "rows": self.found.rows,
            "source": self.found.digest,
            **settings,
            **{name: value for name, value in self._receipt.items() if name not in settings},
            "judge": None if self.judge is None else self.judge.fingerprint,
            "classifier": None if self.classifier is None else self.classifier.name,
            "embedder": None if self.embedder is None else self.embedder.name,
            "device": self.writer.loaded.model.device.type,
        }

    def fill(
        self, source: Iterable[Mapping[str, Any]], journal: Journal, progress: Callable[[int, int], None]
    ) -> Counter[str]:
        """Commits the batches that are missing; returns how many texts were kept, and dropped for each reason."""
        counts: Counter[str] = Counter()
        for batch in journal.read():
            counts.update(batch["counts"])
            self.seen.add([str(row[self.settings.column]) for row in batch["rows"] if row[PATH] is not None])
        done = journal.batches * self.settings.batch
        progress(min(done, self.found.rows), self.found.rows)
        left = _batches(islice(source, done, None), self.settings.batch)
        waiting: list[list[Mapping[str, Any]]] = []  # rows whose texts the engine has not handed over yet

        def prompts() -> Iterator[list[Prompt]]:
            first = done
            for rows in left:
                waiting.append(rows)
                yield [self._prompt(row, first + place) for place, row in enumerate(rows)]
                first += len(rows)

        for texts in self.engine.write(prompts()):
            rows = waiting.pop(0)
            kept, dropped = self._sift(rows, done, texts)
            journal.commit({"rows": kept, "counts": dropped})
            counts.update(dropped)
            done += len(rows)
            progress(done, self.found.rows)
        return counts

    def _prompt(self, row: Mapping[str, Any], index: int) -> Prompt:
        text = prompt_of(self.settings, row, index, self.found.pool)
        settings = self.settings
        spread = settings.decoding.spread or self.writer.routed.config.spreads
        return prompt(index, text, settings.seed, settings.paths, spread)

    def _sift(
        self, rows: Sequence[Mapping[str, Any]], first: int, texts: list[list[Written]]
    ) -> tuple[list[Row], dict[str, int]]:
        """The rows of a batch that are kept, and the counts of all."""
        candidates: list[Row] = []
        reasons: list[str | None] = []
        for place, (row, written) in enumerate(zip(rows, texts, strict=True)):
            asked = self._prompt(row, first + place)
            for path, one in zip(asked.paths, written, strict=True):
                candidates.append(self._row(row, asked, path, one))
                reasons.append(self.settings.filters.by_form(candidates[-1][self.settings.column], one.ended))
        self._by_models(candidates, reasons)
        each = self.settings.paths
        kept: list[Row] = []
        for place, row in enumerate(rows):
            if self.settings.keep_source:
                kept.append(
                    {**row, SOURCE_ID: self._source_id(row, first + place), PATH: None, PROMPT: None, SETTINGS: None}
                )
            for number in range(place * each, (place + 1) * each):
                reasons[number] = reasons[number] or self.seen.why_not(candidates[number][self.settings.column])
                if reasons[number] is None:
                    kept.append(candidates[number])
        return kept, dict(Counter(reason or "kept" for reason in reasons))

    def _by_models(self, candidates: list[Row], reasons: list[str | None]) -> None:
        """Fills in why the judge and the classifier drop texts; each reads only what is left."""
        filters, column = self.settings.filters, self.settings.column

        def left() -> list[int]:
            return [number for number, reason in enumerate(reasons) if reason is None]

        if self.judge is not None and (numbers := left()):
            for number, reason in zip(
                numbers, by_judge(filters, self.judge, [candidates[n][column] for n in numbers]), strict=True
            ):
                reasons[number] = reason
        if self.classifier is not None and (numbers := left()):
            assert self.settings.label is not None
            rows = [candidates[n] for n in numbers]
            found = by_classifier(filters, self.classifier, [row[column] for row in rows], rows, self.settings.label)
            for number, reason in zip(numbers, found, strict=True):
                reasons[number] = reason

    def _source_id(self, row: Mapping[str, Any], index: int) -> Any:
        return index if self.settings.source_id is None else row[self.settings.source_id]

    def _row(self, row: Mapping[str, Any], asked: Prompt, path: int, one: Written) -> Row:
        return {
            **row,
            self.settings.column: new_text(asked.text, one, self.settings.keep_prompt),
            SOURCE_ID: self._source_id(row, asked.index),
            PATH: format_path(path),
            PROMPT: asked.text,
            SETTINGS: self._provenance,
        }


def new_text(prompt: str, written: Written, keep_prompt: bool) -> str:
    """The text of a new row, without white space around it."""
    return (prompt + written.text if keep_prompt else written.text).strip()


def receipt(settings: Augmentation, writer: Writer, engine: str) -> dict[str, Any]:
    """What makes a row's text again from its prompt and its path id, as JSON types."""
    full = settings.to_dict()
    loaded, routed = writer.loaded, writer.routed
    return {
        "model": None if loaded.embedded else loaded.name,
        "fingerprint": fingerprint(loaded.model),
        "dtype": computed_in(loaded.model),
        "engine": engine,
        "routing": routed.config.to_dict(),
        "routing_hash": routing_hash(routed),
        "noise_version": NOISE_VERSION,
        **{name: full[name] for name in ("seed", "column", "decoding", "new_tokens", "stop", "chat", "keep_prompt")},
    }


def _batches(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


def _check(
    settings: Augmentation, judge: Judge | None, classifier: Classifier | None, embedder: "Embedder | None"
) -> None:
    filters = settings.filters
    if (judge is None) != (filters.max_nats is None):
        raise ValueError("a judge and filters.max_nats go together: give both or none")
    if classifier is not None and settings.label is None:
        raise ValueError(f"classifier {classifier.name}: there is no label column to compare with; name one as label")
    if classifier is None and filters.min_confidence:
        raise ValueError(f"min_confidence={filters.min_confidence} has no effect without a classifier: give one")
    if settings.label is not None and classifier is None and settings.shots is None:
        raise ValueError(f"label={settings.label!r} has no effect without a classifier or shots: leave it out")
    if (settings.near is not None and settings.near.method == "embeddings") != (embedder is not None):
        raise ValueError("an embedder and near-duplicates by embeddings go together: give both or none")


def _check_complete(path: Path, run: str) -> None:
    """ValueError unless the finished output comes from this run, as its new rows say; one without any row does."""
    if path.stat().st_size == 0:
        return
    names = {json.loads(row[SETTINGS])["run"] if row.get(SETTINGS) else "" for row in open_source(str(path))}
    if names - {run, ""} or names == {""}:
        raise ValueError(
            f"output {path}: is complete, and comes from another run ({', '.join(sorted(names - {''})) or 'none'}, "
            f"this is {run}); --overwrite starts anew"
        )
