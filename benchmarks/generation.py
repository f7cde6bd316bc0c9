"""32 texts from one prompt: shared prefill with routing on, against transformers' own generate.

    python benchmarks/generation.py                    # everything, about ten minutes on two cores
    python benchmarks/generation.py --decode-only      # only the price of noise in a decode step

A 97M Llama-shaped random model, a prompt of 512 tokens, 32 paths, 32 new tokens. transformers refuses
`num_return_sequences` without sampling, so its greedy arm gets the prompt 32 times, which is what it does itself
with `num_return_sequences=32` when it samples.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

import torch
from harness import own_peak_bytes, save
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import stochroute as sr
from stochroute.measuring.timing import interleaved, ratio

PROMPT, PATHS, NEW = 512, 32, 32
ARMS = ("routed", "stock")


def build_model() -> LlamaForCausalLM:
    """The 97M model, from a fixed seed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16384,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def build_prompt() -> torch.Tensor:
    """int64 (1, PROMPT)."""
    return torch.randint(1, 16384, (1, PROMPT), generator=torch.Generator().manual_seed(1))


def write_texts(arm: str, routed: sr.RoutedModel, sample: bool) -> torch.Tensor:
    """32 texts by one arm."""
    ids = build_prompt()
    settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": sample}
    if sample:
        settings["top_k"] = 0
    if arm == "routed":
        return routed.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), paths=PATHS, seed=7, **settings
        ).sequences
    if sample:
        mask = torch.ones_like(ids)
        return routed.model.generate(input_ids=ids, attention_mask=mask, num_return_sequences=PATHS, **settings)
    ids = ids.repeat(PATHS, 1)
    return routed.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)


@torch.no_grad()
def decode_steps(routed: sr.RoutedModel, batch: int, pairs: int, cached: int = PROMPT) -> dict[str, float]:
    """A decode step along paths over the plain step, on equal caches of `cached` tokens."""
    warmup = 5
    caches = []
    for _ in ARMS:
        cache = StaticCache(config=routed.model.config, max_cache_len=cached + pairs + warmup)
        for layer in range(routed.model.config.num_hidden_layers):
            keys = torch.randn(batch, 12, cached, 64, generator=torch.Generator().manual_seed(layer))
            cache.update(keys, keys, layer)
        caches.append(cache)
    token = torch.randint(1, 16384, (batch, 1), generator=torch.Generator().manual_seed(2))

    def plain() -> None:
        with routed.suspended():
            routed.model(token, past_key_values=caches[1])

    def noisy() -> None:
        routed.model(token, past_key_values=caches[0])

    with routed.follow(sr.derive_paths(7, batch)):
        seconds = interleaved(noisy, plain, pairs, warmup)
    return {**ratio(seconds[:, 0], seconds[:, 1]), "batch": batch, "plain_step_seconds": float(seconds[:, 1].mean())}


def peak_bytes(arm: str, sample: bool) -> int:
    """Peak resident bytes of a fresh process that runs one arm."""
    command = [sys.executable, __file__, "--memory-of", arm, *(["--sample"] if sample else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of whole generations (default 5)")
    parser.add_argument("--decode-pairs", type=int, default=240, help="pairs of decode steps (default 240)")
    parser.add_argument("--decode-only", action="store_true", help="leave the whole generations out")
    parser.add_argument("--memory-of", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--sample", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    routed = sr.route(build_model())
    if options.memory_of:
        write_texts(options.memory_of, routed, options.sample)
        print(own_peak_bytes())
        return

    result: dict[str, Any] = {
        "model_parameters": sum(p.numel() for p in routed.model.parameters()),
        "prompt_tokens": PROMPT,
        "paths": PATHS,
        "new_tokens": NEW,
        "routing": routed.config.to_dict(),
        "decode_step_routed_over_plain": [decode_steps(routed, b, options.decode_pairs) for b in (PATHS, 1)],
    }
    print("decode step, routed over plain:", result["decode_step_routed_over_plain"], flush=True)
    if not options.decode_only:
        for name, sample in (("greedy", False), ("sampled", True)):
            seconds = interleaved(
                lambda sample=sample: write_texts("routed", routed, sample),
                lambda sample=sample: write_texts("stock", routed, sample),
                options.pairs,
            )
            result[name] = {
                "stock_over_routed": ratio(seconds[:, 1], seconds[:, 0]),
                "seconds": {"routed": float(seconds[:, 0].mean()), "stock": float(seconds[:, 1].mean())},
                "peak_bytes": {arm: peak_bytes(arm, sample) for arm in ARMS},
            }
            print(f"{name}, stock over routed:", result[name], flush=True)
            print("written:", save("generation", result), flush=True)  # after each, so that a kill loses little


if __name__ == "__main__":
    main()
