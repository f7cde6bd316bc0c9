"""The file of a run: gone on with from any byte, and never mixed with another run's."""

import json
from dataclasses import replace

import pytest

from stochroute.uncertainty import Answered, AnswerFile, single_pass, temperature_only
from uncertainty_models import asker, half_known

QUESTIONS = list(half_known())
ARM = temperature_only(0.7)


def whole(tmp_path) -> bytes:
    run = asker(paths=2)
    file = AnswerFile(tmp_path / "whole.jsonl", run.circumstances([ARM], QUESTIONS))
    file.append(run.ask(ARM, QUESTIONS, range(len(QUESTIONS))))
    file.close()
    return (tmp_path / "whole.jsonl").read_bytes()


def test_a_row_survives_the_file():
    rows = asker(paths=2, likelihoods=True).ask(ARM, QUESTIONS, [0, 1])
    assert [Answered.from_dict(json.loads(json.dumps(row.to_dict()))) for row in rows] == rows


def test_going_on_from_any_byte_gives_the_same_file(tmp_path):
    data = whole(tmp_path)
    lines = data.splitlines(keepends=True)
    run, path = asker(paths=2), tmp_path / "cut.jsonl"
    for cut in (0, 5, len(lines[0]), len(lines[0]) + 3, sum(map(len, lines[:6])), len(data) - 1):
        path.write_bytes(data[:cut])
        file = AnswerFile(path, run.circumstances([ARM], QUESTIONS))
        assert path.read_bytes() == data[:cut]  # opened, not yet written to
        for index in range(len(file.finished), len(QUESTIONS)):
            file.append(run.ask(ARM, QUESTIONS, [index]))
        file.close()
        assert path.read_bytes() == data
        assert len(file.finished) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("other", "arms", "questions", "words"),
    [
        (asker(paths=3), [ARM], QUESTIONS, "paths was 2, now 3"),
        (asker(paths=2, seed=1), [ARM], QUESTIONS, "seed was 0, now 1"),
        (asker(paths=2), [single_pass()], QUESTIONS, "arms was"),
        (asker(paths=2), [ARM], QUESTIONS[1:], "questions was 8, now 7"),
        (asker(paths=2), [ARM], [replace(QUESTIONS[0], references=("x",)), *QUESTIONS[1:]], "questions_sha256"),
        (asker(paths=2, template="Q: {question}"), [ARM], QUESTIONS, "template was"),
    ],
)
def test_the_answers_of_another_run_are_refused_and_kept(tmp_path, other, arms, questions, words):
    data = whole(tmp_path)
    with pytest.raises(ValueError, match=f"holds the answers of another run .*{words}"):
        AnswerFile(tmp_path / "whole.jsonl", other.circumstances(arms, questions))
    assert (tmp_path / "whole.jsonl").read_bytes() == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello\n", "line 1: is no row"),
        (b'{"a": 1}\n', "line 1: is no row"),
        (b"\xff\xfe\n", "line 1: is no row"),
        (b"hello", "is no file of stochroute uncertainty"),
        (b'{"format": "stochroute uncertainty 9"}\n', "is in the format 'stochroute uncertainty 9'"),
    ],
)
def test_other_files_are_refused_and_kept(tmp_path, data, words):
    path = tmp_path / "other.jsonl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        AnswerFile(path, asker().circumstances([ARM], QUESTIONS))
    assert path.read_bytes() == data


def test_a_damaged_row_is_named(tmp_path):
    data = whole(tmp_path).splitlines(keepends=True)
    (tmp_path / "whole.jsonl").write_bytes(data[0] + data[1] + b'{"arm": 1}\n' + data[2])
    with pytest.raises(ValueError, match="line 3: is no row"):
        AnswerFile(tmp_path / "whole.jsonl", asker(paths=2).circumstances([ARM], QUESTIONS))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        AnswerFile(tmp_path / "missing" / "a.jsonl", {})
