"""A training run as a file: YAML <-> frozen dataclasses, checked before anything heavy is loaded.

recipe = read_recipe("train.yaml")
trainer = build_trainer(recipe, model, tokenizer)
"""

import difflib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from stochroute.config import RoutingConfig
from stochroute.paths import check_seed
from stochroute.routed import RoutedModel, route
from stochroute.training.data import Data, read_examples
from stochroute.training.objectives import OBJECTIVES, BoundPaths, Objective
from stochroute.training.trainer import RoutedTrainer
from stochroute.training.walked import Trained

# what the recipe sets itself, and where
_SET_ELSEWHERE = {"output_dir": "output", "remove_unused_columns": "data", "label_names": "data"}
_DEFAULTS = {"logging_steps": 50, "save_total_limit": 2, "disable_tqdm": False}

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter by PEFT.

    Attributes:
        rank: r.
        alpha: scale of the adapter, over r.
        dropout: on its input.
        targets: names of the modules that get one, or "all-linear".
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] | str = "all-linear"


@dataclass(frozen=True)
class Recipe:
    """Everything about a training run.

    Attributes:
        output: the folder for checkpoints, TensorBoard's logs, and in the end the routing.
        data: what to train on.
        model: a folder or a name on the Hub; None for the embedded story model.
        dtype: of the weights in training; for mixed precision set bf16 in `trainer`.
        routing: a config, or the folder of a routing to go on from.
        objective: what to minimise.
        train: "noise", "adapter" or "all".
        adapter: of the adapter, for train: adapter.
        seed: derives the paths, and seeds Trainer.
        noise_learning_rate, probe_paths, probe_examples, collapse_below: as in RoutedTrainer.
        trainer: any of transformers' TrainingArguments.
    """

    output: str
    data: Data
    model: str | None = None
    dtype: str = "float32"
    routing: RoutingConfig | str = field(default_factory=RoutingConfig)
    objective: Objective = field(default_factory=BoundPaths)
    train: Trained = "noise"
    adapter: Adapter | None = None
    seed: int = 0
    noise_learning_rate: float | None = None
    probe_paths: int = 8
    probe_examples: int = 8
    collapse_below: float = 1e-3
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if (self.train == "adapter") != (self.adapter is not None):
            raise ValueError(
                f"train={self.train!r} with adapter={self.adapter}: an adapter needs train: adapter, and settings, "
                f"such as adapter: {{rank: 8}}"
            )


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        ValueError: the file is no YAML, a key is unknown, or a value cannot be used.
        FileNotFoundError: there is no such file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"config {path}: no such file") from None
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path} is no YAML: {error}") from error
    try:
        return recipe_from(content)
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from error


def recipe_from(content: Any) -> Recipe:
    """The recipe that a mapping describes, as YAML has it. ValueError for what cannot be used."""
    values = _known(Recipe, content, "")
    if "data" in values:
        values["data"] = _settings(Data, values["data"], "data.")
    if "routing" in values and not isinstance(values["routing"], str):
        values["routing"] = RoutingConfig.from_dict(values["routing"])
    if values.get("adapter") is not None:
        values["adapter"] = _settings(Adapter, values["adapter"], "adapter.")
    if "objective" in values:
        values["objective"] = _objective(values["objective"])
    return _settings(Recipe, values, "")


