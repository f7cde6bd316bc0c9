"""`stochroute serve` against `transformers serve --continuous-batching`: tokens a second, first token, and a crowd.

    python benchmarks/serving.py --prompts 32 --samples 8 --tokens 128 --rounds 3
    python benchmarks/serving.py --only first          # the first token against a bare prefill
    python benchmarks/serving.py --only crowd          # clients that leave, memory, replays

Throughput: both serve the embedded model in float32 from one folder, each in a process of its own with the same number
of threads, and take turns in every round. Both are asked the same: each prompt as many times as there are samples, all
requests at once, temperature 1. Tokens are those of the servers' own usage counts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from harness import save

from stochroute import embedded
from stochroute.measuring.timing import ratio
from stochroute.world import draw_text

_HOST = "127.0.0.1"
_READY_SECONDS = 300
_SHARE_OF_MEMORY = 0.25  # for the rival's cache, which it sizes itself; all 256 texts need less than a tenth of it


@contextlib.contextmanager
def serving(command: list[str], url: str) -> Iterator[psutil.Process]:
    """The process of a server that answers /health."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(_READY_SECONDS):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                        break
                if server.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"{command} ended: {log.read().decode()[-2000:]}")
                time.sleep(1)
            yield psutil.Process(server.pid)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def ours(folder: str, port: int) -> list[str]:
    """The command of our server."""
    start = [sys.executable, "-c", "from stochroute.cli import main; main()", "serve", "--model", folder]
    return [*start, "--name", folder, "--port", str(port), "--strength", "0.1", "--log-level", "error"]


def rival(folder: str, port: int) -> list[str]:
    """The command of the rival."""
    start = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", folder]
    batching = ["--continuous-batching", "--cb-max-memory-percent", str(_SHARE_OF_MEMORY)]
    return [*start, *batching, "--device", "cpu", "--dtype", "float32", "--port", str(port)]


def prompts(number: int) -> list[str]:
    """Beginnings of stories, of 4 to 19 words."""
    return [" ".join(draw_text(seed=11, index=i).split()[: 4 + i % 16]) for i in range(number)]


# -- throughput


async def ask_all(url: str, model: str, texts: list[str], samples: int, tokens: int) -> tuple[int, float]:
    """Tokens written for all requests at once, and the seconds until the last answer."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=3600, trust_env=False, limits=limits) as http:

        async def ask(text: str) -> int:
            body = {"model": model, "prompt": text, "max_tokens": tokens, "temperature": 1.0}
            answer = await http.post("/v1/completions", json=body)
            answer.raise_for_status()
            return answer.json()["usage"]["completion_tokens"]

        begin = time.perf_counter()
        counts = await asyncio.gather(*(ask(text) for text in texts for _ in range(samples)))
        return sum(counts), time.perf_counter() - begin


@contextlib.contextmanager
def alone(processes: dict[str, psutil.Process], arm: str) -> Iterator[None]:
    """Stops the other servers meanwhile: one that waits for requests may still use a core."""
    others = [process for name, process in processes.items() if name != arm]
    for process in others:
        process.suspend()
    try:
        yield
    finally:
        for process in others:
            process.resume()


def throughput(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of both servers, round by round, and the ratio."""
    texts = prompts(arguments.prompts)
    arms = {"stochroute": ours(folder, 8781), "transformers": rival(folder, 8782)}
    urls = {"stochroute": f"http://{_HOST}:8781", "transformers": f"http://{_HOST}:8782"}
    rates: dict[str, list[float]] = {arm: [] for arm in arms}
    with contextlib.ExitStack() as stack:
        processes = {}
        for arm, command in arms.items():
            processes[arm] = stack.enter_context(serving(command, urls[arm]))
            asyncio.run(ask_all(urls[arm], folder, texts[:2], 2, 8))  # the first request loads and allocates
        for turn in range(arguments.rounds):
            for arm in list(arms)[:: 1 if turn % 2 else -1]:
                with alone(processes, arm):
                    count, seconds = asyncio.run(ask_all(urls[arm], folder, texts, arguments.samples, arguments.tokens))
                rates[arm].append(count / seconds)
                print(f"round {turn}: {arm} {count} tokens in {seconds:.1f} s: {count / seconds:.0f} a second")
    found = ratio(np.array(rates["stochroute"]), np.array(rates["transformers"]))
    return {
        "prompts": arguments.prompts,
        "samples": arguments.samples,
        "max_tokens": arguments.tokens,
        "tokens_a_second": rates,
        "over_transformers_serve": found,
    }


