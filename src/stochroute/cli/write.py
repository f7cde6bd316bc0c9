"""`stochroute write`: continuations of a text, checked against a form and ranked by quality × novelty.

stochroute write "Once upon a time" --form story --candidates 16 --keep 5 --seed 7
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochroute.cli import model_options, noise_options, sampling_options
from stochroute.cli.errors import BadInput, Failed, Interrupted
from stochroute.cli.progress import progress_bar
from stochroute.cli.request import DecodingOptions, Noise, check_routing
from stochroute.loading import load_model
from stochroute.paths import check_seed, draw_seed

if TYPE_CHECKING:
    from stochroute.applications.write import Author, Choice, Form, Node, Tree
    from stochroute.applications.write.quality import Quality
    from stochroute.loading import LoadedModel

_WHAT, _TOKENS, _IN_OUT = "What is written", sampling_options.PANEL, "Input, output"


def write(
    opening: Annotated[
        str | None, typer.Argument(help="The text to continue. Default: a beginning that the embedded model knows.")
    ] = None,
    form: Annotated[
        str, typer.Option("--form", help="story, poem, 五绝 (wujue) or 七绝 (qijue).", rich_help_panel=_WHAT)
    ] = "story",
    lines: Annotated[int | None, typer.Option(help="Of a poem. Default: 4.", rich_help_panel=_WHAT)] = None,
    candidates: Annotated[
        int, typer.Option(help="Continuations written, each along its own path.", rich_help_panel=_WHAT)
    ] = 16,
    keep: Annotated[int, typer.Option(help="Continuations kept, at most.", rich_help_panel=_WHAT)] = 5,
    weight: Annotated[
        float, typer.Option(help="Of quality against novelty; 0 looks at novelty alone.", rich_help_panel=_WHAT)
    ] = 1.0,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Grow a tree of so many steps: sentences of a story, lines of a poem. Default: whole texts.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    walk: Annotated[
        bool, typer.Option("--walk", help="Walk the tree step by step on the terminal.", rich_help_panel=_WHAT)
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            callback=model_options.check_model,
            metavar="MODEL",
            help="Says how likely the texts are. Default: the model without noise.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Derives the path ids. Default: drawn, and reported.")] = None,
    model: model_options.Model = None,
    routing: noise_options.RoutingFolder = None,
    strength: noise_options.Strength = None,
    budget: noise_options.Budget = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    noise_form: Annotated[
        str | None, typer.Option(help="shared, independent or latent.", rich_help_panel=noise_options.PANEL)
    ] = None,
    span: noise_options.Span = None,
    attention_strength: noise_options.AttentionStrength = None,
    expert_strength: noise_options.ExpertStrength = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Of one continuation. Default: 128, or what there is room for.", rich_help_panel=_TOKENS),
    ] = None,
    temperature: sampling_options.Temperature = None,
    top_k: sampling_options.TopK = None,
    top_p: sampling_options.TopP = None,
    min_p: sampling_options.MinP = None,
    spread: sampling_options.Spread = False,
    output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Write a .md, .html or .json file. Repeat for more.", rich_help_panel=_IN_OUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an --output that exists.", rich_help_panel=_IN_OUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a text.", rich_help_panel=_IN_OUT)] = False,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Write many continuations, leave out what breaks the form, and keep the good ones that are unlike each other.

    Ranked greedily by quality² × novelty: likelihood a word under the model without noise or a judge, and the share
    that the texts kept before do not account for.

    Example: stochroute write "Once upon a time" --candidates 16 --keep 5 --seed 7 --output stories.html

    A tree to walk: stochroute write "Once upon a time" --walk --keep 3
    """  # fmt: skip
    noise = Noise(strength, layers, hold, noise_form, span, attention_strength, expert_strength, budget)
    decoding = DecodingOptions(max_new_tokens, temperature, top_k, top_p, min_p, spread)
    check_routing(routing, noise)
    if depth is not None and depth < 1:
        raise BadInput(f"--depth {depth}: grow at least one step")
    if walk and (as_json or depth is not None):
        raise BadInput(f"{'--json' if as_json else '--depth'} has no effect beside --walk: leave one of them out")
    if walk and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput("--walk: this is no terminal; grow a tree by --depth instead")
    if seed is not None:
        try:
            check_seed(seed)
        except ValueError as error:
            raise BadInput(f"--{error}") from error
    files = _output_files(output or [], overwrite)
    if model is None and form != "story":
        raise BadInput(
            f"--form {form}: the embedded model writes stories in English and Chinese, and no poems; "
            "name a model that does by --model"
        )
    if opening is None and model is not None:
        raise BadInput(f"--model {model}: there is no opening; write the beginning of the text")

    from stochroute.applications.write import Choice, NoneFits, form_named
    from stochroute.embedded import DEFAULT_PROMPTS

    try:
        chosen_form, choice = form_named(form, lines), Choice(candidates, keep, weight)
    except ValueError as error:
        raise BadInput(f"--{error}") from error
    seed_in_use = draw_seed() >> 11 if seed is None else seed  # 53 bits, which every reader of JSON numbers keeps
    loaded = load_model(model, device, dtype)
    author, quality = _author(loaded, chosen_form, routing, noise, decoding, judge, device)
    begun = DEFAULT_PROMPTS[0] if opening is None else opening
    try:
        tree = _grown(author, quality, begun, seed_in_use, choice, depth, walk)
    except NoneFits as error:
        raise Failed(f"--form {form}: {error}; nothing was written") from error
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: nothing was written; --seed {seed_in_use} begins the same again") from None
    _show(tree, as_json, seed is None, loaded.embedded and not walk)
    _save(tree, files)


