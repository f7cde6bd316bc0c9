"""What the README shows runs as it stands there, only on a smaller model."""

import re
import shlex
from pathlib import Path

import pytest

from cli_model import save_tiny_model
from stochroute.cli import run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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
    for verb in ("generate", "calibrate", "serve", "train", "evaluate", "transmission", "uncertainty", "export"):
        monkeypatch.setattr(f"stochroute.cli.{verb}.load_model", lambda name, *_: loaded.append(name) or 1 / 0)
    commands = [line.partition("#")[0] for line in README.splitlines() if line.startswith("stochroute ")]
    for command in commands:
        words = [
            word.partition(",")[0]
            for word in shlex.split(command.replace("NAME", model).replace("--port 8000", "--port 0"))[1:]
        ]
        if words[0] == "bench":  # quick as it is
            small = ["--length", "16", "--pairs", "1"] if words[1] == "attention" else ["--samples", "16"]
            assert run([*words, *small]) == 0
            continue
        with pytest.raises(ZeroDivisionError):
            run(words)
    assert loaded == [None, None, model, model, None, model, None, None, None, None, model]