# -- the first token


def first_token(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the first event of a stream on an idle server over those of a bare prefill, in pairs."""
    model, tokenizer = embedded.load()
    text = " ".join(draw_text(seed=12, index=i) for i in range(40))
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, : arguments.prompt_tokens]
    seconds = np.empty((arguments.pairs, 2))
    with serving(ours(folder, 8783), f"http://{_HOST}:8783"), httpx.Client(trust_env=False, timeout=60) as http:
        body = {"model": folder, "prompt": ids[0].tolist(), "max_tokens": 2, "stream": True, "seed": 7}
        for pair in range(-3, arguments.pairs):  # three to warm up
            begin = time.perf_counter()
            with http.stream("POST", f"http://{_HOST}:8783/v1/completions", json=body) as answer:
                lines = answer.iter_lines()
                next(lines)
                asked = time.perf_counter() - begin
                for _ in lines:
                    pass
            begin = time.perf_counter()
            with torch.inference_mode():
                model(ids)
            seconds[pair] = asked, time.perf_counter() - begin
    found = ratio(seconds[:, 0], seconds[:, 1])
    return {"prompt_tokens": ids.shape[1], "median_seconds": np.median(seconds, 0).tolist(), "over_prefill": found}


# -- a crowd


async def crowd(url: str, model: str, clients: int, tokens: int, seed: int) -> tuple[list[dict[str, Any]], int]:
    """What those who stayed got; and how many were told to come back."""
    chance, finished, refused = random.Random(seed), [], 0
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=3600, trust_env=False, limits=limits) as http:

        async def visit(number: int, leaves_after: int | None) -> None:
            nonlocal refused
            asked = {"model": model, "prompt": prompts(32)[number % 32], "seed": number, "max_tokens": tokens}
            async with http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
                if answer.status_code == 429:
                    refused += 1
                    return
                answer.raise_for_status()
                text, events = "", 0
                async for line in answer.aiter_lines():
                    if not line or line == "data: [DONE]":
                        continue
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                    events += 1
                    if events == leaves_after:
                        return
            finished.append({**asked, "text": text})

        leaving = [chance.randint(1, tokens // 2) if number % 3 == 0 else None for number in range(clients)]
        await asyncio.gather(*(visit(number, after) for number, after in enumerate(leaving)))
    return finished, refused


def hold_out(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rounds of clients, a third of whom leave: errors, memory, free places, and texts against their solo replay."""
    url, memory, differing, compared, refused = f"http://{_HOST}:8784", [], 0, 0, 0
    with serving(ours(folder, 8784), url) as process, httpx.Client(base_url=url, trust_env=False, timeout=600) as http:
        for turn in range(arguments.rounds):
            finished, told = asyncio.run(crowd(url, folder, arguments.clients, arguments.tokens, turn))
            refused += told
            page = ""
            while "stochroute_texts_in_flight 0.0" not in page:
                time.sleep(0.2)
                page = http.get("/metrics").text
            memory.append(process.memory_info().rss)
            print(f"round {turn}: {len(finished)} finished, {told} refused, {memory[-1] / 2**20:.0f} MiB")
            if turn == 0:
                for asked in finished:
                    text = asked.pop("text")
                    alone = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
                    compared += 1
                    differing += alone != text
    return {
        "clients": arguments.clients,
        "rounds": arguments.rounds,
        "refused": refused,
        "compared_with_solo_replay": compared,
        "differing_in_float32": differing,
        "resident_mib_after_each_round": [round(size / 2**20, 1) for size in memory],
    }


PARTS = {"throughput": throughput, "first": first_token, "crowd": hold_out}


def main() -> None:
    """Runs the parts and saves what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--prompt-tokens", type=int, default=480)
    parser.add_argument("--clients", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = embedded.load()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name in [arguments.only] if arguments.only else PARTS:
            result = PARTS[name](folder, arguments)
            print(json.dumps(result, indent=2))
            save(f"serving_{name}", result)


if __name__ == "__main__":
    main()
