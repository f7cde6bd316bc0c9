"""What paths cost in training: forward and backward along bound and inferred paths, over the plain step.

    python benchmarks/training_step.py        # about fifteen minutes on one core

A Llama of 4 layers and width 256, 16 rows of 64 tokens, float32, one thread; every part of model, noise and posterior
gets its gradient. Both steps have the same attention mask and the same likelihood. Ratios are medians over interleaved
pairs, with 95 % intervals.
"""

import argparse
from typing import Any

import numpy as np
import torch
from harness import save
from transformers import LlamaConfig, LlamaForCausalLM

import stochroute as sr
from stochroute.measuring.nats import row_nats
from stochroute.measuring.timing import interleaved, ratio
from stochroute.training import BoundPaths, InferredPaths, Objective, example_paths
from stochroute.training.posterior import new_posterior
from stochroute.training.walked import WalkedModel

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
STEPS: dict[str, tuple[Objective, sr.RoutingConfig]] = {
    **{f"bound, {name}": (BoundPaths(), config) for name, config in ROUTINGS.items()},
    "inferred, latent": (InferredPaths(), STRUCTURAL["latent"]),
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


def over_plain(objective: Objective, config: sr.RoutingConfig, pairs: int) -> dict[str, float]:
    """The time of a step along paths over that of the same model's plain step."""
    routed = sr.route(build_model(), config)
    walked = WalkedModel(routed, new_posterior(routed, 0) if objective.infers else None).train()
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    paths = example_paths(7, list(range(ROWS)), 1)

    def plain() -> None:
        row_nats(routed.model(ids, attention_mask=mask, use_cache=False).logits, ids).sum().backward()
        walked.zero_grad()

    def along() -> None:
        with routed.follow(paths):
            objective.total(walked(input_ids=ids, attention_mask=mask), ids, routed, step=0).backward()
        walked.zero_grad()

    seconds = interleaved(along, plain, pairs, 3)
    return {**ratio(seconds[:, 0], seconds[:, 1]), "plain_seconds": float(np.median(seconds[:, 1]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="interleaved pairs of each ratio (default 200)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"rows": ROWS, "length": LENGTH, "step_over_plain": {}}
    for name, (objective, config) in STEPS.items():
        found = over_plain(objective, config, options.pairs)
        result["step_over_plain"][name] = found
        print(f"{name}: {found}", flush=True)
    print("written:", save("training_step", result))


if __name__ == "__main__":
    main()
