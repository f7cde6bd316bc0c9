"""`stochroute generate`: rows, paths and replays, in this process; and what only a process of its own can show."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stochroute as sr
from cli_model import save_tiny_model
from stochroute.cli import run

COMMAND = [sys.executable, "-c", "from stochroute.cli import main; main()"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code = run(["generate", *arguments, "--json", "--strength", "2", "--max-new-tokens", "8"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return [json.loads(line) for line in captured.out.splitlines()]


def test_json_has_one_object_a_line_with_the_ids_of_derive_paths(model: str, capsys: pytest.CaptureFixture[str]):
    rows = rows_of(capsys, "ab", "c", "--model", model, "--paths", "3", "--seed", "7")
    assert [row["prompt"] for row in rows] == ["ab"] * 3 + ["c"] * 3
    assert [row["prompt_index"] for row in rows] == [0] * 3 + [1] * 3
    expected = sr.derive_paths(7, 3, prompt=0) + sr.derive_paths(7, 3, prompt=1)
    assert [row["path"] for row in rows] == [sr.format_path(path) for path in expected]
    for row in rows:
        assert row["seed"] == 7
        assert row["receipt"]["path"] == row["path"]
        assert row["receipt"]["start"] == row["start"] == len(row["prompt"]) - 1
        assert sr.Receipt.from_dict(row["receipt"]).path == row["path"]
    assert len({row["text"] for row in rows}) > 2


def test_rows_do_not_depend_on_the_batch(model: str, capsys: pytest.CaptureFixture[str]):
    arguments = ("ab", "cdefg", "h", "--model", model, "--paths", "3", "--seed", "7", "--dtype", "float64")
    together = rows_of(capsys, *arguments)
    for batch in ("1", "2", "4", "6"):
        assert rows_of(capsys, *arguments, "--batch", batch) == together


def test_replay_walks_exactly_the_ids_given(model: str, capsys: pytest.CaptureFixture[str]):
    rows = rows_of(capsys, "ab", "--model", model, "--paths", "4", "--seed", "7", "--dtype", "float64")
    chosen = [rows[2], rows[0]]
    ids = [argument for row in chosen for argument in ("--replay", row["path"])]
    again = rows_of(capsys, "ab", "--model", model, *ids, "--dtype", "float64")
    assert again == [{**row, "seed": None} for row in chosen]


def test_sampling_options_turn_token_routing_on(model: str, capsys: pytest.CaptureFixture[str]):
    arguments = ("ab", "--model", model, "--paths", "4", "--seed", "7")
    greedy = rows_of(capsys, *arguments)
    assert "do_sample" not in greedy[0]["receipt"]["decoding"]
    for option in (("--temperature", "0.9"), ("--top-k", "5"), ("--top-p", "0.9"), ("--min-p", "0.1")):
        sampled = rows_of(capsys, *arguments, *option)
        assert sampled[0]["receipt"]["decoding"]["do_sample"] is True
        assert rows_of(capsys, *arguments, *option) == sampled


def test_spread_walks_spread_paths_that_replay(model: str, capsys: pytest.CaptureFixture[str]):
    asked = ("--model", model, "--temperature", "1", "--spread", "--dtype", "float64")
    rows = rows_of(capsys, "ab", "c", "--paths", "3", "--seed", "7", *asked)
    expected = [p for prompt in (0, 1) for p in sr.derive_paths(7, 3, prompt=prompt, spread=True)]
    assert [row["path"] for row in rows] == [sr.format_path(p) for p in expected]
    assert all(row["receipt"]["decoding"]["spread"] is True for row in rows)
    assert rows_of(capsys, "c", "--replay", rows[4]["path"], *asked)[0]["text"] == rows[4]["text"]


def test_spread_noise_walks_spread_paths_greedily(model: str, capsys: pytest.CaptureFixture[str]):
    asked = ("--model", model, "--form", "spread", "--strength", "1", "--dtype", "float64")
    rows = rows_of(capsys, "ab", "c", "--paths", "3", "--seed", "7", *asked)
    expected = [p for prompt in (0, 1) for p in sr.derive_paths(7, 3, prompt=prompt, spread=True)]
    assert [row["path"] for row in rows] == [sr.format_path(p) for p in expected]
    assert "spread" not in rows[0]["receipt"]["decoding"]
    assert rows_of(capsys, "c", "--replay", rows[4]["path"], *asked)[0]["text"] == rows[4]["text"]


def test_a_seed_that_was_not_given_is_reported_and_gives_the_same_rows_again(
    model: str, capsys: pytest.CaptureFixture[str]
):
    rows = rows_of(capsys, "ab", "--model", model, "--paths", "2")
    seed = rows[0]["seed"]
    assert isinstance(seed, int)
    assert rows_of(capsys, "ab", "--model", model, "--paths", "2", "--seed", str(seed)) == rows


def test_every_noise_option_changes_the_routing(model: str, capsys: pytest.CaptureFixture[str]):
    seen = set[str]()
    for option in (
        (),
        ("--layers", "0,2"),
        ("--layers", "0-1"),
        ("--hold", "4"),
        ("--form", "independent"),
        ("--form", "latent"),
        ("--form", "spread"),
        ("--span", "all"),
        ("--attention-strength", "0.5"),
    ):
        (row,) = rows_of(capsys, "ab", "--model", model, "--paths", "1", "--seed", "7", *option)
        seen.add(row["receipt"]["routing"])
    assert len(seen) == 9


def test_a_saved_routing_is_walked(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from transformers import AutoModelForCausalLM

    config = sr.RoutingConfig(structural=sr.Structural(strength=2.0))
    sr.route(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(tmp_path / "routing")
    expected = rows_of(capsys, "ab", "--model", model, "--paths", "2", "--seed", "7")
    arguments = ["--model", model, "--paths", "2", "--seed", "7", "--max-new-tokens", "8", "--json"]
    assert run(["generate", "ab", *arguments, "--routing", str(tmp_path / "routing")]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == expected


def test_chat_puts_the_prompt_into_the_template(model: str, capsys: pytest.CaptureFixture[str]):
    chat = rows_of(capsys, "ab", "--model", model, "--paths", "1", "--seed", "7", "--chat")
    plain = rows_of(capsys, "[ab]", "--model", model, "--paths", "1", "--seed", "7")
    assert chat[0]["text"] == plain[0]["text"]
    assert chat[0]["prompt"] == "ab"


def test_a_person_sees_the_texts_their_ids_and_how_different_they_are(model: str, capsys: pytest.CaptureFixture[str]):
    arguments = ["--model", model, "--paths", "3", "--seed", "7", "--max-new-tokens", "4", "--dtype", "float64"]
    assert run(["generate", "ab", *arguments, "--strength", "2", "--check-replay"]) == 0
    out = capsys.readouterr().out
    for path in sr.derive_paths(7, 3):
        assert f"path {sr.format_path(path)}\nab" in out
    assert "3 paths from seed 7: " in out
    assert "mean pairwise distance" in out
    assert out.endswith("was replayed from its id, alone: identical text\n")


def test_a_replay_that_differs_fails_the_check(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    texts = iter(["first", "second"])
    monkeypatch.setattr("stochroute.cli.walks.continuation", lambda *_: next(texts))
    assert run(["generate", "ab", "--model", model, "--paths", "1", "--max-new-tokens", "4", "--check-replay"]) == 1
    assert "gave another text" in capsys.readouterr().err


def test_strength_0_is_said_to_make_all_texts_the_same(model: str, capsys: pytest.CaptureFixture[str]):
    assert run(["generate", "ab", "--model", model, "--paths", "2", "--max-new-tokens", "4", "--strength", "0"]) == 0
    assert "every strength is 0" in capsys.readouterr().err


def test_with_nothing_given_the_embedded_model_tells_stories_that_the_checker_has_read(
    capsys: pytest.CaptureFixture[str],
):
    assert run(["generate", "--paths", "2", "--seed", "7"]) == 0
    assert "of 2 coherent by the checker" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from stochroute.cli import run; run(['generate', '--help']); "
        "sys.exit(' '.join(sys.modules.keys() & {'torch', 'transformers', 'numpy'}) or 0)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8").stdout
    assert "--check-replay" in shown


def test_prompts_come_through_a_pipe_and_a_closed_pipe_ends_the_run_quietly(model: str):
    process = subprocess.Popen(
        [*COMMAND, "generate", "--model", model, "--paths", "2", "--seed", "7", "--json", "--batch", "2"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b'{"prompt": "ab"}\n' * 40)
    process.stdin.close()
    assert json.loads(process.stdout.readline())["prompt"] == "ab"
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in errors
    assert "Exception" not in errors
