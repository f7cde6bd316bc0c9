"""`stochroute uncertainty`: how well disagreement between paths tells a model's wrong answers from its right ones.

stochroute uncertainty gsm8k_test.jsonl --task gsm8k --model MODEL --preset noise-injection --output run.jsonl
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochroute.cli import model_options, noise_options
from stochroute.cli.errors import BadInput, Interrupted, missing_packages
from stochroute.cli.progress import progress_bars
from stochroute.cli.request import Noise
from stochroute.errors import one_line
from stochroute.loading import LoadedModel, check_chat, load_model

if TYPE_CHECKING:
    from stochroute.uncertainty import Answered, AnswerFile, Arm, Asker, Equivalence, Question

PRESETS = ("noise-injection",)
_SHOWN = ("answer entropy", "token transmission")  # whose gains a person sees; --json has all
_NOISE, _ANSWERS, _IN_OUT = noise_options.PANEL, "Questions and answers", "Input, output"


def uncertainty(
    questions: Annotated[str, typer.Argument(metavar="QUESTIONS", help=".jsonl, .json, .csv, .tsv or .parquet")],
    model: Annotated[str, typer.Option(callback=model_options.check_model, help="Folder or Hub name.")],
    task: Annotated[
        str, typer.Option(help="plain, gsm8k, triviaqa or csqa: how questions are read.", rich_help_panel=_ANSWERS)
    ] = "plain",
    question_column: Annotated[
        str | None, typer.Option(help="Default: the task's own.", rich_help_panel=_ANSWERS)
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="Default: the task's own.", rich_help_panel=_ANSWERS)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Ask only the first so many questions.", rich_help_panel=_ANSWERS)
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A prompt with {question}, few-shot for instance.", rich_help_panel=_ANSWERS),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put each prompt into the chat template.", rich_help_panel=_ANSWERS)
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Default: the task's own.", rich_help_panel=_ANSWERS)
    ] = None,
    nli: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Answers that entail each other mean the same.",
            rich_help_panel=_ANSWERS,
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Answers with near embeddings mean the same.",
            rich_help_panel=_ANSWERS,
        ),
    ] = None,
    paths: Annotated[int, typer.Option(help="Answers a question, the same for every arm.")] = 10,
    seed: Annotated[int, typer.Option(help="Makes the whole report reproducible.")] = 0,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of all arms, no top-k; 0: paths alone, beside sampling at 1. Default: 1, preset 0.5."),
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Adds MC dropout at this rate.")] = None,
    likelihoods: Annotated[
        bool, typer.Option("--likelihoods", help="Score each answer along each path: transmission of whole answers.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option(help="noise-injection: the protocol of arXiv 2502.03799.", rich_help_panel=_NOISE)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Of the preset: noise is U(0, alpha). Default: 0.05.", rich_help_panel=_NOISE)
    ] = None,
    strength: Annotated[
        str | None, typer.Option(help="Over the activation's size; or one a layer: 0.1,0.2.", rich_help_panel=_NOISE)
    ] = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: Annotated[
        str | None, typer.Option(help="all positions (default here) or generated.", rich_help_panel=_NOISE)
    ] = None,
    attention_strength: noise_options.AttentionStrength = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Keep every answer here as JSON lines; the same command goes on where it was interrupted.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Selective accuracy over coverage, as .svg.", rich_help_panel=_IN_OUT),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_IN_OUT)] = False,
    batch: Annotated[int, typer.Option(help="Questions asked at once, at most.", rich_help_panel=_IN_OUT)] = 8,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Ask every question along several paths, and score how well disagreement detects wrong answers.

    Beside the paths: the same number of samples at the same temperature without noise, and a single pass.

    Example: stochroute uncertainty gsm8k_test.jsonl --task gsm8k --model MODEL --preset noise-injection --limit 200
    """
    _check_numbers({"--batch": batch, "--limit": limit, "--max-new-tokens": max_new_tokens})
    if paths < 2:
        raise BadInput(f"--paths {paths}: one answer has nothing to disagree with; ask for at least 2, better 10")
    if nli is not None and embeddings is not None:
        raise BadInput(f"--nli {nli} beside --embeddings {embeddings}: meanings are compared in one way; give one")
    if picture is not None and not picture.endswith(".svg"):
        raise BadInput(f"--picture {picture}: name an .svg file")
    noise = Noise(strength, layers, hold, form, span or "all", attention_strength, None)
    prompt = None if template is None else _read_template(template)

    read = _read(questions, task, question_column, answer_column, limit)
    arms = _arms(preset, alpha, noise, temperature, dropout, given=noise.given() if span else noise.given()[:-1])
    loaded = load_model(model, device, dtype)
    asker = _asker(loaded, task, paths, seed, prompt, max_new_tokens, chat, likelihoods)
    file = None if output is None else _open(Path(output), asker, arms, read)
    rows = _ask_all(asker, arms, read, file, batch)
    report = {
        "model": loaded.name,
        "task": task,
        "questions": len(read),
        "paths": paths,
        "seed": seed,
        **_detections(rows, arms, read, _equivalence(nli, embeddings), seed),
    }
    if picture is not None:
        from stochroute.uncertainty.pictures import write_curves

        write_curves(Path(picture), report)
    print(json.dumps(report)) if as_json else _show(report)


