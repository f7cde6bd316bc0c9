"""What the READMEs show runs as it stands there, only on a smaller model; both show and measure the same."""

import re
import shlex
from pathlib import Path

import pytest

from cli_model import save_tiny_model
from stochroute.cli import run

ROOT = Path(__file__).parents[1]
README, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))


def code(page: str) -> list[str]:
    """Every line of the code blocks, without comments."""
    blocks = re.findall(r"```\w*\n(.*?)```", page, flags=re.DOTALL)
    return [line.partition("#")[0].rstrip() for block in blocks for line in block.splitlines()]


def shape(page: str) -> list[str]:
    """Headings, table rows, code blocks and list items, in their order, by their kind alone."""
    return [found for line in page.splitlines() if (found := re.match(r"#+ |\||- |!|```\w*|", line)[0])]  # pyright: ignore


def figures(page: str) -> list[list[str]]:
    """The numbers of every table row."""
    return [re.findall(r"\d+(?:[.,]\d+)*", line) for line in page.splitlines() if line.startswith("|")]


def links(page: str) -> list[str]:
    """Where the page leads to, other than to itself in the other language."""
    return [target for target in re.findall(r"\]\(([^)#]+)\)", page) if not target.startswith("README")]


def test_both_readmes_have_the_same_code_shape_figures_and_links():
    assert code(CHINESE) == code(README)
    assert shape(CHINESE) == shape(README)
    assert figures(CHINESE) == figures(README)
    assert links(CHINESE) == links(README)


def test_the_readmes_lead_to_each_other_at_once():
    assert "](README.zh.md)" in "".join(README.splitlines()[:4])
    assert "](README.md)" in "".join(CHINESE.splitlines()[:4])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_the_python_examples_run(model: str):
    first, *others = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    # the tiny model's context is shorter than the texts asked for
    names: dict[str, object] = {"name": model}
    exec(first.replace("max_new_tokens=64", "max_new_tokens=8"), names)
    assert names["again"].sequences.tolist() == names["out"].sequences[3:4].tolist()  # pyright: ignore
    for block in others:
        exec(block, names)


def test_the_commands_are_accepted(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded: list[str | None] = []
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "Once"}\n')
    # the embedded model is tested elsewhere; here every command is parsed and checked up to loading
    Path("train.yaml").write_text("output: out\ndata: {train: texts.jsonl}\n")
    Path("questions.jsonl").write_text('{"question": "Who?", "answer": "Ann"}\n')
    commands = [line.partition("#")[0] for line in README.splitlines() if line.startswith("stochroute ")]
    verbs = {command.split()[1] for command in commands} - {"bench"}
    for verb in verbs:
        monkeypatch.setattr(f"stochroute.cli.{verb}.load_model", lambda name, *_: loaded.append(name) or 1 / 0)
    for command in commands:
        words = [
            word.partition(",")[0]
            for word in shlex.split(command.replace("NAME", model).replace("--port 8000", "--port 0"))[1:]
        ]
        if words[0] == "bench":  # quick as it is
            small = ["--length", "16", "--pairs", "1"] if words[1] == "attention" else ["--samples", "16"]
            assert run([*words, *small]) == 0
            continue
        if words[0] == "chat":  # there is no terminal here
            words.append("--json")
        with pytest.raises(ZeroDivisionError):
            run(words)
    loading = [command for command in commands if command.split()[1] != "bench"]
    assert loaded == [model if "--model" in command else None for command in loading]
