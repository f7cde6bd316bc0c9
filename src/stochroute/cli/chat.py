"""`stochroute chat`: a conversation in which every turn offers several replies, each along its own path.

stochroute chat --paths 4 --seed 7
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stochroute.cli import model_options, noise_options, sampling_options
from stochroute.cli.errors import BadInput, Failed, Interrupted
from stochroute.cli.prompts import is_piped
from stochroute.cli.request import DecodingOptions, Noise, check_routing
from stochroute.loading import load_model
from stochroute.paths import check_seed, draw_seed

if TYPE_CHECKING:
    from stochroute.applications.chat import Conversation, Frame, Speaker, Transcript
    from stochroute.loading import LoadedModel

_TALK, _TOKENS, _IN_OUT = "The conversation", sampling_options.PANEL, "Input, output"


def chat(
    paths: Annotated[int, typer.Option(help="Replies that each turn offers.", rich_help_panel=_TALK)] = 4,
    seed: Annotated[
        int | None,
        typer.Option(help="Derives the path ids. Default: drawn, and kept in the transcript.", rich_help_panel=_TALK),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="System message, for a model with a chat template.", rich_help_panel=_TALK)
    ] = None,
    script: Annotated[
        bool, typer.Option("--script", help="Named lines, although there is a chat template.", rich_help_panel=_TALK)
    ] = False,
    scene: Annotated[
        str | None, typer.Option(help="What stands before the first line of a script.", rich_help_panel=_TALK)
    ] = None,
    you: Annotated[str | None, typer.Option(help="Your name in a script.", rich_help_panel=_TALK)] = None,
    other: Annotated[
        str | None, typer.Option(help="The name that the model speaks for.", rich_help_panel=_TALK)
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="en or zh: of the embedded model's scene. Default: en.", rich_help_panel=_TALK)
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
        int | None, typer.Option(help="Of a reply. Default: 128, or half the context.", rich_help_panel=_TOKENS)
    ] = None,
    temperature: sampling_options.Temperature = None,
    top_k: sampling_options.TopK = None,
    top_p: sampling_options.TopP = None,
    min_p: sampling_options.MinP = None,
    spread: sampling_options.Spread = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The transcript, written after every turn.", rich_help_panel=_IN_OUT),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the conversation in --output.", rich_help_panel=_IN_OUT)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin --output anew, though it exists.", rich_help_panel=_IN_OUT)
    ] = False,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Walk every path of this transcript again; exit code 1 where anything differs.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Lines from standard input, JSON lines out; so it is in a pipe.", rich_help_panel=_IN_OUT
        ),
    ] = False,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Talk with a model that offers several replies a turn, each along its own path; choose one by its number.

    The embedded model plays two friends of the story world; /suggest says what you could say, /help the rest.
    A model with a chat template talks by it; any other continues a script of named lines.

    Example: stochroute chat --paths 4 --seed 7 --output talk.json

    In a pipe: echo "I want to see the old lighthouse." | stochroute chat --seed 7
    """
    noise = Noise(strength, layers, hold, form, span, attention_strength, expert_strength, budget)
    check_routing(routing, noise)
    talk = {
        "--seed": seed, "--system": system, "--script": script or None, "--scene": scene, "--you": you,
        "--other": other, "--language": language,
    }  # fmt: skip
    sampling = {
        "--max-new-tokens": max_new_tokens, "--temperature": temperature, "--top-k": top_k, "--top-p": top_p,
        "--min-p": min_p, "--spread": spread or None,
    }  # fmt: skip
    if replay is not None:
        _refuse("--replay", {**talk, **sampling, "--output": output, "--resume": resume or None,
                             "--overwrite": overwrite or None})  # fmt: skip
        _replay(Path(replay), model, routing, noise, json, device, dtype)
        return
    if seed is not None:
        try:
            check_seed(seed)
        except ValueError as error:
            raise BadInput(f"--{error}") from error
    if not 1 <= paths <= 64:
        raise BadInput(f"--paths {paths}: offer 1 to 64 replies a turn")
    file = _output_file(output, resume, overwrite)
    through_pipe = _through_pipe(json)
    if resume and file is not None:
        _refuse("--resume", {**talk, **sampling, **dict.fromkeys(noise.given(), True), "--routing": routing})
        transcript = _read(file, "--output")
        loaded = load_model(model or transcript.model, device, dtype)
        conversation = _resumed(transcript, loaded, paths)
    else:
        decoding = DecodingOptions(max_new_tokens, temperature, top_k, top_p, min_p, spread)
        _check_frame(system, script, scene, you, other, language, model)
        loaded = load_model(model, device, dtype)
        seed = draw_seed() >> 11 if seed is None else seed  # 53 bits, which every reader of JSON numbers keeps exact
        frame = _frame(loaded, seed, system, script, scene, you, other, language)
        speaker = _speaker(loaded, routing, noise, decoding)
        from stochroute.applications.chat import Conversation
        from stochroute.cli.routings import routing_of

        saved = routing_of(loaded, routing, noise)
        conversation = Conversation(speaker, frame, seed, paths, routing_folder=saved)
    _talk(conversation, file, through_pipe)


