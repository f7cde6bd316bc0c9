"""`stochroute robustness`: attacked prompts, and what a vote over paths makes of them.

stochroute robustness --set questions.jsonl --model NAME --perturbations typos,drops --rates 0.1,0.3 --seed 7
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochroute.cli import model_options, noise_options
from stochroute.cli.errors import BadInput, Interrupted
from stochroute.cli.progress import progress_bar
from stochroute.cli.request import Noise, check_routing
from stochroute.loading import load_model

if TYPE_CHECKING:
    from stochroute.config import RoutingConfig
    from stochroute.robustness import Answers, Item, Plan, Sample, Tables

_ATTACK, _NOISE, _IN_OUT = "Attack", noise_options.PANEL, "Input, output"
_STRENGTHS = "0.1"


def robustness(
    sets: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="FILE", help="Labelled prompts, JSON lines: prompt, choices, answer. Repeatable."
        ),
    ],
    model: model_options.Model = None,
    paths: Annotated[int, typer.Option(help="Runs behind each vote, over paths and over perturbed copies alike.")] = 8,
    seed: Annotated[int, typer.Option(help="Derives attacks, paths, copies, and which prompts choose.")] = 0,
    perturbations: Annotated[
        str,
        typer.Option(
            help="typos, swaps, deletions, homoglyphs, synonyms, contractions, names, morphonyms, drops, characters.",
            rich_help_panel=_ATTACK,
        ),
    ] = "typos,swaps,homoglyphs,synonyms,drops",
    rates: Annotated[
        str, typer.Option(help="Shares of words or letters that an attack changes.", rich_help_panel=_ATTACK)
    ] = "0.1,0.3",
    tries: Annotated[
        int,
        typer.Option(
            help="Attacks tried on a prompt; the worst for the original model is kept.", rich_help_panel=_ATTACK
        ),
    ] = 1,
    tables: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Synonyms, names, … in TextAttack's format.", rich_help_panel=_ATTACK),
    ] = None,
    smoothing: Annotated[
        str, typer.Option(help="Perturbation of the copies that SmoothLLM's form votes over.", rich_help_panel=_ATTACK)
    ] = "characters",
    smoothing_rates: Annotated[
        str, typer.Option(help="Its rate, or several to choose from.", rich_help_panel=_ATTACK)
    ] = "0.1",
    validation: Annotated[
        float, typer.Option(help="Share of the prompts that choose, where there is a choice.", rich_help_panel=_ATTACK)
    ] = 0.3,
    routing: noise_options.RoutingFolder = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            help=f"Size of the noise, or as many to choose from as rates of smoothing. Default: {_STRENGTHS}.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: Annotated[
        str | None,
        typer.Option(help="generated, or all: noise while the prompt is read as well.", rich_help_panel=_NOISE),
    ] = None,
    attention_strength: noise_options.AttentionStrength = None,
    expert_strength: noise_options.ExpertStrength = None,
    max_new_tokens: Annotated[int, typer.Option(help="Of an answer that is written.", rich_help_panel=_IN_OUT)] = 32,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put each prompt into the chat template.", rich_help_panel=_IN_OUT)
    ] = False,
    refusal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="What a refusal says, in place of the list known. Repeatable.", rich_help_panel=_IN_OUT
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.", rich_help_panel=_IN_OUT)] = False,
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep every sample here, as JSON lines.", rich_help_panel=_IN_OUT)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted --output.", rich_help_panel=_IN_OUT)
    ] = False,
    batch: Annotated[int, typer.Option(help="Rows computed at once, at most.", rich_help_panel=_IN_OUT)] = 16,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Accuracy under attack: one clean run, one path, a vote over paths, a vote over perturbed copies of the prompt.

    Example: stochroute robustness --set questions.jsonl --model NAME --strengths 0.05,0.2 --smoothing-rates 0.02,0.1
    """
    if find_spec("scipy") is None:
        raise BadInput("robustness needs scipy for its intervals: pip install 'stochroute[eval]'")
    if batch < 1 or max_new_tokens < 1:
        raise BadInput(f"--batch {batch}, --max-new-tokens {max_new_tokens}: give at least 1")
    if resume and output is None:
        raise BadInput("--resume has no effect without --output: name the file of the interrupted run")
    if any(not text.strip() for text in refusal or []):
        raise BadInput("--refusal: is empty and would stand in every text; write what a refusal says")
    noise = Noise(None, layers, hold, form, span, attention_strength, expert_strength)
    routings = _routings(noise, strengths, routing)

    from stochroute.robustness import Answers, Plan, Tables, read_items, read_tables
    from stochroute.robustness.answers import REFUSALS
    from stochroute.robustness.runs import split

    plan = Plan(
        perturbations=tuple(_parts(perturbations)),
        rates=_numbers("--rates", rates),
        paths=paths,
        seed=seed,
        tries=tries,
        smoothing=smoothing,
        smoothing_rates=_numbers("--smoothing-rates", smoothing_rates),
        validation=validation,
    )
    items = read_items(*sets)
    split(plan, items, len(routings))
    found = Tables() if tables is None else read_tables(tables)
    loaded = load_model(model, device, dtype)
    answers = Answers(
        loaded.model,
        loaded.tokenizer,
        routings,
        rows_at_once=batch,
        max_new_tokens=max_new_tokens,
        refusals=REFUSALS if not refusal else [text.lower() for text in refusal],
        chat=chat,
    )
    report = _run(plan, items, answers, found, output, resume)
    print(json.dumps(report)) if as_json else _show(report)


