"""`stochroute serve` as a process, and what it refuses before it listens."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from cli_model import save_tiny_model
from stochroute.cli import run


@pytest.fixture
def folder(tmp_path) -> str:
    return save_tiny_model(tmp_path / "my-model")


def refusal(capsys, *arguments: str) -> str:
    assert run(["serve", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "--port 65536: give 0 … 65535"),
        (["--host", " "], "give an address"),
        (["--api-key", " "], "--api-key is empty"),
        (["--log-level", "loud"], "choose debug, info, warning or error"),
        (["--dtype", "int8"], "choose one of auto"),
        (["--max-rows", "0"], "--max-rows 0: give a positive number"),
        (["--max-waiting", "-1"], "give 0 or more"),
        (["--max-choices", "0"], "give a positive number"),
        (["--timeout", "nan"], "give a positive number"),
        (["--max-body", "0"], "give a positive number"),
        (["--model", "./nowhere"], "no such folder"),
        (["--routing", "./nowhere"], "no such folder"),
        (["--routing", ".", "--strength", "0.1"], "--strength has no effect beside --routing"),
        (["--strength", "much"], "no number"),
        (["--chat-template", "./nowhere.jinja"], "name a readable Jinja file"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(capsys, arguments, words):
    assert words in refusal(capsys, *arguments)


def test_a_port_that_is_taken_is_named(capsys, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"--port {port}: Address already in use" in refusal(capsys, "--model", folder, "--port", port)


def test_the_server_says_where_it_is_serves_the_model_and_ends_with_ctrl_c(folder, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}!")
    # a shell without job control has what it starts in the background ignore Ctrl-C
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heard}; from stochroute.cli import main; main()", "serve", "--model", folder]
    options = ["--port", "0", "--json", "--chat-template", str(template), "--strength", "0.7", "--dtype", "float64"]
    environment = {**os.environ, "STOCHROUTE_API_KEY": "secret"}
    server = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        assert said["model"] == "my-model"
        headers = {"authorization": "Bearer secret"}
        with httpx.Client(base_url=said["url"], headers=headers, trust_env=False, timeout=60) as http:
            (card,) = http.get("/v1/models").json()["data"]
            assert card["fields"]["strength"]["default"] == 0.7
            asked = {"model": "my-model", "seed": 3, "max_tokens": 5}
            chat = http.post("/v1/chat/completions", json={**asked, "messages": [{"role": "user", "content": "Hi"}]})
            plain = http.post("/v1/completions", json={**asked, "prompt": "Hi!"})
            assert chat.json()["choices"][0]["message"]["content"] == plain.json()["choices"][0]["text"]
            assert http.get("/v1/models", headers={"authorization": ""}).status_code == 401
            assert http.get("/health", headers={"host": "evil.example"}).status_code == 400
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 130
    last = errors.rstrip().splitlines()
    assert last[-1] == "stochroute: interrupted: the server has ended"
    logs = [json.loads(line) for line in last if line.startswith("{")]
    assert {"request"} <= {line.get("event") for line in logs}
    assert "Hi" not in errors
    assert "secret" not in errors
