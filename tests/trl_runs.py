"""A GRPO run so small that it takes a second: four prompts, a random model of bytes, a reward that anyone can check."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

import stochroute as sr
from stochroute.integrations.trl import RoutedGRPOTrainer

PROMPTS = ["ab", "hello", "xyz", "q"]
LOW = 120  # of 258 tokens
STRUCTURAL = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.4))
ATTENTION = sr.RoutingConfig(structural=None, attention=sr.Attention(strength=1.0))
BOTH_ALL = sr.RoutingConfig(structural=STRUCTURAL.structural, attention=ATTENTION.attention, span="all")
NEW = 6


class Recorded:
    """The reward function; it keeps what it is shown, by global step."""

    __name__ = "low"

    def __init__(self) -> None:
        self.rows: dict[int, list[dict[str, Any]]] = defaultdict(list)

    def __call__(self, prompts, completions, completion_ids, path, start, receipt, trainer_state, **unused):
        rewards = [sum(token < LOW for token in ids) / len(ids) for ids in completion_ids]
        for row in zip(prompts, completion_ids, path, start, receipt, rewards, strict=True):
            names = ("prompt", "ids", "path", "start", "receipt", "reward")
            self.rows[trainer_state.global_step].append(dict(zip(names, row, strict=True)))
        return rewards

    def paths(self, step: int) -> list[str]:
        return [row["path"] for row in self.rows[step]]


class Watched(RoutedGRPOTrainer):
    """Keeps what goes into each loss, and the log-probabilities that come out of it."""

    def __init__(self, *args: Any, **settings: Any):
        self.losses: list[dict[str, Any]] = []
        super().__init__(*args, **settings)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.losses.append(dict(inputs))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _get_per_token_logps_and_entropies(self, *args, **others):
        result = super()._get_per_token_logps_and_entropies(*args, **others)
        if self._scoring is None:
            self.losses[-1]["logps"] = result[0].detach()
        return result


def trainer(folder: str, output: Path, model: Any = None, routing: sr.RoutingConfig = STRUCTURAL, **settings: Any):
    """A trainer of the low tokens; settings of GRPOConfig and of RoutedGRPOTrainer, side by side."""
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    own = {name: settings.pop(name) for name in ("eval_dataset", "path_seed") if name in settings}
    defaults = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": NEW,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "seed": 3,
    }
    rewards = Recorded()
    return Watched(
        sr.route(model, routing),
        rewards,
        GRPOConfig(str(output), **{**defaults, **settings}),
        Dataset.from_dict({"prompt": PROMPTS * 4}),
        processing_class=AutoTokenizer.from_pretrained(folder),
        **own,
    ), rewards


def real_tokens(inputs: dict[str, Any], row: int) -> tuple[list[int], list[int]]:
    """The tokens of a row's prompt and of its completion."""
    return tuple(
        inputs[f"{part}_ids"][row][inputs[f"{part}_mask"][row].bool()].tolist() for part in ("prompt", "completion")
    )


def path_of(inputs: dict[str, Any], row: int) -> str:
    return sr.format_path(inputs["stochroute_path"][row].item() % 2**64)
