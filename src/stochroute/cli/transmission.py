"""`stochroute transmission`: where in a text does the path decide?

stochroute transmission "Once upon a time" --paths 16 --strength 0.3 --output strip.html
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from stochroute.cli import model_options, noise_options
from stochroute.cli.errors import BadInput, Interrupted
from stochroute.cli.prompts import read_prompts
from stochroute.cli.request import Noise
from stochroute.loading import LoadedModel, encode, load_model

if TYPE_CHECKING:
    from stochroute.routed import RoutedModel
    from stochroute.transmission import HeatStrip


def transmission(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Texts to continue; or see --prompts-file.")
    ] = None,
    prompts_file: Annotated[
        str | None, typer.Option(metavar="FILE", help='A prompt a line, or JSON lines with "prompt"; - for a pipe.')
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="What follows the prompt. Default: what one path writes after it.")
    ] = None,
    paths: Annotated[int, typer.Option(help="Paths to compare, at least two.")] = 16,
    seed: Annotated[int, typer.Option(help="Derives the path ids.")] = 0,
    model: model_options.Model = None,
    routing: noise_options.RoutingFolder = None,
    strength: noise_options.Strength = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: noise_options.Span = None,
    attention_strength: noise_options.AttentionStrength = None,
    expert_strength: noise_options.ExpertStrength = None,
    temperature: Annotated[float, typer.Option(help="At which the sampler would draw.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Length of a text that a path writes.")] = 64,
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw into this .html, or .svg for one prompt.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a prompt.")] = False,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Show, token by token, how much of the next token the path decides and how much is left to the sampler.

    Entropy over all paths = mean entropy along a path + I(token; path), in nats.

    Example: stochroute transmission "Once upon a time" --paths 16 --strength 0.3 --output strip.html
    """
    if paths < 2:
        raise BadInput(f"--paths {paths}: one path has nothing to differ from; give at least 2")
    if max_new_tokens < 1:
        raise BadInput(f"--max-new-tokens {max_new_tokens}: give a positive number")
    if not temperature > 0:
        raise BadInput(f"--temperature {temperature:g}: must be above 0")
    if output is not None and Path(output).suffix not in (".html", ".svg"):
        raise BadInput(f"--output {output}: name an .html or an .svg file")
    noise = Noise(strength, layers, hold, form, span, attention_strength, expert_strength)
    if routing is not None and noise.given():
        raise BadInput(f"{noise.given()[0]} has no effect beside --routing {routing}: leave one of them out")
    noise.config()
    given = read_prompts(prompts or [], prompts_file)
    if not given:
        if model is not None:
            raise BadInput(f"--model {model}: there is no prompt; write one, or name a --prompts-file")
        from stochroute.embedded import DEFAULT_PROMPTS

        given = [DEFAULT_PROMPTS[0]]
    loaded = load_model(model, device, dtype)
    from stochroute.cli.routings import calibrated_model

    routed, _ = calibrated_model(loaded, routing, noise)
    strips: list[HeatStrip] = []
    try:
        for number, prompt in enumerate(given):
            strips.append(_strip(loaded, routed, prompt, number, text, paths, seed, temperature, max_new_tokens))
            _print(strips[-1], as_json)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {len(strips)} of {len(given)} prompts are done; nothing was drawn") from None
    if output is not None:
        from stochroute.transmission import write_picture

        try:
            write_picture(Path(output), strips)
        except OSError as error:
            raise BadInput(f"--output {output}: {error.strerror or error}; choose another place") from error


def _strip(
    loaded: LoadedModel,
    routed: "RoutedModel",
    prompt: str,
    number: int,
    text: str | None,
    paths: int,
    seed: int,
    temperature: float,
    new_tokens: int,
) -> "HeatStrip":
    """The strip of a prompt and its text, or of what the first path writes."""
    import torch

    from stochroute.generation.decoding import Decoding
    from stochroute.paths import derive_paths
    from stochroute.transmission import HeatStrip, decompose

    if routed.silent:
        raise BadInput("every strength is 0: no path differs from another; raise --strength")
    ids = encode(loaded, [prompt], False)[0]
    walked = derive_paths(seed, paths, prompt=number)
    if text is None:
        room = None if loaded.context is None else loaded.context - len(ids)
        out = routed.generate(
            torch.tensor([ids], device=loaded.model.device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=loaded.model.device),
            paths=walked[:1],
            max_new_tokens=new_tokens if room is None else min(new_tokens, room),
            pad_token_id=loaded.pad,
            **Decoding(temperature).arguments(),
        )
        written = cast(list[int], cast(Any, out.generated)[0].tolist())
    else:
        written = list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not written:
            raise BadInput(f"--text {text!r}: gives no token in {loaded.name}; write more")
        if loaded.context is not None and len(ids) + len(written) > loaded.context:
            raise BadInput(
                f"--text: {len(written)} tokens after a prompt of {len(ids)}, but {loaded.name} holds "
                f"{loaded.context}; shorten it"
            )
    return HeatStrip(prompt, _pieces(loaded, ids, written), decompose(routed, ids, written, walked, temperature), paths)


def _pieces(loaded: LoadedModel, prompt: list[int], ids: list[int]) -> list[str]:
    """The text of each token as it stands in the whole, so that white space and split characters come out right."""
    pieces: list[str] = []
    before: str = loaded.tokenizer.decode(prompt)
    for place in range(1, len(ids) + 1):
        whole: str = loaded.tokenizer.decode([*prompt, *ids[:place]])
        unfinished = whole.endswith("\ufffd")  # a character whose other bytes are still to come
        pieces.append("" if unfinished else whole[len(before) :])
        before = before if unfinished else whole
    return pieces


def _print(strip: "HeatStrip", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(strip.to_dict(), ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(strip.to_rich(), soft_wrap=True)
    console.print(strip.summary(), highlight=False, markup=False, soft_wrap=True)