def _run(
    plan: "Plan", items: "Sequence[Item]", answers: "Answers", tables: "Tables", output: str | None, resume: bool
) -> dict[str, Any]:
    from stochroute.resumable import ResumableFile
    from stochroute.robustness import Sample, report, run
    from stochroute.robustness.runs import check_plan, identity, number_of_samples

    check_plan(plan, items, answers, tables)
    total = number_of_samples(plan, items, len(answers.routings))
    results = ResumableFile(output, identity(plan, items, answers, tables), resume, Sample.from_json)
    samples = [Sample.from_json(sample) for sample in results.entries]
    try:
        with progress_bar("prompts") as progress:
            progress(len(samples), total)

            def keep(sample: "Sample") -> None:
                results.add(asdict(sample))
                progress(len(results.entries), total)

            chosen = run(plan, items, answers, tables, samples, keep)
    except KeyboardInterrupt:
        there = f"are in {output}; the same command with --resume goes on" if output else "were made and are lost"
        raise Interrupted(f"interrupted: {len(results.entries)} of {total} samples {there}") from None
    finally:
        results.close()
        answers.close()
    return report(plan, items, samples, chosen)


def _routings(noise: Noise, strengths: str | None, routing: str | None) -> "dict[str, RoutingConfig | str]":
    """Name -> what to route by: a config for each strength, or the folder given."""
    if routing is None:
        names = _parts(strengths or _STRENGTHS)
        if len(set(names)) != len(names):
            raise BadInput(f"--strengths {strengths}: names one twice")
        _numbers("--strengths", strengths or _STRENGTHS)
        return {name: _with_strength(noise, name) for name in names}
    if strengths is not None:
        raise BadInput(f"--strengths has no effect beside --routing {routing}: leave one of them out")
    check_routing(routing, noise)
    return {routing: routing}


def _with_strength(noise: Noise, strength: str) -> "RoutingConfig":
    return replace(noise, strength=strength).config()


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _parts(text))
    except ValueError as error:
        raise BadInput(f"{option} {text}: no numbers; write 0.1, or several: 0.1,0.3") from error


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    copies = report["smoothing"]
    title = (
        f"{report['prompts']} prompts, {report['runs_a_prompt']['vote']} runs a vote; noise: {report['strength']}; "
        f"copies: {copies['kind']} {copies['rate']}"
    )
    entries = [*report["conditions"], *([report["attacked"]] if report["attacked"] else [])]
    if any(entry["accuracy"] for entry in entries):
        table = Table("attack", "clean", "one path", "vote", "smoothed", "vote − clean", "vote − smoothed", title=title)
        for entry in entries:
            cells = [_interval(value) for value in entry["accuracy"].values()]
            gains = [_interval(entry["gain"][name]) for name in ("vote - clean", "vote - smoothed")]
            table.add_row(_attack(entry), *cells, *gains)
        console.print(table)
    for group, name in (("to_decline", "to be declined"), ("to_answer", "to be answered")):
        rows = [entry for entry in entries if group in entry.get("refused", {})]
        if rows:
            table = Table("attack", "clean", "one path", "vote", "smoothed", title=f"Refused, of prompts {name}")
            for entry in rows:
                table.add_row(_attack(entry), *(_interval(value) for value in entry["refused"][group].values()))
            console.print(table)


def _attack(entry: dict[str, Any]) -> str:
    if entry["kind"] is None:
        return "none"
    return "all attacks" if entry["rate"] is None else f"{entry['kind']} {entry['rate']:g}"


def _interval(found: dict[str, float]) -> str:
    return f"{found['mean']:.2f} ({found['low']:.2f} – {found['high']:.2f})"
