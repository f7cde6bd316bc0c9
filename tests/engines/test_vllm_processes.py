"""Paths across vLLM's processes: two ranks, compiled graphs and their cache, and the HTTP server.

python -m pytest -m vllm tests/engines
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_models import SETTINGS, check_against_transformers, random_prompts, save_model

import stochroute as sr
from stochroute.engines.agreement import Text
from stochroute.paths import format_path

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),  # vLLM and what it imports have many
]
STRONG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.5))
PROMPTS = random_prompts(6, 3, 90)
PATHS = [*sr.derive_paths(11, 4), None, None]

# vLLM keeps one set of process groups a process, so that every engine of another shape gets a process
_WRITE = """
import json, sys
import engine_models
from dataclasses import asdict
from stochroute.engines.vllm import additional_config
import stochroute as sr

def main():
    model, config, prompts, paths, options = json.loads(sys.stdin.read())
    from vllm import LLM
    routing = additional_config(sr.RoutingConfig.from_dict(config))
    llm = LLM(model, additional_config=routing, **{**engine_models.SETTINGS, **options})
    texts = engine_models.texts_of(llm, prompts, paths, 24)
    print("TEXTS", json.dumps([asdict(text) for text in texts]))

if __name__ == "__main__":
    main()
"""


def environment(**changes: str) -> dict[str, str]:
    here = Path(__file__).parent
    # the registry of packages must have the plugin; sources and helpers come from this checkout
    paths = [str(here.parents[1] / "src"), str(here), str(here.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "VLLM_ENABLE_V1_MULTIPROCESSING": "1", **changes}


def write(folder: Path, model: str, config: sr.RoutingConfig, changes: dict[str, str], **options: Any) -> list[Text]:
    script = folder / "write.py"
    script.write_text(_WRITE)
    asked = json.dumps([model, config.to_dict(), PROMPTS, PATHS, options])
    done = subprocess.run(
        [sys.executable, str(script)],
        input=asked,
        capture_output=True,
        text=True,
        env=environment(**changes),
        check=False,
    )
    found = re.search(r"^TEXTS (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stderr[-4000:]
    return [Text(**text) for text in json.loads(found[1])]


def test_two_ranks_write_what_transformers_writes(model, tmp_path):
    texts = write(tmp_path, model, STRONG, {}, enforce_eager=True, tensor_parallel_size=2)
    check_against_transformers(model, STRONG, PROMPTS, PATHS, texts)


def test_experts_get_the_noise_on_what_they_write_together(tmp_path):
    pytest.importorskip("vllm")
    folder = save_model(tmp_path / "mixtral", "mixtral", num_local_experts=4)
    texts = write(tmp_path, folder, STRONG, {}, enforce_eager=True)
    check_against_transformers(folder, STRONG, PROMPTS, PATHS, texts)


def test_compiled_graphs_and_their_cache_keep_routings_apart(model, tmp_path):
    cache = {"VLLM_CACHE_ROOT": str(tmp_path / "cache"), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    other = sr.RoutingConfig(
        structural=sr.Structural(form="independent", layers=(1, 2), strength=0.8, hold=2), span="all"
    )
    for config in (STRONG, other, STRONG):  # the third finds the first one's graphs
        check_against_transformers(model, config, PROMPTS, PATHS, write(tmp_path, model, config, cache))


# -- over HTTP


@pytest.fixture(scope="module")
def url(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("served")
    config = folder / "routing"
    from engine_models import load

    sr.route(load(model), STRONG).save_pretrained(config)
    command = "import sys; from stochroute.cli import main; main()"
    arguments = ["serve", "--engine", "vllm", "--model", model, "--name", "tiny", "--routing", str(config)]
    given = [f"{name}={json.dumps(value)}" for name, value in {**SETTINGS, "enforce_eager": True}.items()]
    options = ["--port", "0", "--json", *(word for option in given for word in ("--engine-option", option))]
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-c", command, *arguments, *options],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield _until_ready(server, folder / "log")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _until_ready(server: Any, log: Path) -> str:
    import time

    import httpx

    line = next((line for line in server.stdout if line.startswith("{")), None)
    assert line, log.read_text()[-4000:]
    url = json.loads(line)["url"]
    for _ in range(600):
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return url
        except httpx.TransportError:
            assert server.poll() is None, log.read_text()[-4000:]
        time.sleep(0.5)
    raise AssertionError("the server did not get ready")


def post(url: str, **fields: Any) -> Any:
    import httpx

    body = {"model": "tiny", "temperature": 0, "max_tokens": 24, "ignore_eos": True, **fields}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=120, trust_env=False)


def texts_over_http(url: str, prompt: Any, **fields: Any) -> list[Text]:
    answer = post(url, prompt=prompt, logprobs=0, return_tokens_as_token_ids=True, **fields)
    assert answer.status_code == 200, answer.text
    return [
        Text([int(token.removeprefix("token_id:")) for token in lp["tokens"]], lp["token_logprobs"])
        for lp in (choice["logprobs"] for choice in sorted(answer.json()["choices"], key=lambda c: c["index"]))
    ]


def test_the_server_writes_what_transformers_writes(url, model):
    xargs = [None if path is None else {"stochroute_path": format_path(path)} for path in PATHS]
    texts = [texts_over_http(url, p, vllm_xargs=x)[0] for p, x in zip(PROMPTS, xargs, strict=True)]
    check_against_transformers(model, STRONG, PROMPTS, PATHS, texts)


def test_each_choice_of_the_server_walks_its_own_path(url, model):
    texts = texts_over_http(url, PROMPTS[0], n=3, vllm_xargs={"stochroute_seed": 7})
    check_against_transformers(model, STRONG, [PROMPTS[0]] * 3, sr.derive_paths(7, 3), texts)


@pytest.mark.parametrize(
    "xargs",
    [
        {"stochroute_path": "nonsense"},
        {"stochroute_path": 12},
        {"stochroute_pth": "00c0ffee00c0ffee"},
        {"stochroute_paths": ["00c0ffee00c0ffee"] * 2},
        {"stochroute_seed": -3},
    ],
)
def test_a_bad_path_is_a_bad_request_and_the_server_goes_on(url, xargs):
    answer = post(url, prompt=PROMPTS[0], vllm_xargs=xargs)
    assert answer.status_code == 400, answer.text
    assert "stochroute_" in answer.json()["error"]["message"]
    assert post(url, prompt=PROMPTS[0]).status_code == 200


def test_the_official_client_sends_paths(url):
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    path = format_path(PATHS[0])

    def text(**extra: Any) -> str:
        answer = client.completions.create(model="tiny", prompt="ab", temperature=0, max_tokens=12, extra_body=extra)
        return answer.choices[0].text

    routed = text(vllm_xargs={"stochroute_path": path})
    assert routed == text(vllm_xargs={"stochroute_path": path}) != text()
