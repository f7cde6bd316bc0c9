"""`stochroute calibrate`: a budget in nats becomes strength, kept in a routing.

stochroute calibrate --model ./my-model --budget 0.05 --output my-routing
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from stochroute.cli import model_options, noise_options
from stochroute.cli.errors import BadInput
from stochroute.cli.prompts import read_prompts
from stochroute.cli.request import Noise, check_routing
from stochroute.config import DEFAULT_BUDGET, Quantity, Split
from stochroute.loading import load_model
from stochroute.paths import check_seed


def calibrate(
    budget: Annotated[
        float, typer.Option(help="Nats a noised position, of KL(routed ‖ clean) or of what --quantity says.")
    ] = DEFAULT_BUDGET,
    model: model_options.Model = None,
    prompts_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='A text a line, or JSON lines with "prompt"; -: standard input. Default: neutral passages.',
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Save the routing here, for generate --routing.")
    ] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the curve and the sites as an SVG.")] = None,
    quantity: Annotated[str, typer.Option(help="divergence or transmission.")] = "divergence",
    split: Annotated[
        str, typer.Option(help="even: one factor on all strengths; sensitivity: every layer alone does the same.")
    ] = "even",
    pairs: Annotated[int | None, typer.Option(help="Of prompts and paths, at least. Default: as it takes.")] = None,
    seed: Annotated[int, typer.Option(help="Of the paths.")] = 0,
    routing: noise_options.RoutingFolder = None,
    strength: noise_options.Strength = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: noise_options.Span = None,
    attention_strength: noise_options.AttentionStrength = None,
    expert_strength: noise_options.ExpertStrength = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Find the strength at which noise does as much as the budget says, the same in every model.

    Strengths given are proportions: of the layers, and of the kinds of noise to each other.

    Example: stochroute calibrate --model ./my-model --budget 0.05 --prompts-file texts.txt --output my-routing
    """
    noise = Noise(strength, layers, hold, form, span, attention_strength, expert_strength)
    _check(budget, quantity, split, pairs, seed)
    _check_targets(output, plot)
    check_routing(routing, noise)
    prompts = None if prompts_file is None else read_prompts([], prompts_file)
    loaded = load_model(model, device, dtype)

    # imported only now, since these bring in torch, transformers and rich
    from stochroute.calibration.loaded import Calibration, calibrated
    from stochroute.cli.routings import routed_model

    routed = routed_model(loaded, routing, noise)
    asked = Calibration(budget, prompts, cast(Any, quantity), cast(Any, split), pairs, seed)
    report = calibrated(routed, loaded, asked)
    if output is not None:
        routed.save_pretrained(output)
    if plot is not None:
        report.save_plot(plot)
    if as_json:
        print(json.dumps({"model": loaded.name, "output": output, **report.to_dict()}, ensure_ascii=False))
        return
    print(report)
    if output is not None:
        print(f"\nsaved: stochroute generate … --routing {output}")


def _check(budget: float, quantity: str, split: str, pairs: int | None, seed: int) -> None:
    if not (math.isfinite(budget) and budget > 0):
        raise BadInput(f"--budget {budget}: must be finite and above 0; 0.05 is modest, 0.5 is much")
    for option, value, choices in (
        ("--quantity", quantity, get_args(Quantity)),
        ("--split", split, get_args(Split)),
    ):
        if value not in choices:
            raise BadInput(f"{option} {value}: choose one of {', '.join(choices)}")
    if pairs is not None and pairs < 2:
        raise BadInput(f"--pairs {pairs}: must be at least 2, better 256")
    try:
        check_seed(seed)
    except ValueError as error:
        raise BadInput(f"--{error}") from error


def _check_targets(output: str | None, plot: str | None) -> None:
    """BadInput where a result could not be written, found out before the work is done."""
    if output is not None and Path(output).exists():
        if not Path(output).is_dir():
            raise BadInput(f"--output {output}: is a file; name a folder")
        if any(Path(output).iterdir()):
            raise BadInput(f"--output {output}: holds files already; name a new folder")
    if plot is not None and (Path(plot).is_dir() or not Path(plot).parent.is_dir()):
        raise BadInput(f"--plot {plot}: name a file in a folder that exists")
