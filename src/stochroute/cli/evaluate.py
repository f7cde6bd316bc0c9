"""`stochroute evaluate`: quality against diversity, paths against every tuned sampler, one report.

stochroute evaluate --output runs/stories
"""

import json as json_format
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from stochroute.cli import model_options
from stochroute.cli.errors import BadInput, Failed, Interrupted
from stochroute.cli.progress import progress_bars
from stochroute.errors import one_line
from stochroute.loading import LoadedModel, load_model
from stochroute.paths import check_seed

if TYPE_CHECKING:
    from rich.progress import Progress

    from stochroute.evaluation.arms import Arm
    from stochroute.evaluation.checkers import Checker
    from stochroute.evaluation.evaluate import Judges
    from stochroute.evaluation.inputs import Inputs

_CHECKERS = ("story-world", "answers")
_PACKAGES = ("plotly", "sacrebleu", "scipy", "sklearn", "vendi_score", "wordllama")
_TEXTS, _ARMS, _JUDGES = "What is continued", "What is compared", "Who judges"


def evaluate(
    output: Annotated[str, typer.Option(metavar="FOLDER", help="Where the run and its report go.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Texts to continue; or see --texts.")
    ] = None,
    model: model_options.Model = None,
    prompts_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='A prompt a line, or JSON lines with "prompt" (and "reference", "answer").',
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Whole texts, <|endoftext|> between them: their beginnings are the prompts, the rest references.",
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    prompt_words: Annotated[int, typer.Option(help="Words of each text in --texts.", rich_help_panel=_TEXTS)] = 12,
    prompt_count: Annotated[int, typer.Option(help="Prompts, at most.", rich_help_panel=_TEXTS)] = 16,
    samples: Annotated[int, typer.Option(help="Texts of each prompt and setting.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of a text, at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Of all paths, masks and resamples.")] = 0,
    arms: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Only these arms, such as: temperature,shared.", rich_help_panel=_ARMS),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="NATS,…",
            help="Five, of every path arm. Default: 0.02,0.05,0.1,0.2,0.4.",
            rich_help_panel=_ARMS,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Language model that did not write the texts.",
            rich_help_panel=_JUDGES,
        ),
    ] = None,
    checker: Annotated[
        str | None,
        typer.Option(
            help=f"{' or '.join(_CHECKERS)}. Default: the story world's for the embedded model.",
            rich_help_panel=_JUDGES,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Reward model, one output.",
            rich_help_panel=_JUDGES,
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Encoder for meaning. Default: WordLlama's, no download.",
            rich_help_panel=_JUDGES,
        ),
    ] = None,
    nli: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Groups by entailment instead.",
            rich_help_panel=_JUDGES,
        ),
    ] = None,
    same_above: Annotated[
        float, typer.Option(help="Cosine from which texts mean the same.", rich_help_panel=_JUDGES)
    ] = 0.8,
    mauve: Annotated[
        bool, typer.Option("--mauve", help="Measure MAUVE against the references too.", rich_help_panel=_JUDGES)
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
    batch: Annotated[int, typer.Option(help="Rows computed at once.")] = 256,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Paths against every tuned sampler: which gives the more diverse texts at equal quality?

    Example: stochroute evaluate --model ./my-model --judge ./another --texts stories.txt --output runs/stories

    Every arm (samplers, each kind of noise at equal budgets, both together, beam searches, dropout) writes the same
    number of texts at the same number of settings. Without a model, the embedded one tells stories for a checker.
    """
    _check_numbers(samples, max_new_tokens, prompt_words, prompt_count, batch, seed, same_above)
    if checker is not None and checker not in _CHECKERS:
        raise BadInput(f"--checker {checker}: choose {' or '.join(_CHECKERS)}")
    _check_packages(mauve)
    inputs = _inputs(prompts or [], prompts_file, texts, prompt_words, prompt_count, model)
    chosen = checker or ("story-world" if model is None else None)
    if judge is None and chosen is None:
        raise BadInput(
            "--judge is missing: diversity is never reported without quality; name a language model that did "
            "not write the texts, or a --checker"
        )
    if mauve and (judge is None or not inputs.corpus):
        raise BadInput("--mauve compares with references on the judge's hidden states: give --judge and --texts")
    loaded = load_model(model, device, dtype)

    # these bring in torch, transformers and rich
    from stochroute.evaluation.evaluate import Evaluation
    from stochroute.evaluation.evaluate import evaluate as run_evaluation
    from stochroute.evaluation.run import REPORT_FILE, Run

    judges = _judges(loaded, inputs, judge, chosen, reward, embedder, nli, same_above, mauve, device)
    evaluation = Evaluation(
        loaded, inputs, _arms(loaded, samples, arms, budgets), samples, max_new_tokens, seed, batch, judges
    )
    try:
        run = Run(Path(output), evaluation.plan(), resume)
    except OSError as error:
        raise BadInput(f"--output {output}: {error.strerror or error}; choose another place") from error
    try:
        with progress_bars() as bars:
            result = run_evaluation(evaluation, run, _command(), _Stages(bars))
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: what was done is in {output}; the same command with --resume goes on"
        ) from None
    if json:
        typer.echo(json_format.dumps(result, ensure_ascii=False))
    else:
        _show(result, Path(output) / REPORT_FILE)
    if not result["coherent_texts"]:
        raise Failed(
            f"not one text of any arm is coherent, so there is nothing to compare; all of them are in {output}: "
            f"look at them, and give a model that writes what the judge or checker reads"
        )


@dataclass(frozen=True)
class _Stages:
    """A progress bar for each stage; see `stochroute.evaluation.evaluate.Progress`."""

    bars: "Progress"

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        task = self.bars.add_task(name, total=total)
        return lambda steps: self.bars.advance(task, steps)


def _check_numbers(
    samples: int, new_tokens: int, prompt_words: int, prompt_count: int, batch: int, seed: int, same_above: float
) -> None:
    if samples < 2:
        raise BadInput(f"--samples {samples}: nothing is diverse alone; ask for at least 2, better 16")
    counts = {
        "--max-new-tokens": new_tokens,
        "--prompt-words": prompt_words,
        "--prompt-count": prompt_count,
        "--batch": batch,
    }
    for option, value in counts.items():
        if value < 1:
            raise BadInput(f"{option} {value}: must be at least 1")
    if not 0 < same_above <= 1:
        raise BadInput(f"--same-above {same_above}: must be in (0, 1], a cosine")
    try:
        check_seed(seed)
    except ValueError as error:
        raise BadInput(f"--{error}") from error


def _check_packages(mauve: bool) -> None:
    """BadInput naming the extra for a package that is missing, before anything is computed."""
    for package, extra in [(name, "eval") for name in _PACKAGES] + [("mauve", "mauve")] * mauve:
        try:
            if package == "wordllama":  # its import is for the embedder, which keeps it from setting up logging
                from importlib.util import find_spec

                if find_spec(package) is None:
                    raise ImportError(f"No module named {package!r}")
            else:
                import_module(package)
        except ImportError as error:
            raise BadInput(
                f"evaluation needs more packages ({one_line(error)}): pip install 'stochroute[{extra}]'"
            ) from error


def _inputs(
    prompts: list[str], prompts_file: str | None, texts: str | None, words: int, count: int, model: str | None
) -> "Inputs":
    from stochroute.evaluation.inputs import Inputs, read_prompt_file, read_texts, story_inputs

    given = [
        name for name, value in (("PROMPT", prompts), ("--prompts-file", prompts_file), ("--texts", texts)) if value
    ]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)} name prompts: give one of them")
    if prompts:
        return Inputs(tuple(prompts)).first(count)
    file = prompts_file or texts
    if file is None:
        if model is not None:
            raise BadInput(f"--model {model}: there is no prompt; name --texts or a --prompts-file, or write one")
        return story_inputs(count)
    try:
        return read_prompt_file(Path(file)).first(count) if prompts_file else read_texts(Path(file), words, count)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{given[0]} {file}: {getattr(error, 'strerror', None) or error}; name a readable UTF-8 file"
        ) from error


def _arms(loaded: LoadedModel, samples: int, names: str | None, budgets: str | None) -> "list[Arm]":
    from stochroute.evaluation.arms import BUDGETS, all_arms
    from stochroute.routing.sites import find_layers, find_routers

    try:
        find_routers(find_layers(loaded.model), loaded.model.config.model_type)
        experts = True
    except ValueError:
        experts = False
    try:
        numbers = BUDGETS if budgets is None else tuple(float(part) for part in budgets.split(","))
        known = all_arms(samples, numbers, experts)
    except ValueError as error:
        raise BadInput(f"--budgets {budgets}: {one_line(error)}") from error
    if names is None:
        return known
    wanted = [name.strip() for name in names.split(",")]
    strange = [name for name in wanted if name not in {arm.name for arm in known}]
    if strange:
        raise BadInput(f"--arms {names}: {strange[0]!r} is unknown; choose from {', '.join(arm.name for arm in known)}")
    return [arm for arm in known if arm.name in wanted]


def _judges(
    loaded: LoadedModel,
    inputs: "Inputs",
    judge: str | None,
    checker: str | None,
    reward: str | None,
    embedder: str | None,
    nli: str | None,
    same_above: float,
    mauve: bool,
    device: str,
) -> "Judges":
    from stochroute.evaluation.embedding import EncoderEmbedder, Entailment, WordLlamaEmbedder
    from stochroute.evaluation.evaluate import Judges
    from stochroute.evaluation.judging import Judge, Reward

    try:
        judging = None if judge is None else Judge(load_model(judge, device, "auto"), loaded.model)
    except ValueError as error:
        raise BadInput(f"--judge {judge}: {one_line(error)}") from error
    entailment = None if nli is None else Entailment(nli, *_classifier("--nli", nli))
    return Judges(
        judging,
        _checker(checker, inputs),
        None if reward is None else Reward(reward, *_classifier("--reward", reward)),
        WordLlamaEmbedder() if embedder is None else EncoderEmbedder(embedder, *_encoder(embedder)),
        same_above,
        entailment,
        mauve,
    )


def _checker(name: str | None, inputs: "Inputs") -> "Checker | None":
    from stochroute.evaluation.checkers import Answers, StoryWorld

    if name is None:
        return None
    if name == "story-world":
        return StoryWorld()
    if inputs.answers is None:
        raise BadInput(
            '--checker answers: the prompts have no answers; write {"prompt": …, "answer": …} lines into the '
            "--prompts-file"
        )
    return Answers(inputs.answers)


def _classifier(option: str, name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification

    return _from_pretrained(option, name, AutoModelForSequenceClassification)


def _encoder(name: str) -> tuple[Any, Any]:
    from transformers import AutoModel

    return _from_pretrained("--embedder", name, AutoModel)


def _from_pretrained(option: str, name: str, kind: Any) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    try:
        return kind.from_pretrained(name), cast(Any, AutoTokenizer).from_pretrained(name)
    # whatever is raised here is about the files that the user named
    except Exception as error:
        raise BadInput(f"{option} {name}: {one_line(error)}; name a transformers model of this kind") from error


def _command() -> str:
    return shlex.join(["stochroute", *(part for part in sys.argv[1:] if part != "--resume")])


def _show(result: dict[str, Any], report: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    quality, diversity = result["headline"]["quality"], result["headline"]["diversity"]
    labels = {m["name"]: m["label"] for m in result["measures"]}
    table = Table("arm", "setting", labels[quality], labels[diversity], "coherent")
    for entry in result["settings"]:
        cells = [entry["measured"][name] for name in (quality, diversity, "coherent")]
        table.add_row(entry["arm"], entry["label"], *(_cell(cell) for cell in cells))
    console = Console()
    console.print(table)
    console.print(result["verdict"], highlight=False)
    console.print(f"The report: {report}", highlight=False, soft_wrap=True)


def _cell(interval: dict[str, float | None] | None) -> str:
    if interval is None or interval["value"] is None:
        return "–"
    if interval["low"] is None or interval["high"] is None:
        return f"{interval['value']:.3g}"
    return f"{interval['value']:.3g} ({interval['low']:.3g} – {interval['high']:.3g})"
