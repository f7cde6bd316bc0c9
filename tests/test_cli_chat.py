"""`stochroute chat` through pipes and files."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from chat_models import MESSAGES
from cli_model import CONTEXT, save_tiny_model
from stochroute.applications.chat import read_transcript
from stochroute.cli import run
from stochroute.paths import derive_paths, format_path

LINES = f"{MESSAGES[0]}\n\n{MESSAGES[1]}\n/choose 2\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def chat(*arguments: str, lines: str | bytes = LINES) -> tuple[int, list[dict[str, Any]], str]:
        data = lines.encode() if isinstance(lines, str) else lines
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = run(["chat", "--json", *arguments])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return chat


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transcript of the embedded model, of two turns."""
    file = tmp_path_factory.mktemp("talk") / "talk.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES.encode())))
        patch.setattr(sys, "stdout", io.StringIO())
        assert run(["chat", "--json", "--seed", "7", "--strength", "0.6", "--output", str(file)]) == 0
    return file


def test_every_line_brings_one_object_and_the_transcript_holds_the_same(chat, tmp_path: Path):
    file = tmp_path / "talk.json"
    code, rows, _ = chat("--seed", "7", "--strength", "0.6", "--paths", "3", "--output", str(file))
    assert code == 0
    assert [(row["turn"], row["message"], row["chosen"]) for row in rows] == [
        (1, MESSAGES[0], 1), (2, MESSAGES[1], 1), (2, MESSAGES[1], 2),
    ]  # fmt: skip
    turns = read_transcript(file).turns
    assert [[reply.text for reply in turn.replies] for turn in turns] == [
        [reply["text"] for reply in row["replies"]] for row in (rows[0], rows[2])
    ]
    assert rows[2]["text"] == turns[1].reply.text
    assert rows[1]["verdict"].startswith("coherent so far")


def test_a_transcript_is_replayed_and_other_circumstances_are_an_exit_code_of_1(chat, talk: Path):
    code, (found,), _ = chat("--replay", str(talk))
    assert code == 0
    assert found["identical"]
    assert found["replies"] == 8
    code, (found,), err = chat("--replay", str(talk), "--strength", "1.5")
    assert code == 1
    assert not found["identical"]
    assert "routing was" in err


def test_another_model_is_said_to_be_another(chat, talk: Path, tiny: str, capsys: pytest.CaptureFixture[str]):
    file = talk.parent / "long.json"
    data = json.loads(talk.read_text())
    data["new_tokens"] = 4
    data["frame"]["scene"] = ""
    data["turns"] = data["turns"][:1]
    data["turns"][0]["message"] = "Hi."
    file.write_text(json.dumps(data))
    code, (found,), err = chat("--replay", str(file), "--model", tiny)
    assert code == 1
    assert any(c.startswith("model was ") for c in found["circumstances"])
    assert "came out another way" in err
    code, _, err = chat("--output", str(file), "--resume", "--model", tiny)
    assert code == 2
    assert "other weights" in err
    assert json.loads(file.read_text()) == data


def test_a_conversation_goes_on_where_its_transcript_ends(chat, talk: Path, tmp_path: Path):
    file = tmp_path / "talk.json"
    file.write_bytes(talk.read_bytes())
    before = read_transcript(file)
    code, rows, _ = chat("--output", str(file), "--resume", lines=f"{MESSAGES[2]}\n/replay\n")
    assert code == 0
    assert rows[0]["turn"] == 3
    assert "identical" in rows[1]["text"]
    after = read_transcript(file)
    assert after.turns[:2] == before.turns
    assert after.seed == before.seed


def test_an_output_that_exists_is_kept_unless_it_may_be_overwritten(chat, tiny: str, tmp_path: Path):
    file = tmp_path / "talk.json"
    file.write_text("precious")
    code, rows, err = chat("--model", tiny, "--output", str(file))
    assert (code, rows) == (2, [])
    assert "exists; go on with it by --resume, or begin it anew by --overwrite" in err
    code, _, err = chat("--model", tiny, "--output", str(file), "--resume")
    assert code == 2
    assert "no JSON" in err
    assert file.read_text() == "precious"
    arguments = ["--model", tiny, "--strength", "0.5", "--max-new-tokens", "8", "--output", str(file)]
    assert chat(*arguments, "--overwrite", lines="Hi\n")[0] == 0
    assert len(read_transcript(file).turns) == 1


