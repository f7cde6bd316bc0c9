"""What all benchmarks share: interleaved pairs, intervals on ratios, and a result file that names its machine."""

import datetime
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def interleaved(ours: Callable[[], object], rival: Callable[[], object], pairs: int, warmup: int = 1) -> np.ndarray:
    """Seconds of each call, (pairs, 2): ours and the rival in turn, which of them goes first alternating."""
    for _ in range(warmup):
        ours()
        rival()
    seconds = np.empty((pairs, 2))
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            begin = time.perf_counter()
            (ours, rival)[which]()
            seconds[pair, which] = time.perf_counter() - begin
    return seconds


def ratio(numerator: np.ndarray, denominator: np.ndarray, resamples: int = 4000) -> dict[str, float]:
    """The median of the ratios pair by pair, with its 95 % bootstrap interval over pairs."""
    ratios = numerator / denominator
    drawn = np.random.default_rng(0).integers(len(ratios), size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high), "pairs": len(ratios)}


def processor() -> str:
    """The processor's name, with the instruction sets that matter here."""
    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        name = fields.get("model name", name)
        known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        flags = ", ".join(flag for flag in known if flag in fields.get("flags", "").split())
    return f"{name} ({os.cpu_count()} cores{', ' + flags if flags else ''})"


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes the result as JSON, with the command, versions, processor and date, and returns the file."""
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(record, indent=2) + "\n")
    return target
