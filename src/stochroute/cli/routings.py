"""The routed model that a command asks for: by a saved routing or by options, calibrated where it says so."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from stochroute.calibration import Report, neutral_rows
from stochroute.cli.errors import BadInput, one_line
from stochroute.cli.models import LoadedModel, encode
from stochroute.cli.request import Noise
from stochroute.config import Quantity, Split
from stochroute.routed import RoutedModel, route


@dataclass(frozen=True)
class Calibration:
    """What is asked for.

    Attributes:
        budget: in nats a noised position.
        prompts: texts; None for the neutral passages that travel with the package.
        pairs: of prompts and paths; None for as many as it takes.
    """

    budget: float
    prompts: list[str] | None = None
    quantity: Quantity = "divergence"
    split: Split = "even"
    pairs: int | None = None
    seed: int = 0


def routed_model(loaded: LoadedModel, routing: str | None, noise: Noise) -> RoutedModel:
    """The model with the routing saved in that folder, or the one that `noise` describes.

    Raises:
        BadInput: the routing does not fit the model.
    """
    if routing is None:
        with _about(f"--model {loaded.name}"):
            return route(loaded.model, noise.config())
    with _about(f"--routing {routing}"):
        return RoutedModel.from_pretrained(loaded.model, routing)


def calibrated_model(loaded: LoadedModel, routing: str | None, noise: Noise) -> tuple[RoutedModel, Report | None]:
    """`routed_model`, and what a calibration found where `noise` asks for one, by options or by leaving them out."""
    routed = routed_model(loaded, routing, noise)
    budget = None if routing is not None else noise.budget_for(None if loaded.embedded else loaded.name)
    return routed, None if budget is None else calibrated(routed, loaded, Calibration(budget))


def calibrated(routed: RoutedModel, loaded: LoadedModel, asked: Calibration) -> Report:
    """Puts the strengths found into the routed model, and returns the report; says meanwhile how far it is.

    Raises:
        ValueError: as `RoutedModel.calibrate`.
        BadInput: a prompt does not fit the model.
    """
    if asked.prompts is None:
        rows = neutral_rows(loaded.tokenizer, loaded.context)
    else:
        rows = encode(loaded, asked.prompts, chat=False)
    with Console(stderr=True).status("calibrating") as status:
        return routed.calibrate(
            rows,
            budget=asked.budget,
            quantity=asked.quantity,
            split=asked.split,
            pairs=asked.pairs,
            seed=asked.seed,
            on_evaluation=lambda number, nats: status.update(f"calibrating: measurement {number}, {nats:.3g} nats"),
        )


@contextmanager
def _about(argument: str) -> Generator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(f"{argument}: {one_line(error)}") from error