def _talk(conversation: "Conversation", file: Path | None, through_pipe: bool) -> None:
    from rich.console import Console

    from stochroute.applications.chat import Script
    from stochroute.applications.chat.session import Session

    session = Session(conversation, file)
    if through_pipe:
        from stochroute.applications.chat.pipe import run

        try:
            answered = run(session, sys.stdin.buffer)
        except KeyboardInterrupt:
            kept = "" if file is None else f"; {file} holds them"
            raise Interrupted(f"interrupted after {len(conversation.turns)} turns{kept}") from None
        if not answered:
            raise BadInput("standard input holds no message; write one a line")
        return
    from stochroute.applications.chat.terminal import Terminal, printable

    console = Console()
    terminal = Terminal(console, session)
    session.watch = terminal.watch
    frame = conversation.frame
    console.print(f"seed {conversation.seed}. /help shows the commands, Ctrl-D leaves.", style="dim", highlight=False)
    if isinstance(frame, Script):
        console.print(printable(frame.scene), markup=False, highlight=False)
        console.print(f"You are {frame.you}; the model speaks for {frame.other}.", style="dim", markup=False)
    for message, reply in conversation.exchanges:
        console.print(printable(f"› {message}\n  {reply}"), style="dim", markup=False, highlight=False)
    terminal.run()


def _replay(
    file: Path, model: str | None, routing: str | None, noise: Noise, as_json: bool, device: str, dtype: str
) -> None:
    import json
    from dataclasses import asdict

    transcript = _read(file, "--replay")
    if not transcript.turns:
        raise BadInput(f"--replay {file}: holds no turn")
    loaded = load_model(model or transcript.model, device, dtype)
    from rich.console import Console

    from stochroute.applications.chat import Speaker, replay
    from stochroute.applications.chat.routing import attach
    from stochroute.applications.chat.session import report_of
    from stochroute.cli.routings import calibrated_model

    own = routing is None and not noise.given()
    try:
        routed = attach(loaded, transcript) if own else calibrated_model(loaded, routing, noise)[0]
        speaker = Speaker(loaded, routed, transcript.decoding, transcript.new_tokens)
        with Console(stderr=True).status("replaying") as status:
            total = len(transcript.turns)
            found = replay(
                transcript, speaker, own, on_turn=lambda done: status.update(f"replaying: turn {done} of {total}")
            )
    except (ValueError, OSError) as error:
        raise BadInput(f"--replay {file}: {error}") from error
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the transcript is as it was") from None
    if as_json:
        typer.echo(json.dumps({"identical": found.identical, **asdict(found)}, ensure_ascii=False))
    elif found.identical:
        typer.echo(report_of(found))
    if not found.identical:
        raise Failed(f"{file}: {report_of(found)}")


def _read(file: Path, option: str) -> "Transcript":
    from stochroute.applications.chat import read_transcript

    try:
        return read_transcript(file)
    except OSError as error:
        raise BadInput(f"{option} {file}: {error.strerror or error}; name a transcript of stochroute chat") from error
    except ValueError as error:
        raise BadInput(f"{option} {error}") from error


def _resumed(transcript: "Transcript", loaded: "LoadedModel", paths: int) -> "Conversation":
    from stochroute.applications.chat.routing import attach, other_model, resume

    different = other_model(transcript, loaded)
    if different is not None:
        raise BadInput(f"--resume: {different}; go on with the model that it was held with")
    return resume(transcript, loaded, attach(loaded, transcript), paths)


