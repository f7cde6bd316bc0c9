"""What is compared: arms, each a way to have a model write different texts, swept over the same number of settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from stochroute.config import Attention, Experts, RoutingConfig, Structural
from stochroute.generation.decoding import GREEDY, Decoding

Family = Literal["paths", "sampler", "search", "dropout"]

SETTINGS = 5  # of every arm, so that nobody is tuned more than another
BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.4)  # nats per noised position
NO_NOISE = RoutingConfig(structural=None)

_TEMPERATURES = (0.4, 0.6, 0.8, 1.0, 1.2)
_HOT_TEMPERATURES = (0.6, 0.8, 1.2, 1.6, 2.0)
_SPREAD = ("temperature", "top-k", "hot top-k", "hot min-p")  # samplers that are also spread


@dataclass(frozen=True)
class WithoutPaths:
    """One way of `evaluation.searches` to have different texts; the others are None.

    Attributes:
        beams: width of a beam search that keeps the samples' number of texts.
        diversity_penalty: λ of a diverse beam search with one beam a group (Vijayakumar et al. 2018, arXiv 1610.02424).
        dropout: share of the feed-forward outputs dropped at every forward pass (Monte Carlo dropout).
    """

    beams: int | None = None
    diversity_penalty: float | None = None
    dropout: float | None = None


@dataclass(frozen=True)
class Setting:
    """One point of an arm's sweep.

    Attributes:
        arm: the arm's name.
        family: what kind of arm it is.
        label: what tells it from the arm's other settings.
        decoding: how tokens are chosen.
        routing: the noise; where there is a budget its strengths are still to be found.
        budget: mean KL(routed ‖ clean) in nats per noised position; None without noise.
        without_paths: a search or dropout in place of decoding and routing.
    """

    arm: str
    family: Family
    label: str
    decoding: Decoding = GREEDY
    routing: RoutingConfig = NO_NOISE
    budget: float | None = None
    without_paths: WithoutPaths | None = None

    @property
    def name(self) -> str:
        """Unique among all settings."""
        return f"{self.arm}: {self.label}"

    @property
    def replays(self) -> bool:
        """Whether a text comes back from its path id: all do but those of searches and of dropout."""
        return self.without_paths is None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; what takes the place of paths stands in the decoding, and what is left out is left out."""
        others = {} if self.without_paths is None else asdict(self.without_paths)
        decoding = self.decoding.to_dict() | {name: value for name, value in others.items() if value is not None}
        routing = self.routing.to_dict()
        return {"arm": self.arm, "family": self.family, "label": self.label, "decoding": decoding,
                "routing": routing, "budget": self.budget}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A way to have different texts written.

    Attributes:
        name: unique among the arms.
        family: "paths" (noise inside the model, tokens spread along paths, or both), "sampler", "search" or "dropout".
        about: what it does, in a line.
        settings: the sweep.
    """

    name: str
    family: Family
    about: str
    settings: tuple[Setting, ...] = field(repr=False)


def all_arms(samples: int, budgets: Sequence[float] = BUDGETS, experts: bool = False) -> list[Arm]:
    """Every arm, each with the same number of settings.

    Args:
        samples: texts a prompt; searches are at least as wide.
        budgets: of the path arms, in nats per noised position.
        experts: whether the model has experts to route.

    Raises:
        ValueError: not as many budgets as every other arm has settings.
    """
    if len(budgets) != SETTINGS or any(not b > 0 for b in budgets) or len(set(budgets)) != SETTINGS:
        raise ValueError(f"budgets={list(budgets)}: give {SETTINGS} different positive numbers of nats, as many as "
                         f"every other arm has settings")  # fmt: skip
    return [*_samplers(), *_paths(tuple(sorted(budgets)), experts), *_others(samples)]


def _samplers() -> list[Arm]:
    sweeps: dict[str, tuple[str, list[tuple[str, Decoding]]]] = {
        "temperature": ("softmax of the logits over T, nothing cut off",
                        [(f"T {t}", Decoding(temperature=t)) for t in _TEMPERATURES]),
        "top-p": ("the likeliest tokens that hold a share p, T 1",
                  [(f"p {p}", Decoding(top_p=p)) for p in (0.5, 0.7, 0.8, 0.9, 0.95)]),
        "top-k": ("the k likeliest tokens, T 1", [(f"k {k}", Decoding(top_k=k)) for k in (2, 4, 8, 16, 50)]),
        "min-p": ("tokens above a share of the likeliest, T 1",
                  [(f"min-p {p}", Decoding(min_p=p)) for p in (0.4, 0.2, 0.1, 0.05, 0.02)]),
        "hot top-p": ("top-p 0.9 at T", [(f"T {t}", Decoding(temperature=t, top_p=0.9)) for t in _HOT_TEMPERATURES]),
        "hot top-k": ("top-k 8 at T", [(f"T {t}", Decoding(temperature=t, top_k=8)) for t in _HOT_TEMPERATURES]),
        "hot min-p": ("min-p 0.1 at T", [(f"T {t}", Decoding(temperature=t, min_p=0.1)) for t in _HOT_TEMPERATURES]),
        "typical": ("locally typical tokens of a share τ, T 1",
                    [(f"τ {p}", Decoding(typical_p=p)) for p in (0.3, 0.5, 0.7, 0.85, 0.95)]),
    }  # fmt: skip
    return [
        Arm(name, "sampler", about, tuple(Setting(name, "sampler", label, decoding) for label, decoding in sweep))
        for name, (about, sweep) in sweeps.items()
    ]


def _paths(budgets: tuple[float, ...], experts: bool) -> list[Arm]:
    structural = Structural()
    routings = {
        "shared": ("one draw a path for all noised layers, greedy", RoutingConfig(structural=structural)),
        "shared per token": (
            "the same, drawn afresh at every token, greedy",
            RoutingConfig(structural=replace(structural, hold=1)),
        ),
        "independent": (
            "a draw a path and layer, greedy",
            RoutingConfig(structural=replace(structural, form="independent")),
        ),
        "latent": (
            "16 numbers a path, carried into all noised layers, greedy",
            RoutingConfig(structural=replace(structural, form="latent")),
        ),
        "attention": (
            "noise on the attention scores of all layers, greedy",
            RoutingConfig(structural=None, attention=Attention()),
        ),
    }
    if experts:
        routings["experts"] = (
            "noise on the choice of experts, greedy",
            RoutingConfig(structural=None, experts=Experts()),
        )
    arms = [
        Arm(name, "paths", about, tuple(Setting(name, "paths", f"{b} nats", routing=routing, budget=b)
                                        for b in budgets))
        for name, (about, routing) in routings.items()
    ]  # fmt: skip
    return [*arms, *_sampled_paths(structural, budgets[SETTINGS // 2])]


def _sampled_paths(structural: Structural, budget: float) -> list[Arm]:
    """Paths that tokens are drawn from as well: beside noise in the model, or spread over a sampler's distribution."""
    both = "shared + temperature"
    noised = [
        Setting(both, "paths", f"T {t}", Decoding(temperature=t), RoutingConfig(structural=structural), budget)
        for t in _TEMPERATURES
    ]
    spread = {arm.name: arm for arm in _samplers() if arm.name in _SPREAD}
    return [
        Arm(both, "paths", f"shared at {budget} nats, and temperature", tuple(noised)),
        *[
            Arm(f"{name}, spread", "paths", f"{arm.about}; shared out among the texts of a prompt", tuple(
                replace(s, arm=f"{name}, spread", family="paths", decoding=replace(s.decoding, spread=True))
                for s in arm.settings
            ))
            for name, arm in spread.items()
        ],
    ]  # fmt: skip


def _others(samples: int) -> list[Arm]:
    widths = [max(samples + step, round(samples * factor)) for step, factor in enumerate((1, 1.25, 1.5, 2, 3))]
    sweeps: list[tuple[str, Family, str, list[tuple[str, WithoutPaths]]]] = [
        ("beam search", "search", f"the {samples} best beams",
         [(f"width {w}", WithoutPaths(beams=w)) for w in widths]),
        ("diverse beam search", "search", "one beam a group, a penalty λ on tokens that earlier groups took",
         [(f"λ {p}", WithoutPaths(diversity_penalty=p)) for p in (0.1, 0.3, 0.6, 1.0, 2.0)]),
        ("MC dropout", "dropout", "feed-forward outputs dropped at every step, greedy",
         [(f"rate {r}", WithoutPaths(dropout=r)) for r in (0.02, 0.05, 0.1, 0.2, 0.3)]),
    ]  # fmt: skip
    return [
        Arm(name, family, about, tuple(Setting(name, family, label, without_paths=other) for label, other in sweep))
        for name, family, about, sweep in sweeps
    ]
