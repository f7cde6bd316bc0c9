"""What paths cost a whole model on an NVIDIA GPU: a training step, a prefill, a decode step, over the plain model's.

    python benchmarks/model_cuda.py        # some minutes; needs a CUDA device

A Llama-shaped random model of 1.1B parameters (22 layers, width 2048, 32 heads over 4 of keys and values), bfloat16,
PyTorch's own attention where there is no noise. Training: 4 rows of 1,024 tokens, forward and backward. Prefill: 4 rows
of 2,048 tokens, noise at all of them. Decode: one token for each of 32 rows over 1,024 cached ones, launched kernel by
kernel and replayed as a CUDA graph. Ratios are medians over interleaved pairs, with 95 % intervals.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import save
from training_step import ROUTINGS
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import stochroute as sr
from stochroute.measuring.timing import interleaved, ratio

TRAINED, PREFILLED = (4, 1024), (4, 2048)
ROWS, CACHED = 32, 1024
WARMUP = 5
KINDS = {"upper third (the default)": sr.RoutingConfig(span="all"), **ROUTINGS}


def build_model() -> LlamaForCausalLM:
    """The model on the GPU, from a fixed seed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        use_cache=False,
    )
    with torch.device("cuda"):
        return LlamaForCausalLM(config).to(torch.bfloat16)


def random_ids(rows: int, length: int) -> torch.Tensor:
    """int64 (rows, length), on the GPU."""
    return torch.randint(1, 32000, (rows, length), generator=torch.Generator().manual_seed(1)).cuda()


def over(noisy: Callable[[], object], plain: Callable[[], object], pairs: int) -> dict[str, float]:
    """The time of one over that of the other, until the GPU has finished, and the seconds of the other."""

    def finished(run: Callable[[], object]) -> Callable[[], None]:
        def whole() -> None:
            run()
            torch.cuda.synchronize()

        return whole

    seconds = interleaved(finished(noisy), finished(plain), pairs, WARMUP)
    return {**ratio(seconds[:, 0], seconds[:, 1]), "plain_seconds": float(np.median(seconds[:, 1]))}


def over_plain(routed: sr.RoutedModel, rows: int, run: Callable[[], object], pairs: int) -> dict[str, float]:
    """The time of `run` along paths over that of the plain model."""

    def plain() -> None:
        with routed.suspended():
            run()

    with routed.follow(sr.derive_paths(7, rows)):
        return over(run, plain, pairs)


def training(routed: sr.RoutedModel, pairs: int) -> dict[str, float]:
    """Forward and backward; model and noise get their gradients."""
    ids = random_ids(*TRAINED)
    routed.train()

    def step() -> None:
        routed.model(ids, labels=ids).loss.backward()
        routed.zero_grad()

    found = over_plain(routed, len(ids), step, pairs)
    routed.eval()
    return found


@torch.no_grad()
def prefill(routed: sr.RoutedModel, pairs: int) -> dict[str, float]:
    """A forward of whole prompts, whose last token is predicted."""
    ids = random_ids(*PREFILLED)
    return over_plain(routed, len(ids), lambda: routed.model(ids, logits_to_keep=1), pairs)


def decode_step(routed: sr.RoutedModel) -> Callable[[], object]:
    """One token a row, written over the same place of a static cache each time."""
    model: Any = routed.model
    cache = StaticCache(config=model.config, max_cache_len=CACHED + 1)
    for layer in range(model.config.num_hidden_layers):
        keys = torch.randn(ROWS, 4, CACHED, 64, device="cuda", dtype=torch.bfloat16)
        cache.update(keys, keys, layer)
    ids, positions = random_ids(ROWS, 1), torch.full((ROWS, 1), CACHED, device="cuda")

    def step() -> None:
        for layer in cache.layers:
            layer.cumulative_length.fill_(CACHED)
        model(ids, position_ids=positions, past_key_values=cache, use_cache=True)

    return step


@torch.no_grad()
def decode(routed: sr.RoutedModel, pairs: int) -> dict[str, float]:
    """A step as Python launches it."""
    return over_plain(routed, ROWS, decode_step(routed), pairs)


@torch.no_grad()
def decode_graph(routed: sr.RoutedModel, pairs: int) -> dict[str, float]:
    """A step as a CUDA graph: what the kernels themselves take."""
    step = decode_step(routed)  # both graphs read and write its tensors

    def captured() -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(torch.cuda.Stream()):
            step()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            step()
        return graph

    plain = captured()
    with routed.follow(sr.derive_paths(7, ROWS)):
        return over(captured().replay, plain.replay, pairs)


MEASURES: dict[str, Callable[[sr.RoutedModel, int], dict[str, float]]] = {
    "training step": training,
    "prefill": prefill,
    "decode step": decode,
    "decode step, CUDA graph": decode_graph,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50, help="interleaved pairs of each ratio (default 50)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/model_cuda.py needs a CUDA device; training_step.py and generation.py do not")
    model = build_model()
    result: dict[str, Any] = {
        "parameters": model.num_parameters(),
        "trained": TRAINED,
        "prefilled": PREFILLED,
        "decoded": (ROWS, CACHED),
        "over_plain": {},
    }
    for kind, config in KINDS.items():
        routed = sr.route(model, config)
        for measure, measured in MEASURES.items():
            found = result["over_plain"].setdefault(measure, {})
            found[kind] = measured(routed, options.pairs)
            print(f"{measure}, {kind}: {found[kind]}", flush=True)
        routed.detach()
        print("written:", save("model_cuda", result), flush=True)


if __name__ == "__main__":
    main()
