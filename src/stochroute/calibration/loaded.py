"""Calibrates a loaded model on texts, and says meanwhile how far it is."""

from dataclasses import dataclass

from rich.console import Console

from stochroute.calibration.prompts import neutral_rows
from stochroute.calibration.report import Report
from stochroute.config import Quantity, Split
from stochroute.loading import LoadedModel, encode
from stochroute.routed import RoutedModel


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


def calibrated(routed: RoutedModel, loaded: LoadedModel, asked: Calibration) -> Report:
    """Puts the strengths found into the routed model, and returns the report; says meanwhile how far it is.

    Raises:
        ValueError: as `RoutedModel.calibrate`, or a prompt does not fit the model.
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
