"""`stochroute export`: a path for other engines; today as a control vector for llama.cpp.

stochroute export --gguf path.gguf --path c009f9dcf4607a2d --span all --fix-scale
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from stochroute.cli import model_options, noise_options
from stochroute.cli.errors import BadInput
from stochroute.cli.prompts import read_prompts
from stochroute.cli.request import Noise, check_routing
from stochroute.errors import one_line
from stochroute.loading import encode, load_model
from stochroute.paths import format_path, parse_path


def export(
    gguf: Annotated[str, typer.Option(metavar="FILE", help="Write the control vector here.")],
    path: Annotated[str, typer.Option(metavar="ID", help="The path: 16 hex digits, from an earlier result.")],
    model: model_options.Model = None,
    fix_scale: Annotated[
        bool,
        typer.Option(
            "--fix-scale", help="Make relative noise absolute, by the size of the activation on --prompts-file."
        ),
    ] = False,
    prompts_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='For --fix-scale and budgets: a text a line, or JSON lines with "prompt". Default: neutral passages.',
        ),
    ] = None,
    save_routing: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Save the routing as written, for generate --routing.")
    ] = None,
    routing: noise_options.RoutingFolder = None,
    strength: noise_options.Strength = None,
    budget: noise_options.Budget = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: noise_options.Span = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
) -> None:
    """Write a path as a control vector: a GGUF file that llama.cpp adds to the same model.

    It needs structural noise of one draw a sequence, on all positions (--span all), not in layer 0, and of an absolute
    scale (--fix-scale). Check it with: stochroute generate --routing FOLDER --replay ID

    Example: stochroute export --gguf path.gguf --path c009f9dcf4607a2d --span all --fix-scale --save-routing fixed
    """
    noise = Noise(strength, layers, hold, form, span, None, None, budget)
    _check(gguf, path, save_routing)
    check_routing(routing, noise)
    prompts = None if prompts_file is None else read_prompts([], prompts_file)
    loaded = load_model(model, device, dtype)

    # imported only now, since these bring in torch and transformers
    from stochroute.calibration import neutral_rows
    from stochroute.calibration.loaded import Calibration, calibrated
    from stochroute.cli.routings import budget_of, routed_model
    from stochroute.integrations import gguf as control

    routed = routed_model(loaded, routing, noise)
    asked = budget_of(loaded, routing, noise)
    if prompts is not None and not fix_scale and asked is None:
        raise BadInput(f"--prompts-file {prompts_file} has no effect without --fix-scale or a budget: leave it out")
    said: dict[str, Any] = {}
    if fix_scale:
        rows = neutral_rows(loaded.tokenizer, loaded.context) if prompts is None else encode(loaded, prompts, False)
        fixed = control.fix_scale(routed, rows)
        routed = fixed.routed
        said = {"relative_nats": fixed.relative_nats, "absolute_nats": fixed.absolute_nats}
    control.check_exportable(routed.config)
    if asked is not None:
        said = {"budget": asked, "absolute_nats": calibrated(routed, loaded, Calibration(asked, prompts)).nats}
    try:
        vectors = control.write_control_vector(gguf, routed, path)
    except OSError as error:
        raise BadInput(f"--gguf {gguf}: {one_line(error)}; name a file that can be written") from error
    if save_routing is not None:
        routed.save_pretrained(save_routing)
    norms = {layer: round(float(vector.square().sum().sqrt()), 4) for layer, vector in vectors.items()}
    row = {"gguf": gguf, "path": format_path(path), "model": loaded.name, "routing": save_routing, "norms": norms}
    print(json.dumps({**row, **said}, ensure_ascii=False) if as_json else _for_people(row, said))


def _check(gguf: str, path: str, save_routing: str | None) -> None:
    """BadInput for what can be known before the model is loaded."""
    try:
        parse_path(path)
    except ValueError as error:
        raise BadInput(f"--path {path}: {error}; copy it from an earlier result") from error
    if Path(gguf).is_dir() or not Path(gguf).parent.is_dir():
        raise BadInput(f"--gguf {gguf}: name a file in a folder that exists")
    if Path(gguf).exists():
        raise BadInput(f"--gguf {gguf}: is there already; name a new file")
    if save_routing is not None and Path(save_routing).exists():
        raise BadInput(f"--save-routing {save_routing}: is there already; name a new folder")
    if find_spec("gguf") is None:
        raise BadInput("--gguf needs the package gguf: pip install 'stochroute[gguf]'")


def _for_people(row: dict[str, Any], said: dict[str, Any]) -> str:
    layers = ", ".join(f"{layer} (norm {norm:g})" for layer, norm in row["norms"].items())
    lines = [f"{row['gguf']}: path {row['path']} of {row['model']}, added after layers {layers}"]
    if "relative_nats" in said:
        lines.append(
            f"fixed scale: {said['absolute_nats']:.4g} nats a position of KL(routed ‖ clean), "
            f"{said['relative_nats']:.4g} with the relative scale"
        )
    elif "budget" in said:
        lines.append(f"calibrated: {said['absolute_nats']:.4g} nats a position for a budget of {said['budget']:g}")
    lines.append(f"llama-cli --model MODEL.gguf --control-vector {row['gguf']} --temp 0 --prompt …")
    if row["routing"] is not None:
        lines.append(f"stochroute generate … --routing {row['routing']} --replay {row['path']}")
    return "\n".join(lines)
