"""The noise of a request: the server's routing, or the same with another strength, budget, hold or span."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stochroute.config import Hold, RoutingConfig, Span
from stochroute.generation.receipts import routing_hash
from stochroute.routed import RoutedModel
from stochroute.serving.budgets import Budgets

_KINDS = ("structural", "attention", "experts")


@dataclass(frozen=True)
class Noise:
    """What a request changes in the routing; None leaves it as the server has it.

    Attributes:
        strength: of the one kind of noise that is on; 0 is the original model.
        budget: what all kinds together do, in nats a noised position.
        hold: consecutive positions that share a draw.
        span: the positions that carry noise.
    """

    strength: float | None = None
    budget: float | None = None
    hold: Hold | None = None
    span: Span | None = None


class Variants:
    """One routed model that follows paths with the noise of any request. Not for several threads at once."""

    def __init__(self, routed: RoutedModel, budgets: Budgets | None = None):
        self.routed = routed
        self.budgets = budgets
        self._own = routed.config
        kinds = [kind for kind in _KINDS if getattr(routed.config, kind) is not None]
        self._kind = kinds[0] if len(kinds) == 1 else None

    def refusal(self, field: str) -> str | None:
        """Why a request cannot set `field` ("strength", "budget", "hold", "span") here; None when it can."""
        if self.routed.silent:
            return f"this server runs without noise, so {field} has no effect: start it with a strength above 0"
        if field == "budget":
            return None if self.budgets else "this server has not measured what strengths do: start it with --budgets"
        if self._kind is None and field != "span":
            return f"this server's routing has several kinds of noise, and {field} does not say which: leave it out"
        if field == "strength" and isinstance(getattr(self._own, self._kind or "").strength, tuple):
            return "this server's routing has a strength for each layer: leave strength out"
        return None

    def config(self, noise: Noise) -> RoutingConfig:
        """The routing config of a request that `refusal` allows; ValueError when a value is out of its range."""
        config = self._own if noise.budget is None or self.budgets is None else self.budgets.config(noise.budget)
        if self._kind is not None:
            kind: Any = getattr(config, self._kind)
            asked: dict[str, Any] = {"strength": noise.strength, "hold": noise.hold}
            changed = replace(kind, **{name: value for name, value in asked.items() if value is not None})
            config = replace(config, **{self._kind: changed})
        return config if noise.span is None else replace(config, span=noise.span)

    def normal(self, noise: Noise) -> Noise:
        """The same noise, with None for what the server's routing has anyway."""
        kind: Any = None if self._kind is None else getattr(self._own, self._kind)
        return Noise(
            strength=None if kind is not None and noise.strength == kind.strength else noise.strength,
            budget=noise.budget,
            hold=None if kind is not None and noise.hold == kind.hold else noise.hold,
            span=None if noise.span == self._own.span else noise.span,
        )

    def is_clean(self, noise: Noise) -> bool:
        """Whether nothing but the choice of tokens reads the path."""
        return self.routed.silent or noise.strength == 0

    def span(self, noise: Noise) -> Span:
        """The span in force."""
        return noise.span or self._own.span

    def hash(self, noise: Noise) -> str:
        """The hash of the routing with the request's settings, as a receipt names it."""
        with self._in_force(noise):
            return routing_hash(self.routed)

    @contextmanager
    def follow(self, noise: Noise, paths: Sequence[int], starts: Sequence[int]) -> Generator[None]:
        """Inside, the model walks the paths, one a batch row, with the request's noise."""
        if self.is_clean(noise):
            with self.routed.suspended():
                yield
            return
        with self._in_force(noise), self.routed.follow(paths, starts):
            yield

    @contextmanager
    def _in_force(self, noise: Noise) -> Generator[None]:
        self.routed.adopt_strengths(self.config(noise))
        try:
            yield
        finally:
            self.routed.adopt_strengths(self._own)
