"""`stochroute augment`: a dataset in, more dataset out, every new row with what makes it again.

stochroute augment reviews.jsonl --template "{text:6}" --keep-prompt --paths 8 --seed 7 --output more.jsonl
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from stochroute.cli import engines, model_options, noise_options, sampling_options
from stochroute.cli.augment_replay import replay_rows
from stochroute.cli.errors import BadInput, Interrupted, missing_packages
from stochroute.cli.request import DecodingOptions, ModelRequest, Noise, check_routing, check_sampling
from stochroute.errors import one_line
from stochroute.loading import LoadedModel, load_model
from stochroute.paths import draw_seed

if TYPE_CHECKING:
    from stochroute.applications.augment import Augmentation, Report
    from stochroute.applications.augment.duplicates import Near
    from stochroute.applications.augment.engine import Engine
    from stochroute.applications.augment.template import Shots, Template
    from stochroute.applications.writer import Writer
    from stochroute.evaluation.embedding import Embedder
    from stochroute.evaluation.judging import Judge

_PROMPTS, _KEPT, _TOKENS, _IN_OUT = "Prompts", "What is kept", sampling_options.PANEL, "Input, output"
_NEW_TOKENS = 128
_NEAR = ("minhash", "embeddings", "off")


def augment(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="A .jsonl, .csv or .parquet file, a folder or Hub name of `datasets`."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The new rows: .jsonl, .csv or .parquet.", rich_help_panel=_IN_OUT),
    ] = None,
    paths: Annotated[int, typer.Option(help="New texts for each row, before filters.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Derives the path ids. Default: drawn, and reported.")] = None,
    model: model_options.Model = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="The prompt, columns in braces: {text}; {text:8}, its first 8 words.", rich_help_panel=_PROMPTS
        ),
    ] = None,
    template_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same from a file.", rich_help_panel=_PROMPTS)
    ] = None,
    shots: Annotated[
        int, typer.Option(help="Examples before each prompt, other rows of the source.", rich_help_panel=_PROMPTS)
    ] = 0,
    shot_template: Annotated[
        str | None, typer.Option(help="One example, columns in braces.", rich_help_panel=_PROMPTS)
    ] = None,
    shot_template_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same from a file.", rich_help_panel=_PROMPTS)
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put each prompt into the chat template.", rich_help_panel=_PROMPTS)
    ] = False,
    keep_prompt: Annotated[
        bool,
        typer.Option("--keep-prompt", help="A new text is the prompt and its continuation.", rich_help_panel=_PROMPTS),
    ] = False,
    column: Annotated[str, typer.Option(help="Column of the text.", rich_help_panel=_IN_OUT)] = "text",
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of the label.", rich_help_panel=_IN_OUT)] = None,
    source_id: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="That names a row. Default: its number.", rich_help_panel=_IN_OUT),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a folder or Hub name.", rich_help_panel=_IN_OUT)] = "train",
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="Write the source's rows as well.", rich_help_panel=_IN_OUT)
    ] = False,
    min_length: Annotated[int, typer.Option(help="In characters.", rich_help_panel=_KEPT)] = 1,
    max_length: Annotated[int | None, typer.Option(help="In characters.", rich_help_panel=_KEPT)] = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Only texts that came to their own end.", rich_help_panel=_KEPT)
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="For --max-nats. Default: the model that writes, clean.",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    max_nats: Annotated[float | None, typer.Option(help="Per byte, under the judge.", rich_help_panel=_KEPT)] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Keep texts in which it reads their row's --label.",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    min_confidence: Annotated[float, typer.Option(help="Of the classifier.", rich_help_panel=_KEPT)] = 0.0,
    near: Annotated[
        str, typer.Option(help=f"Near-duplicates go by: {', '.join(_NEAR)}.", rich_help_panel=_KEPT)
    ] = "minhash",
    near_above: Annotated[
        float | None,
        typer.Option(help="Similarity of near-duplicates. Default: 0.8, embeddings 0.95.", rich_help_panel=_KEPT),
    ] = None,
    routing: noise_options.RoutingFolder = None,
    strength: noise_options.Strength = None,
    budget: noise_options.Budget = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: noise_options.Span = None,
    attention_strength: noise_options.AttentionStrength = None,
    expert_strength: noise_options.ExpertStrength = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help=f"Of a text. Default: {_NEW_TOKENS}.", rich_help_panel=_TOKENS)
    ] = None,
    temperature: sampling_options.Temperature = None,
    top_k: sampling_options.TopK = None,
    top_p: sampling_options.TopP = None,
    min_p: sampling_options.MinP = None,
    spread: sampling_options.Spread = False,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Ends a text; \\n is a line break. Repeatable.", rich_help_panel=_TOKENS),
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows computed and committed together.", rich_help_panel=_IN_OUT)] = 8,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.", rich_help_panel=_IN_OUT)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where there is an output.", rich_help_panel=_IN_OUT)
    ] = False,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Make rows of an earlier output again, and compare.", rich_help_panel=_IN_OUT
        ),
    ] = None,
    rows: Annotated[int, typer.Option(help="Of --replay: the first so many, 0 for all.", rich_help_panel=_IN_OUT)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_IN_OUT)] = False,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
    engine: engines.EngineName = "transformers",
    engine_option: engines.EngineOptions = None,
) -> None:
    """Make new rows of a dataset's rows, along paths.

    Example: stochroute augment reviews.csv --label mood --shots 3 --shot-template "A {mood} review: {text}" --template
    "A {mood} review:" --stop "\\n" --model NAME --output more.csv

    Each new row says its source, its path and its settings; --replay makes it again. A run that was interrupted, or
    killed, goes on by --resume, and comes out the same to the byte.
    """
    asked = engines.read_engine(engine, engine_option or [], engines.ENGINES)
    engines.check_device(asked, device)
    _check_packages()
    if replay is not None:
        if asked.name != "transformers":
            raise BadInput(f"--engine {engine} has no effect on --replay, by transformers always: leave it out")
        if source is not None or output is not None:
            raise BadInput(f"--replay {replay} makes rows again and writes none: leave SOURCE and --output out")
        replay_rows(replay, rows, model, routing, split, device, as_json)
        return
    if source is None or output is None:
        raise BadInput("name a SOURCE and an --output, or a file to --replay")
    noise = Noise(strength, layers, hold, form, span, attention_strength, expert_strength, budget)
    check_routing(routing, noise)

    from stochroute.applications.augment import Augmentation, Filters

    if judge is not None and max_nats is None:
        raise BadInput(f"--judge {judge} has no effect without --max-nats: say how unlikely a text may be")
    if classifier is not None and label is None:
        raise BadInput(f"--classifier {classifier}: name the --label column that it is compared with")
    decoding = DecodingOptions(max_new_tokens, temperature, top_k, top_p, min_p, spread)
    check_sampling(asked, decoding)
    chosen = draw_seed() >> 11 if seed is None else seed  # 53 bits: the most that every reader of JSON numbers keeps
    settings = Augmentation(
        template=_template("--template", template, template_file),
        column=column,
        label=label,
        source_id=source_id,
        paths=paths,
        seed=chosen if seed is not None or not resume else _seed_of(output, chosen),
        shots=_shots(shots, shot_template, shot_template_file),
        decoding=decoding.choice,
        new_tokens=max_new_tokens or _NEW_TOKENS,
        stop=tuple(text.replace("\\n", "\n") for text in stop or ()),
        chat=chat,
        keep_prompt=keep_prompt,
        filters=Filters(min_length, max_length, ended, max_nats, min_confidence),
        near=_near(near, near_above),
        keep_source=keep_source,
        batch=batch,
    )
    files = _Files(source, split, output, resume, overwrite)
    writing = ModelRequest(model, routing, noise, device, dtype)
    with engines.temporary_folder() as folder:
        report = _run(files, settings, writing, _Readers(judge, classifier), asked, Path(folder))
    _show(report, output, settings.seed, as_json)


@dataclass(frozen=True)
class _Files:
    """Where rows come from and go to, and what becomes of an output that is there."""

    source: str
    split: str
    output: str
    resume: bool
    overwrite: bool


@dataclass(frozen=True)
class _Readers:
    """The models that read what was written; None for the one that wrote, and for no classifier."""

    judge: str | None
    classifier: str | None


def _run(
    files: _Files,
    settings: "Augmentation",
    writing: ModelRequest,
    readers: _Readers,
    engine: engines.Engine,
    keep: Path,
) -> "Report | None":
    from stochroute.applications.augment import augment as run
    from stochroute.applications.augment import open_source
    from stochroute.applications.augment.run import check_output
    from stochroute.cli.progress import progress_bar
    from stochroute.cli.routings import calibrated_model

    check_output(files.output, files.resume, files.overwrite)
    opened = open_source(files.source, files.split)
    loaded = load_model(writing.model, writing.device if engine.name == "transformers" else "cpu", writing.dtype)
    judge = None if settings.filters.max_nats is None else _judge(readers.judge, loaded, writing.device)
    classifier = None if readers.classifier is None else _classifier(readers.classifier)
    embedder = _embedder() if settings.near is not None and settings.near.method == "embeddings" else None
    routed, _ = calibrated_model(loaded, writing.routing, writing.noise)
    start = _start(engine, loaded, routed, writing.routing, settings.new_tokens, keep)
    try:
        with progress_bar("rows") as progress:
            return run(
                opened,
                files.output,
                settings,
                loaded,
                routed,
                judge=judge,
                classifier=classifier,
                embedder=embedder,
                start=start,
                resume=files.resume,
                overwrite=files.overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: whole batches are in {files.output}.journal; the same command with --resume goes on"
        ) from None


def _start(
    asked: engines.Engine, loaded: LoadedModel, routed: Any, routing: str | None, new_tokens: int, keep: Path
) -> "Callable[[Writer], Engine]":
    """What starts the engine; BadInput at once where it cannot do what is asked."""
    from stochroute.applications.augment.engine import HostedEngine, LocalEngine

    if asked.name == "transformers":
        return LocalEngine
    engines.greedy_receipt(asked, routed, new_tokens)
    hosted = engines.hosted(loaded, routed, routing, keep)
    return lambda writer: HostedEngine(writer, engines.start_engine(asked, hosted))


def _template(option: str, text: str | None, file: str | None) -> "Template":
    from stochroute.applications.augment import Template

    if (text is None) == (file is None):
        raise BadInput(f'give {option} or {option}-file, one of them: {option} "{{text:8}}" for example')
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{option}-file {file}: {one_line(error)}; name a readable UTF-8 file") from error
    return Template(cast(str, text))


def _shots(count: int, text: str | None, file: str | None) -> "Shots | None":
    from stochroute.applications.augment.template import Shots

    if count == 0:
        if text is not None or file is not None:
            raise BadInput("--shot-template has no effect without --shots: say how many examples")
        return None
    return Shots(_template("--shot-template", text, file), count)


def _near(method: str, above: float | None) -> "Near | None":
    from stochroute.applications.augment.duplicates import DEFAULT_THRESHOLDS, Near

    if method not in _NEAR:
        raise BadInput(f"--near {method}: choose {', '.join(_NEAR)}")
    if method == "off":
        if above is not None:
            raise BadInput(f"--near-above {above} has no effect beside --near off: leave one of them out")
        return None
    known = cast(Any, method)
    return Near(known, DEFAULT_THRESHOLDS[known] if above is None else above)


def _seed_of(output: str, otherwise: int) -> int:
    """The seed of the run to be resumed, where there is one."""
    from stochroute.applications.augment.run import seed_of

    found = seed_of(output)
    return otherwise if found is None else found


def _judge(name: str | None, loaded: LoadedModel, device: str) -> "Judge":
    from stochroute.evaluation.judging import Judge

    return Judge(loaded if name is None else load_model(name, device, "auto"))


def _classifier(name: str) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from stochroute.applications.augment import SequenceClassifier

    try:
        model = cast(Any, AutoModelForSequenceClassification).from_pretrained(name)
        return SequenceClassifier(name, model, cast(Any, AutoTokenizer).from_pretrained(name))
    # whatever is raised here is about the files that the user named
    except Exception as error:
        raise BadInput(f"--classifier {name}: {one_line(error)}; name a transformers sequence classifier") from error


def _embedder() -> "Embedder":
    from stochroute.evaluation.embedding import WordLlamaEmbedder

    try:
        return WordLlamaEmbedder()
    except ImportError as error:
        raise missing_packages(error, "eval") from error


def _check_packages() -> None:
    from importlib.util import find_spec

    for package in ("datasets", "datasketch"):
        if find_spec(package) is None:
            raise missing_packages(ImportError(f"no module {package!r}"), "apps")


def _show(report: "Report | None", output: str, seed: int, as_json: bool) -> None:
    if report is None:
        print(json.dumps({"output": output, "complete": True})) if as_json else typer.echo(
            f"{output}: is complete already"
        )
        return
    if as_json:
        print(json.dumps(asdict(report), ensure_ascii=False))
        return
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items()) or "none"
    typer.echo(
        f"{output}: {report.kept} new rows from {report.sources} ({report.written} texts, seed {seed}; "
        f"dropped: {dropped})"
    )
