"""What llama.cpp makes of an exported path, against the transformers engine on the same model."""

from pathlib import Path
from typing import Any

import pytest
import torch

import stochroute as sr
from families import FAMILIES
from llama_cpp import Llama, convert, read_vector
from matrix import random_ids
from stochroute.embedded import load
from stochroute.integrations.gguf import fix_scale, write_control_vector

PATHS = sr.derive_paths(7, 4)
NEW = 32
LARGEST = 1e-3  # of a logit, in float32 on both sides; 2e-5 was measured


def tiny_qwen3() -> tuple[sr.RoutedModel, list[list[int]]]:
    model = FAMILIES["qwen3"].build(torch.float32)
    structural = sr.Structural(form="independent", layers=(1, 2), strength=0.5, scale="absolute")
    return sr.route(model, sr.RoutingConfig(structural=structural, span="all")), random_ids(3, 7).tolist()


def embedded() -> tuple[sr.RoutedModel, list[list[int]]]:
    model, tokenizer = load()
    prompts = [tokenizer(text)["input_ids"] for text in ("Once upon a time", "从前", "Two friends met")]
    relative = sr.route(model, sr.RoutingConfig(structural=sr.Structural(strength=0.3), span="all"))
    return fix_scale(relative, prompts).routed, prompts


@pytest.mark.parametrize("build", [tiny_qwen3, embedded], ids=["a tiny Qwen3", "the embedded Llama"])
def test_llama_cpp_writes_the_texts_of_the_paths(build: Any, tmp_path: Path):
    routed, prompts = build()
    layers = routed.model.config.num_hidden_layers
    convert(routed.model, tmp_path / "model.gguf")
    routed_texts, clean_texts = set(), set()
    with Llama(tmp_path / "model.gguf") as llama:
        for prompt in prompts:
            for path in PATHS:
                file = tmp_path / f"{path}.gguf"
                write_control_vector(file, routed, path)
                tokens, logits = llama.greedy(prompt, NEW, read_vector(file, layers))
                routed_texts.add(tuple(tokens))
                compare(routed, prompt, path, tokens, logits)
            # the same context without the vector is the clean model again
            clean, logits = llama.greedy(prompt, NEW, None)
            compare(routed, prompt, None, clean, logits)
            clean_texts.add(tuple(clean))
    assert len(routed_texts | clean_texts) > 2 * len(clean_texts)


def compare(routed: sr.RoutedModel, prompt: list[int], path: int | None, tokens: list[int], logits: torch.Tensor):
    """The logits of transformers after each token that llama.cpp wrote, and so its choices but for ties."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad(), routed.follow([path]):
        expected = routed.model(ids).logits[0, len(prompt) - 1 : -1].float()
    apart = (expected - logits).abs().max().item()
    assert apart < LARGEST
    best = expected.topk(2).values
    for step, (token, choice) in enumerate(zip(tokens, expected.argmax(-1).tolist(), strict=True)):
        assert token == choice or best[step, 0] - best[step, 1] < 2 * apart, f"no tie at token {step}"
