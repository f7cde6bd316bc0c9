"""The first half of the embedded model's training: plain likelihood, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from stochroute.embedded.texts import BOS_ID, CONTEXT, EOS_ID, PAD_ID, VOCABULARY, WorldTexts
from stochroute.training.data import Collate

WIDTH = 192  # of the residual stream
LEARNING_RATE = 1.5e-3


def start_as_identity(model: LlamaForCausalLM) -> None:
    """Draws the weights anew from torch's global stream, so that every block starts as the identity: it adds zero.

    A token is then not drowned in noise before attention has learned to copy it. Without this, and with a peak of
    3e-3, the story model still mixed up names after 1000 steps.
    """
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight)
        elif weight.ndim == 2:
            torch.nn.init.normal_(weight, std=model.config.hidden_size**-0.5)


def new_model(seed: int, vocabulary: int = VOCABULARY) -> LlamaForCausalLM:
    """An untrained model of about three million parameters, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
    )
    start_as_identity(model)
    return model


def training_arguments(folder: Path, learning_rate: float, **options: Any) -> TrainingArguments:
    """What both halves of the training have in common."""
    return TrainingArguments(
        output_dir=str(folder),
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(100, options["max_steps"] // 10),
        weight_decay=0.05,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        use_cpu=True,
        save_steps=250,
        save_total_limit=1,
        logging_steps=100,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **options,
    )


def train_plainly(model: LlamaForCausalLM, texts: WorldTexts, checkpoints: Path, **options: Any) -> float:
    """Trains in place and returns the mean training loss in nats per token; see `training_arguments`."""
    trainer = Trainer(
        model=model,
        train_dataset=texts,
        data_collator=_without_keys,
        args=training_arguments(checkpoints, LEARNING_RATE, **options),
    )
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    return trainer.train(resume_from_checkpoint=last).training_loss


def _without_keys(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    batch = Collate(PAD_ID)(examples)
    del batch["example"]
    return batch