def _check_numbers(numbers: dict[str, int | None]) -> None:
    for option, value in numbers.items():
        if value is not None and value < 1:
            raise BadInput(f"{option} {value}: give a positive number")


def _read_template(file: str) -> str:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--template {file}: {one_line(error)}; name a readable text file") from error
    if "{question}" not in text:
        raise BadInput(f"--template {file}: has no {{question}}; write it where the question belongs")
    return text.removesuffix("\n")


def _read(file: str, task: str, question: str | None, answer: str | None, limit: int | None) -> "list[Question]":
    from stochroute.uncertainty import TASKS, read_questions

    if task not in TASKS:
        raise BadInput(f"--task {task}: choose one of {', '.join(TASKS)}")
    try:
        return read_questions(file, TASKS[task], question, answer, limit)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}; name a readable file") from error
    except ImportError as error:
        raise missing_packages(error, "eval") from error


def _arms(
    preset: str | None,
    alpha: float | None,
    noise: Noise,
    temperature: float | None,
    dropout: float | None,
    given: list[str],
) -> "list[Arm]":
    from stochroute.uncertainty import NO_NOISE, Arm, noise_injection, single_pass, temperature_only

    if preset is None and alpha is not None:
        raise BadInput(f"--alpha {alpha} has no effect without --preset noise-injection: use --strength, or add it")
    if preset is not None:
        if preset not in PRESETS:
            raise BadInput(f"--preset {preset}: choose {' or '.join(PRESETS)}")
        if given:
            raise BadInput(f"{given[0]} has no effect beside --preset {preset}: leave one of them out")
        arms = noise_injection(0.05 if alpha is None else alpha, 0.5 if temperature is None else temperature)
    else:
        drawn = 1.0 if temperature is None else temperature
        if not drawn >= 0:
            raise BadInput(f"--temperature {drawn:g}: must be at least 0; at 0 only paths make answers differ")
        arms = [Arm("paths", noise.config(), drawn), temperature_only(drawn or 1.0), single_pass()]
    if dropout is not None:
        if not 0 < dropout < 1:
            raise BadInput(f"--dropout {dropout:g}: must be between 0 and 1")
        arms.append(Arm(f"MC dropout {dropout:g}", NO_NOISE, arms[0].temperature, dropout=dropout))
    return arms


def _asker(
    loaded: LoadedModel,
    task: str,
    paths: int,
    seed: int,
    template: str | None,
    new_tokens: int | None,
    chat: bool,
    likelihoods: bool,
) -> "Asker":
    from stochroute.uncertainty import TASKS, Asker

    check_chat(loaded, chat)
    return Asker(loaded.model, loaded.tokenizer, TASKS[task], paths, seed, template, new_tokens, chat, likelihoods)


