"""What a routing is: where noise enters, how much, and how long one draw lasts.

Frozen dataclasses, checked once when they are made, that travel to JSON and back.
"""

# pyright: reportUnnecessaryIsInstance=false
import difflib
import math
import sys
import warnings
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast, get_args

FORMAT_VERSION = 1
MAX_DISTANCE_BUCKETS = 32
DEFAULT_BUDGET = 0.05  # nats a noised position

LayerRange = Literal["all", "upper_third", "middle_third", "lower_third"]
Layers = LayerRange | tuple[int, ...]
Numbers = float | tuple[float, ...]
Strength = Numbers | Literal["auto"]
Hold = int | Literal["sequence"]
Span = Literal["generated", "all"]
Form = Literal["independent", "shared", "latent"]
Scale = Literal["relative", "absolute"]
Distribution = Literal["normal", "uniform", "rademacher"]
Decay = Literal["constant", "linear", "cosine"]
Quantity = Literal["divergence", "transmission"]
Split = Literal["even", "sensitivity"]


class UnknownConfigKeys(UserWarning):
    """A routing written by a newer version holds keys that this version does not know and therefore leaves out."""


@dataclass(frozen=True)
class Schedule:
    """How strength changes with the distance d = position − start, in tokens.

    "constant": factor 1. "linear": 1 − d/length. "cosine": (1 + cos(π d/length))/2. Both decays stay at 0 from
    d = length on.

    Attributes:
        decay: "constant", "linear" or "cosine".
        length: number of tokens until the strength is 0; None with "constant", needed otherwise.
    """

    decay: Decay = "constant"
    length: int | None = None

    def __post_init__(self) -> None:
        _check_choice("schedule.decay", self.decay, Decay)
        if self.decay == "constant" and self.length is not None:
            raise ValueError(
                f"schedule.length={self.length} has no effect on a constant schedule: leave it out, or choose a decay"
            )
        if self.decay != "constant":
            _check_positive_int("schedule.length", self.length, "give the tokens until the strength is 0")


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What every kind of site has in common."""

    strength: Strength
    layers: Layers
    hold: Hold
    distribution: Distribution = "normal"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        # JSON and people write lists; a frozen, hashable config holds tuples
        for name in ("strength", "layers"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_strength(self.strength)
        _check_layers(self.layers)
        if self.hold != "sequence":
            _check_positive_int("hold", self.hold, "give a number of tokens, or 'sequence'")
        _check_choice("distribution", self.distribution, Distribution)
        if not isinstance(self.schedule, Schedule):
            raise ValueError(f"schedule={self.schedule!r} is no Schedule: give Schedule('cosine', 64), for example")

    @property
    def proportion(self) -> Numbers:
        """What calibration scales: the strength given, or the default of this kind where it is "auto"."""
        return cast(Numbers, type(self).strength) if self.strength == "auto" else self.strength


@dataclass(frozen=True, kw_only=True)
class Structural(_Kind):
    """Noise on the output of a layer's feed-forward block: h' = h + ε.

    Attributes:
        form: "shared" (one draw per path used by all layers), "independent" (a draw per layer and channel) or
            "latent" (z of `rank` numbers per path, carried into every layer by a matrix U).
        layers: "all", "upper_third" (⌈2L/3⌉ … L−1), "middle_third", "lower_third" (0 … ⌊L/3⌋ − 1), or layer indices.
            A third is never empty: of one or two layers the upper one is the last, the lower one the first.
        strength: standard deviation of ε; one number, or one for each layer named. Relative: over the root mean
            square of the clean output at that very position. Absolute: in the units of the activation. "auto": what
            `RoutedModel.calibrate` will find, and no path can be walked before.
        hold: number of consecutive positions that share a draw, or "sequence".
        scale: "relative" or "absolute".
        distribution: "normal", "uniform" or "rademacher", all of unit variance.
        schedule: how strength changes with position.
        rank: length of z, for the latent form only (default 16).
        spread: whether the z of siblings, ids of `derive_paths(…, spread=True)`, point away from each other (latent
            form, rank a multiple of 4). Each alone is distributed as before. A number of paths then means siblings.
    """

    form: Form = "shared"
    layers: Layers = "upper_third"
    strength: Strength = 0.1
    hold: Hold = "sequence"
    scale: Scale = "relative"
    rank: int | None = None
    spread: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("form", self.form, Form)
        _check_choice("scale", self.scale, Scale)
        if self.form == "latent":
            if self.rank is None:
                object.__setattr__(self, "rank", 16)
            _check_positive_int("rank", self.rank, "give the length of z")
        elif self.rank is not None:
            raise ValueError(f"rank={self.rank} has no effect on form={self.form!r}: leave it out, or choose 'latent'")
        if not isinstance(self.spread, bool):
            raise ValueError(f"spread={self.spread!r} is neither True nor False")
        if self.spread and self.form != "latent":
            raise ValueError(f"spread=True has no effect on form={self.form!r}: leave it out, or choose 'latent'")
        if self.spread and (self.rank or 0) % 4:
            raise ValueError(f"spread=True turns z in fours, and rank={self.rank} is no multiple of 4: give 4, 8 or 16")


@dataclass(frozen=True, kw_only=True)
class Attention(_Kind):
    """Noise on the attention scores: softmax((QKᵀ + N)/√d_k) V, N per head, query and key position.

    Attributes:
        strength: standard deviation in nats of log-odds, that is of N/√d_k after the model's own scaling; one
            number, or one for each layer named, or "auto" as in `Structural`.
        layers: as in `Structural`.
        hold: number of consecutive *query* positions that share a draw, or "sequence".
        distribution: "normal", "uniform" or "rademacher".
        schedule: how strength changes with the query's position.
        distance_buckets: None, or the number n of ranges of the distance from query to key (0, 1 – 2, 3 – 6, …, each
            twice as long as the one before, the last without end) with a learnable mean and σ each. A mean over all
            distances is not offered: softmax would not see it.
    """

    strength: Strength = 0.5
    layers: Layers = "all"
    hold: Hold = 1
    distance_buckets: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance_buckets is not None:
            _check_positive_int("distance_buckets", self.distance_buckets, "give the number of ranges, or None")
            if not 2 <= self.distance_buckets <= MAX_DISTANCE_BUCKETS:
                raise ValueError(
                    f"distance_buckets={self.distance_buckets} must be in 2 … {MAX_DISTANCE_BUCKETS}: the last of "
                    f"{MAX_DISTANCE_BUCKETS} begins at a distance of 2 billion tokens"
                )


@dataclass(frozen=True, kw_only=True)
class Experts(_Kind):
    """Noise on the router logits of mixture-of-experts layers, before the top-k choice.

    Attributes:
        strength: standard deviation in nats of router logits; one number, or one for each layer named, or "auto" as
            in `Structural`.
        layers: as in `Structural`; the names choose among the layers that have a router.
        hold: number of consecutive positions that share a draw, or "sequence".
        distribution: "normal", "uniform" or "rademacher".
        schedule: how strength changes with position.
    """

    strength: Strength = 0.5
    layers: Layers = "all"
    hold: Hold = 1


@dataclass(frozen=True, kw_only=True)
class RoutingConfig:
    """The kinds of noise that are on (None: off) and the span of positions that `generate` lets carry it.

    With every kind off, only token routing is left: sampled text that replays from its path id.

    Attributes:
        structural: noise on feed-forward outputs.
        attention: noise on attention scores.
        experts: noise on router logits.
        span: "generated" (from the last prompt token on, whose output predicts the first new one) or "all".
    """

    structural: Structural | None = field(default_factory=Structural)
    attention: Attention | None = None
    experts: Experts | None = None
    span: Span = "generated"

    def __post_init__(self) -> None:
        for name, kind in (("structural", Structural), ("attention", Attention), ("experts", Experts)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{name}={value!r} is no {kind.__name__}: give {kind.__name__}(…) or None")
        _check_choice("span", self.span, Span)

    def kinds(self) -> dict[str, Structural | Attention | Experts]:
        """The kinds that are on, by name."""
        parts = {"structural": self.structural, "attention": self.attention, "experts": self.experts}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def spreads(self) -> bool:
        """Whether a number of paths means siblings, whose noise points away from each other."""
        return self.structural is not None and self.structural.spread

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON types, with the format's version."""
        written: dict[str, Any] = {"format_version": FORMAT_VERSION, **asdict(self)}
        if self.structural is not None and not self.structural.spread:
            del written["structural"]["spread"]  # what older versions wrote, so that hashes stay what they were
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RoutingConfig":
        """The config that `to_dict` wrote.

        Raises:
            ValueError: a value is out of its range, or a key is unknown although the format is not newer than this
                version's. Unknown keys of a newer format are named in an UnknownConfigKeys warning and left out.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a routing config is a JSON object, got {type(data).__name__}")
        data = dict(data)
        version = data.pop("format_version", FORMAT_VERSION)
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise ValueError(f"format_version={version!r} is no version: it is a positive integer")
        newer = version > FORMAT_VERSION
        known = _known_keys(cls, data, newer, "")
        for name, kind in (("structural", Structural), ("attention", Attention), ("experts", Experts)):
            if known.get(name) is not None:
                part = _known_keys(kind, known[name], newer, f"{name}.")
                if part.get("schedule") is not None:
                    part["schedule"] = Schedule(**_known_keys(Schedule, part["schedule"], newer, f"{name}.schedule."))
                known[name] = kind(**part)
        return cls(**known)


def layer_indices(layers: Layers, available: list[int], depth: int) -> list[int]:
    """The layer indices meant by `layers`, in rising order.

    Args:
        layers: a range's name or explicit indices.
        available: indices that have a site of the kind in question.
        depth: number of layers L of the model.

    Raises:
        ValueError: an index is not available, or nothing is left.
    """
    if isinstance(layers, tuple):
        missing = sorted(set(layers) - set(available))
        if missing:
            raise ValueError(f"layers={list(layers)} names {missing}, but the sites stand in layers {available}")
        return sorted(layers)
    # a model of one or two layers still has an upper and a lower part
    lower, upper = max(1, depth // 3), min(depth - 1, math.ceil(2 * depth / 3))
    chosen = {
        "all": range(depth),
        "lower_third": range(lower),
        "middle_third": range(lower, upper),
        "upper_third": range(upper, depth),
    }[layers]
    indices = [i for i in available if i in chosen]
    if not indices:
        raise ValueError(f"layers={layers!r} holds no site in this model of {depth} layers: name layers of {available}")
    return indices


def layer_strengths(strength: Numbers, layers: list[int]) -> list[float]:
    """One strength a layer; ValueError when their numbers differ."""
    if isinstance(strength, tuple):
        if len(strength) != len(layers):
            raise ValueError(f"strength names {len(strength)} values for {len(layers)} layers {layers}")
        return [float(s) for s in strength]
    return [float(strength)] * len(layers)


def _known_keys(cls: type, data: dict[str, Any], newer: bool, prefix: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{prefix.rstrip('.')}={data!r} is no JSON object")
    known = {f.name for f in fields(cls)}
    for key in data.keys() - known:
        if newer:
            warnings.warn(
                f"this routing was written by a newer version; its key {prefix}{key} is unknown here and left out",
                UnknownConfigKeys,
                stacklevel=3,
            )
            continue
        close = difflib.get_close_matches(str(key), known, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown config key {prefix + str(key)!r}{meant}: the keys are {', '.join(sorted(known))}")
    return {key: value for key, value in data.items() if key in known}


def _check_choice(name: str, value: object, choices: Any) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(map(repr, allowed))}")


def _check_positive_int(name: str, value: object, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} is no positive integer: {remedy}")


def _check_strength(strength: Strength) -> None:
    if strength == "auto":
        return
    values = strength if isinstance(strength, tuple) else (strength,)
    if not values:
        raise ValueError("strength=() names no value: give one number, or one for each layer")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"strength={strength!r} is no number: give a finite number ≥ 0, one for each layer, or 'auto'"
            )
        if not 0 <= value <= sys.float_info.max:  # false for NaN as well
            raise ValueError(f"strength={strength!r} must be finite and ≥ 0: 0 is the original model")


def _check_layers(layers: Layers) -> None:
    if isinstance(layers, tuple):
        whole = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in layers)
        if not layers or not whole or len(set(layers)) != len(layers) or list(layers) != sorted(layers):
            raise ValueError(f"layers={list(layers)} must be distinct layer indices ≥ 0 in rising order")
    elif not isinstance(layers, str) or layers not in get_args(LayerRange):
        raise ValueError(
            f"layers={layers!r} is unknown: choose one of {', '.join(map(repr, get_args(LayerRange)))}, or indices"
        )
