"""`stochroute augment` and `stochroute explore`: as typed at a shell, with a tiny model."""

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

# a shell may start its background jobs with SIGINT ignored, which children inherit
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stochroute.cli import main; main()",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [{"text": f"row {n}", "label": ("a", "b")[n % 2]} for n in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "in.jsonl"


def augment(model: str, table: Path, *more: str) -> list[str]:
    settings = ["--template", "{text}", "--strength", "2", "--max-new-tokens", "4", "--dtype", "float64", "--seed", "7"]
    return ["augment", str(table), "--model", model, *settings, *more]


def explore(model: str, *more: str) -> list[str]:
    settings = ["--model", model, "--strength", "2", "--max-new-tokens", "3", "--seed", "7", "--most", "12"]
    return ["explore", "ab", *settings, "--batch", "6", "--same", "text", *more]


def test_augment_reports_and_its_rows_replay(
    model: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = str(tmp_path / "out.csv")
    assert run(augment(model, table, "--output", output, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sources"] == 6
    assert report["written"] == 24 == report["kept"] + sum(report["dropped"].values())
    assert run(["augment", "--replay", output, "--rows", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"same": 3, "differing": [], "rows": report["kept"]}
    changed = (tmp_path / "out.csv").read_text(encoding="utf-8").split("\n", 1)
    (tmp_path / "out.csv").write_text(f"{changed[0]}\nx{changed[1]}", encoding="utf-8")
    assert run(["augment", "--replay", output, "--rows", "3"]) == 1
    captured = capsys.readouterr()
    assert "2 of 3 rows made again" in captured.out
    assert "gave another text" in captured.err


def test_templates_and_shots_come_from_files_too(model: str, table: Path, tmp_path: Path):
    (tmp_path / "t.txt").write_text("<{label}>\n", encoding="utf-8")
    (tmp_path / "s.txt").write_text("[{label}]", encoding="utf-8")
    output = tmp_path / "out.jsonl"
    given = ["augment", str(table), "--model", model, "--strength", "1", "--max-new-tokens", "3", "--label", "label"]
    files = [
        "--template-file",
        str(tmp_path / "t.txt"),
        "--shots",
        "2",
        "--shot-template-file",
        str(tmp_path / "s.txt"),
    ]
    assert run([*given, *files, "--output", str(output), "--near", "off", "--stop", "\\n"]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {row["prompt"] for row in rows} == {"[a][a]<a>\n", "[b][b]<b>\n"}
    assert json.loads(rows[0]["settings"])["stop"] == ["\n"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--template", "{nothing}"], "has no column 'nothing', only 'text', 'label'"),
        (["--column", "body"], "has no column 'body'"),
        (["--template", "{text"], "template '{text'"),
        (["--paths", "0"], "paths=0"),
        (["--near", "magic"], "--near magic"),
        (["--near", "off", "--near-above", "0.5"], "--near-above 0.5 has no effect"),
        (["--near-above", "2"], "near-above 2.0"),
        (["--judge", "somewhere"], "--judge somewhere has no effect without --max-nats"),
        (["--classifier", "somewhere"], "name the --label column"),
        (["--min-confidence", "0.5"], "no effect without a classifier"),
        (["--label", "label"], "label='label' has no effect"),
        (["--shot-template", "{text}"], "no effect without --shots"),
        (["--shots", "2"], "give --shot-template or --shot-template-file"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--temperature", "-1"], "--temperature -1"),
        (["--max-new-tokens", "64"], "holds 64 tokens"),
        (["--dtype", "int3"], "--dtype int3"),
        (["--seed", "-1"], "seed=-1"),
    ],
)
def test_augment_names_what_is_wrong_and_writes_nothing(
    model: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
):
    assert run(augment(model, table, "--output", str(tmp_path / "out.jsonl"), *more)) == 2
    assert complaint in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("no.jsonl", None, "No such file"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n", "empty"),
        ("mixed.jsonl", '{"text": "é"}\n'.encode() + '{"text": "é"}\n'.encode("latin-1"), "line 2: not UTF-8"),
        ("mixed.csv", b"text\nok\n\xff\xfe\n", "line 3: not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": ', "cannot be read"),
        ("ragged.csv", b"text,b\n1,2\n1,2,3\n", "cannot be read"),
        ("none.csv", b"text\n", "empty"),
        ("no.parquet", b"PAR1 is not all", "cannot be read"),
        ("table.xlsx", b"x", "its ending is not known"),
    ],
)
def test_augment_names_the_file_that_cannot_be_read(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, complaint: str
):
    table = tmp_path / name
    if content is not None:
        table.write_bytes(content)
    assert run(augment(model, table, "--output", str(tmp_path / "out.jsonl"))) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "out.jsonl.journal").exists()


def test_augment_needs_a_place_to_write(model: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(augment(model, table)) == 2
    assert "name a SOURCE and an --output" in capsys.readouterr().err
    assert run(augment(model, table, "--output", str(tmp_path / "no" / "out.jsonl"))) == 2
    assert "in a folder that is there" in capsys.readouterr().err
    assert run(augment(model, table, "--output", str(tmp_path / "out.txt"))) == 2
    assert "its ending is not known" in capsys.readouterr().err
    assert run(["augment", "--replay", str(table)]) == 2
    assert "has no row that augment made" in capsys.readouterr().err


def test_ctrl_c_keeps_whole_batches_and_resume_takes_the_seed_from_them(model: str, tmp_path: Path):
    table, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    table.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(120)))
    command = ["augment", str(table), "--model", model, "--template", "{text}", "--strength", "2", "--near", "off"]
    command += ["--max-new-tokens", "8", "--paths", "2", "--batch", "1", "--output", str(output)]
    journal = tmp_path / "out.jsonl.journal"
    process = subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE)
    assert process.stderr
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 130, errors
    assert "the same command with --resume goes on" in errors
    assert "Traceback" not in errors
    assert not output.exists()
    seed = json.loads(journal.read_text(encoding="utf-8").split("\n")[0])["run"]["seed"]
    assert run([*command, "--resume"]) == 0
    whole = output.read_bytes()
    assert run([*command, "--seed", str(seed), "--overwrite"]) == 0
    assert output.read_bytes() == whole
    assert run([*command, "--resume"]) == 0, "complete already"


def test_explore_tells_numbers_groups_and_branches(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output, html = tmp_path / "run.jsonl", tmp_path / "map.html"
    assert run(explore(model, "--output", str(output), "--map", str(html), "--clusters", "2")) == 0
    out = capsys.readouterr().out
    assert "12 paths from seed 7" in out
    assert "answers in all, seen and unseen" in out
    assert out.count("── group") == 2
    assert "where they branch" in out
    assert html.stat().st_size > 1_000_000
    assert run(explore(model, "--output", str(output), "--resume", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["seed"], found["texts"], len(found["paths"])) == (7, 12, 12)
    assert found["clusters"][0]["text"] in {path["text"] for path in found["paths"]}
    path = found["paths"][3]
    fork = ["--fork", str(output), "--path", path["path"], "--at", "1"]
    assert run([word for word in explore(model, *fork, "--json") if word != "ab"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"].startswith("ab")


def test_a_path_of_explore_is_walked_again_by_generate(model: str, capsys: pytest.CaptureFixture[str]):
    assert run(explore(model, "--dtype", "float64", "--json")) == 0
    path = json.loads(capsys.readouterr().out)["paths"][5]
    again = ["generate", "ab", "--model", model, "--strength", "2", "--max-new-tokens", "3", "--dtype", "float64"]
    assert run([*again, "--replay", path["path"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == path["text"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--same", "look"], "--same look"),
        (["--same-above", "0.5"], "--same-above 0.5 has no effect beside --same text"),
        (["--until", "1"], "until 1"),
        (["--most", "0"], "most=0"),
        (["--clusters", "0"], "--clusters 0"),
        (["--resume"], "--resume has no effect without --output"),
        (["--path", "0" * 16], "belong to --fork"),
        (["--fork", "run.jsonl", "--path", "0" * 16], "brings its own prompt"),
        (["--map", "nowhere/map.html"], "in a folder that is there"),
        (["--max-new-tokens", "70"], "holds 64 tokens"),
    ],
)
def test_explore_names_what_is_wrong(model: str, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str):
    assert run(explore(model, *more)) == 2
    assert complaint in capsys.readouterr().err


def test_an_exploration_that_exists_is_kept(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "run.jsonl"
    output.write_text("mine\n")
    assert run(explore(model, "--output", str(output))) == 2
    assert "exists; go on by --resume, start anew by --overwrite" in capsys.readouterr().err
    assert run(explore(model, "--output", str(output), "--resume")) == 2
    assert output.read_text() == "mine\n"
    assert run(explore(model, "--output", str(output), "--overwrite")) == 0


@pytest.mark.parametrize("verb", ["augment", "explore"])
def test_help_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]):
    assert run([verb, "--help"]) == 0
    assert f"Example: stochroute {verb}" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_in_explore_loses_nothing(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from stochroute.applications.writer import Writer

    output, whole = tmp_path / "run.jsonl", tmp_path / "whole.jsonl"
    real, calls = Writer.write, 0

    def interrupted(self: Writer, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", interrupted)
        assert run(explore(model, "--output", str(output))) == 130
    assert f"6 texts are in {output}; the same command with --resume goes on" in capsys.readouterr().err
    assert run(explore(model, "--output", str(output), "--resume")) == 0
    assert run(explore(model, "--output", str(whole))) == 0
    assert output.read_bytes() == whole.read_bytes()
