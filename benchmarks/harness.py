"""What all benchmarks share: a result file that names its command, versions and machine."""

import datetime
import json
import os
import platform
import resource
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from results import RESULTS


def own_peak_bytes() -> int:
    """Peak resident bytes of this process; Linux carries ru_maxrss over from the parent, so its own mark is read."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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


def own_command() -> str:
    """The command line that this process was started with."""
    return shlex.join(["python", *sys.argv])


def record() -> dict[str, Any]:
    """The command, versions, processor, GPU if any, and date of this process, as every result names them."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "command": own_command(),
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        **gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes the result as JSON with its `record`, and returns the file."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps({**record(), **result}, indent=2) + "\n")
    return target
