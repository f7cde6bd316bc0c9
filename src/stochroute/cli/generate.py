"""`stochroute generate`: many texts from each prompt, each along its own path.

stochroute generate "Once upon a time" --paths 8 --seed 7
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stochroute.cli import model_options, noise_options, sampling_options
from stochroute.cli.engines import ENGINES, EngineName, EngineOptions, read_engine, temporary_folder
from stochroute.cli.errors import BadInput
from stochroute.cli.prompts import read_prompts
from stochroute.cli.request import DecodingOptions, Noise, Request, parse_replay
from stochroute.cli.rows import RowFile
from stochroute.loading import load_model
from stochroute.paths import draw_seed

if TYPE_CHECKING:
    from stochroute.calibration import Report
    from stochroute.cli.walks import Walks

_TOKENS, _IN_OUT = sampling_options.PANEL, "Input, output"


def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Texts to continue; or see --prompts-file.")
    ] = None,
    paths: Annotated[int | None, typer.Option(help="Texts for each prompt. Default: 8.")] = None,
    seed: Annotated[int | None, typer.Option(help="Derives the path ids. Default: drawn, and reported.")] = None,
    replay: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Walk this path: 16 hex digits. Repeat for more.")
    ] = None,
    model: model_options.Model = None,
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
        int | None, typer.Option(help="Default: 128, for the embedded model a whole story.", rich_help_panel=_TOKENS)
    ] = None,
    temperature: sampling_options.Temperature = None,
    top_k: sampling_options.TopK = None,
    top_p: sampling_options.TopP = None,
    min_p: sampling_options.MinP = None,
    spread: sampling_options.Spread = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put each prompt into the chat template.", rich_help_panel=_TOKENS)
    ] = False,
    prompts_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='A prompt a line, JSON lines with "prompt", or *.parquet; - or a pipe: standard input.',
            rich_help_panel=_IN_OUT,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.", rich_help_panel=_IN_OUT)] = False,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write JSON lines here instead, with or without --json.", rich_help_panel=_IN_OUT
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted --output.", rich_help_panel=_IN_OUT)
    ] = False,
    check_replay: Annotated[
        bool, typer.Option("--check-replay", help="Walk one path again, alone, and compare.", rich_help_panel=_IN_OUT)
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(help="Rows computed at once, at most. Default: 32, or the engine's.", rich_help_panel=_IN_OUT),
    ] = None,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
    engine: EngineName = "transformers",
    engine_option: EngineOptions = None,
) -> None:
    """Continue each prompt along several paths and show the texts side by side.

    A path is the noise inside the model, named by one id; the id walks it again. Without a prompt and a model, the
    embedded story model tells stories of its own.
    """
    request = Request(
        prompts=read_prompts(prompts or [], prompts_file),
        paths=8 if paths is None and not replay else paths,
        replay=parse_replay(replay or []),
        seed=seed,
        model=model,
        routing=routing,
        noise=Noise(strength, layers, hold, form, span, attention_strength, expert_strength, budget),
        decoding=DecodingOptions(max_new_tokens, temperature, top_k, top_p, min_p, spread),
        chat=chat,
        json=json,
        output=output,
        resume=resume,
        check_replay=check_replay,
        batch=batch,
        device=device,
        dtype=dtype,
        engine=read_engine(engine, engine_option or [], ENGINES),
    )
    _run(request)


def _run(request: Request) -> None:
    file = None if request.output is None else RowFile(Path(request.output), request.resume)
    prompts = request.prompts
    if not prompts:
        from stochroute.embedded import DEFAULT_PROMPTS

        prompts = [DEFAULT_PROMPTS[0]]
    seed = _seed(request, file)
    native = request.engine.name == "transformers"
    loaded = load_model(request.model, request.device if native else "cpu", request.dtype)

    # imported only now, since these bring in torch, transformers and rich
    from stochroute.cli.engine_walks import EngineWalks
    from stochroute.cli.walks import Walks

    if native:
        _deliver(request, file, Walks(request, prompts, seed, loaded))
        return
    with temporary_folder() as folder:
        walks = EngineWalks(request, prompts, seed, loaded, Path(folder))
        del loaded  # the engine has its own
        _deliver(request, file, walks)


def _deliver(request: Request, file: RowFile | None, walks: "Walks") -> None:
    from stochroute.cli import deliver

    if walks.seed != request.seed and (request.json or file is not None):
        typer.echo(f"seed {walks.seed}", err=True)
    if walks.report is not None:
        typer.echo(_strengths(walks.report), err=True)
    if file is not None:
        last = deliver.to_file(walks, file, request.rows_at_once)
    elif request.json:
        last = deliver.to_standard_output(walks, request.rows_at_once)
    else:
        last = deliver.to_screen(walks, request.rows_at_once)
    if request.check_replay:
        deliver.check_replay(walks, last, beside_rows=request.json)


def _strengths(report: "Report") -> str:
    """What the calibration found, as options that give the same without it."""
    names = {"structural": "--strength", "attention": "--attention-strength", "experts": "--expert-strength"}
    options = " ".join(f"{names[kind]} {found}" for kind, found in report.strengths().items())
    return f"{options}: calibrated to {report.nats:.3g} nats a noised position on neutral passages"


def _seed(request: Request, file: RowFile | None) -> int | None:
    """The seed given, or that of the file to go on with, or a new one; None when path ids were given."""
    if request.seed is not None or request.replay:
        return request.seed
    if file is not None and file.finished:
        if file.finished[0].seed is None:
            raise BadInput(f"--output {file.path}: was written with --replay; give the same ids again")
        return file.finished[0].seed
    return draw_seed() >> 11  # 53 bits: the most that every reader of JSON numbers keeps exact
