"""Attention with noise on its scores against PyTorch's SDPA without: time, memory, growth, and what noise costs.

    python benchmarks/attention.py                 # everything, about fifteen minutes on one core
    python benchmarks/attention.py --only forward  # one part; the other parts of the result file stay

One thread, b = 1, h = 8, d = 64, causal, strength 0.5 nats. Parts: forward (float32 and bfloat16), avx2 (the same with
the AVX2 kernels), backward (forward + backward), naive (the form of the article: a (b, h, s, s) matrix of noise),
memory, growth, structural, decode (a step of a 97M model with both kinds of noise). Ratios are medians over
interleaved pairs, with 95 % intervals.
"""

import argparse
import ctypes
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generation import build_model, decode_steps
from harness import own_command, own_peak_bytes, save
from results import RESULTS

import stochroute as sr
from stochroute.compiled import LEVEL_VARIABLE, LEVELS, level
from stochroute.kernels import FeedForwardNoise, add_structural_noise
from stochroute.kernels.feed_forward import add_noise
from stochroute.measuring.attention import ARMS, STRENGTH, Shape, build_inputs, over_stock
from stochroute.measuring.timing import interleaved, ratio

BATCH, HEADS, WIDTH = 1, 8, 64
LENGTHS = (512, 1024, 2048, 4096)
BACKWARD_LENGTHS = (512, 1024, 2048)
GROWTH = (1024, 2048, 4096, 8192, 16384)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def versus_sdpa(arm: str, length: int, dtype: str, pairs: int, backward: bool = False) -> dict[str, float]:
    """An arm's time over SDPA's, printed as it comes."""
    found = over_stock(arm, Shape(BATCH, HEADS, length, WIDTH, DTYPES[dtype]), pairs, backward)
    print(f"{arm}, {dtype}, s = {length}{', with backward' * backward}: {found['median']:.3f}", flush=True)
    return found


def forward_part(pairs: int) -> dict[str, Any]:
    return {
        arm: {dtype: {str(s): versus_sdpa(arm, s, dtype, pairs) for s in LENGTHS} for dtype in DTYPES}
        for arm in ("fused", "fused, no noise")
    }


def backward_part(pairs: int) -> dict[str, Any]:
    return {
        dtype: {str(s): versus_sdpa("fused", s, dtype, pairs, backward=True) for s in BACKWARD_LENGTHS}
        for dtype in DTYPES
    }


def avx2_part(pairs: int) -> dict[str, Any]:
    """In a process of its own, since the instruction set is chosen once."""
    return json.loads(in_child("--only", "forward", "--pairs", str(pairs), level="avx2"))["fused"]


def naive_part(pairs: int) -> dict[str, Any]:
    """A few pairs are enough where the rival is twenty times slower."""
    few = max(3, pairs // 40)
    return {
        "forward": {d: {str(s): versus_sdpa("naive", s, d, few) for s in LENGTHS} for d in DTYPES},
        "forward and backward": {
            "float32": {str(s): versus_sdpa("naive", s, "float32", few, True) for s in (512, 1024)}
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
        inputs = build_inputs(Shape(BATCH, HEADS, length, WIDTH))
        run = partial(ARMS["fused"], inputs)
        seconds.append(float(np.median(interleaved(run, run, 5 if length < 8192 else 2))))
        peaks.append(int(in_child("--memory-of", "fused", "--length", str(length))))
        print(f"s = {length}: {seconds[-1]:.3f} s, {peaks[-1] / 1e6:.1f} MB", flush=True)
    return {
        "lengths": GROWTH,
        "seconds": seconds,
        "peak_extra_bytes": peaks,
        "exponent_of_time": exponent(seconds),
        "exponent_of_memory": exponent(peaks),
    }


def exponent(values: list[float]) -> float:
    """The slope over the lengths in logarithms."""
    return float(np.polyfit(np.log(GROWTH), np.log(values), 1)[0])


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
            kernel = partial(add_structural_noise, states, noise)
            torch_seconds = interleaved(kernel, partial(add_noise, states, noise), pairs, 3)
            plain_seconds = interleaved(kernel, partial(torch.add, states, states), pairs, 3)
            found[f"{tokens} × 768, {name}"] = {
                "over_torch": ratio(torch_seconds[:, 0], torch_seconds[:, 1]),
                "over_plain_addition": ratio(plain_seconds[:, 0], plain_seconds[:, 1]),
                "seconds": float(np.median(torch_seconds[:, 0])),
            }
    print("structural:", {k: round(v["over_torch"]["median"], 3) for k, v in found.items()}, flush=True)
    return found


def decode_part(pairs: int) -> dict[str, Any]:
    """A step of the 97M model, batch 16, 1,024 tokens cached, both kinds of noise on, over the plain step."""
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


def peak_extra_bytes(arm: str, length: int) -> int:
    """Peak resident bytes of one forward over what was resident before it."""
    ARMS[arm](build_inputs(Shape(BATCH, HEADS, 128, WIDTH)))  # what the first call loads is no cost of this one
    inputs = build_inputs(Shape(BATCH, HEADS, length, WIDTH))
    ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, so that what is taken now shows
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the peak starts anew
    before = own_peak_bytes()
    ARMS[arm](inputs)
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
    before = json.loads(file.read_text()) if file.exists() else {}
    parts, commands = before.get("parts", {}), before.get("commands", {})
    for name in options.only or PARTS:
        parts[name] = PARTS[name](options.pairs)
        commands[name] = {"command": own_command(), "date": datetime.date.today().isoformat()}
        shape = {"batch": BATCH, "heads": HEADS, "width": WIDTH, "strength_nats": STRENGTH}
        result = {"instruction_set": LEVELS[level()], **shape, "commands": commands, "parts": parts}
        print("written:", save("attention", result), flush=True)


if __name__ == "__main__":
    main()
