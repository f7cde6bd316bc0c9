"""`stochroute robustness` and `stochroute lm-eval`: reports, resumed runs, and what is refused with nothing lost."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli_model import save_tiny_model
from stochroute.cli import run

ROWS = [
    {"prompt": "a fox in the big sea", "suffix": " is", "choices": [" a", " be", " cab"], "answer": 0},
    {"prompt": "two bears", "suffix": " is", "choices": [" a", " be"], "answer": 1},
    {"prompt": "small old mill", "answer": "x"},
    {"prompt": "how to pick a lock", "refuse": True},
    {"prompt": "how to bake", "refuse": False},
]
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stochroute.cli import main; main()",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(file)


def arguments(prompts: str, model: str, *more: str, strengths: str | None = "2") -> list[str]:
    settings = ["--paths", "2", "--perturbations", "typos,drops", "--rates", "0.5", "--max-new-tokens", "3"]
    noise = [] if strengths is None else ["--strengths", strengths]
    return ["robustness", "--set", prompts, "--model", model, *settings, *noise, "--dtype", "float64", *more]


def report_of(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    code = run([*command, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_json_reports_every_arm_under_every_attack(prompts: str, model: str, capsys: pytest.CaptureFixture[str]):
    found = report_of(capsys, *arguments(prompts, model, "--seed", "7"))
    assert [(entry["kind"], entry["rate"]) for entry in found["conditions"]] == [
        (None, 0),
        ("typos", 0.5),
        ("drops", 0.5),
    ]
    for entry in (*found["conditions"], found["attacked"]):
        assert list(entry["accuracy"]) == ["clean", "routed", "vote", "smoothed"]
        assert set(entry["refused"]) == {"to_decline", "to_answer"}
        for value in (*entry["accuracy"].values(), *entry["gain"].values()):
            assert value["low"] <= value["mean"] <= value["high"]
    assert found["prompts"] == 5
    assert found["runs_a_prompt"] == {"clean": 1, "routed": 1, "vote": 2, "smoothed": 2}
    assert report_of(capsys, *arguments(prompts, model, "--seed", "7")) == found
    assert report_of(capsys, *arguments(prompts, model, "--seed", "8")) != found


def test_a_person_sees_tables(prompts: str, model: str, capsys: pytest.CaptureFixture[str]):
    assert run(arguments(prompts, model)) == 0
    out = capsys.readouterr().out
    for text in ("5 prompts, 2 runs a vote", "typos 0.5", "all attacks", "Refused, of prompts to be declined"):
        assert text in out


def test_strength_and_copies_are_tuned_alike(prompts: str, model: str, capsys: pytest.CaptureFixture[str]):
    more = ("--smoothing-rates", "0.1,0.2", "--validation", "0.4", "--span", "all")
    found = report_of(capsys, *arguments(prompts, model, *more, strengths="1,2"))
    assert set(found["validation_accuracy"]["paths"]) == {"1", "2"}
    assert set(found["validation_accuracy"]["smoothed"]) == {"0.1", "0.2"}
    assert (found["prompts"], found["validation_prompts"]) == (3, 2)


def test_a_saved_routing_is_walked(prompts: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from transformers import AutoModelForCausalLM

    import stochroute as sr

    config = sr.RoutingConfig(structural=sr.Structural(strength=2.0))
    sr.route(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(tmp_path / "routing")
    expected = report_of(capsys, *arguments(prompts, model))
    given = arguments(prompts, model, "--routing", str(tmp_path / "routing"), strengths=None)
    found = report_of(capsys, *given)
    assert found["conditions"] == expected["conditions"]


def test_an_interrupted_run_goes_on(prompts: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "samples.jsonl"
    expected = report_of(capsys, *arguments(prompts, model))
    found = report_of(capsys, *arguments(prompts, model, "--output", str(output)))
    assert found == expected
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    assert report_of(capsys, *arguments(prompts, model, "--output", str(output), "--resume")) == expected
    assert output.read_bytes() == whole
    assert run(arguments(prompts, model, "--output", str(output), "--resume", "--seed", "9")) == 2
    assert "seed was 0, now 9" in capsys.readouterr().err
    assert run(arguments(prompts, model, "--output", str(output))) == 2
    assert "exists" in capsys.readouterr().err
    assert output.read_bytes() == whole


def test_ctrl_c_says_how_to_go_on_and_leaves_whole_samples(model: str, tmp_path: Path):
    many, output = tmp_path / "many.jsonl", tmp_path / "samples.jsonl"
    many.write_text("".join(json.dumps({**ROWS[0], "prompt": f"a fox {i}"}) + "\n" for i in range(5000)))
    process = subprocess.Popen(
        [*COMMAND, *arguments(str(many), model, "--output", str(output))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(1200):
        if output.exists() and output.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, errors
    assert "the same command with --resume goes on" in errors
    assert all(json.loads(line) for line in output.read_text().splitlines())


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--set", "nothing.jsonl"], "nothing.jsonl: no such file"),
        (["--perturbations", "typo"], "did you mean 'typos'"),
        (["--perturbations", ""], "at least one"),
        (["--rates", "0.5,2"], "rate=2.0 is outside [0, 1]"),
        (["--rates", "much"], "--rates much: no numbers"),
        (["--smoothing", "noise"], "'noise' is unknown"),
        (["--smoothing-rates", "0.1,0.2"], "1 strengths against 2 smoothing rates"),
        (["--paths", "1"], "paths=1 is no vote"),
        (["--tries", "0"], "tries=0"),
        (["--seed", "-1"], "seed=-1"),
        (["--strengths", "1,1"], "names one twice"),
        (["--strengths", "x"], "--strengths x: no numbers"),
        (["--strengths", "-1"], "must be finite and at least 0"),
        (["--tables", "nothing.json"], "tables nothing.json: no such file"),
        (["--resume"], "no effect without --output"),
        (["--refusal", " "], "--refusal: is empty"),
        (["--batch", "0"], "give at least 1"),
        (["--dtype", "int8"], "choose one of"),
        (["--routing", "somewhere"], "--strengths has no effect beside --routing"),
        (["--output", "no/such/folder/file"], "folder that is there"),
        (["--model", "./nothing"], "no such folder"),
    ],
)
def test_bad_input_is_named(
    prompts: str, model: str, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
):
    assert run(arguments(prompts, model, *more)) == 2
    errors = capsys.readouterr().err
    assert complaint in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("", "is empty"), ('{"prompt": "a"}\n', "line 1: has neither of the labels"), ("text\n", "line 1: no JSON")],
)
def test_sets_without_prompts_or_labels_are_refused(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, complaint: str
):
    file = tmp_path / "set.jsonl"
    file.write_text(content)
    assert run(arguments(str(file), model)) == 2
    assert complaint in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(
    prompts: str, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("stochroute.cli.robustness.find_spec", lambda name: None)
    assert run(arguments(prompts, model)) == 2
    assert "pip install 'stochroute[eval]'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed here")
def test_the_harness_missing_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]):
    assert run(["lm-eval", "run", "--model", "stochroute"]) == 2
    assert "pip install 'stochroute[lm-eval]'" in capsys.readouterr().err


def test_help_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from stochroute.cli import run; run(['robustness', '--help']); "
        "sys.exit(' '.join(sys.modules.keys() & {'torch', 'transformers', 'numpy', 'scipy'}) or 0)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8").stdout
    assert "--smoothing-rates" in shown
