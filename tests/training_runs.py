"""A task so small that training it takes a second: 32 random token sequences after a null prompt, a two-layer Llama.

As a script it is one process of a run, for the tests that need processes of their own:

    python training_runs.py OUTPUT [--batch N] [--killed-at STEP]

It writes OUTPUT/log.json: the losses by step, and with several processes those of `SHARDED` under FSDP2 as well, of a
whole run and of one that went on from its checkpoint, and those of `INFERRED` under both.
"""

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

import stochroute as sr
from stochroute.training import BoundPaths, Data, InferredPaths, Objective, RoutedTrainer, Variational, prepare_examples

VOCABULARY, LENGTH, EXAMPLES = 32, 6, 32
# the name that newer versions of transformers prefer, else the older one
CHECKPOINTING = "activation_checkpointing"
if not hasattr(TrainingArguments, CHECKPOINTING):
    CHECKPOINTING = "gradient_checkpointing"
CONFIG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=1.0))
ABSOLUTE = sr.RoutingConfig(structural=sr.Structural(form="independent", scale="absolute", layers="all", strength=0.3))
LATENT = sr.RoutingConfig(structural=sr.Structural(form="latent", layers="all", strength=1.0))
INFERRED = {"objective": InferredPaths(free_nats=1.0, hidden_tokens=0.3, path_dropout=0.3), "config": LATENT}
SHARDED = {"objective": Variational(beta=0.1), "config": ABSOLUTE}


def tiny_model(dropout: float = 0.0, width: int = 64) -> LlamaForCausalLM:
    """Two layers, from a fixed seed; the global random state stays as it was."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        attention_dropout=dropout,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def tiny_examples(count: int = EXAMPLES, ids: list[Any] | None = None) -> datasets.Dataset:
    """Random sequences of `LENGTH` tokens after the null prompt [0], with ids 100, 101, …"""
    stream = torch.Generator().manual_seed(1)
    texts = torch.randint(1, VOCABULARY, (count, LENGTH), generator=stream).tolist()
    rows = {"input_ids": [[0, *text] for text in texts], "id": ids or list(range(100, 100 + count))}
    return prepare_examples(datasets.Dataset.from_dict(rows), Data(train=""))


def uneven_examples(count: int = EXAMPLES) -> datasets.Dataset:
    """The same, of different lengths."""
    return tiny_examples(count).map(
        lambda row, number: {name: row[name][: 3 + number % 5] for name in ("input_ids", "labels")}, with_indices=True
    )


def tiny_trainer(output: Path | str, objective: Objective | None = None, **settings: Any) -> RoutedTrainer:
    """A trainer of the tiny task; settings of TrainingArguments and of RoutedTrainer, side by side."""
    own = {
        "routed": settings.pop("routed", None) or sr.route(tiny_model(), settings.pop("config", CONFIG)),
        "objective": objective or BoundPaths(),
        "train_dataset": settings.pop("examples", None) or tiny_examples(),
        "eval_dataset": settings.pop("eval_dataset", None),
        "path_seed": settings.pop("path_seed", 7),
        "trained": settings.pop("trained", "all"),
        "probe_examples": 4,
        "probe_paths": 4,
        "collapse_below": 0.0,  # most runs are too short for any transmission
    }
    for name in ("noise_learning_rate", "probe_paths", "collapse_below", "callbacks"):
        if name in settings:
            own[name] = settings.pop(name)
    defaults = {
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return RoutedTrainer(args=TrainingArguments(str(output), **{**defaults, **settings}), **own)


def losses(trainer: RoutedTrainer) -> dict[int, float]:
    """The logged losses by step, of the run and of what it went on from."""
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


class At(TrainerCallback):
    """Does something at the end of a step, before anything of it is logged or saved."""

    def __init__(self, step: int, action: Any):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            self.action()


def shard_on_cpus() -> None:
    """Has accelerate take FSDP for what it is on CPUs too, where it would leave it out without a word."""
    begin = AcceleratorState.__init__

    def believe(self: AcceleratorState, *arguments: Any, **settings: Any) -> None:
        if not AcceleratorState._shared_state:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
        begin(self, *arguments, **settings)

    AcceleratorState.__init__ = believe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--killed-at", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    callbacks: list[TrainerCallback] = []
    if options.killed_at:
        callbacks.append(At(options.killed_at, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    saved = {"save_strategy": "steps", "save_steps": 5, "per_device_train_batch_size": options.batch}
    trainer = tiny_trainer(options.output, eval_dataset=uneven_examples(10), callbacks=callbacks, **saved)
    trainer.train()
    log = {"replicated": losses(trainer), "evaluation": trainer.evaluate()["eval_loss"]}
    if trainer.args.world_size > 1:
        inferred, sharded = (os.path.join(options.output, name) for name in ("inferred", "sharded"))
        trainer = tiny_trainer(inferred, **saved, **INFERRED)
        trainer.train()
        log["inferred"] = losses(trainer)
        shard_on_cpus()
        for name, output, settings, resumed in (
            ("sharded", sharded, SHARDED, None),
            ("resumed", sharded, SHARDED, os.path.join(sharded, "checkpoint-5")),
            ("sharded, inferred", inferred, INFERRED, None),
            ("resumed, inferred", inferred, INFERRED, os.path.join(inferred, "checkpoint-5")),
        ):
            trainer = tiny_trainer(output, fsdp=True, fsdp_config={"version": 2}, **saved, **settings)
            trainer.train(resume_from_checkpoint=resumed)
            assert type(trainer.model).__name__ == "FSDPWalkedModel"
            log[name] = losses(trainer)
        torch.distributed.destroy_process_group()
    if trainer.is_world_process_zero():
        Path(options.output, "log.json").write_text(json.dumps(log))


if __name__ == "__main__":
    main()
