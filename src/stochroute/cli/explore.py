"""`stochroute explore`: the space of answers to one prompt, and how much of it has been seen.

stochroute explore "Once upon a time" --seed 7 --map map.html
"""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochroute.cli import model_options, noise_options, sampling_options
from stochroute.cli.errors import BadInput, Interrupted, missing_packages
from stochroute.cli.request import DecodingOptions, ModelRequest, Noise, check_routing
from stochroute.loading import load_model
from stochroute.paths import draw_seed

if TYPE_CHECKING:
    from rich.console import Console

    from stochroute.applications.explore import Cluster, Exploration, Explored, Interval, Reader
    from stochroute.applications.explore.tree import Node
    from stochroute.evaluation.embedding import Embedder

_ANSWERS, _FORK, _TOKENS, _IN_OUT = "Answers", "Fork", sampling_options.PANEL, "Input, output"
_SAME = ("text", "meaning", "plot")
_NEW_TOKENS, _STORY_TOKENS = 64, 200
_SHOWN_TEXT = 220  # characters of a text in the terminal
_SHOWN_PROMPT = 80  # a longer prompt is not repeated before each
_SHOWN_WORDS = 36  # characters of a branch of the tree there
_SHOWN_DEPTH, _SHOWN_WAYS = 3, 6  # of the tree in the terminal; the map has all


