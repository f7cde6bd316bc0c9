"""`--engine`: what is refused before anything is loaded, and prompts from Parquet files."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli_model import save_tiny_model
from stochroute.cli import run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def augment(folder: Path, model: str, *options: str) -> list[str]:
    (folder / "in.jsonl").write_text('{"text": "ab"}\n')
    given = ["augment", str(folder / "in.jsonl"), "--output", str(folder / "out.jsonl"), "--template", "{text}"]
    return [*given, "--max-new-tokens", "4", "--model", model, "--engine", "vllm", *options]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["generate", "ab", "--engine", "sglang"], "choose one of transformers, vllm, ray"),
        (["generate", "ab", "--engine-option", "a=1"], "has no effect on transformers"),
        (["generate", "ab", "--engine", "vllm", "--engine-option", "tensor_parallel_size"], "write KEY=VALUE"),
        (["generate", "ab", "--engine", "vllm", "--engine-option", "--tp=2"], "write KEY=VALUE"),
        (["generate", "ab", "--engine", "vllm", "--device", "cuda"], "--device cuda has no effect on vllm"),
        (["generate", "ab", "--engine", "vllm", "--temperature", "1"], "no id would replay"),
        (["generate", "ab", "--engine", "ray", "--top-p", "0.9"], "no id would replay"),
        (["generate", "ab", "--engine", "vllm", "--batch", "0"], "--batch 0"),
        (["augment", "in.csv", "--engine", "sglang"], "choose one of transformers, vllm, ray"),
        (["augment", "in.csv", "--engine-option", "a=1"], "has no effect on transformers"),
        (["augment", "in.csv", "--engine", "ray", "--device", "cuda"], "--device cuda has no effect on ray"),
        (["augment", "in.csv", "--output", "o.csv", "--engine", "ray", "--min-p", "0.1"], "no id would replay"),
        (["augment", "--replay", "o.csv", "--engine", "vllm"], "--engine vllm has no effect on --replay"),
        (["serve", "--engine", "ray"], "choose one of transformers, vllm"),
        (["serve", "--engine-option", "a=1"], "has no effect on transformers"),
        (["serve", "--engine", "vllm", "--max-rows", "4"], "--max-rows has no effect with --engine vllm"),
        (["serve", "--engine", "vllm", "--max-body", "4"], "--max-body has no effect with --engine vllm"),
        (["serve", "--engine", "vllm", "--budgets"], "--budgets has no effect with --engine vllm"),
        (["serve", "--engine", "vllm", "--device", "cpu"], "--device cpu has no effect on vllm"),
    ],
)
def test_what_an_engine_cannot_honour_is_refused(arguments, reason, capsys):
    assert run(arguments) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--strength", "0"], "every strength is 0"),
        (["--strength", "1", "--attention-strength", "1"], "attention routing is not offered on vLLM"),
        (["--strength", "1", "--dtype", "float64"], "--dtype float64"),
    ],
)
def test_a_routing_that_vllm_cannot_walk_is_refused(options, reason, model, tmp_path, capsys):
    assert run(["generate", "ab", "--paths", "1", "--engine", "vllm", "--model", model, *options]) == 2
    assert reason in capsys.readouterr().err
    assert run(augment(tmp_path, model, *options)) == 2
    assert reason in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_generation_setting_that_vllm_would_not_get_is_refused(tmp_path, capsys):
    folder = save_tiny_model(tmp_path)
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 1.3}))
    for command in (["generate", "ab", "--engine", "vllm", "--model", folder], augment(tmp_path, folder)):
        assert run([*command, "--strength", "1"]) == 2
        assert "repetition_penalty" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is here")
@pytest.mark.parametrize("engine", ["vllm", "ray"])
def test_without_vllm_augment_says_so_and_writes_nothing(engine, model, tmp_path, capsys):
    assert run([*augment(tmp_path, model, "--strength", "1"), "--engine", engine]) == 2
    assert "see docs/engines.md" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


def test_prompts_come_from_a_parquet_file(model, tmp_path: Path, capsys):
    pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    from pyarrow import parquet

    def rows_of(table) -> str:
        file = str(tmp_path / "prompts.parquet")
        parquet.write_table(pyarrow.table(table), file)
        return file

    common = ["generate", "--model", model, "--paths", "1", "--seed", "7", "--strength", "1", "--max-new-tokens", "4"]
    assert run([*common, "--json", "--prompts-file", rows_of({"prompt": ["ab", "从前"], "other": [1, 2]})]) == 0
    found = [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()]
    assert found == ["ab", "从前"]
    for table, reason in (
        ({"text": ["ab"]}, "prompt"),
        ({"prompt": [1, 2]}, "row 1: prompt is 1"),
        ({"prompt": ["ab", None]}, "row 2: prompt is None"),
        ({"prompt": ["ab", ""]}, "row 2: the prompt is empty"),
        ({"prompt": pyarrow.array([], pyarrow.string())}, "no prompt in it"),
    ):
        assert run([*common, "--prompts-file", rows_of(table)]) == 2
        assert reason in capsys.readouterr().err
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    for file in ("torn.parquet", "missing.parquet"):
        assert run([*common, "--prompts-file", str(tmp_path / file)]) == 2
        assert file in capsys.readouterr().err
