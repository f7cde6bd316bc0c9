"""Equal budgets: the strength at which each kind of noise moves the next token by so many nats."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stochroute.evaluation.arms import Setting
from stochroute.routed import route


def find_strengths(
    model: Any, tokenizer: Any, settings: list[Setting], texts: list[str], done: Callable[[], None]
) -> list[Setting]:
    """The settings with the strengths that their budgets need; those without a budget as they are.

    Args:
        model, tokenizer: of the model that writes, not routed.
        settings: in any order; settings of the same routing and budget are calibrated once.
        texts: what calibration reads, see `RoutedModel.calibrate`.
        done: called after each calibration.

    Raises:
        ValueError: a budget cannot be reached, or the texts are too short.
    """
    known: dict[Any, Any] = {}
    found: list[Setting] = []
    for setting in settings:
        if setting.budget is None:
            found.append(setting)
            continue
        key = (setting.routing, setting.budget)
        if key not in known:
            routed: Any = route(model, setting.routing)
            try:
                routed.calibrate(texts, budget=setting.budget, tokenizer=tokenizer)
                known[key] = routed.config
            finally:
                routed.detach()
            done()
        found.append(replace(setting, routing=known[key]))
    return found
