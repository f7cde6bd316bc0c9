"""The families of arms of the uncertainty benchmark, among whose trials validation questions choose."""

from dataclasses import dataclass
from typing import Any

from stochroute.config import Attention, RoutingConfig, Structural
from stochroute.uncertainty import Arm, noise_injection, single_pass, temperature_only

TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.25, 1.5)  # as many trials as any noise has, and two more


@dataclass(frozen=True)
class Family:
    """Arms of one kind.

    Attributes:
        name: in results.
        trials: what validation chooses among.
        scores: each chosen for and reported on its own.
    """

    name: str
    trials: tuple[Arm, ...]
    scores: tuple[str, ...]


PATH_SCORES = ("answer entropy", "token transmission")
SINGLE = Family("single pass", (single_pass(),), ("single-pass entropy", "1 − p(max)"))
TEMPERATURE = Family(
    "temperature", tuple(map(temperature_only, TEMPERATURES)), ("answer entropy", "single-pass entropy")
)


def _structural(strengths: tuple[float, ...], **how: Any) -> tuple[Arm, ...]:
    """The strengths at temperature 1, the largest at 0.5 as well."""
    trials = [*((strength, 1.0) for strength in strengths), (strengths[-1], 0.5)]
    return tuple(
        Arm(
            f"strength {strength:g}, T {temperature:g}",
            RoutingConfig(structural=Structural(strength=strength, **how), span="all"),
            temperature,
        )
        for strength, temperature in trials
    )


def _attention(strengths: tuple[float, ...]) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            f"strength {strength:g}, T {temperature:g}",
            RoutingConfig(structural=None, attention=Attention(strength=strength), span="all"),
            temperature,
        )
        for strength, temperature in [*((strength, 1.0) for strength in strengths), (strengths[-1], 0.5)]
    )


def _dropout(rates: tuple[float, ...]) -> tuple[Arm, ...]:
    return tuple(Arm(f"rate {rate:g}", temperature=1.0, dropout=rate) for rate in rates)


_LOW = (0.1, 0.2, 0.4)
CORE = (
    SINGLE,
    TEMPERATURE,
    Family("shared, lower third", _structural(_LOW, form="shared", layers="lower_third"), PATH_SCORES),
    Family("MC dropout", _dropout((0.02, 0.05, 0.1, 0.2)), PATH_SCORES),
    # the published protocol: α is chosen, the temperature stays
    Family("U(0, α), T 0.5", tuple(noise_injection(alpha)[0] for alpha in (1.0, 4.0, 8.0, 16.0)), ("answer entropy",)),
    Family("T 0.5", (temperature_only(0.5),), ("answer entropy",)),
)
FORMS = (
    Family("latent, lower third", _structural(_LOW, form="latent", layers="lower_third"), PATH_SCORES),
    Family("a draw a token, lower third", _structural(_LOW, layers="lower_third", hold=1), PATH_SCORES),
    Family("shared, all layers", _structural((0.05, 0.1, 0.2), form="shared", layers="all"), PATH_SCORES),
    Family("independent, all layers", _structural(_LOW, form="independent", layers="all"), PATH_SCORES),
    Family("shared, upper third", _structural((0.4, 0.7, 1.0), form="shared", layers="upper_third"), PATH_SCORES),
    Family("attention", _attention((0.2, 0.4, 0.8)), PATH_SCORES),
)
TRAINED_WITH_DROPOUT = (
    Family("trained with dropout: single pass", SINGLE.trials, SINGLE.scores),
    Family("trained with dropout: MC dropout", _dropout((0.02, 0.05, 0.1, 0.2)), PATH_SCORES),
)

MAIN = "shared, lower third / token transmission"  # named before the reported seeds were run, on another one
RIVALS = (
    "temperature / answer entropy",
    "temperature / single-pass entropy",
    "single pass / 1 − p(max)",
    "MC dropout / token transmission",
)
