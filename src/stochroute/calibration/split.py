"""How a budget is divided among the sites of a routing, and what each of them contributes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stochroute.config import Numbers, RoutingConfig, layer_strengths
from stochroute.routing.attached import AttachedRouting

_ROUNDS = 3
_LARGEST_CHANGE = 8.0  # of a strength in one round: far from small noise the square law overshoots
_UNHEARD = 1e-7  # nats; rounding in float32 makes about as much

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
    found = []
    for kind, row in _sites(every):
        only = {k: tuple(s if (k, i) == (kind, row) else 0.0 for i, s in enumerate(v)) for k, v in every.items()}
        found.append(Contribution(kind, routed.kinds()[kind].layers[row], every[kind][row], nats(only)))
    return found


def equalised(routed: AttachedRouting, strengths: Strengths, nats: Callable[[Strengths], float]) -> Strengths:
    """Strengths at which every site that is on contributes the same number of nats when alone.

    The sites' nats grow about with the square of their strength, so each round multiplies a strength by
    √(mean of all / its own); three rounds make up for what is not square.

    Raises:
        ValueError: the noise of a site does not reach the output.
    """
    for _ in range(_ROUNDS):
        found = contributions(routed, strengths, nats)
        mean = sum(site.nats for site in found) / len(found)
        changed = {kind: list(values) for kind, values in _by_layer(routed, strengths).items()}
        for site in found:
            if site.nats < _UNHEARD:
                raise ValueError(
                    f"{site.kind} noise in layer {site.layer} alone makes {site.nats:.1g} nats, so no share of the "
                    f"budget can be given to it: leave the layer out, or take split='even'"
                )
            change = min(max((mean / site.nats) ** 0.5, 1 / _LARGEST_CHANGE), _LARGEST_CHANGE)
            changed[site.kind][routed.kinds()[site.kind].layers.index(site.layer)] *= change
        strengths = {kind: tuple(values) for kind, values in changed.items()}
    return strengths


def _by_layer(routed: AttachedRouting, strengths: Strengths) -> dict[str, list[float]]:
    return {kind: layer_strengths(strengths[kind], noise.layers) for kind, noise in routed.kinds().items()}


def _sites(strengths: Mapping[str, list[float]]) -> Iterator[tuple[str, int]]:
    for kind, values in strengths.items():
        yield from ((kind, row) for row, strength in enumerate(values) if strength)
