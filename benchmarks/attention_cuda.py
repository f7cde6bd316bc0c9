"""The Triton kernels against PyTorch's SDPA without noise, on an NVIDIA GPU.

    python benchmarks/attention_cuda.py            # some minutes; needs a CUDA device

bfloat16, causal, b = 2, h = 16, head sizes 64 and 128, s = 1k … 16k, forward alone and with the backward pass, SDPA
held to its flash backend; decode steps of one query against caches of the same lengths. Ratios are medians over
interleaved pairs, with 95 % intervals.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from harness import save
from torch.nn.attention import SDPBackend, sdpa_kernel

from stochroute.kernels import attend
from stochroute.measuring.attention import Shape, build_inputs, over_stock
from stochroute.measuring.timing import interleaved, ratio

BATCH, HEADS = 2, 16
WIDTHS = (64, 128)
LENGTHS = (1024, 2048, 4096, 8192, 16384)


def prefill(pairs: int) -> dict[str, Any]:
    """{head size: {length: {arm and passes: ratio}}}."""
    found: dict[str, Any] = {}
    for width in WIDTHS:
        for length in LENGTHS:
            shape = Shape(BATCH, HEADS, length, width, torch.bfloat16, "cuda")
            cell = found.setdefault(str(width), {}).setdefault(str(length), {})
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                for arm in ("fused", "fused, no noise"):
                    cell[f"{arm}, forward"] = over_stock(arm, shape, pairs)
                    cell[f"{arm}, forward and backward"] = over_stock(arm, shape, pairs, backward=True)
            print(width, length, {name: round(r["median"], 3) for name, r in cell.items()}, flush=True)
    return found


def decode(pairs: int) -> dict[str, Any]:
    """One query against a cache: {head size: {length: ratio}}."""
    found: dict[str, Any] = {}
    for width in WIDTHS:
        for length in LENGTHS:
            inputs = build_inputs(Shape(BATCH, HEADS, length, width, torch.bfloat16, "cuda"))
            last = inputs.queries(slice(length - 1, length))
            last = replace(last, query=last.query.contiguous())

            def noisy(last=last) -> None:
                attend(last, "fused")
                torch.cuda.synchronize()

            def stock(last=last) -> None:
                torch.nn.functional.scaled_dot_product_attention(last.query, last.key, last.value)
                torch.cuda.synchronize()

            seconds = interleaved(noisy, stock, pairs, 10)
            found.setdefault(str(width), {})[str(length)] = ratio(seconds[:, 0], seconds[:, 1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="interleaved pairs of each ratio (default 100)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/attention_cuda.py needs a CUDA device; benchmarks/attention.py is the one for CPUs"
        )
    result = {
        "batch": BATCH,
        "heads": HEADS,
        "dtype": "bfloat16",
        "decode": decode(options.pairs),
        "prefill": prefill(options.pairs),
    }
    print("written:", save("attention_cuda", result))


if __name__ == "__main__":
    main()
