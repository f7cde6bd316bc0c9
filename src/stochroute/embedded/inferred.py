"""The second half of the embedded model's training: paths inferred from the texts, so that each tells another story."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM

from stochroute.config import RoutingConfig, Structural
from stochroute.embedded.plain import training_arguments
from stochroute.embedded.texts import WorldTexts
from stochroute.routed import RoutedModel, route
from stochroute.training import InferredPaths, RoutedTrainer
from stochroute.training.checkpoints import last_good

ROUTING = RoutingConfig(structural=Structural(form="latent", rank=32, layers="all", strength=1.0))
LEARNING_RATE, NOISE_LEARNING_RATE = 1e-3, 2e-3


def train_with_paths(
    model: LlamaForCausalLM, texts: WorldTexts, checkpoints: Path, **options: Any
) -> tuple[RoutedModel, float]:
    """Trains in place; the model with its routing, and the mean training loss in nats per token.

    In the first half of the steps the model does not read three tokens in ten, so that what they say comes to be told
    by the path; in the second it reads all, since a story holds together by what was said before. Three texts in ten
    walk no path, and keep the model without one.
    """
    steps = options["max_steps"]
    trainer = RoutedTrainer(
        route(model, ROUTING),
        InferredPaths(free_nats=24, hidden_tokens=0.3, hidden_steps=steps // 2, path_dropout=0.3),
        training_arguments(checkpoints, LEARNING_RATE, **options),
        texts,
        path_seed=options["seed"],
        trained="all",
        noise_learning_rate=NOISE_LEARNING_RATE,
    )
    started = checkpoints.is_dir() and last_good(checkpoints) is not None
    return trainer.routed, trainer.train(resume_from_checkpoint=started).training_loss