def test_a_spread_conversation_is_saved_resumed_loaded_and_replayed(chat, tmp_path: Path):
    file = tmp_path / "talk.json"
    asked = ["--seed", "7", "--strength", "0.3", "--temperature", "1", "--spread"]
    code, rows, _ = chat(*asked, "--output", str(file), lines=f"{MESSAGES[0]}\n/more\n/replay\n")
    assert code == 0
    paths = [reply["path"] for reply in rows[1]["replies"]]
    assert paths == [format_path(path) for path in derive_paths(7, 8, spread=True)]
    assert "8 replies in 1 turns were walked again from their ids: identical" in rows[2]["text"]
    assert read_transcript(file).decoding.spread is True
    code, rows, _ = chat("--output", str(file), "--resume", lines=f"{MESSAGES[1]}\n/replay\n")
    assert code == 0
    paths = [reply["path"] for reply in rows[0]["replies"]]
    assert paths == [format_path(path) for path in derive_paths(7, 4, prompt=1, spread=True)]
    assert "identical" in rows[1]["text"]
    # into a conversation that is not spread
    code, rows, _ = chat("--strength", "0.5", lines=f"/load '{file}'\n{MESSAGES[2]}\n/replay\n")
    assert code == 0
    assert {reply["path"] for reply in rows[1]["replies"]} <= {
        format_path(path) for path in derive_paths(7, 4, prompt=2, spread=True)
    }
    assert "identical" in rows[2]["text"]
    code, (found,), _ = chat("--replay", str(file))
    assert code == 0
    assert found["replies"] == 12


def test_a_chat_template_is_used_where_there_is_one(chat, tiny: str, tmp_path: Path):
    file = tmp_path / "talk.json"
    arguments = ["--model", tiny, "--strength", "0.5", "--max-new-tokens", "6", "--seed", "1", "--system", "S"]
    code, rows, _ = chat(*arguments, "--output", str(file), lines='{"message": "a\\nb"}\n')
    assert code == 0
    assert rows[0]["message"] == "a\nb"
    assert "verdict" not in rows[0]
    assert rows[0]["replies"][0].keys() == {"text", "path"}
    # byte-level tokens: [S][a b] and nothing before it
    assert read_transcript(file).turns[0].reply.receipt.start == len("[S][a\nb]") - 1
    code, rows, _ = chat(*arguments[:-2], "--script", "--you", "A", "--other", "B", lines="Hi\n")
    assert code == 0


def test_a_full_context_is_said_in_the_row_and_a_message_too_long_refused(chat, tiny: str):
    arguments = ["--model", tiny, "--strength", "0.5", "--max-new-tokens", "8", "--seed", "1", "--paths", "1"]
    code, rows, _ = chat(*arguments, lines="twelve chars\n" * 5)
    assert code == 0
    assert [row["left_out"] > 0 for row in rows][-1]
    code, _, err = chat(*arguments, lines="x" * CONTEXT + "\n")
    assert code == 2
    assert "line 1: the message and what stands before it have 66 tokens" in err


