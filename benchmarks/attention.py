"""Attention with noise on its scores against PyTorch's SDPA without: time, memory, growth, and what noise costs.

    python benchmarks/attention.py                 # everything, about fifteen minutes on one core
    python benchmarks/attention.py --only forward  # one part; the other parts of the result file stay

One thread, b = 1, h = 8, d = 64, causal, strength 0.5 nats. Parts: forward (float32 and bfloat16), avx2 (the same with
the AVX2 kernels), backward (forward + backward), naive (the form of the article: a (b, h, s, s) matrix of noise),
memory, growth, structural, decode (a step of a 97M model with both kinds of noise). Ratios are medians over
interleaved pairs, with 95 % intervals.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generation import build_model, decode_steps
from harness import RESULTS, own_peak_bytes, save
from torch.nn.functional import scaled_dot_product_attention

import stochroute as sr
from stochroute.compiled import LEVEL_VARIABLE, LEVELS, level
from stochroute.kernels import AttentionInputs, FeedForwardNoise, ScoreNoise, Visibility, add_structural_noise, attend
from stochroute.kernels.feed_forward import add_noise
from stochroute.timing import interleaved, ratio

BATCH, HEADS, WIDTH, STRENGTH = 1, 8, 64, 0.5
LENGTHS = (512, 1024, 2048, 4096)
BACKWARD_LENGTHS = (512, 1024, 2048)
GROWTH = (1024, 2048, 4096, 8192, 16384)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ARMS = ("fused", "fused without noise", "naive", "sdpa")


def build_inputs(
    length: int, dtype: torch.dtype = torch.float32, noise: bool = True, grad: bool = False
) -> AttentionInputs:
    """Random causal inputs from a fixed seed."""
    stream = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(BATCH, HEADS, length, WIDTH, generator=stream).to(dtype).requires_grad_(grad) for _ in range(3)
    )
    slots = torch.arange(length).expand(BATCH, -1)
    rows = sr.noise.attention_row_keys(sr.noise.key_words(sr.derive_paths(7, BATCH)), HEADS, slots, 0)
    drawn = ScoreNoise(rows, slots, torch.full((BATCH, HEADS, length), STRENGTH), "normal")
    visibility = Visibility(slots, slots, torch.tensor(2**30), None)
    return AttentionInputs(query, key, value, visibility, drawn if noise else None, WIDTH**-0.5)


def naive(inputs: AttentionInputs) -> torch.Tensor:
    """softmax((QKᵀ + N)/√d_k) V as the article writes it, N drawn as a whole by torch."""
    query, key, value = inputs.query, inputs.key, inputs.value
    scores = query @ key.transpose(-1, -2)
    scores = (scores + STRENGTH * WIDTH**0.5 * torch.randn_like(scores)) / WIDTH**0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1) @ value


def arm(name: str, inputs: AttentionInputs) -> Callable[[], torch.Tensor]:
    """One arm as a function without arguments."""
    if name == "sdpa":
        return lambda: scaled_dot_product_attention(inputs.query, inputs.key, inputs.value, is_causal=True)
    if name == "naive":
        return lambda: naive(inputs)
    return lambda: attend(inputs, "fused")


def with_backward(forward: Callable[[], torch.Tensor], grad: torch.Tensor) -> Callable[[], None]:
    return lambda: forward().backward(grad)


def versus_sdpa(name: str, length: int, dtype: torch.dtype, pairs: int, backward: bool = False) -> dict[str, float]:
    """An arm's time over SDPA's."""
    inputs = build_inputs(length, dtype, noise=name != "fused without noise", grad=backward)
    ours, stock = arm(name, inputs), arm("sdpa", inputs)
    if backward:
        grad = torch.randn(inputs.query.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        seconds = interleaved(with_backward(ours, grad), with_backward(stock, grad), pairs, 3)
    else:
        seconds = interleaved(ours, stock, pairs, 3)
    found = {**ratio(seconds[:, 0], seconds[:, 1]), "sdpa_seconds": float(np.median(seconds[:, 1]))}
    print(f"{name}, {str(dtype)[6:]}, s = {length}{', with backward' * backward}: {found['median']:.3f}", flush=True)
    return found


def forward_part(pairs: int) -> dict[str, Any]:
    return {
        name: {dtype: {str(s): versus_sdpa(name, s, DTYPES[dtype], pairs) for s in LENGTHS} for dtype in DTYPES}
        for name in ("fused", "fused without noise")
    }


def backward_part(pairs: int) -> dict[str, Any]:
    return {
        dtype: {str(s): versus_sdpa("fused", s, DTYPES[dtype], pairs, backward=True) for s in BACKWARD_LENGTHS}
        for dtype in DTYPES
    }


def avx2_part(pairs: int) -> dict[str, Any]:
    """In a process of its own, since the instruction set is chosen once."""
    return json.loads(in_child("--only", "forward", "--pairs", str(pairs), level="avx2"))["fused"]


def naive_part(pairs: int) -> dict[str, Any]:
    few = max(3, pairs // 40)
    return {
        "forward": {d: {str(s): versus_sdpa("naive", s, DTYPES[d], few) for s in LENGTHS} for d in DTYPES},
        "forward and backward": {
            "float32": {str(s): versus_sdpa("naive", s, torch.float32, few, True) for s in (512, 1024)}
        },
    }


def memory_part(pairs: int) -> dict[str, Any]:
    """Peak bytes of a forward at 4,096 beyond its inputs, each arm in a fresh process."""
    found = {name: int(in_child("--memory-of", name)) for name in ("fused", "naive", "sdpa")}
    print("peak extra bytes at 4096:", found, flush=True)
    return found


def growth_part(pairs: int) -> dict[str, Any]:
    """Seconds and peak extra bytes of a forward from 1k to 16k, and the exponents they grow with."""
    seconds, peaks = [], []
    for length in GROWTH:
        forward = arm("fused", build_inputs(length))
        seconds.append(float(np.median(interleaved(forward, forward, 5 if length < 8192 else 2))))
        peaks.append(int(in_child("--memory-of", "fused", "--length", str(length))))
        print(f"s = {length}: {seconds[-1]:.3f} s, {peaks[-1] / 1e6:.1f} MB", flush=True)
    slope = lambda values: float(np.polyfit(np.log(GROWTH), np.log(values), 1)[0])  # noqa: E731
    return {
        "lengths": GROWTH,
        "seconds": seconds,
        "peak_extra_bytes": peaks,
        "exponent_of_time": slope(seconds),
        "exponent_of_memory": slope(peaks),
    }


def structural_part(pairs: int) -> dict[str, Any]:
    """Drawing and adding structural noise: the kernel over torch's own operations, and over a plain addition."""
    found = {}
    for tokens in (16, 1024):
        for name, dtype in DTYPES.items():
            stream = torch.Generator().manual_seed(0)
            states = torch.randn(1, tokens, 768, generator=stream).to(dtype)
            noise = FeedForwardNoise(
                keys=sr.noise.key_words([5]),
                blocks=torch.arange(tokens)[None],
                layer=3,
                distribution="normal",
                factor=torch.full((1, tokens), 0.1),
                relative=True,
                mu=torch.zeros(768),
                sigma=torch.ones(768),
            )
            torch_seconds = interleaved(
                lambda s=states, n=noise: add_structural_noise(s, n),
                lambda s=states, n=noise: add_noise(s, n),
                pairs,
                3,
            )
            plain_seconds = interleaved(
                lambda s=states, n=noise: add_structural_noise(s, n), lambda s=states: s + s, pairs, 3
            )
            found[f"{tokens} × 768, {name}"] = {
                "over_torch": ratio(torch_seconds[:, 0], torch_seconds[:, 1]),
                "over_plain_addition": ratio(plain_seconds[:, 0], plain_seconds[:, 1]),
                "seconds": float(np.median(torch_seconds[:, 0])),
            }
    print("structural:", {k: round(v["over_torch"]["median"], 3) for k, v in found.items()}, flush=True)
    return found


