"""Equal budgets: the strength at which each kind of noise moves the next token by so many nats."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stochroute.config import RoutingConfig
from stochroute.evaluation.arms import Setting
from stochroute.routed import route

TEXTS, PATHS = 12, 2  # behind each strength: the same ones for every arm, so that all are off to the same side


def find_strengths(
    model: Any, tokenizer: Any, settings: list[Setting], texts: list[str], done: Callable[[], None]
) -> list[Setting]:
    """The settings with the strengths that their budgets need; those without a budget as they are.

    Args:
        model, tokenizer: of the model that writes, not routed.
        settings: in any order; settings of the same routing and budget are calibrated once.
        texts: what calibration reads, TEXTS of them at even distances; see `RoutedModel.calibrate`.
        done: called after each calibration.

    Raises:
        ValueError: a budget cannot be reached, or the texts are too short.
    """
    texts = texts[:: max(1, -(-len(texts) // TEXTS))]
    known: dict[tuple[RoutingConfig, float], RoutingConfig] = {}
    wanted = dict.fromkeys((s.routing, s.budget) for s in settings if s.budget is not None)
    nearest: dict[RoutingConfig, RoutingConfig] = {}  # the strengths of the last budget, from which the next is near
    for routing, budget in sorted(wanted, key=lambda pair: pair[1]):
        routed = route(model, nearest.get(routing, routing))
        try:
            routed.calibrate(texts, budget=budget, tokenizer=tokenizer, pairs=TEXTS * PATHS)
            known[routing, budget] = nearest[routing] = routed.config
        except ValueError as error:
            arm = next(s.arm for s in settings if s.routing == routing)
            raise ValueError(f"{arm}: {error}") from error
        finally:
            routed.detach()
        done()
    return [s if s.budget is None else replace(s, routing=known[s.routing, s.budget]) for s in settings]