def test_commands_work_in_a_pipe_too(chat, tiny: str, tmp_path: Path):
    file, other = tmp_path / "a b.json", tmp_path / "other.json"
    arguments = ["--model", tiny, "--strength", "0.5", "--max-new-tokens", "8", "--seed", "1"]
    lines = ["Hi", "/stay", "/paths", "Ho", "/change", "/paths 2", "/more", "/undo", "/budget", f"/save '{file}'",
             "/load " + str(other), "/help", "/quit", "never said"]  # fmt: skip
    other.write_text("{}")
    code, rows, err = chat(*arguments, lines="\n".join(lines))
    assert code == 2  # /load of what is no transcript
    assert "line 11" in err
    assert [row.get("turn") or row["command"] for row in rows] == [
        1, "/stay", "/paths", 2, "/change", "/paths 2", 2, "/undo", "/budget", f"/save '{file}'",
    ]  # fmt: skip
    assert len(rows[6]["replies"]) == 3
    assert "strength 0.5" in rows[8]["text"]
    assert len(read_transcript(file).turns) == 1

    code, rows, _ = chat(*arguments, lines="\n".join([f"/load '{file}'", "/replay", "Ho", "/help", "/quit", "never"]))
    assert code == 0
    assert rows[0]["text"].endswith("1 turns")
    assert "identical" in rows[1]["text"]
    assert rows[2]["turn"] == 2
    assert "/suggest" in rows[3]["text"]
    assert len(rows) == 4

    code, _, err = chat(*arguments, lines=f"Hi\n/save '{file}'\n")
    assert code == 2
    assert "exists; add --overwrite" in err
    code, _, err = chat(*arguments, lines=f"Hi\n/load '{file}'\n")
    assert code == 2
    assert "not saved" in err


def test_a_budget_that_cannot_be_met_leaves_the_strength(chat, tiny: str):
    arguments = ["--model", tiny, "--strength", "0.5", "--max-new-tokens", "8", "--seed", "1"]
    for wrong in ("much", "0", "-1"):
        code, rows, err = chat(*arguments, lines=f"Hi\n/budget {wrong}\n")
        assert code == 2
        assert "line 2" in err
        assert len(rows) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["--paths", "0"], "offer 1 to 64"),
    (["--seed", "-1"], "--seed=-1 is outside"),
    (["--resume"], "no effect without --output"),
    (["--overwrite"], "no effect without --output"),
    (["--output", "no/such/talk.json"], "a folder that exists"),
    (["--output", "."], "a folder that exists"),
    (["--output", "new.json", "--resume"], "no such transcript"),
    (["--output", "new.json", "--resume", "--overwrite"], "leave one of them out"),
    (["--system", "S"], "has no chat template"),
    (["--language", "fr"], "choose one of en, zh"),
    (["--language", "zh", "--scene", "A park."], "has no effect beside --scene"),
    (["--replay", "none.json"], "--replay none.json"),
    (["--replay", "none.json", "--seed", "7"], "--seed has no effect beside --replay"),
    (["--replay", "none.json", "--temperature", "1"], "--temperature has no effect beside --replay"),
    (["--spread"], "--spread has no effect on greedy decoding: add --temperature 1"),
    (["--replay", "none.json", "--spread"], "--spread has no effect beside --replay"),
    (["--model", "./nowhere"], "no such folder"),
    (["--strength", "much"], "--strength much"),
    (["--max-new-tokens", "600"], "--max-new-tokens 600"),
    (["--dtype", "float8"], "choose one of"),
])  # fmt: skip
def test_bad_arguments_are_named(chat, arguments: list[str], message: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, rows, err = chat(*arguments)
    assert (code, rows) == (2, [])
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("lines", "message"), [
    ("", "holds no message"),
    ("\n \n", "holds no message"),
    (b"caf\xe9\n", "line 1: not UTF-8"),
    ('{"message": 3}\n', 'has no "message" with a text'),
    ("{broken\n", "is no JSON"),
    ("/nonsense\n", "/nonsense is no command"),
    ("/choose 1\n", "nothing has been said yet"),
    ("/save\n", "name a file"),
    ("/save 'open\n", "No closing quotation"),
    ("/paths many\n", "write one whole number"),
    ("/quit now\n", "is too much"),
])  # fmt: skip
def test_bad_lines_are_named_with_their_number(chat, tiny: str, lines: str | bytes, message: str):
    code, rows, err = chat("--model", tiny, "--strength", "0.5", lines=lines)
    assert (code, rows) == (2, [])
    assert message in err


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]):
    assert run(["chat", "--help"]) == 0
    assert "stochroute chat --paths 4 --seed 7" in capsys.readouterr().out
