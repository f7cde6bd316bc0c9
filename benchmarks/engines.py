"""The same paths on five engines: what transformers, vLLM offline, on two ranks, over HTTP, and Ray Data write.

python benchmarks/engines.py                (in an environment with vLLM and Ray, see docs/engines.md)

50 prompts × 4 paths, greedy, float32, the embedded model. Every text is compared token by token with transformers;
where one parts, the gap between the two best logits is listed: a tie is below twice what the numbers differ by.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import stochroute as sr
from stochroute.engines.agreement import Text, agreement

PATHS_EACH, NEW_TOKENS, STRENGTH = 4, 24, 0.3
CONFIG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=STRENGTH))
ENGINES = ("vllm", "vllm, http", "ray data", "vllm, 2 ranks")
WORK = Path(__file__).parent / "work"
# one batch of all texts, a small cache, no compilation: the ways differ in nothing but the engine
OPTIONS = {
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 28,
    "max_model_len": 512,
    "max_num_seqs": 256,
    "block_size": 32,
}


def inputs(prompts: int) -> tuple[list[list[int]], list[int]]:
    """Token ids of the beginnings of passages, one a text, and the path of each text."""
    from stochroute import embedded
    from stochroute.calibration import neutral_rows

    rows = neutral_rows(embedded.load()[1], 512)[:prompts]
    cut = [row[: 6 + 7 * (index % 6)] for index, row in enumerate(rows)]
    texts = [list(map(int, row)) for row in cut for _ in range(PATHS_EACH)]
    return texts, [path for index in range(len(cut)) for path in sr.derive_paths(20, PATHS_EACH, prompt=index)]


def weights() -> str:
    from stochroute import embedded

    return str(Path(embedded.__file__).parent / "weights")


def offline(prompts: list[list[int]], paths: list[int], ranks: int) -> list[Text]:
    """vLLM in processes of its own, one batch."""
    from vllm import LLM, SamplingParams

    from stochroute.engines.vllm import additional_config

    options: dict[str, Any] = {**OPTIONS, "tensor_parallel_size": ranks, "dtype": "float32"}
    llm = LLM(weights(), additional_config=additional_config(CONFIG), generation_config="vllm", **options)
    common: dict[str, Any] = {"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True, "logprobs": 0}
    asked = [SamplingParams(extra_args={"stochroute_path": sr.format_path(p)}, **common) for p in paths]
    given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
    choices = [output.outputs[0] for output in llm.generate(given, asked, use_tqdm=False)]
    return [
        Text(list(c.token_ids), [at[t].logprob for at, t in zip(c.logprobs, c.token_ids, strict=True)]) for c in choices
    ]


def over_http(prompts: list[list[int]], paths: list[int]) -> list[Text]:
    """`stochroute serve --engine vllm`, one request a prompt, its paths as choices."""
    import httpx

    options = [word for name, value in OPTIONS.items() for word in ("--engine-option", f"{name}={json.dumps(value)}")]
    noise = ["--strength", str(STRENGTH), "--layers", "all", "--dtype", "float32"]
    command = [sys.executable, "-c", "from stochroute.cli import main; main()", "serve", "--engine", "vllm", "--json"]
    log = (WORK / "engines-server.log").open("w")
    server = subprocess.Popen(
        [*command, "--port", "0", *noise, *options], stdout=subprocess.PIPE, stderr=log, text=True
    )
    assert server.stdout is not None
    url = json.loads(next(line for line in server.stdout if line.startswith("{")))["url"]
    http = httpx.Client(base_url=url, timeout=1800, trust_env=False)
    try:
        while True:
            try:
                if http.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                assert server.poll() is None, "the server has ended: see benchmarks/work/engines-server.log"
            time.sleep(1)

        def ask(first: int) -> list[Text]:
            ids = [sr.format_path(path) for path in paths[first : first + PATHS_EACH]]
            body = {"model": "embedded", "prompt": prompts[first], "temperature": 0, "max_tokens": NEW_TOKENS}
            ours = {"n": PATHS_EACH, "vllm_xargs": {"stochroute_paths": ids}, "ignore_eos": True}
            answer = http.post(
                "/v1/completions", json={**body, **ours, "logprobs": 0, "return_tokens_as_token_ids": True}
            )
            assert answer.status_code == 200, answer.text
            found = [c["logprobs"] for c in sorted(answer.json()["choices"], key=lambda c: c["index"])]
            return [
                Text([int(t.removeprefix("token_id:")) for t in lp["tokens"]], lp["token_logprobs"]) for lp in found
            ]

        with ThreadPoolExecutor(16) as pool:
            return [text for texts in pool.map(ask, range(0, len(prompts), PATHS_EACH)) for text in texts]
    finally:
        server.terminate()
        server.wait(120)


def on_ray(prompts: list[list[int]], paths: list[int]) -> list[Text]:
    """What `stochroute generate --engine ray` runs."""
    from stochroute.engines.ray import Writer
    from stochroute.engines.vllm import additional_config

    writer = Writer(weights(), additional_config(CONFIG), "float32", OPTIONS)
    starts = [len(prompt) - 1 for prompt in prompts]
    never = [0]  # padding, which is not written: so the end token does not end a text, as with the other engines
    return [Text(tokens) for tokens in writer.write(prompts, paths, starts, NEW_TOKENS, never)]


def by_transformers(prompts: list[list[int]], paths: list[int]) -> list[list[int]]:
    """What `routed.generate` writes, prompt by prompt."""
    import torch

    from stochroute import embedded

    routed = sr.route(embedded.load()[0], CONFIG)
    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    texts: list[list[int]] = []
    for first in range(0, len(prompts), PATHS_EACH):
        ids = torch.tensor([prompts[first]])
        out = routed.generate(ids, paths=paths[first : first + PATHS_EACH], **{**settings, "eos_token_id": None})
        texts += out.generated.tolist()
    return texts


def write(engine: str, prompts: int, target: Path) -> None:
    given = inputs(prompts)
    texts = {
        "vllm": lambda: offline(*given, ranks=1),
        "vllm, 2 ranks": lambda: offline(*given, ranks=2),
        "vllm, http": lambda: over_http(*given),
        "ray data": lambda: on_ray(*given),
    }[engine]()
    target.write_text(json.dumps([asdict(text) for text in texts]))


def compare(prompts: int, found: dict[str, list[Text]]) -> dict[str, Any]:
    """The result: for each engine how many texts are transformers' own, and every parting."""
    from stochroute import embedded

    given = inputs(prompts)
    reference = by_transformers(*given)
    routed = sr.route(embedded.load()[0], CONFIG)
    rows = {name: agreement(routed, *given, texts) for name, texts in found.items()}
    difference = max(row.difference for row in rows.values())
    return {
        "model": "embedded, float32",
        "routing": CONFIG.to_dict(),
        "prompts": prompts,
        "paths_each": PATHS_EACH,
        "new_tokens": NEW_TOKENS,
        "engines": {
            name: {
                "texts": row.texts,
                "identical_to_transformers_generate": sum(
                    t.tokens == r for t, r in zip(found[name], reference, strict=True)
                ),
                "tokens_compared": row.tokens,
                "largest_logprob_difference_nats": row.difference,
                "partings": [{**asdict(p), "tie": p.gap < 2 * (row.difference or difference)} for p in row.partings],
            }
            for name, row in rows.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument(
        "--only", choices=ENGINES, action="append", help="default: all; the others are read from their last run"
    )
    parser.add_argument("--write", choices=ENGINES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    if asked.write:
        write(asked.write, asked.prompts, WORK / f"engines-{asked.write}.json")
        return
    found: dict[str, list[Text]] = {}
    for engine in ENGINES:
        file = WORK / f"engines-{engine}.json"
        if asked.only and engine not in asked.only:
            if file.exists():  # of an earlier run
                found[engine] = [Text(**t) for t in json.loads(file.read_text())]
            continue
        began = time.monotonic()
        command = [sys.executable, __file__, "--write", engine, "--prompts", str(asked.prompts)]
        environment = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_USE_V2_MODEL_RUNNER": "0"}
        subprocess.run(command, check=True, env={**environment, "VLLM_LOGGING_LEVEL": "ERROR", **os.environ})
        found[engine] = [Text(**t) for t in json.loads(file.read_text())]
        print(f"{engine}: {len(found[engine])} texts in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    from importlib.metadata import version

    from harness import save

    versions = {name: version(name) for name in ("vllm-cpu", "ray")}
    print(save("engines", {**compare(asked.prompts, found), **versions}))


if __name__ == "__main__":
    main()
