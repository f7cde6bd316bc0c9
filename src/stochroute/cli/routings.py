"""The routed model that a command asks for: by a saved routing or by options, calibrated where it says so."""

from collections.abc import Generator
from contextlib import contextmanager

from stochroute.calibration import Report
from stochroute.calibration.loaded import Calibration, calibrated
from stochroute.cli.errors import BadInput
from stochroute.cli.request import Noise
from stochroute.errors import one_line
from stochroute.loading import LoadedModel
from stochroute.routed import RoutedModel, route


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


@contextmanager
def _about(argument: str) -> Generator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(f"{argument}: {one_line(error)}") from error