def explore(
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="Default: the embedded model's own beginning.")
    ] = None,
    until: Annotated[float, typer.Option(help="Coverage to reach, by the lower end of its interval.")] = 0.95,
    most: Annotated[int, typer.Option(help="Paths at most.")] = 512,
    seed: Annotated[int | None, typer.Option(help="Derives the path ids. Default: drawn, and reported.")] = None,
    model: model_options.Model = None,
    same: Annotated[
        str | None,
        typer.Option(
            help="Which texts are one answer, by: text, meaning, or plot (the story world's checker). "
            "Default: meaning, for the embedded model plot.",
            rich_help_panel=_ANSWERS,
        ),
    ] = None,
    same_above: Annotated[
        float | None, typer.Option(help="Cosine of one meaning. Default: 0.8.", rich_help_panel=_ANSWERS)
    ] = None,
    clusters: Annotated[int, typer.Option(help="Groups shown, at most.", rich_help_panel=_ANSWERS)] = 8,
    fork: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="The --output of an exploration; its --path up to --at is the prompt.",
            rich_help_panel=_FORK,
        ),
    ] = None,
    path: Annotated[
        str | None, typer.Option(metavar="ID", help="The path to fork: 16 hex digits.", rich_help_panel=_FORK)
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            metavar="WORDS", help="Words of it to keep. Default: up to where it branches.", rich_help_panel=_FORK
        ),
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
        int | None,
        typer.Option(help=f"Default: {_NEW_TOKENS}, for the embedded model {_STORY_TOKENS}.", rich_help_panel=_TOKENS),
    ] = None,
    temperature: sampling_options.Temperature = None,
    top_k: sampling_options.TopK = None,
    top_p: sampling_options.TopP = None,
    min_p: sampling_options.MinP = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Ends a text; \\n is a line break. Repeatable.", rich_help_panel=_TOKENS),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the chat template.", rich_help_panel=_TOKENS)
    ] = False,
    html: Annotated[
        str | None,
        typer.Option("--map", metavar="FILE", help="Write the map here, one HTML file.", rich_help_panel=_IN_OUT),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep all texts here, as JSON lines.", rich_help_panel=_IN_OUT)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an --output that is there.", rich_help_panel=_IN_OUT)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where there is an --output.", rich_help_panel=_IN_OUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_IN_OUT)] = False,
    batch: Annotated[int, typer.Option(help="Paths walked together.", rich_help_panel=_IN_OUT)] = 32,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Sample paths of one prompt until new ones stop bringing new answers.

    Example: stochroute explore "My favourite animal is" --model NAME --temperature 1 --max-new-tokens 4 --same text
    --map map.html

    Says how many answers there are, seen and unseen (Chao1), how much is covered (Good–Turing), shows one answer of
    each group with its path, and where paths branch; any of them can be forked there.
    """
    if same is not None and same not in _SAME:
        raise BadInput(f"--same {same}: choose {', '.join(_SAME)}")
    if same_above is not None and same not in (None, "meaning"):
        raise BadInput(f"--same-above {same_above} has no effect beside --same {same}: leave one of them out")
    if clusters < 1:
        raise BadInput(f"--clusters {clusters}: give at least 1")
    _check_files(output, resume, overwrite, html)
    noise = Noise(strength, layers, hold, form, span, attention_strength, expert_strength, budget)
    check_routing(routing, noise)
    _check_packages()

    from stochroute.applications.explore import Exploration

    given = _prompt(prompt, fork, path, at, model)
    chosen = seed if seed is not None else _seed_of(output) if resume else None
    settings = Exploration(
        seed=draw_seed() >> 11 if chosen is None else chosen,  # 53 bits: what every reader of JSON numbers keeps exact
        until=until,
        most=most,
        batch=batch,
        decoding=DecodingOptions(max_new_tokens, temperature, top_k, top_p, min_p).choice,
        new_tokens=max_new_tokens or (_STORY_TOKENS if model is None else _NEW_TOKENS),
        stop=tuple(text.replace("\\n", "\n") for text in stop or ()),
        chat=chat,
    )
    embedder = _embedder()
    kind = same or ("plot" if model is None else "meaning")
    reader = _reader(kind, embedder, 0.8 if same_above is None else same_above)
    if overwrite and output is not None:
        Path(output).unlink(missing_ok=True)
    explored = _run(given, settings, reader, ModelRequest(model, routing, noise, device, dtype), output, resume)

    from stochroute.applications.explore import cluster, write_map

    groups = cluster(explored, embedder, clusters)
    options = _options(
        {
            "model": model, "routing": routing, **vars(noise), "max_new_tokens": settings.new_tokens,
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "chat": chat or None,
        }
    )  # fmt: skip
    if html is not None:
        try:
            write_map(Path(html), explored, groups, embedder, options)
        except OSError as error:
            raise BadInput(f"--map {html}: {error.strerror or error}; choose another place") from error
    if as_json:
        print(json.dumps(_as_json(explored, groups, settings.seed), ensure_ascii=False))
    else:
        _show(explored, groups, settings.seed, html)


def _run(
    prompt: str,
    settings: "Exploration",
    reader: "Reader",
    asked: ModelRequest,
    output: str | None,
    resume: bool,
) -> "Explored":
    from stochroute.applications.explore import explore as run
    from stochroute.cli.progress import progress_bar
    from stochroute.cli.routings import calibrated_model

    loaded = load_model(asked.model, asked.device, asked.dtype)
    routed, _ = calibrated_model(loaded, asked.routing, asked.noise)
    walked = 0
    try:
        with progress_bar("paths") as progress:

            def on_batch(explored: "Explored") -> None:
                nonlocal walked
                walked = len(explored.texts)
                progress(walked, settings.most)

            return run(prompt, settings, loaded, routed, reader, output=output, resume=resume, on_batch=on_batch)
    except KeyboardInterrupt:
        there = f"are in {output}; the same command with --resume goes on" if output else "were made and are lost"
        raise Interrupted(f"interrupted: {walked} texts {there}") from None


def _prompt(prompt: str | None, fork: str | None, path: str | None, at: int | None, model: str | None) -> str:
    if fork is None:
        if path is not None or at is not None:
            raise BadInput("--path and --at belong to --fork: name the --output of an exploration there")
        if prompt is None and model is not None:
            raise BadInput(f"--model {model}: there is no prompt; write one")
        if prompt is None:
            from stochroute.embedded import DEFAULT_PROMPTS

            return DEFAULT_PROMPTS[0]
        if not prompt:
            raise BadInput("the prompt is empty; give at least one character")
        return prompt
    if prompt is not None:
        raise BadInput(f"--fork {fork} brings its own prompt: leave {prompt!r} out")
    if path is None:
        raise BadInput(f"--fork {fork}: say which path by --path ID")

    from stochroute.applications.explore import read_run

    return read_run(fork).fork(path, at)


def _check_files(output: str | None, resume: bool, overwrite: bool, html: str | None) -> None:
    if resume and overwrite:
        raise BadInput("--resume and --overwrite exclude each other: choose one")
    if output is None and (resume or overwrite):
        raise BadInput(f"--{'resume' if resume else 'overwrite'} has no effect without --output: name the file")
    if output is not None and Path(output).exists() and not (resume or overwrite):
        raise BadInput(
            f"--output {output}: exists; go on by --resume, start anew by --overwrite, or choose another name"
        )
    for option, name in (("--output", output), ("--map", html)):
        if name is not None and (Path(name).is_dir() or not Path(name).parent.is_dir()):
            raise BadInput(f"{option} {name}: name a file in a folder that is there")


def _seed_of(output: str | None) -> int | None:
    """The seed of the run to be resumed; None where there is none."""
    assert output is not None
    try:
        with Path(output).open("rb") as file:
            return int(json.loads(file.readline())["run"]["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("plotly", "wordllama") if find_spec(name) is None]
    if missing:
        raise BadInput(f"this needs more packages ({', '.join(missing)}): pip install 'stochroute[apps]'")


def _embedder() -> "Embedder":
    from stochroute.evaluation.embedding import WordLlamaEmbedder

    try:
        return WordLlamaEmbedder()
    except ImportError as error:
        raise missing_packages(error, "apps") from error


def _reader(kind: str, embedder: "Embedder", above: float) -> "Reader":
    from stochroute.applications.explore import SameMeaning, SamePlot, SameText

    if kind == "meaning":
        return SameMeaning(embedder, above)
    return SamePlot() if kind == "plot" else SameText()


def _options(given: dict[str, Any]) -> str:
    """The options that were given, as they are written on a command line."""
    words: list[str] = []
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def _as_json(explored: "Explored", groups: "list[Cluster]", seed: int) -> dict[str, Any]:
    texts = explored.texts
    return {
        **explored.to_dict(),
        "seed": seed,
        "clusters": [
            {
                "path": texts[one.representative].path,
                "text": texts[one.representative].text,
                "answers": len(one.answers),
                "texts": one.texts,
                "paths": [texts[row].path for row in one.answers],
            }
            for one in groups
        ],
        "tree": explored.tree.to_dict(),
        "paths": [{"path": text.path, "text": text.text, "answer": text.answer} for text in texts],
    }


def _show(explored: "Explored", groups: "list[Cluster]", seed: int, html: str | None) -> None:
    from rich.console import Console

    console = Console()
    seen, answers, covered = explored.seen, explored.answers, explored.coverage
    none = len(explored.texts) - seen.texts
    _say(
        console,
        f"{len(explored.texts)} paths from seed {seed}: {seen.answers} different answers"
        f"{f' ({none} texts were none)' if none else ''}, {seen.once} of them seen once, {seen.twice} twice",
    )
    _say(
        console,
        f"answers in all, seen and unseen: {_bounded(answers)}; covered: "
        f"{covered.value:.1%} ({covered.low:.1%} – {covered.high:.1%})",
    )
    last = explored.curve()[-1]["texts"]
    steps = [
        one for one in explored.curve() if one["texts"] == last or (one["texts"] // explored.batch).bit_count() == 1
    ]
    _say(console, "seen after: " + ", ".join(f"{one['texts']} paths {one['answers']}" for one in steps) + "\n")
    for number, one in enumerate(groups, 1):
        text = explored.texts[one.representative]
        _say(console, f"── group {number}: answers {len(one.answers)}, texts {one.texts}, path {text.path}")
        before = explored.prompt if len(explored.prompt) <= _SHOWN_PROMPT else "…"
        _say(console, _shortened(before + text.text, _SHOWN_TEXT) + "\n")
    _say(console, "── where they branch (@ words, for --fork RUN --path ID --at WORDS)")
    console.print(_drawn(explored, explored.tree, 0), highlight=False)
    if not explored.saturated:
        _say(
            console,
            f"\nnot saturated: coverage is not yet {explored.until:.0%} for certain; --most gives it more paths",
        )
    if html is not None:
        _say(console, f"\nmap: {html}")


def _bounded(answers: "Interval") -> str:
    if answers.high is None:
        return f"at least {answers.low:.0f}, since none came twice"
    return f"{answers.value:.0f} ({answers.low:.0f} – {answers.high:.0f})"


def _say(console: "Console", text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _drawn(explored: "Explored", node: "Node", depth: int) -> Any:
    """A rich tree, as deep and wide as a terminal bears."""
    from rich.text import Text
    from rich.tree import Tree

    paths = f"path {explored.texts[node.rows[0]].path}" if len(node.rows) == 1 else f"{len(node.rows)} paths"
    ways = f", {len(node.children)} ways @{node.end}" if node.children else ""
    words = _shortened(node.words.strip() or "…", _SHOWN_WORDS)
    drawn = Tree(Text.assemble(words, (f"  [{paths}{ways}]", "dim")))
    if depth < _SHOWN_DEPTH:
        for child in node.children[:_SHOWN_WAYS]:
            drawn.children.append(_drawn(explored, child, depth + 1))
        if len(node.children) > _SHOWN_WAYS:
            drawn.add(Text(f"… and {len(node.children) - _SHOWN_WAYS} more", "dim"))
    return drawn


def _shortened(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
