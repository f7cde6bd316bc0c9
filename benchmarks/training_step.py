"""What paths cost in training: forward and backward along bound paths, over the plain step.

    python benchmarks/training_step.py        # about five minutes on one core

A Llama of 4 layers and width 256, 16 rows of 64 tokens, float32, one thread; every part of model and noise gets its
gradient. Ratios are medians over interleaved pairs, with 95 % intervals.
"""

import argparse
from typing import Any

import numpy as np
import torch
from harness import save
from transformers import LlamaConfig, LlamaForCausalLM

import stochroute as sr
from stochroute.measuring.timing import interleaved, ratio
from stochroute.training import example_paths

ROWS, LENGTH, VOCABULARY = 16, 64, 1024
STRUCTURAL = {
    form: sr.RoutingConfig(structural=sr.Structural(form=form, layers="all"), span="all")
    for form in ("shared", "independent", "latent")
}
ROUTINGS = {
    **STRUCTURAL,
    "attention": sr.RoutingConfig(structural=None, attention=sr.Attention(), span="all"),
    "latent and attention": sr.RoutingConfig(
        structural=sr.Structural(form="latent", layers="all"), attention=sr.Attention(), span="all"
    ),
}


def build_model() -> LlamaForCausalLM:
    """The model, from a fixed seed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )
    return LlamaForCausalLM(config).train()


def over_plain(config: sr.RoutingConfig, pairs: int) -> dict[str, float]:
    """A routed step's time over the same model's plain step."""
    routed = sr.route(build_model(), config).train()
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    paths = example_paths(7, list(range(ROWS)), 1)

    def step() -> None:
        routed.model(ids, labels=ids).loss.backward()
        routed.zero_grad()

    def bound() -> None:
        with routed.follow(paths):
            step()

    seconds = interleaved(bound, step, pairs, 3)
    return {**ratio(seconds[:, 0], seconds[:, 1]), "plain_seconds": float(np.median(seconds[:, 1]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="interleaved pairs of each ratio (default 200)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"rows": ROWS, "length": LENGTH, "bound_step_over_plain": {}}
    for name, config in ROUTINGS.items():
        result["bound_step_over_plain"][name] = over_plain(config, options.pairs)
        print(name, result["bound_step_over_plain"][name], flush=True)
    print("written:", save("training_step", result))


if __name__ == "__main__":
    main()
