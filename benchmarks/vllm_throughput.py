"""What paths cost in vLLM: tokens a second of an engine whose requests walk paths, over those of one without a routing.

python benchmarks/vllm_throughput.py        (in an environment with vLLM, see docs/engines.md)

A random Llama of 190 million parameters, 32 requests at once, each with its own path. Both engines live in one process
and take turns, in changing order, so that what else runs on the machine strikes both. Where an engine's memory happens
to lie makes it up to 1 % faster or slower than its twin for as long as it lives, so several processes are started, and
the interval is over them. The processor time of a turn is given beside the clock's: other work cannot add to it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

import numpy as np
from scipy.stats import bootstrap

import stochroute as sr

REQUESTS = 32
CLOCKS = ("clock", "processor_time")
WORK = Path(__file__).parent / "work"
ROUTINGS = {
    "sequence": sr.RoutingConfig(),
    "token": sr.RoutingConfig(structural=sr.Structural(form="independent", layers="all", hold=1)),
}


def model_folder() -> tuple[str, int]:
    """A folder with the config of the model, whose weights vLLM makes up, and the number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=15,
        num_attention_heads=12,
        max_position_embeddings=1024,
        architectures=["LlamaForCausalLM"],
    )
    folder = WORK / "llama-190m"
    config.save_pretrained(folder)
    with torch.device("meta"):
        return str(folder), sum(p.numel() for p in LlamaForCausalLM(config).parameters())


def engine(folder: str, routing: sr.RoutingConfig | None, options: dict[str, Any]) -> Any:
    from vllm import LLM

    from stochroute.engines.vllm import additional_config

    settings: dict[str, Any] = {
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "kv_cache_memory_bytes": 1 << 28,
        "max_model_len": 512,
        "max_num_batched_tokens": 1024,
        "max_num_seqs": REQUESTS,
        "enable_prefix_caching": False,
        **options,
    }
    return LLM(folder, additional_config={} if routing is None else additional_config(routing), **settings)


def turn(llm: Any, routed: bool, number: int, prompt_tokens: int, new_tokens: int) -> Callable[[], None]:
    from vllm import SamplingParams

    paths = sr.derive_paths(number, REQUESTS)
    common: dict[str, Any] = {"temperature": 0, "max_tokens": new_tokens, "ignore_eos": True, "detokenize": False}
    fields = [{"stochroute_path": sr.format_path(path)} if routed else None for path in paths]
    asked = [SamplingParams(extra_args=field, **common) for field in fields]
    prompts: list[Any] = [{"prompt_token_ids": list(range(5 + i, 5 + i + prompt_tokens))} for i in range(REQUESTS)]
    return lambda: llm.generate(prompts, asked, use_tqdm=False)


def clocked(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the clock, and of this process on processors."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def take_turns(asked: argparse.Namespace, number: int) -> dict[str, list[list[float]]]:
    """For the clock and the processor's time: seconds without paths and with them, of each pair of turns.

    Args:
        number: of this process; odd ones start the routed engine first.
    """
    folder, _ = model_folder()
    routings = {False: None, True: ROUTINGS[asked.routing]}
    engines = {
        routed: engine(folder, routings[routed], {"enforce_eager": asked.eager})
        for routed in ((True, False) if number % 2 else (False, True))
    }
    seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for pair in range(-1, asked.pairs):  # the first pair warms up
        for routed in (False, True) if pair % 2 else (True, False):
            taken = clocked(turn(engines[routed], routed, pair % 1000, asked.prompt_tokens, asked.new_tokens))
            if pair >= 0:
                seconds[routed].append(taken)
    return {name: [[t[i] for t in seconds[routed]] for routed in (False, True)] for i, name in enumerate(CLOCKS)}


def ratio_of(processes: list[list[list[float]]]) -> dict[str, Any]:
    """Throughput with paths over throughput without: the mean of the processes' medians, and its 95 % bootstrap
    interval over processes."""
    ratios = [np.array(plain) / np.array(routed) for plain, routed in processes]
    medians = np.array([np.median(r) for r in ratios])
    found = bootstrap((medians,), np.mean, rng=np.random.default_rng(0), n_resamples=9999)
    low, high = found.confidence_interval
    return {
        "throughput_ratio": {"mean": float(medians.mean()), "low": float(low), "high": float(high)},
        "pairs_of_each_process": [[round(float(r), 4) for r in of_process] for of_process in ratios],
        "median_seconds": {
            name: float(np.median([second for process in processes for second in process[i]]))
            for i, name in enumerate(("without", "with"))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=16, help="in each process")
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--routing", choices=ROUTINGS, default="sequence")
    parser.add_argument("--eager", action="store_true", help="without compilation")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)  # one of them: writes its seconds and ends
    asked = parser.parse_args()
    if asked.process is not None:
        print(json.dumps(take_turns(asked, asked.process)))
        return
    started = [
        subprocess.run([sys.executable, *sys.argv, "--process", str(i)], check=True, stdout=subprocess.PIPE, text=True)
        for i in range(asked.processes)
    ]
    found = [json.loads(process.stdout.splitlines()[-1]) for process in started]
    result = {
        "parameters": model_folder()[1],
        "dtype": "bfloat16",
        "compiled": not asked.eager,
        "requests": REQUESTS,
        "prompt_tokens": asked.prompt_tokens,
        "new_tokens": asked.new_tokens,
        "routing": ROUTINGS[asked.routing].to_dict(),
        **{name: ratio_of([process[name] for process in found]) for name in CLOCKS},
    }
    from harness import save

    name = "vllm_throughput" + ("_eager" if asked.eager else "") + ("_token" if asked.routing == "token" else "")
    print(save(name, result))


if __name__ == "__main__":
    main()
