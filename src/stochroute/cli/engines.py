"""The options that choose an engine other than transformers, and what such an engine needs to know of a model."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stochroute.cli.errors import BadInput, one_line
from stochroute.cli.models import LoadedModel

ENGINES = ("transformers", "vllm", "ray")
PANEL = "Engine"

EngineName = Annotated[
    str, typer.Option(help=f"{', '.join(ENGINES)}. See docs/engines.md.", metavar="NAME", rich_help_panel=PANEL)
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="An argument of vLLM's engine, such as tensor_parallel_size=2. Repeat for more.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Engine:
    """An engine by name, with further arguments of its own."""

    name: str
    options: dict[str, Any]


def read_engine(name: str, options: list[str], offered: tuple[str, ...]) -> Engine:
    """The engine that was asked for; BadInput for an unknown one, or for options that are none or have no effect."""
    if name not in offered:
        raise BadInput(f"--engine {name}: choose one of {', '.join(offered)}")
    if options and name == "transformers":
        raise BadInput(
            f"--engine-option {options[0]} has no effect on transformers: leave it out, or add --engine vllm"
        )
    return Engine(name, dict(_read_option(option) for option in options))


def check_device(engine: Engine, device: str) -> None:
    """BadInput where a device is chosen for an engine that chooses itself."""
    if engine.name != "transformers" and device != "auto":
        raise BadInput(
            f"--device {device} has no effect on {engine.name}, which takes what it is built for: leave it out"
        )


@dataclass(frozen=True)
class Hosted:
    """What an engine of vLLM is started with.

    Attributes:
        model: a folder, or a name on the Hub.
        dtype: of the weights.
        additional: the engine's `additional_config`.
    """

    model: str
    dtype: str
    additional: dict[str, Any]


def hosted(loaded: LoadedModel, routed: Any, routing: str | None, keep: Path) -> Hosted:
    """What vLLM needs to walk the paths of a routed transformers model, which may be thrown away then.

    Args:
        loaded: the model.
        routed: the same, routed and calibrated.
        routing: the folder of its routing; None has it saved in `keep`.
        keep: a folder that outlives the engine.

    Raises:
        BadInput: vLLM cannot load the model or walk the routing.
    """
    from stochroute.engines.vllm import additional_config

    if routed.silent:
        raise BadInput("every strength is 0, so no path would be walked: give a strength above 0, or use vLLM itself")
    dtype = str(next(routed.model.parameters()).dtype).removeprefix("torch.")
    if dtype not in ("float32", "float16", "bfloat16"):
        raise BadInput(f"--dtype {dtype}: vLLM computes in float32, bfloat16 or float16")
    if routing is None:
        routed.save_pretrained(keep)
    try:
        additional = additional_config(routing or keep)
    except ValueError as error:
        raise BadInput(one_line(error)) from error
    return Hosted(_folder_of(loaded), dtype, additional)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the routing of an engine."""
    return tempfile.TemporaryDirectory(prefix="stochroute-")


def _folder_of(loaded: LoadedModel) -> str:
    if loaded.embedded:
        from importlib.resources import files

        return str(files("stochroute.embedded") / "weights")
    folder = Path(loaded.name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise BadInput(f"--model {loaded.name}: is an adapter, which vLLM does not load alone; merge it into its model")
    return loaded.name


def _read_option(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals or not name.isidentifier():
        raise BadInput(f"--engine-option {option}: write KEY=VALUE, such as tensor_parallel_size=2")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
