"""What the embedded model has learned: its loss on texts it never saw, and whether its own stories hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from stochroute.routed import RoutedModel
from stochroute.world import FORMS, LANGUAGES, check, draw_text

PROMPTS = {
    "en story": "Once upon a time",
    "zh story": "从前",
    "en dialogue": "Two friends",
    "zh dialogue": "两个朋友",
    "no prompt": "",
}
LONGEST = 224  # new tokens; no text of the world needs as many
ROWS = 100  # texts sampled at once


@torch.no_grad()
def held_out_losses(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, seed: int
) -> dict[str, float]:
    """Mean loss in nats per token on `count` texts of this seed, for each language and form."""
    losses = {}
    for language, form in product(LANGUAGES, FORMS):
        texts = [f"{draw_text(seed, index, language, form)}{tokenizer.eos_token}" for index in range(count)]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        losses[f"{language} {form}"] = round(loss.item(), 4)
    return losses


@torch.no_grad()
def sample(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, count: int) -> list[str]:
    """`count` continuations of the prompt, prompt included, sampled at temperature 1 with nothing cut off."""
    texts: list[str] = []
    while len(texts) < count:
        rows = tokenizer([prompt] * min(ROWS, count - len(texts)), return_tensors="pt")
        out = model.generate(  # pyright: ignore[reportAttributeAccessIssue] (transformers' own annotations)
            input_ids=rows["input_ids"],
            attention_mask=rows["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=LONGEST,
        )
        texts += tokenizer.batch_decode(out, skip_special_tokens=True)
    return texts


def walk(routed: RoutedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, count: int) -> list[str]:
    """`count` greedy continuations of the prompt, prompt included, along as many paths of seed 0."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = routed.generate(ids, paths=count, seed=0, rows_at_once=ROWS, max_new_tokens=LONGEST)
    return tokenizer.batch_decode(out.sequences, skip_special_tokens=True)


def writing_report(write: Callable[[str, int], list[str]], count: int, seen: set[str]) -> dict[str, dict[str, Any]]:
    """How `count` texts of each prompt of `PROMPTS` do, where `write` writes them.

    Shares of the texts: `coherent`; `distinct`, the number of different coherent plots over `count`; `copied`, word
    for word one of `seen`. `threads` counts the different coherent threads.
    """
    report = {}
    for name, prompt in PROMPTS.items():
        texts = write(prompt, count)
        verdicts = [check(text) for text in texts]
        plots = [verdict.plot for verdict in verdicts if verdict.coherent]
        report[name] = {
            "prompt": prompt,
            "texts": count,
            "coherent": round(len(plots) / count, 4),
            "distinct": round(len(set(plots)) / count, 4),
            "threads": len({plot.thread for plot in plots if plot is not None}),
            "copied": round(sum(text in seen for text in texts) / count, 4),
        }
    return report