def _open(path: Path, asker: "Asker", arms: "list[Arm]", questions: "list[Question]") -> "AnswerFile":
    from stochroute.uncertainty import AnswerFile

    if path.is_dir():
        raise BadInput(f"--output {path}: is a folder; name a file")
    try:
        file = AnswerFile(path, asker.circumstances(arms, questions))
    except (OSError, ValueError) as error:
        raise BadInput(f"--output {one_line(error)}") from error
    if file.finished:
        typer.echo(f"{path}: {len(file.finished)} of {len(arms) * len(questions)} answers are there already", err=True)
    return file


def _ask_all(
    asker: "Asker", arms: "list[Arm]", questions: "list[Question]", file: "AnswerFile | None", batch: int
) -> "list[Answered]":
    """All rows, arm by arm, those of an earlier run first."""
    rows = [] if file is None else list(file.finished)
    total = len(arms) * len(questions)
    try:
        for arm, indices in _left(arms, len(questions), len(rows), batch, total):
            found = asker.ask(arm, questions, indices)
            rows += found
            if file is not None:
                file.append(found)
    except OSError as error:
        raise BadInput(f"--output: {error.strerror or error}; choose another place") from error
    except KeyboardInterrupt:
        kept = "nothing is kept without --output" if file is None else f"in {file.path}; the same command goes on"
        raise Interrupted(f"interrupted: {len(rows)} of {total} questions are answered, {kept}") from None
    finally:
        if file is not None:
            file.close()
    return rows


def _left(arms: "list[Arm]", questions: int, done: int, batch: int, total: int) -> "Iterator[tuple[Arm, list[int]]]":
    """What is still to be asked, with a progress bar on a terminal."""
    with progress_bars() as bars:
        task = bars.add_task("asking", total=total, completed=done)
        for number, arm in enumerate(arms):
            bars.update(task, description=arm.name)
            first = max(0, done - number * questions)
            size = 1 if arm.dropout else batch  # the masks of dropout are the batch's
            for begin in range(first, questions, size):
                indices = list(range(begin, min(begin + size, questions)))
                yield arm, indices
                bars.advance(task, len(indices))


def _equivalence(nli: str | None, embeddings: str | None) -> "Equivalence":
    from stochroute.uncertainty import mutual_entailment, near_embeddings, same_text

    for option, name, make in (("--nli", nli, mutual_entailment), ("--embeddings", embeddings, near_embeddings)):
        if name is not None:
            try:
                return make(name)
            except (OSError, ValueError) as error:
                raise BadInput(f"{option} {name}: {one_line(error)}") from error
    return same_text


def _detections(
    rows: "list[Answered]", arms: "list[Arm]", questions: "list[Question]", equivalence: "Equivalence", seed: int
) -> dict[str, Any]:
    """For each arm its accuracy and how well each of its scores detects its errors; and what paths gain."""
    try:
        from stochroute.uncertainty.report import report
    except ImportError as error:
        raise missing_packages(error, "eval") from error
    return report(rows, [arm.name for arm in arms], questions, equivalence, seed)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = f"{report['model']}, {report['questions']} questions, {report['paths']} answers each, seed {report['seed']}"
    table = Table("arm", "accuracy", "score", "AUROC", "AURC", "accuracy of the surest half", title=title)
    for name, arm in report["arms"].items():
        accuracy = f"{arm['accuracy']:.3f}"
        if arm["undefined"]:
            table.add_row(name, accuracy, "–", "undefined", "–", "–")
        for score, found in arm["scores"].items():
            half = next(value for coverage, value in found["curve"] if coverage == 0.5)
            table.add_row(name, accuracy, score, *(_interval(v) for v in (found["auroc"], found["aurc"], half)))
            name = accuracy = ""
        table.add_section()
    console.print(table)
    for gained in (found for found in report["gains"] if found["score"] in _SHOWN):
        console.print(
            f"{gained['arm']}, {gained['score']}, against {gained['against']}, {gained['against_score']}: AUROC "
            f"{gained['gain']['value']:+.3f} ({gained['gain']['low']:+.3f} … {gained['gain']['high']:+.3f})",
            highlight=False,
        )
    for name, arm in report["arms"].items():
        if arm["undefined"]:
            typer.echo(f"{name}: {arm['undefined']}", err=True)


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} – {found['high']:.3f})"