def build_trainer(recipe: Recipe, model: Any, tokenizer: Any) -> RoutedTrainer:
    """The trainer of a recipe, ready for `train`. The model is adapted and routed in place.

    Raises:
        ValueError, OSError: data, routing, objective or arguments cannot be used; see `read_examples`,
            `RoutedModel.from_pretrained` and `RoutedTrainer`.
    """
    arguments = _arguments(recipe)
    data = recipe.data
    examples = read_examples(data.train, data, tokenizer)
    held_out = None if data.evaluation is None else read_examples(data.evaluation, data, tokenizer)
    if recipe.adapter is not None:
        model = _adapted(model, recipe.adapter)
    if isinstance(recipe.routing, str):
        routed = RoutedModel.from_pretrained(model, recipe.routing)
    else:
        routed = route(model, recipe.routing)
    return RoutedTrainer(
        routed,
        recipe.objective,
        arguments,
        examples,
        held_out,
        path_seed=recipe.seed,
        trained=recipe.train,
        noise_learning_rate=recipe.noise_learning_rate,
        probe_paths=recipe.probe_paths,
        probe_examples=recipe.probe_examples,
        collapse_below=recipe.collapse_below,
    )


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: in 1.1 the 1e-4 of every learning rate is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _arguments(recipe: Recipe) -> Any:
    import torch
    from transformers import TrainingArguments

    known = {f.name for f in fields(TrainingArguments)}
    for name in recipe.trainer:
        if name in _SET_ELSEWHERE:
            raise ValueError(f"trainer.{name} has no effect here: set {_SET_ELSEWHERE[name]}")
        if name not in known:
            raise ValueError(_unknown(f"trainer.{name}", known, "see transformers.TrainingArguments"))
    board = importlib.util.find_spec("tensorboard") is not None
    settings: dict[str, Any] = {
        **_DEFAULTS,
        "seed": recipe.seed % (1 << 32),  # NumPy takes no more
        "use_cpu": not torch.accelerator.is_available(),
        "report_to": "tensorboard" if board else "none",
        "eval_strategy": "no" if recipe.data.evaluation is None else "epoch",
        **recipe.trainer,
    }
    try:
        return TrainingArguments(output_dir=recipe.output, **settings)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"trainer: {error}") from error


def _adapted(model: Any, adapter: Adapter) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError("train: adapter needs PEFT: pip install 'stochroute[train]'") from error
    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"adapter: {error}") from error


def _objective(content: Any) -> Objective:
    """`bound`, or `{name: best_of_k, draws: 8}`."""
    settings = {"name": content} if isinstance(content, str) else content
    if not isinstance(settings, dict) or settings.get("name") not in OBJECTIVES:
        name = settings.get("name") if isinstance(settings, dict) else settings
        raise ValueError(_unknown(f"objective {name}", set(OBJECTIVES), "give objective: bound, or {name: bound}"))
    rest = {key: value for key, value in settings.items() if key != "name"}
    return _settings(OBJECTIVES[settings["name"]], rest, "objective.")


def _settings(cls: type[_Settings], content: Any, where: str) -> _Settings:
    """The dataclass with the values of a mapping, each of the type that its field names."""
    values = _known(cls, content, where)
    hints = get_type_hints(cls)
    for name, value in values.items():
        hint = hints[name]
        if isinstance(value, list):
            values[name] = value = tuple(value)
        if not _fits(value, hint):
            raise ValueError(f"{where}{name}: {value!r} is no {_shown(hint)}")
    for f in fields(cls):  # type: ignore[arg-type]
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise ValueError(f"{where}{f.name} is missing: give it a value")
    return cls(**values)


def _known(cls: type, content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where.rstrip('.') or 'the config'} holds {content!r}: write keys and values")
    known = {f.name for f in fields(cls)}
    for key in content:
        if key not in known:
            raise ValueError(_unknown(f"{where}{key}", known, f"the keys are {', '.join(sorted(known)) or 'none'}"))
    return dict(content)


def _unknown(name: str, known: set[str], remedy: str) -> str:
    last = re.split(r"[. ]", name)[-1]
    close = difflib.get_close_matches(last, known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{name} is unknown{meant}: {remedy}"


def _shown(hint: Any) -> str:
    """A type as people write it: "int", "str or None", "'noise' or 'all'"."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_shown, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return "None" if hint is type(None) else getattr(get_origin(hint) or hint, "__name__", str(hint))


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is not None:
        hint = origin
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)
