"""`stochroute uncertainty`: a report that a seed reproduces, runs that go on, and bad input."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stochroute.cli import run
from stochroute.uncertainty import write_questions
from uncertainty_models import folder, half_known

# a shell may start its background jobs with SIGINT ignored, which children inherit
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stochroute.cli import main; main()",
]


@pytest.fixture
def questions(tmp_path) -> Path:
    write_questions(tmp_path / "questions.jsonl", half_known())
    return tmp_path / "questions.jsonl"


def arguments(questions: Path, *more: str) -> list[str]:
    settings = [
        "--paths",
        "3",
        "--max-new-tokens",
        "5",
        "--dtype",
        "float64",
        "--strength",
        "0.2",
        "--temperature",
        "0.1",
    ]
    return ["uncertainty", str(questions), "--model", folder(), *settings, *more]


def report(capsys, *command: str) -> dict:
    assert run(list(command)) == 0
    return json.loads(capsys.readouterr().out)


def test_the_report_holds_every_arm_and_every_score(questions, capsys):
    found = report(capsys, *arguments(questions, "--json", "--dropout", "0.1", "--likelihoods"))
    assert list(found["arms"]) == ["paths", "temperature 0.1", "single pass", "MC dropout 0.1"]
    assert found["arms"]["single pass"]["accuracy"] == 0.5  # as the questions were made
    assert set(found["arms"]["single pass"]["scores"]) == {"single-pass entropy", "1 − p(max)"}
    sampled = {"answer entropy", "semantic entropy", "weighted semantic entropy"}
    assert sampled | {"token transmission", "answer transmission"} <= set(found["arms"]["paths"]["scores"])
    assert sampled <= set(found["arms"]["temperature 0.1"]["scores"])
    assert "token transmission" not in found["arms"]["temperature 0.1"]["scores"]
    assert "single-pass entropy" not in found["arms"]["MC dropout 0.1"]["scores"]
    for arm in found["arms"].values():
        for score in arm["scores"].values():
            assert 0 <= score["auroc"]["low"] <= score["auroc"]["value"] <= score["auroc"]["high"] <= 1
    pairs = {(gained["against"], gained["against_score"], gained["score"]) for gained in found["gains"]}
    assert ("temperature 0.1", "answer entropy", "answer entropy") in pairs
    assert ("single pass", "single-pass entropy", "token transmission") in pairs


def test_a_seed_makes_the_whole_report_reproducible(questions, capsys):
    command = arguments(questions, "--json", "--seed", "5", "--dropout", "0.1")
    first = report(capsys, *command)
    assert report(capsys, *command, "--batch", "3") == first
    assert report(capsys, *arguments(questions, "--json", "--seed", "6", "--dropout", "0.1")) != first


def test_a_run_goes_on_where_it_was_cut_off(questions, tmp_path, capsys):
    output = tmp_path / "run.jsonl"
    command = arguments(questions, "--json", "--output", str(output), "--dropout", "0.1")
    whole = report(capsys, *command)
    data = output.read_bytes()
    lines = data.splitlines(keepends=True)
    assert len(lines) == 1 + 4 * len(half_known())
    for kept in (1, 11, 30):
        output.write_bytes(b"".join(lines[:kept]) + lines[kept][:7])
        assert report(capsys, *command) == whole
        assert output.read_bytes() == data


def test_ctrl_c_says_how_to_go_on(questions, tmp_path):
    output = tmp_path / "run.jsonl"
    questions.write_text(questions.read_text() * 300)
    command = arguments(questions, "--output", str(output), "--batch", "1")
    process = subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE)
    assert process.stderr
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 130, errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    for line in output.read_text(encoding="utf-8").split("\n")[:-1]:
        json.loads(line)


def test_the_table_and_the_picture(questions, tmp_path, capsys):
    picture = tmp_path / "curves.svg"
    assert run(arguments(questions, "--picture", str(picture))) == 0
    out = capsys.readouterr().out
    assert "AUROC" in out
    assert "single pass" in out
    root = ElementTree.parse(picture).getroot()
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 3


def test_the_preset_is_the_published_protocol(questions, capsys):
    command = ["uncertainty", str(questions), "--model", folder(), "--max-new-tokens", "5", "--limit", "2", "--json"]
    found = report(capsys, *command, "--preset", "noise-injection", "--alpha", "0.2")
    assert list(found["arms"]) == ["noise U(0, 0.2)", "temperature 0.5", "single pass"]
    assert found["paths"] == 10


def test_paths_alone_make_answers_differ_at_temperature_0(questions, tmp_path, capsys):
    output = tmp_path / "run.jsonl"
    more = ["--temperature", "0", "--strength", "8", "--layers", "all", "--output", str(output), "--json"]
    assert list(report(capsys, *arguments(questions, *more))["arms"]) == ["paths", "temperature 1", "single pass"]
    rows = [json.loads(line) for line in output.read_text().split("\n")[1 : 1 + len(half_known())]]
    assert any(len(set(row["texts"])) > 1 for row in rows)


def test_all_right_or_all_wrong_is_said_and_has_no_auroc(tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text('{"question": "q1", "answer": "never"}\n{"question": "q2", "answer": "never"}\n')
    assert run(arguments(tmp_path / "q.jsonl", "--json")) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["arms"]["paths"] == {
        "accuracy": 0.0,
        "undefined": "all 2 answers are wrong: AUROC is undefined; ask questions of which the model knows some and not "
        "others",
        "scores": {},
    }
    assert found["gains"] == []
    assert run(arguments(tmp_path / "q.jsonl")) == 0
    captured = capsys.readouterr()
    assert "undefined" in captured.out
    assert "paths: all 2 answers are wrong: AUROC is undefined" in captured.err
    assert run(arguments(tmp_path / "q.jsonl", "--picture", str(tmp_path / "p.svg"))) == 2
    assert "there is no curve to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--paths", "1"], "--paths 1: one answer has nothing to disagree with"),
        (["--answer-column", "truth"], "has no column 'truth', only 'question', 'answer', 'group'"),
        (["--question-column", "ask"], "has no column 'ask'"),
        (["--task", "gsm8k"], "no question as in gsm8k"),
        (["--task", "quiz"], "--task quiz: choose one of plain, gsm8k, triviaqa, csqa"),
        (["--limit", "0"], "--limit 0"),
        (["--temperature", "-1"], "--temperature -1: must be at least 0"),
        (["--dropout", "1"], "--dropout 1: must be between 0 and 1"),
        (["--preset", "noise-injection"], "--strength has no effect beside --preset"),
        (["--preset", "other"], "--preset other: choose noise-injection"),
        (["--alpha", "1"], "--alpha 1.0 has no effect without --preset"),
        (["--template", "missing.txt"], "--template missing.txt"),
        (["--nli", "a", "--embeddings", "b"], "meanings are compared in one way"),
        (["--nli", "./missing"], "--nli ./missing"),
        (["--picture", "a.png"], "name an .svg file"),
        (["--output", "missing/a.jsonl"], "there is no folder missing"),
        (["--dtype", "int8"], "--dtype int8"),
        (["--seed", "-1"], "seed=-1"),
        (["--chat"], None),
        (["--span", "some"], "--span some"),
        (["--layers", "99"], "layer"),
    ],
)
def test_bad_input_is_named(questions, capsys, monkeypatch, tmp_path, more, words):
    monkeypatch.chdir(tmp_path)
    code = run(arguments(questions, *more))
    captured = capsys.readouterr()
    if words is None:  # the tiny model's tokenizer has a chat template
        assert code == 0
        return
    assert code == 2, captured.out
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_files_that_are_none_are_named(tmp_path, capsys):
    assert run(arguments(tmp_path / "missing.jsonl")) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    assert run(arguments(tmp_path)) == 2
    capsys.readouterr()


def test_the_answers_of_another_run_are_refused(questions, tmp_path, capsys):
    output = str(tmp_path / "run.jsonl")
    assert run(arguments(questions, "--output", output)) == 0
    assert run(arguments(questions, "--output", output, "--seed", "3")) == 2
    assert "holds the answers of another run (seed was 0, now 3)" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(questions, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "stochroute.uncertainty.report", None)
    assert run(arguments(questions)) == 2
    assert "pip install 'stochroute[eval]'" in capsys.readouterr().err
    (questions.parent / "q.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert run(arguments(questions.parent / "q.parquet")) == 2
    assert "pip install 'stochroute[eval]'" in capsys.readouterr().err
