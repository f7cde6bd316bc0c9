"""What a calibration found: numbers, a text, and a plot."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stochroute.atomic import write_text
from stochroute.calibration.plot import draw
from stochroute.calibration.split import Contribution
from stochroute.config import RoutingConfig

NAMES = {"divergence": "KL(routed ‖ clean)", "transmission": "I(next token; path)"}
_BAR = 30  # characters


@dataclass(frozen=True)
class Report:
    """The result of a calibration; printing it gives a table with a bar for each site.

    Attributes:
        budget: what was asked for, in nats a noised position.
        quantity: "divergence" or "transmission", what the budget is of.
        split: "even" or "sensitivity".
        nats: the quantity at the strengths found, on the prompts and paths of the calibration.
        low, high: its 95 % interval over prompts and paths.
        divergence, transmission: both quantities there.
        config: the routing with the strengths found.
        contributions: each site with its noise alone, on a part of the pairs.
        curve: (strength over the strength found, nats), rising, on a part of the pairs.
        prompts, pairs, positions: how many prompts, (prompt, path) pairs, and noised positions in all pairs.
        evaluations: how often the quantity was measured.
        forward_passes: sequences that went through the model for that.
    """

    budget: float
    quantity: str
    split: str
    nats: float
    low: float
    high: float
    divergence: float
    transmission: float
    config: RoutingConfig
    contributions: tuple[Contribution, ...]
    curve: tuple[tuple[float, float], ...]
    prompts: int
    pairs: int
    positions: int
    evaluations: int
    forward_passes: int

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {**asdict(self), "config": self.config.to_dict()}

    def strengths(self) -> dict[str, str]:
        """The strengths found, as the command line takes them: {"structural": "0.1372", "attention": "0.5,0.4"}."""
        return {kind: _numbers(part.proportion) for kind, part in self.config.kinds().items()}

    def save_plot(self, file: str | os.PathLike[str]) -> None:
        """Writes the curve and the sites' contributions as an SVG; OSError when it cannot be written."""
        sites = [(f"{site.kind} {site.layer}", site.nats) for site in self.contributions]
        svg = draw(self.curve, self.budget, (self.low, self.high), sites, NAMES[self.quantity])
        write_text(Path(file), svg)

    def __str__(self) -> str:
        most = max(site.nats for site in self.contributions)
        rows = [("site", "strength", "nats alone", "")]
        for site in self.contributions:
            bar = "█" * max(0, round(_BAR * site.nats / most)) if most > 0 else ""
            rows.append((f"{site.kind} {site.layer}", f"{site.strength:.4g}", f"{site.nats:.4g}", bar))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]
        found = f"{self.nats:.4g} nats a noised position (95 %: {self.low:.4g} – {self.high:.4g})"
        pairs = f"{self.pairs} pairs of {self.prompts} prompts and their paths, {self.positions} noised positions"
        return "\n".join(
            [
                f"{NAMES[self.quantity]}: {found}, budget {self.budget:g}",
                f"divergence {self.divergence:.4g}, transmission {self.transmission:.4g}",
                f"strength: {', '.join(map(' '.join, self.strengths().items()))} (split: {self.split})",
                "",
                *table,
                "",
                f"{pairs}, {self.forward_passes} forward passes",
            ]
        )


def _numbers(strength: float | tuple[float, ...]) -> str:
    """As --strength takes it."""
    return ",".join(f"{s:g}" for s in strength) if isinstance(strength, tuple) else f"{strength:g}"
