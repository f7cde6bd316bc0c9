"""The families of arms of the uncertainty benchmark, each with as many trials; validation questions choose among them."""

from dataclasses import dataclass
from itertools import product

from stochroute.config import Attention, RoutingConfig, Structural
from stochroute.uncertainty import Arm, noise_injection, single_pass, temperature_only

TRIALS = 8  # of every family that has something to choose
TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0)
NOISE_TEMPERATURES = (0.5, 1.0)
DROPOUTS = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Family:
    """Arms of one kind.

    Attributes:
        name: in results.
        trials: what validation chooses among.
        scores: each chosen for and reported on its own.
        trained_with_dropout: whether its model is the one that was.
    """

    name: str
    trials: tuple[Arm, ...]
    scores: tuple[str, ...]
    trained_with_dropout: bool = False


PATH_SCORES = ("answer entropy", "token transmission", "largest token transmission", "token total")
MAIN = ("independent, lower third", "token transmission")  # named before the reported seeds were run
RIVALS = (
    ("temperature", "answer entropy"),
    ("temperature", "single-pass entropy"),
    ("single pass", "1 − p(max)"),
    ("MC dropout", "token transmission"),
    ("MC dropout, trained with it", "token transmission"),
)


def _structural(strengths: tuple[float, ...], **how: object) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            f"strength {strength:g}, T {temperature:g}",
            RoutingConfig(structural=Structural(strength=strength, **how), span="all"),  # pyright: ignore[reportArgumentType]
            temperature,
        )
        for strength, temperature in product(strengths, NOISE_TEMPERATURES)
    )


def _attention(strengths: tuple[float, ...]) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            f"strength {strength:g}, T {temperature:g}",
            RoutingConfig(structural=None, attention=Attention(strength=strength), span="all"),
            temperature,
        )
        for strength, temperature in product(strengths, NOISE_TEMPERATURES)
    )


def _dropout() -> tuple[Arm, ...]:
    return tuple(
        Arm(f"rate {rate:g}, T {temperature:g}", temperature=temperature, dropout=rate)
        for rate, temperature in product(DROPOUTS, NOISE_TEMPERATURES)
    )


_LOW, _UPPER = (0.05, 0.1, 0.2, 0.4), (0.2, 0.4, 0.7, 1.0)  # the upper third carries more before accuracy falls
FAMILIES = (
    Family("single pass", (single_pass(),), ("single-pass entropy", "1 − p(max)")),
    Family("temperature", tuple(map(temperature_only, TEMPERATURES)), ("answer entropy", "single-pass entropy")),
    Family("independent, lower third", _structural(_LOW, form="independent", layers="lower_third"), PATH_SCORES),
    Family("shared, lower third", _structural(_LOW, form="shared", layers="lower_third"), PATH_SCORES),
    Family("latent, lower third", _structural(_LOW, form="latent", layers="lower_third"), PATH_SCORES),
    Family(
        "independent, lower third, a draw a token",
        _structural(_LOW, form="independent", layers="lower_third", hold=1),
        PATH_SCORES,
    ),
    Family("independent, all layers", _structural(_LOW, form="independent", layers="all"), PATH_SCORES),
    Family("shared, upper third", _structural(_UPPER, form="shared", layers="upper_third"), PATH_SCORES),
    Family("attention", _attention((0.1, 0.3, 0.6, 1.0)), PATH_SCORES),
    Family("MC dropout", _dropout(), PATH_SCORES),
    Family("MC dropout, trained with it", _dropout(), PATH_SCORES, trained_with_dropout=True),
)


def published(alphas: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)) -> Family:
    """The published protocol, α chosen; its temperature stays at 0.5 for both arms."""
    return Family("U(0, α), T 0.5", tuple(noise_injection(alpha)[0] for alpha in alphas), ("answer entropy",))
