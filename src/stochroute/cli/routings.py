"""The routed model that a command asks for: by a saved routing or by options, calibrated where it says so; the embedded
model by neither walks the paths that it was trained with."""

from collections.abc import Generator
from contextlib import contextmanager

from stochroute.calibration import Report
from stochroute.calibration.loaded import Calibration, calibrated
from stochroute.cli.errors import BadInput
from stochroute.cli.request import Noise
from stochroute.embedded import EMBEDDED
from stochroute.errors import one_line
from stochroute.loading import LoadedModel
from stochroute.routed import RoutedModel, route


def routing_of(loaded: LoadedModel, routing: str | None, noise: Noise) -> str | None:
    """The saved routing to walk: the one named, or the embedded model's own where nothing is asked of the noise."""
    return EMBEDDED if loaded.embedded and routing is None and not noise.given() else routing


def budget_of(loaded: LoadedModel, routing: str | None, noise: Noise) -> float | None:
    """The budget to calibrate for, asked for by options or by leaving them out; None for a saved routing."""
    saved = routing_of(loaded, routing, noise) is not None
    return None if saved else noise.budget_for(None if loaded.embedded else loaded.name)


def routed_model(loaded: LoadedModel, routing: str | None, noise: Noise) -> RoutedModel:
    """The model with the saved routing (see `routing_of`), or the one that `noise` describes.

    Raises:
        BadInput: the routing does not fit the model.
    """
    routing = routing_of(loaded, routing, noise)
    if routing is None:
        with _about(f"--model {loaded.name}"):
            return route(loaded.model, noise.config())
    if routing == EMBEDDED and not loaded.embedded:
        raise BadInput(f"--routing embedded: belongs to the embedded model, not to {loaded.name}; leave --model out")
    with _about(f"--routing {routing}"):
        return RoutedModel.from_pretrained(loaded.model, routing)


def calibrated_model(loaded: LoadedModel, routing: str | None, noise: Noise) -> tuple[RoutedModel, Report | None]:
    """`routed_model`, and what a calibration found where there is a budget (see `budget_of`)."""
    routed = routed_model(loaded, routing, noise)
    budget = budget_of(loaded, routing, noise)
    return routed, None if budget is None else calibrated(routed, loaded, Calibration(budget))


@contextmanager
def _about(argument: str) -> Generator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(f"{argument}: {one_line(error)}") from error
