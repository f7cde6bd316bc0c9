"""The language model of the uncertainty benchmark: trained from nothing on the texts of a made knowledge base."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import record
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from stochroute.embedded.plain import start_as_identity
from stochroute.uncertainty.datasets import write_questions
from stochroute.uncertainty.knowledge import KnowledgeBase

SPECIAL = PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
PAD_ID, BOS_ID, EOS_ID = range(3)
CONTEXT = 32
TRAINING_FILE = "TRAINING.json"  # written last


@dataclass(frozen=True)
class Size:
    """How the model is made and trained, the same for every seed.

    Attributes:
        width, layers: of a Llama.
        steps, batch, learning_rate: AdamW with a cosine.
        dropout: on attention and feed-forward outputs while training; 0 for none, as models ship today.
    """

    width: int = 128
    layers: int = 4
    steps: int = 1500
    batch: int = 96
    learning_rate: float = 3e-3
    dropout: float = 0.0


def word_tokenizer(knowledge: KnowledgeBase) -> PreTrainedTokenizerFast:
    """One token a word and a mark; a text begins with <bos>."""
    words = [*SPECIAL, *knowledge.words()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=CONTEXT,
    )


class Texts(Dataset):
    """Texts of the knowledge base as token ids, (count, longest) with padding at the right."""

    def __init__(self, knowledge: KnowledgeBase, tokenizer: PreTrainedTokenizerFast, count: int, seed: int):
        rows = tokenizer(list(knowledge.texts(count, seed)))["input_ids"]
        longest = max(map(len, rows)) + 1
        self.ids = np.full((count, longest), PAD_ID, dtype=np.int16)
        for row, ids in enumerate(rows):
            self.ids[row, : len(ids) + 1] = [*ids, EOS_ID]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[index]


def collate(rows: list[np.ndarray]) -> dict[str, Tensor]:
    """(rows, longest of them) int64; a causal model never looks right, so padding needs no mask, only no label."""
    ids = torch.from_numpy(np.stack(rows).astype(np.int64))
    ids = ids[:, : int((ids != PAD_ID).sum(1).max())]
    return {"input_ids": ids, "labels": ids.masked_fill(ids == PAD_ID, -100)}


def new_model(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untrained model whose blocks start as the identity."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.width * 8 // 3,
            num_hidden_layers=size.layers,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            pad_token_id=PAD_ID,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            attn_implementation="eager",  # on rows this short, faster than the fused kernel's backward
        )
    )
    start_as_identity(model)
    return model


def drop_while_training(model: LlamaForCausalLM, rate: float) -> None:
    """Drops feed-forward and attention outputs from now on, in train mode."""
    for layer in model.model.layers:
        drop = torch.nn.Dropout(rate)
        layer.dropped = drop  # a child, so that train() and eval() reach it
        layer.mlp.register_forward_hook(lambda module, args, output, drop=drop: drop(output))
        layer.self_attn.register_forward_hook(lambda module, args, out, drop=drop: (drop(out[0]), *out[1:]))


def train(folder: Path, knowledge: KnowledgeBase, size: Size, seed: int) -> dict[str, Any]:
    """Writes model, tokenizer, questions and the record of the training into the folder, unless they are there."""
    if (folder / TRAINING_FILE).exists():
        return json.loads((folder / TRAINING_FILE).read_text())
    tokenizer = word_tokenizer(knowledge)
    model = new_model(size, tokenizer, seed)
    if size.dropout:
        drop_while_training(model, size.dropout)
    texts = Texts(knowledge, tokenizer, size.steps * size.batch, seed)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=size.steps,
        per_device_train_batch_size=size.batch,
        learning_rate=size.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=size.steps // 30,
        weight_decay=0.0,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        seed=seed,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        logging_steps=max(1, size.steps // 20),
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
    )
    started = time.monotonic()
    trainer = Trainer(model, arguments, train_dataset=texts, data_collator=collate)
    loss = trainer.train().training_loss
    folder.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True  # training switched it off
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_questions(folder / "questions.jsonl", knowledge.questions())
    found = {
        "knowledge": asdict(knowledge),
        "size": asdict(size),
        "seed": seed,
        "parameters": model.num_parameters(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "mean_training_loss": round(loss, 4),
        **record(),
    }
    (folder / TRAINING_FILE).write_text(json.dumps(found, indent=1) + "\n")
    return found
