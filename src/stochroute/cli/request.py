"""What a person asked `stochroute generate` to do, checked as far as that goes without a model."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from stochroute.cli.engines import Engine, check_device
from stochroute.cli.errors import BadInput
from stochroute.config import (
    DEFAULT_BUDGET,
    Attention,
    Experts,
    Form,
    LayerRange,
    Layers,
    RoutingConfig,
    Span,
    Strength,
    Structural,
)
from stochroute.embedded import EMBEDDED
from stochroute.generation import decoding
from stochroute.paths import check_seed, parse_path

Hold = int | Literal["sequence"]
# vLLM and Ray batch by themselves: here a batch is only what is written to the output at once
_ROWS_AT_ONCE = {"transformers": 32, "vllm": 1024, "ray": 1 << 16}


@dataclass(frozen=True)
class Noise:
    """The options that make a routing; None where one was not given."""

    strength: str | None
    layers: str | None
    hold: str | None
    form: str | None
    span: str | None
    attention_strength: float | None
    expert_strength: float | None
    budget: float | None = None

    def config(self) -> RoutingConfig:
        """The routing config; ValueError names the option that is wrong."""
        structural = Structural()
        if self.form is not None:
            form = _choice("--form", self.form, (*get_args(Form), "spread"))
            is_spread = form == "spread"
            structural = Structural(form=cast(Form, "latent" if is_spread else form), spread=is_spread)
        if self.strength not in (None, "auto"):
            structural = replace(structural, strength=_strength(self.strength))
        if self.layers is not None:
            structural = replace(structural, layers=_layers(self.layers))
        if self.hold is not None:
            structural = replace(structural, hold=_hold(self.hold))
        span = cast(Span, _choice("--span", self.span or "generated", get_args(Span)))
        attention = experts = None
        if self.attention_strength is not None:
            attention = Attention(strength=_number("--attention-strength", self.attention_strength))
        if self.expert_strength is not None:
            experts = Experts(strength=_number("--expert-strength", self.expert_strength))
        self._check_budget(structural.strength)
        return RoutingConfig(structural=structural, attention=attention, experts=experts, span=span)

    def budget_for(self, model: str | None) -> float | None:
        """The budget to calibrate for, None where strengths are taken as given.

        Beside --budget or --strength auto, strengths given are proportions. Without any of them, noise described for
        the embedded model (None) has a default strength, and for any other model the default budget.
        """
        if self.budget is not None:
            return self.budget
        nothing_given = (self.strength, self.attention_strength, self.expert_strength) == (None, None, None)
        return DEFAULT_BUDGET if self.strength == "auto" or (nothing_given and model is not None) else None

    def _check_budget(self, structural: Strength) -> None:
        if self.budget is None:
            return
        if not (math.isfinite(self.budget) and self.budget > 0):
            raise BadInput(f"--budget {self.budget}: must be finite and above 0; 0.05 is modest, 0.5 is much")
        lone = self.attention_strength is None and self.expert_strength is None and not isinstance(structural, tuple)
        if lone and self.strength not in (None, "auto"):
            raise BadInput(
                f"--strength {self.strength} has no effect beside --budget {self.budget:g}, which decides it: "
                "leave one of them out"
            )

    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class ModelRequest:
    """The model that writes, how it is routed, and where it computes.

    Attributes:
        model: a folder or a Hub name, None for the embedded model.
        routing: a saved routing's folder, None when `noise` describes one.
    """

    model: str | None
    routing: str | None
    noise: Noise
    device: str
    dtype: str


@dataclass(frozen=True)
class DecodingOptions:
    """The options of decoding, as they are given.

    Attributes:
        max_new_tokens: None for a default that fits the model.
    """

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    spread: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise BadInput(f"--max-new-tokens {self.max_new_tokens}: must be at least 1")
        try:
            chosen = decoding.Decoding(self.temperature, self.top_p, self.top_k, self.min_p)
        except ValueError as error:
            name, _, remedy = str(error).partition(" ")
            raise BadInput(f"--{name.replace('_', '-')} {remedy}") from error
        if self.spread and not chosen.samples:
            raise BadInput("--spread has no effect on greedy decoding: add --temperature 1, or leave it out")

    @property
    def choice(self) -> decoding.Decoding:
        """How tokens are chosen."""
        return decoding.Decoding(self.temperature, self.top_p, self.top_k, self.min_p, spread=self.spread)


@dataclass(frozen=True)
class Request:
    """One call of `stochroute generate`.

    Attributes:
        prompts: in order; empty for the embedded model's own.
        paths: how many paths a prompt, None when `replay` names them.
        replay: path ids to walk.
        seed: None to have one drawn.
        model: a folder or a Hub name, None for the embedded model.
        routing: a saved routing's folder, None when `noise` describes one.
        batch: rows computed at once, None for what the engine does best with.
        engine: what runs the model.
        output: file of rows, None for standard output.
    """

    prompts: list[str]
    paths: int | None
    replay: list[int]
    seed: int | None
    model: str | None
    routing: str | None
    noise: Noise
    decoding: DecodingOptions
    chat: bool
    json: bool
    output: str | None
    resume: bool
    check_replay: bool
    batch: int | None
    device: str
    dtype: str
    engine: Engine

    @property
    def rows_at_once(self) -> int:
        """How many rows are computed at once, at most."""
        return self.batch or _ROWS_AT_ONCE[self.engine.name]

    def __post_init__(self) -> None:
        """Checks all that can be known without a model; BadInput names the argument and the remedy."""
        if self.replay and self.paths is not None:
            raise BadInput(f"--paths {self.paths} has no effect beside --replay: leave one of them out")
        if self.replay and self.seed is not None:
            raise BadInput(f"--seed {self.seed} has no effect beside --replay: leave one of them out")
        if self.paths is not None and not 1 <= self.paths < 1 << 32:
            raise BadInput(f"--paths {self.paths}: must be at least 1 and below 2³²")
        if self.seed is not None:
            try:
                check_seed(self.seed)
            except ValueError as error:
                raise BadInput(f"--{error}") from error
        if self.batch is not None and self.batch < 1:
            raise BadInput(f"--batch {self.batch}: must be at least 1")
        if self.resume and self.output is None:
            raise BadInput("--resume has no effect without --output: name the file of the interrupted run")
        if self.model is not None and not self.prompts:
            raise BadInput(f"--model {self.model}: there is no prompt; write one, or name a --prompts-file")
        check_sampling(self.engine, self.decoding)
        check_device(self.engine, self.device)
        check_routing(self.routing, self.noise)


def check_sampling(engine: Engine, asked: DecodingOptions) -> None:
    """BadInput where tokens are to be drawn by an engine that does not draw them from the path."""
    if engine.name != "transformers" and asked.choice.samples:
        raise BadInput(
            f"--engine {engine.name}: samples by itself, not from the path, so no id would replay a text; "
            "leave --temperature, --top-k, --top-p and --min-p out, or use --engine transformers"
        )


def check_routing(routing: str | None, noise: Noise) -> None:
    """BadInput when the options of the noise are wrong, stand beside a saved routing, or there is no such routing."""
    if routing is None:
        noise.config()
    elif noise.given():
        raise BadInput(f"{noise.given()[0]} has no effect beside --routing {routing}: leave one of them out")
    elif routing != EMBEDDED and not Path(routing).is_dir():
        raise BadInput(f"--routing {routing}: no such folder; name one that save_pretrained has written")


def parse_replay(texts: list[str]) -> list[int]:
    """The path ids that --replay names; BadInput for one that is none, or that comes twice."""
    ids: list[int] = []
    for text in texts:
        try:
            ids.append(parse_path(text))
        except ValueError as error:
            raise BadInput(f"--replay {text}: {error}; copy it from an earlier result") from error
        if ids[-1] in ids[:-1]:
            raise BadInput(f"--replay {text}: is named twice; name it once")
    return ids


def _choice(option: str, value: str, choices: tuple[Any, ...]) -> str:
    if value not in choices:
        raise BadInput(f"{option} {value}: choose one of {', '.join(choices)}")
    return value


def _number(option: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise BadInput(f"{option} {value}: must be finite and at least 0; 0 is the original model")
    return value


def _strength(text: str) -> float | tuple[float, ...]:
    try:
        first, *others = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(f"--strength {text}: no number; write 0.1, one for each layer: 0.1,0.2, or auto") from error
    for value in (first, *others):
        _number("--strength", value)
    return (first, *others) if others else first


def _layers(text: str) -> Layers:
    if text in get_args(LayerRange):
        return cast(LayerRange, text)
    try:
        return tuple(sorted({index for part in text.split(",") for index in _indices(part)}))
    except ValueError as error:
        ranges = ", ".join(get_args(LayerRange))
        raise BadInput(f"--layers {text}: write {ranges}, or layer numbers such as 0,3 or 2-5") from error


def _indices(part: str) -> range:
    first, dash, last = part.strip().partition("-")
    start, end = int(first), int(last) if dash else int(first)
    if end < start:
        raise ValueError(f"{part} runs backwards")
    return range(start, end + 1)


def _hold(text: str) -> Hold:
    if text == "sequence":
        return "sequence"
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"--hold {text}: write a number of tokens of at least 1, or sequence")
    return int(text)
