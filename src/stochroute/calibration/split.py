"""How a budget is divided among the sites of a routing, and what each of them contributes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stochroute.calibration.search import Curve, OutOfReach, solve
from stochroute.config import Numbers, RoutingConfig, layer_strengths
from stochroute.routing.attached import AttachedRouting

Strengths = Mapping[str, Numbers]


@dataclass(frozen=True)
class Contribution:
    """One site with its noise alone, all others at 0.

    Attributes:
        kind: "structural", "attention" or "experts".
        layer: index of the layer.
        strength: its strength.
        nats: a noised position. Noise that several sites share adds up to more than the sum of these.
    """

    kind: str
    layer: int
    strength: float
    nats: float


def strengths_of(config: RoutingConfig) -> Strengths:
    """What the config gives each kind that is on; the default of the kind for "auto"."""
    return {kind: part.proportion for kind, part in config.kinds().items()}


def scaled(strengths: Strengths, factor: float) -> Strengths:
    """All strengths times the factor, in the shape they have."""
    return {
        kind: tuple(s * factor for s in given) if isinstance(given, tuple) else given * factor
        for kind, given in strengths.items()
    }


def rounded(strengths: Strengths, digits: int) -> Strengths:
    """To so many significant digits."""

    def cut(value: float) -> float:
        return float(f"{value:.{digits}g}")

    return {
        kind: tuple(map(cut, given)) if isinstance(given, tuple) else cut(given) for kind, given in strengths.items()
    }


def with_strengths(config: RoutingConfig, strengths: Strengths) -> RoutingConfig:
    """The config with other strengths."""
    parts: dict[str, Any] = {kind: replace(config.kinds()[kind], strength=given) for kind, given in strengths.items()}
    return replace(config, **parts)


def contributions(
    routed: AttachedRouting, strengths: Strengths, nats: Callable[[Strengths], float]
) -> list[Contribution]:
    """Each site that is on, measured alone.

    Args:
        routed: the routing.
        strengths: of all sites.
        nats: measures the routing at the strengths it is given.
    """
    every = _by_layer(routed, strengths)
    return [
        Contribution(
            kind, routed.kinds()[kind].layers[row], every[kind][row], nats(_alone(every, kind, row, every[kind][row]))
        )
        for kind, row in _sites(every)
    ]


def equalised(
    routed: AttachedRouting, strengths: Strengths, nats: Callable[[Strengths], float], budget: float
) -> Strengths:
    """Strengths at which every site that is on makes the same number of nats when alone, and all together the budget.

    Two root-findings, one in the other: the share of the budget that each site gets, and each site's strength for it.

    Raises:
        ValueError: the noise of a site alone cannot reach its share.
    """
    every = _by_layer(routed, strengths)
    sites = list(_sites(every))
    found: dict[float, Strengths] = {}

    def together(part: float) -> float:
        for kind, row in sites:
            layer = routed.kinds()[kind].layers[row]
            every[kind][row] = _strength_for(part * budget, every, kind, row, nats, layer)
        found[part] = {kind: tuple(values) for kind, values in every.items()}
        return nats(found[part])

    return found[solve(Curve(together), budget, 1 / len(sites))]


def _strength_for(
    share: float,
    every: Mapping[str, list[float]],
    kind: str,
    row: int,
    nats: Callable[[Strengths], float],
    layer: int,
) -> float:
    given = every[kind][row]
    try:
        return given * solve(Curve(lambda factor: nats(_alone(every, kind, row, given * factor))), share)
    except OutOfReach as error:
        raise ValueError(
            f"{kind} noise in layer {layer} cannot make its share of {share:.2g} nats alone ({error}): leave the layer "
            f"out, or take split='even'"
        ) from error


def _alone(every: Mapping[str, list[float]], kind: str, row: int, strength: float) -> Strengths:
    """That strength at one site, 0 at all others."""
    return {
        k: tuple(strength if (k, index) == (kind, row) else 0.0 for index in range(len(values)))
        for k, values in every.items()
    }


def _by_layer(routed: AttachedRouting, strengths: Strengths) -> dict[str, list[float]]:
    return {kind: layer_strengths(strengths[kind], noise.layers) for kind, noise in routed.kinds().items()}


def _sites(strengths: Mapping[str, list[float]]) -> Iterator[tuple[str, int]]:
    for kind, values in strengths.items():
        yield from ((kind, row) for row, strength in enumerate(values) if strength)
