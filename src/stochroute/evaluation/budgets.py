"""Equal budgets: the strength at which each kind of noise moves the next token by so many nats."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stochroute.config import RoutingConfig
from stochroute.evaluation.arms import Setting
from stochroute.evaluation.run import Run
from stochroute.routed import route

TEXTS, PATHS = 8, 2  # behind each strength: the same ones for every arm, so that all are off to the same side


def find_strengths(
    model: Any,
    tokenizer: Any,
    settings: list[Setting],
    texts: Callable[[], list[str]],
    run: Run,
    advance: Callable[[int], None],
) -> list[Setting]:
    """The settings with the strengths that their budgets need; those without a budget as they are.

    Args:
        model, tokenizer: of the model that writes, not routed.
        settings: in any order; settings of the same routing and budget are calibrated once.
        texts: gives what calibration reads, TEXTS of them at even distances; asked for only where it is needed.
        run: knows the strengths found before an interruption, and keeps each as it is found.
        advance: called with the number of budgets done since.

    Raises:
        ValueError: a budget cannot be reached, or the texts are too short.
    """
    asked: dict[tuple[RoutingConfig, float], list[Setting]] = {}
    for setting in settings:
        if setting.budget is not None:
            asked.setdefault((setting.routing, setting.budget), []).append(setting)
    run.keep_strengths({})
    nearest: dict[RoutingConfig, RoutingConfig] = {}  # the strengths of the last budget, from which the next is near
    read: list[str] = []
    for (routing, budget), alike in sorted(asked.items(), key=lambda item: item[0][1]):
        found = run.strengths.get(alike[0].name)
        if found is None:
            read = read or texts()
            found = _calibrated(model, tokenizer, nearest.get(routing, routing), budget, read, alike[0].arm)
            run.keep_strengths(dict.fromkeys((s.name for s in alike), found))
        nearest[routing] = found
        advance(1)
    return [s if s.budget is None else replace(s, routing=run.strengths[s.name]) for s in settings]


def _calibrated(
    model: Any, tokenizer: Any, begin: RoutingConfig, budget: float, texts: list[str], arm: str
) -> RoutingConfig:
    routed = route(model, begin)
    try:
        chosen = texts[:: max(1, -(-len(texts) // TEXTS))]
        routed.calibrate(chosen, budget=budget, tokenizer=tokenizer, pairs=TEXTS * PATHS)
    except ValueError as error:
        raise ValueError(f"{arm}: {error}") from error
    finally:
        routed.detach()
    return routed.config
