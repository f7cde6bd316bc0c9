"""The options that choose an engine other than transformers, and what such an engine needs to know of a model."""

import json
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochroute.cli.errors import BadInput
from stochroute.errors import one_line
from stochroute.loading import LoadedModel

if TYPE_CHECKING:
    from stochroute.engines.token_writer import TokenWriter
    from stochroute.generation.receipts import Receipt

ENGINES = ("transformers", "vllm", "ray")
PANEL = "Engine"
_HONOURED = ("do_sample", "max_new_tokens", "eos_token_id")  # what these engines are told of a decoding

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


def greedy_receipt(engine: Engine, routed: Any, new_tokens: int) -> "Receipt":
    """The receipt of a greedy text, by transformers and along path 0 from position 0: the engine has yet to start.

    Raises BadInput where the model's generation config sets something that the engine would not be told.
    """
    from stochroute.generation.receipts import write_receipts
    from stochroute.generation.settings import read_settings

    settings, _ = read_settings(routed.model, {"do_sample": False, "max_new_tokens": new_tokens})
    receipt = write_receipts(routed, [0], [0], settings)[0]
    unknown = [name for name in receipt.decoding if name not in _HONOURED]
    if unknown:
        raise BadInput(
            f"--engine {engine.name}: the model's generation config sets {unknown[0]}, which is not passed "
            "on to this engine; take it out of generation_config.json, or use --engine transformers"
        )
    return receipt


def start_engine(engine: Engine, start: Hosted) -> "TokenWriter":
    """Starts it, which takes a while; BadInput where it is not installed, or would not walk paths."""
    try:
        # their packages are not there for the type checker
        home = import_module("stochroute.engines.ray" if engine.name == "ray" else "stochroute.engines.vllm.launch")
        return home.Writer(start.model, start.additional, start.dtype, engine.options)
    except (ImportError, RuntimeError) as error:
        raise BadInput(f"--engine {engine.name}: {one_line(error)}; see docs/engines.md") from error


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the routing of an engine."""
    return tempfile.TemporaryDirectory(prefix="stochroute-")


def _folder_of(loaded: LoadedModel) -> str:
    if loaded.embedded:
        from stochroute.embedded import weights_folder

        return str(weights_folder())
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
