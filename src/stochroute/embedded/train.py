"""Trains the embedded model from nothing: tokenizer, weights, and a report on what it writes.

    python -m stochroute.embedded.train --seed 0 --out FOLDER

Texts are drawn from the story world as training goes; the number of steps alone decides when it ends. A
killed run started again with the same arguments goes on from its last checkpoint. FOLDER receives what
`load` reads and PROVENANCE.json; the checkpoints in FOLDER/checkpoints can be deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from stochroute.embedded.evaluate import held_out_losses, sample_report
from stochroute.world import chinese, draw_text, number_of_plots

SPECIAL = PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = range(3)  # special tokens come first in the vocabulary
VOCABULARY = 2560  # upper bound; merging may stop earlier, when every word is one token
TOKENIZER_TEXTS = 12_000  # enough to see every word of the world
WIDTH = 192  # of the residual stream
CONTEXT = 512  # positions; a text needs fewer than 200

# The mixture, in twentieths: English stories are the default prompt, so they get the most.
MIXTURE = (
    *[("en", "story")] * 10,
    *[("zh", "story")] * 4,
    *[("en", "dialogue")] * 3,
    *[("zh", "dialogue")] * 3,
)


def text_at(seed: int, index: int) -> str:
    """The index-th training text of this seed; its language and form follow `MIXTURE`."""
    language, form = MIXTURE[index % len(MIXTURE)]
    return draw_text(seed, index, language, form)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `VOCABULARY` tokens, so that nothing is unknown.

    Names, English words and Chinese characters are one token each; so are Chinese animals.
    """
    words = [*chinese.NAMES.values(), *(words.split("|")[1] for words in chinese.KINDS.values())]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{Han}，。：；？！“”]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(words),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text_at(seed, index) for index in range(TOKENIZER_TEXTS)), trainer)
    tokenizer.add_tokens(words)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


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


class WorldTexts(Dataset):
    """The first `count` training texts of a seed as token ids, told when asked for."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, count: int):
        self.tokenizer, self.seed, self.count = tokenizer, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[int]:
        return [*self.tokenizer(text_at(self.seed, index))["input_ids"], EOS_ID]


def collate(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Rows padded on the right, so that every text starts at position 0: (rows, longest) int64 each.

    No mask is needed: a causal model never looks right, and the padding has no label.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD_ID] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "labels": ids.masked_fill(ids == PAD_ID, -100)}


def train(model: LlamaForCausalLM, texts: WorldTexts, arguments: argparse.Namespace) -> float:
    """Trains in place and returns the mean training loss in nats per token."""
    checkpoints = arguments.out / "checkpoints"
    model.set_attn_implementation("eager")  # on texts this short, faster than the fused kernel's backward
    trainer = Trainer(
        model=model,
        train_dataset=texts,
        data_collator=collate,
        args=TrainingArguments(
            output_dir=str(checkpoints),
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=min(100, arguments.steps // 10),
            weight_decay=0.05,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            seed=arguments.seed,
            use_cpu=True,
            bf16=arguments.bf16,
            save_steps=250,
            save_total_limit=1,
            logging_steps=50,
            disable_tqdm=True,
            report_to="none",
            dataloader_pin_memory=False,
        ),
    )
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    return trainer.train(resume_from_checkpoint=last).training_loss


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m stochroute.embedded.train", description="Trains the model.")
    option = parser.add_argument
    option("--out", type=Path, required=True, help="folder for the weights, the tokenizer and the report")
    option("--seed", type=int, default=0, help="decides texts, initial weights and order (default: 0)")
    option("--steps", type=int, default=3000, help="optimiser steps (default: 3000)")
    option("--batch", type=int, default=16, help="texts a step (default: 16)")
    option("--learning-rate", type=float, default=1.5e-3, help="peak (default: 1.5e-3)")
    option(
        "--samples",
        type=int,
        default=400,
        help="texts sampled a prompt for the report; 0: no report (default: 400)",
    )
    option("--bf16", action=argparse.BooleanOptionalAction, default=True, help="autocast to bfloat16")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict:
    """Trains, saves, samples, and returns what PROVENANCE.json says."""
    arguments = parse(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(arguments.seed)
    model = new_model(arguments.seed, len(tokenizer))
    texts = WorldTexts(tokenizer, arguments.seed, arguments.steps * arguments.batch)
    started = time.monotonic()
    loss = train(model, texts, arguments)
    minutes = (time.monotonic() - started) / 60
    model.config.use_cache = True  # training switched it off
    model.half().save_pretrained(arguments.out)  # from here on measured as loaded: rounded to float16
    tokenizer.save_pretrained(arguments.out)
    model = model.float().eval()
    provenance = {
        "what": "Llama-architecture story model, trained from nothing on texts of stochroute.world only",
        "licence": "Apache-2.0, as the package; all training texts were made by this project, none by others",
        "command": f"python -m stochroute.embedded.train --seed {arguments.seed} --steps {arguments.steps}"
        f" --batch {arguments.batch} --learning-rate {arguments.learning_rate:g}"
        f"{'' if arguments.bf16 else ' --no-bf16'} --out FOLDER",
        "seed": arguments.seed,
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "plots_in_the_world": number_of_plots(),
        "training_texts": len(texts),
        "training_minutes": round(minutes, 1),
        "threads": torch.get_num_threads(),
        "mean_training_loss_nats_per_token": round(loss, 4),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    if arguments.samples:
        seen = {text_at(arguments.seed, index) for index in range(len(texts))}
        provenance["held_out_loss_nats_per_token"] = held_out_losses(
            model, tokenizer, arguments.samples, seed=arguments.seed + 1
        )
        provenance["samples_at_temperature_1"] = sample_report(model, tokenizer, arguments.samples, seen)
    report = json.dumps(provenance, indent=2, ensure_ascii=False)
    (arguments.out / "PROVENANCE.json").write_text(report + "\n", encoding="utf-8")
    print(report)
    return provenance


if __name__ == "__main__":
    main()
