"""Trains the embedded model from nothing: tokenizer, weights, paths, and a report on what it writes.

    python -m stochroute.embedded.train --seed 0 --out FOLDER

Texts are drawn from the story world as training goes; the number of steps alone decides when it ends. The model is
trained plainly first, which FOLDER/plain keeps, and with paths then. A killed run started again with the same arguments
goes on from its last checkpoint. FOLDER receives what `load` reads and PROVENANCE.json; FOLDER/plain and
FOLDER/checkpoints can be deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from stochroute.embedded import ROUTING_FOLDER
from stochroute.embedded.evaluate import held_out_losses, sample, walk, writing_report
from stochroute.embedded.inferred import train_with_paths
from stochroute.embedded.plain import new_model, train_plainly
from stochroute.embedded.texts import WorldTexts, text_at, train_tokenizer
from stochroute.routed import RoutedModel
from stochroute.world import number_of_plots

PROVENANCE = "PROVENANCE.json"
_REPORTED = "held_out_loss_nats_per_token"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m stochroute.embedded.train", description="Trains the model.")
    option = parser.add_argument
    option("--out", type=Path, required=True, help="folder for the weights, the tokenizer and the report")
    option("--seed", type=int, default=0, help="decides texts, initial weights, order and paths (default: 0)")
    option("--steps", type=int, default=3000, help="optimiser steps, of each half (default: 3000)")
    option("--batch", type=int, default=16, help="texts a step (default: 16)")
    option("--samples", type=int, default=400, help="texts a prompt for the report; 0: no report (default: 400)")
    option("--bf16", action="store_true", help="autocast to bfloat16, where the processor computes in it")
    return parser.parse_args(argv)


def train_from_nothing(folder: Path, tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace) -> float:
    """The first half, into the folder; its mean training loss in nats per token."""
    model = new_model(arguments.seed, len(tokenizer))
    texts = WorldTexts(tokenizer, arguments.seed, range(arguments.steps * arguments.batch))
    loss = train_plainly(model, texts, folder / "checkpoints", **_options(arguments))
    _save(model, tokenizer, folder)
    return loss


def train_further(folder: Path, tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace) -> float:
    """The second half, from the model in `folder/plain` and with other texts; its mean training loss likewise."""
    count = arguments.steps * arguments.batch
    model = LlamaForCausalLM.from_pretrained(folder / "plain", dtype=torch.float32)
    texts = WorldTexts(tokenizer, arguments.seed, range(count, 2 * count), prompted=True)
    routed, loss = train_with_paths(model, texts, folder / "checkpoints", **_options(arguments))
    _save(model, tokenizer, folder)
    routed.save_pretrained(folder / ROUTING_FOLDER)
    return loss


def recorded(
    folder: Path, train: Callable[..., float], tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace
) -> dict[str, Any]:
    """What the folder's PROVENANCE.json says of a half, which is trained and reported on where that is still to do."""
    file = folder / PROVENANCE
    if not file.is_file():
        started = time.monotonic()
        loss = train(folder, tokenizer, arguments)
        record: dict[str, Any] = {
            "training_texts": arguments.steps * arguments.batch,
            "training_minutes": round((time.monotonic() - started) / 60, 1),
            "threads": torch.get_num_threads(),
            "mean_training_loss_nats_per_token": round(loss, 4),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
            },
        }
        _write(file, record)
    record = json.loads(file.read_text(encoding="utf-8"))
    if arguments.samples and _REPORTED not in record:
        record |= report(folder, tokenizer, arguments)
        _write(file, record)
    return record


def report(folder: Path, tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the model of a folder, as it is loaded, has learned: without a path and, where it has them, along paths."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    samples, seed = arguments.samples, arguments.seed
    seen = {text_at(seed, index) for index in range(2 * arguments.steps * arguments.batch)}
    torch.manual_seed(0)
    found: dict[str, Any] = {
        _REPORTED: held_out_losses(model, tokenizer, samples, seed=seed + 1),
        "samples_at_temperature_1": writing_report(partial(sample, model, tokenizer), samples, seen),
    }
    if (folder / ROUTING_FOLDER).is_dir():
        routed = RoutedModel.from_pretrained(model, folder / ROUTING_FOLDER)
        found["greedy_along_paths"] = writing_report(partial(walk, routed, tokenizer), samples, seen)
    return found


def main(argv: list[str] | None = None) -> dict:
    """Trains, saves, samples, and returns what PROVENANCE.json says."""
    arguments = parse(argv)
    out, plain = arguments.out, arguments.out / "plain"
    plain.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(arguments.seed)
    first = recorded(plain, train_from_nothing, tokenizer, arguments)
    second = recorded(out, train_further, tokenizer, arguments)
    provenance = {
        "what": "Llama-architecture story model with paths, trained from nothing on texts of stochroute.world only",
        "licence": "Apache-2.0, as the package; all training texts were made by this project, none by others",
        "command": f"python -m stochroute.embedded.train --seed {arguments.seed} --steps {arguments.steps}"
        f" --batch {arguments.batch}{' --bf16' if arguments.bf16 else ''} --out FOLDER",
        "seed": arguments.seed,
        "parameters": LlamaForCausalLM.from_pretrained(out).num_parameters(),
        "vocabulary": len(tokenizer),
        "plots_in_the_world": number_of_plots(),
        **second,
        "plain": first,
    }
    _write(out / PROVENANCE, provenance)
    print(json.dumps(provenance, indent=2, ensure_ascii=False))
    return provenance


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "max_steps": arguments.steps,
        "per_device_train_batch_size": arguments.batch,
        "bf16": arguments.bf16,
    }


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.config.use_cache = True  # training switched it off
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write(file: Path, record: dict) -> None:
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
