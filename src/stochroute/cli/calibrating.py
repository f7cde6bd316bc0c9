"""Calibrates a routed model for a verb, and says meanwhile how far it is."""

from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console

from stochroute.calibration import Report, neutral_rows
from stochroute.cli.models import LoadedModel, encode
from stochroute.config import Quantity, Split
from stochroute.routed import RoutedModel

_NEUTRAL_PAIRS = 256


@dataclass(frozen=True)
class Calibration:
    """What is asked for.

    Attributes:
        budget: in nats a noised position.
        prompts: texts; None for the neutral passages that travel with the package.
        pairs: of prompts and paths; None for a default.
    """

    budget: float
    prompts: list[str] | None = None
    quantity: Quantity = "divergence"
    split: Split = "even"
    pairs: int | None = None
    seed: int = 0


def calibrated(routed: RoutedModel, loaded: LoadedModel, asked: Calibration) -> Report:
    """Puts the strengths found into the routed model, and returns the report.

    Raises:
        ValueError: as `RoutedModel.calibrate`.
        BadInput: a prompt does not fit the model.
    """
    context = loaded.context
    rows = neutral_rows(loaded.tokenizer, context)
    if asked.prompts is not None:
        rows = encode(loaded, asked.prompts, chat=False)
    options: dict[str, Any] = {"pairs": asked.pairs or (_NEUTRAL_PAIRS if asked.prompts is None else 512)}
    with Console(stderr=True).status("calibrating") as status:
        return routed.calibrate(
            cast(list[Any], rows),
            budget=asked.budget,
            quantity=asked.quantity,
            split=asked.split,
            seed=asked.seed,
            on_evaluation=lambda number, nats: status.update(f"calibrating: measurement {number}, {nats:.3g} nats"),
            **options,
        )