def _grown(
    author: "Author", quality: "Quality", opening: str, seed: int, choice: "Choice", depth: int | None, walk: bool
) -> "Tree":
    from stochroute.applications.write import grow

    if walk:
        from rich.console import Console

        from stochroute.applications.write.walking import Walker

        return Walker(Console(), author, quality, seed, choice).walk(opening)
    # the most there can be; texts that end early leave some out
    nodes = sum(choice.keep**level for level in range(depth or 1))
    with progress_bar("writing") as show:
        return grow(author, quality, opening, seed, choice, depth, lambda done: show(done, nodes))


def _author(
    loaded: "LoadedModel",
    form: "Form",
    routing: str | None,
    noise: Noise,
    decoding: DecodingOptions,
    judge: str | None,
    device: str,
) -> tuple["Author", "Quality"]:
    from stochroute.applications.write import Author, Clean, Judged, Quatrain
    from stochroute.cli.routings import calibrated_model
    from stochroute.evaluation.judging import Judge

    if isinstance(form, Quatrain) and not _knows_chinese(loaded):
        raise BadInput(f"--form {form.name}: the tokenizer of {loaded.name} has no Chinese; name another --model")
    judging: Judge | None = None
    if judge is not None:
        try:
            judging = Judge(load_model(judge, device, "auto"), loaded.model)
        except ValueError as error:
            raise BadInput(f"--judge {judge}: {error}") from error
    routed, report = calibrated_model(loaded, routing, noise)
    if report is not None:
        typer.echo(f"calibrated to {report.nats:.3g} nats a noised position on neutral passages", err=True)
    author = Author(loaded, routed, form, decoding.choice, decoding.max_new_tokens)
    return author, Clean(loaded, routed) if judging is None else Judged(judging)


def _knows_chinese(loaded: "LoadedModel") -> bool:
    tokenizer: Any = loaded.tokenizer
    text = "春眠不觉晓，"
    back: str = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    return back.strip() == text


def _show(tree: "Tree", as_json: bool, tell_seed: bool, story_world: bool) -> None:
    ways = list(tree.texts())
    if as_json:
        for way in ways:
            typer.echo(json.dumps(_row(way, tree.seed), ensure_ascii=False))
        if tell_seed:
            typer.echo(f"seed {tree.seed}", err=True)
        return
    from rich.console import Console

    console = Console()
    for number, way in enumerate(ways, 1):
        leaf = way[-1]
        path = "" if leaf.receipt is None else f", path {leaf.receipt.path}"
        console.print(f"── {number}: {leaf.nats:.2f} nats a word, novelty {leaf.novelty:.2f}{path}", highlight=False)
        console.print("".join(node.text for node in way).strip() + "\n", markup=False, highlight=False, soft_wrap=True)
    root = tree.root
    line = f"{root.fitting} of {root.candidates} continuations of the opening are a {tree.form} and distinct"
    line += f"; {len(ways)} text{'s' * (len(ways) != 1)} kept, from seed {tree.seed}"
    if story_world:
        from stochroute.world import check

        coherent = sum(check("".join(node.text for node in way)).coherent for way in ways)
        line += f"; {coherent} whole and coherent by the checker"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _row(way: tuple["Node", ...], seed: int) -> dict[str, Any]:
    leaf = way[-1]
    steps = [
        {"text": node.text, "nats_a_word": node.nats, "novelty": node.novelty, "receipt": node.receipt.to_dict()}
        for node in way
        if node.receipt is not None
    ]
    return {"text": "".join(node.text for node in way), "opening": way[0].text, "nats_a_word": leaf.nats,
            "novelty": leaf.novelty, "finished": leaf.finished, "seed": seed, "steps": steps}  # fmt: skip


def _output_files(names: list[str], overwrite: bool) -> list[Path]:
    if overwrite and not names:
        raise BadInput("--overwrite has no effect without --output: name a file")
    found: list[Path] = []
    for name in names:
        file = Path(name)
        if file.suffix not in (".md", ".html", ".json"):
            raise BadInput(f"--output {name}: name a file that ends in .md, .html or .json")
        if file.is_dir() or not file.parent.is_dir():
            raise BadInput(f"--output {name}: name a file in a folder that exists")
        if not os.access(file.parent, os.W_OK):
            raise BadInput(f"--output {name}: its folder is not writable; choose another place")
        if file.exists() and not overwrite:
            raise BadInput(f"--output {name}: exists; replace it by --overwrite, or choose another name")
        found.append(file)
    return found


def _save(tree: "Tree", files: list[Path]) -> None:
    from stochroute.applications.write import write_tree

    for file in files:
        try:
            write_tree(file, tree)
        except OSError as error:
            raise BadInput(f"--output {file}: {error.strerror or error}; choose another place") from error
        typer.echo(f"written: {file}", err=True)
