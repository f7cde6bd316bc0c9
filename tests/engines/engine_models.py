"""Tiny random models in folders that both transformers and vLLM load, and what transformers writes along their paths."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# vLLM reads these when it starts; the processor is shared with everything else that is being tested
os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
    VLLM_USE_V2_MODEL_RUNNER="0",
)

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import stochroute as sr
from cli_model import save_tokenizer

CONTEXT = 512
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the smallest that vLLM's CPU attention takes
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,  # with 0.02 hardly any noise would change a token
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def save_model(folder: Path, family: str = "llama", **settings: Any) -> str:
    """Writes a random float32 model of the family with a byte-level tokenizer, and returns the folder's name."""
    config = AutoConfig.for_model(family, **{"vocab_size": save_tokenizer(folder), **_SIZES, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder)


def load(folder: str) -> Any:
    """The model in transformers, float32, evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def written(
    routed: sr.RoutedModel, prompts: Sequence[Sequence[int]], paths: Sequence[int | None], new_tokens: int
) -> list[list[int]]:
    """What transformers writes, one text a prompt, each along its own path (None: the original model), to the end."""
    texts = []
    for prompt, path in zip(prompts, paths, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        settings: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None}
        if path is None:
            with routed.suspended():
                out = routed.model.generate(ids, attention_mask=mask, **settings)
        else:
            out = routed.generate(ids, attention_mask=mask, paths=[path], **settings).sequences
        texts.append(out[0, len(prompt) :].tolist())
    return texts