def _speaker(loaded: "LoadedModel", routing: str | None, noise: Noise, decoding: DecodingOptions) -> "Speaker":
    from stochroute.applications.chat import Speaker
    from stochroute.cli.routings import calibrated_model

    asked, context = decoding.max_new_tokens, loaded.context
    if asked is not None and context is not None and asked >= context:
        raise BadInput(f"--max-new-tokens {asked}: {loaded.name} holds {context} with what stands before; ask for less")
    routed, report = calibrated_model(loaded, routing, noise)
    if report is not None:
        typer.echo(f"calibrated to {report.nats:.3g} nats a noised position on neutral passages", err=True)
    return Speaker(loaded, routed, decoding.choice, asked)


def _check_frame(
    system: str | None,
    script: bool,
    scene: str | None,
    you: str | None,
    other: str | None,
    language: str | None,
    model: str | None,
) -> None:
    """BadInput for options of the frame that cannot go together, as far as that is known without the model."""
    named = next((n for n, v in (("--scene", scene), ("--you", you), ("--other", other)) if v is not None), None)
    if system is not None and (script or named or model is None):
        beside = named or ("--script" if script else "the embedded model, which has no chat template")
        raise BadInput(f"--system has no effect beside {beside}: leave one of them out")
    if language is not None and (model is not None or named):
        beside = named or f"--model {model}"
        raise BadInput(f"--language {language} has no effect beside {beside}: it draws the embedded model's scene")
    if language not in (None, "en", "zh"):
        raise BadInput(f"--language {language}: choose one of en, zh")


def _frame(
    loaded: "LoadedModel",
    seed: int,
    system: str | None,
    script: bool,
    scene: str | None,
    you: str | None,
    other: str | None,
    language: str | None,
) -> "Frame":
    from stochroute.applications.chat import Script, Template, draw_scene

    named = any(value is not None for value in (scene, you, other))
    if loaded.tokenizer.chat_template and not script:
        if named:
            raise BadInput(f"--scene, --you and --other have no effect beside the chat template of {loaded.name}: "
                           "add --script")  # fmt: skip
        return Template(system)
    if system is not None:
        raise BadInput(f"--system: the tokenizer of {loaded.name} has no chat template; use --scene")
    if loaded.embedded and not named:
        return draw_scene(seed, language or "en")
    plain = Script()
    try:
        return Script(you or plain.you, other or plain.other, plain.scene if scene is None else scene)
    except ValueError as error:
        raise BadInput(f"--you, --other: {error}") from error


def _output_file(output: str | None, resume: bool, overwrite: bool) -> Path | None:
    """The transcript's file, checked."""
    if output is None:
        if resume or overwrite:
            raise BadInput(f"--{'resume' if resume else 'overwrite'} has no effect without --output: name the file")
        return None
    file = Path(output)
    if resume and overwrite:
        raise BadInput("--resume has no effect beside --overwrite: leave one of them out")
    if file.is_dir() or not file.parent.is_dir():
        raise BadInput(f"--output {output}: name a file in a folder that exists")
    if not os.access(file.parent, os.W_OK):
        raise BadInput(f"--output {output}: its folder is not writable; choose another place")
    if resume and not file.exists():
        raise BadInput(f"--output {output}: there is no such transcript to go on with; leave --resume out")
    if file.exists() and not resume and not overwrite:
        raise BadInput(f"--output {output}: exists; go on with it by --resume, or begin it anew by --overwrite")
    return file


def _through_pipe(json: bool) -> bool:
    """Whether lines come without a person at a terminal."""
    if json or is_piped():
        return True
    if not (sys.stdin and sys.stdin.isatty()):
        raise BadInput("standard input is neither a terminal nor a pipe; write messages into a pipe, one a line")
    if not sys.stdout.isatty():
        raise BadInput(
            "standard output is no terminal, so that no reply could be chosen; "
            "add --json, or pipe the messages in, one a line"
        )
    return False


def _refuse(beside: str, options: dict[str, object | None]) -> None:
    for name, value in options.items():
        if value is not None:
            raise BadInput(f"{name} has no effect beside {beside}: leave one of them out")
