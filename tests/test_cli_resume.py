"""--output and --resume: rows are never doubled or lost, whatever interrupted the run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_model import save_tiny_model
from stochroute.cli import run
from stochroute.cli.rows import Row

# a shell may start its background jobs with SIGINT ignored, which children inherit
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stochroute.cli import main; main()",
]
PROMPTS = ["ab", "cde", "f", "gh"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def arguments(model: str, output: Path, *more: str) -> list[str]:
    settings = ["--paths", "3", "--strength", "2", "--dtype", "float64", "--max-new-tokens", "6", "--batch", "2"]
    return ["generate", *PROMPTS, "--model", model, *settings, "--output", str(output), *more]


@pytest.fixture
def whole(model: str, tmp_path: Path) -> bytes:
    """The file of an uninterrupted run with seed 7."""
    assert run(arguments(model, tmp_path / "whole.jsonl", "--seed", "7")) == 0
    return (tmp_path / "whole.jsonl").read_bytes()


def test_output_holds_the_rows_in_order(whole: bytes):
    rows = [Row.from_json(line) for line in whole.decode().splitlines()]
    assert [row.prompt for row in rows] == [prompt for prompt in PROMPTS for _ in range(3)]


def test_resuming_from_any_byte_gives_the_same_file(model: str, tmp_path: Path, whole: bytes):
    output = tmp_path / "out.jsonl"
    lines = whole.splitlines(keepends=True)
    cuts = [0, 10, len(lines[0]), len(lines[0]) + 5, sum(map(len, lines[:4])) - 1, sum(map(len, lines[:6])), len(whole)]
    for cut in cuts:
        output.write_bytes(whole[:cut])
        assert run(arguments(model, output, "--seed", "7", "--resume")) == 0
        assert output.read_bytes() == whole


def test_resume_takes_the_seed_from_the_file(model: str, tmp_path: Path, whole: bytes):
    output = tmp_path / "out.jsonl"
    output.write_bytes(whole[: len(whole) // 2])
    assert run(arguments(model, output, "--resume")) == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--seed", "8", "--resume"], "give the --seed"),
        (["--seed", "7", "--resume", "--paths", "4"], "give the prompts and --paths"),
        (["--seed", "7", "--resume", "--strength", "1"], "other circumstances (routing was"),
        (["--seed", "7", "--resume", "--temperature", "1"], "other circumstances (decoding was"),
        (["--seed", "7", "--resume", "--dtype", "float32"], "dtype was 'float64', now 'float32'"),
        (["--seed", "7"], "--resume"),
    ],
)
def test_a_run_of_another_kind_is_refused_and_the_file_kept(
    model: str, tmp_path: Path, whole: bytes, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
):
    output = tmp_path / "out.jsonl"
    half = whole[: len(whole) // 2]
    output.write_bytes(half)
    assert run(arguments(model, output, *more)) == 2
    assert complaint in capsys.readouterr().err
    assert output.read_bytes() == half


def test_other_prompts_and_other_files_are_refused(
    model: str, tmp_path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out.jsonl"
    output.write_bytes(whole.replace(b'"prompt": "ab"', b'"prompt": "zz"'))
    assert run(arguments(model, output, "--resume")) == 2
    assert "line 1: has another prompt" in capsys.readouterr().err
    output.write_bytes(b'{"something": "else"}\n')
    assert run(arguments(model, output, "--resume")) == 2
    assert "line 1: no row of stochroute generate" in capsys.readouterr().err
    output.write_bytes(whole + whole.splitlines(keepends=True)[0])
    assert run(arguments(model, output, "--resume")) == 2
    assert "holds 13 rows, but this run has 12" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on_and_leaves_whole_rows(model: str, tmp_path: Path):
    prompts, output = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts.write_text("\n".join(f"p{i}" for i in range(2000)))
    settings = ["--model", model, "--prompts-file", str(prompts), "--output", str(output), "--paths", "1"]
    process = subprocess.Popen(
        [*COMMAND, "generate", *settings, "--batch", "1", "--max-new-tokens", "4"], stderr=subprocess.PIPE
    )
    assert process.stderr
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 130, errors
    assert "of 2000 rows" in errors
    assert "--resume goes on" in errors
    assert "Traceback" not in errors
    rows = [Row.from_json(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row.prompt_index for row in rows] == list(range(len(rows)))
    prompts.write_text("\n".join(f"p{i}" for i in range(len(rows) + 2)))
    assert run(["generate", *settings, "--max-new-tokens", "4", "--resume"]) == 0
    finished = [Row.from_json(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
    assert finished[: len(rows)] == rows
    assert [row.prompt for row in finished] == [f"p{i}" for i in range(len(rows) + 2)]
