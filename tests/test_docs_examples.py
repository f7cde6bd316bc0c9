"""What the pages show runs: Python blocks are executed, commands parsed by the real command line, tables regenerated.

A Python block that cannot run here says why in the line above it: <!-- not run: REASON -->.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main
import yaml

import stochroute as sr
from documents import DOCS, PAGES, ROOT, Block, blocks, commands, execute, name
from live_server import NAME, engine_of, live
from stochroute import embedded
from stochroute.cli import app, model_options, run
from stochroute.world import draw_text

BEGIN_WITH_A_MODEL = ("calibration.md", "spread.md")  # they go on where the README's example ends
NEEDS_A_SERVER = "serving.md"


def python(page: Path) -> list[Block]:
    """The blocks of a page that are to run."""
    return [block for block in blocks(page) if block.language == "python" and not block.excused]


RUNNING = [page for page in PAGES if python(page) and name(page) != NEEDS_A_SERVER]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the results in their place."""
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, here: Path):
    names: dict[str, object] = {"__name__": "__main__"}
    if name(page) in BEGIN_WITH_A_MODEL:
        model, tokenizer = embedded.load()
        names |= {
            "sr": sr,
            "model": model,
            "tokenizer": tokenizer,
            "inputs": tokenizer("Mia found a", return_tensors="pt"),
            "prompts": [draw_text(seed=3, index=i) for i in range(8)],
        }
        names["routed"] = sr.route(model)
        if name(page) == "calibration.md":
            names["routed"].detach()  # type: ignore[union-attr]
    for block in python(page):
        # few pairs, so that the calibration takes seconds
        execute(
            replace(block, text=block.text.replace("tokenizer=tokenizer)", "tokenizer=tokenizer, pairs=16)")), names
        )


def test_the_client_of_the_serving_page_replays_an_answer():
    (block,) = python(DOCS / NEEDS_A_SERVER)
    with live(engine_of(None)) as server:
        text = block.text.replace("http://127.0.0.1:8000", server.url).replace('"embedded"', f'"{NAME}"')
        exec(text, {})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_is_one_that_the_command_line_takes(page: Path, here: Path, monkeypatch):
    monkeypatch.setattr(model_options, "check_model_name", lambda *unused: None)  # the pages' models are the reader's
    for line in commands(page, "stochroute"):
        words = [word for word in shlex.split(line)[1:] if word != "…"]
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):
            verb, *words = words
            assert verb in command.commands, line
            command = command.commands[verb]
        command.make_context(command.name, words)  # raises for an unknown option or a value of another kind


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_script_and_every_piece_of_data_of_a_page_is_sound(page: Path):
    for line in commands(page, "python"):
        first = line.split()[1]
        assert first.startswith("-") or (ROOT / first).is_file(), line
    for block in blocks(page):
        if block.language == "json":
            for line in block.text.splitlines():
                json.loads(line)
        if block.language == "yaml":
            assert yaml.safe_load(block.text)


@pytest.mark.parametrize("page", [DOCS / "index.md", DOCS / "zh" / "index.md"], ids=name)
def test_the_first_commands_of_a_newcomer_do_what_the_page_says(page: Path, here: Path, capfd):
    first, replay, *_ = commands(page, "stochroute")
    assert run(shlex.split(first)[1:]) == 0
    told = capfd.readouterr().out
    path = shlex.split(replay)[shlex.split(replay).index("--replay") + 1]
    assert path in told
    assert run([*shlex.split(replay)[1:], "--json"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["path"] == path
    assert " ".join(again["text"].split()[:4]) in " ".join(told.split())


def ask(script: str, expression: str) -> str:
    """What an expression of a benchmark's script prints, in a process of its own, as the scripts import each other."""
    command = [sys.executable, "-c", f"import {script} as script; print({expression})"]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_page_of_results_lists_every_result_with_its_command():
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert ask("results_page", "script.figures()") in page, "out of date: run python benchmarks/results_page.py"
    results = ROOT / "benchmarks" / "results"
    for file in results.rglob("*.json"):
        assert f"`{file.relative_to(results).as_posix()}`" in page


def test_the_cost_model_predicts_what_was_measured_within_forty_per_cent():
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert ask("scale_page", "script.figures()") in page, "out of date: run python benchmarks/scale_page.py"
    rows = json.loads(ask("scale_page", "__import__('json').dumps(script.compare()[1])"))
    assert len(rows) == 4
    for what, predicted, measured, _ in rows:
        assert 1 / 1.4 < predicted / measured < 1.4, what