def decode_part(pairs: int) -> dict[str, Any]:
    """A step of the 97M model, batch 16, 1,024 tokens cached, structural and attention noise on, over the plain step."""
    routed = sr.route(build_model(), sr.RoutingConfig(attention=sr.Attention(strength=STRENGTH)))
    print(routed.explain(), flush=True)
    found = decode_steps(routed, 16, pairs, cached=1024)
    print("decode step:", found, flush=True)
    return found


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "forward": forward_part,
    "avx2": avx2_part,
    "backward": backward_part,
    "naive": naive_part,
    "memory": memory_part,
    "growth": growth_part,
    "structural": structural_part,
    "decode": decode_part,
}


def in_child(*arguments: str, level: str | None = None) -> str:
    """The last line that this script prints in a process of its own."""
    environment = {**os.environ, **({LEVEL_VARIABLE: level} if level else {})}
    command = [sys.executable, __file__, "--in-child", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return done.stdout.splitlines()[-1]


def peak_extra_bytes(name: str, length: int) -> int:
    """Peak resident bytes of one forward over what was resident before it."""
    arm(name, build_inputs(128))()  # what is loaded at the first call is no cost of this one
    forward = arm(name, build_inputs(length))
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the peak starts anew
    before = own_peak_bytes()
    forward()
    return own_peak_bytes() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="interleaved pairs of each ratio (default 200)")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; repeat for more")
    parser.add_argument("--in-child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, default=4096, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(peak_extra_bytes(options.memory_of, options.length))
        return
    if options.in_child:
        print(json.dumps(PARTS[options.only[0]](options.pairs)))
        return
    file = RESULTS / "attention.json"
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    for name in options.only or PARTS:
        parts[name] = PARTS[name](options.pairs)
        shape = {"batch": BATCH, "heads": HEADS, "width": WIDTH, "strength_nats": STRENGTH}
        print("written:", save("attention", {"instruction_set": LEVELS[level()], **shape, "parts": parts}), flush=True)


if __name__ == "__main__":
    main()
