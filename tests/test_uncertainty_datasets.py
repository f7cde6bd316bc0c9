"""Questions are read from files of every form, answers are found in texts, and bad files are named."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.uncertainty.datasets import (
    TASKS,
    Question,
    choice_letter,
    last_number,
    normalise,
    read_questions,
    write_questions,
)

SHARED = Path(os.environ.get("STOCHROUTE_SHARED", Path(__file__).parents[2] / "shared"))

HUB_TRIVIA = {
    "question": "Who?",
    "answer": {"value": "Ann Lee", "aliases": ["A. Lee"], "normalized_aliases": ["a lee"]},
}
OLD_TRIVIA = {"Question": "Who?", "Answer": {"Value": "Ann Lee", "Aliases": ["A. Lee"], "NormalizedAliases": ["a lee"]}}
HUB_CSQA = {"question": "Where?", "choices": {"label": ["A", "B"], "text": ["sea", "sky"]}, "answerKey": "B"}
OLD_CSQA = {
    "question": {"stem": "Where?", "choices": [{"label": "A", "text": "sea"}, {"label": "B", "text": "sky"}]},
    "answerKey": "B",
}


def lines(file: Path, *rows: object) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("row", [HUB_TRIVIA, OLD_TRIVIA])
def test_both_forms_of_triviaqa_give_the_same_question(tmp_path, row):
    [question] = read_questions(lines(tmp_path / "q.jsonl", row), TASKS["triviaqa"])
    assert question == Question("Who?", ("Ann Lee", "A. Lee", "a lee"))
    assert TASKS["triviaqa"].is_right("the ann lee!", question)
    assert not TASKS["triviaqa"].is_right("Anne", question)


@pytest.mark.parametrize("row", [HUB_CSQA, OLD_CSQA])
def test_both_forms_of_csqa_give_the_same_question(tmp_path, row):
    [question] = read_questions(lines(tmp_path / "q.jsonl", row), TASKS["csqa"])
    assert question == Question("Where?\n(A) sea\n(B) sky", ("B",))


def test_triviaqa_as_published_is_one_json_object(tmp_path):
    (tmp_path / "q.json").write_text(json.dumps({"Data": [OLD_TRIVIA]}))
    assert read_questions(tmp_path / "q.json", TASKS["triviaqa"])[0].text == "Who?"


def test_gsm8k_is_read_as_it_comes():
    file = SHARED / "data" / "gsm8k_test.jsonl"
    if not file.exists():
        pytest.skip(f"no {file}: set STOCHROUTE_SHARED to the folder that holds data/gsm8k_test.jsonl")
    questions = read_questions(file, TASKS["gsm8k"])
    assert len(questions) == 1319
    assert all(normalise(question.references[0]).lstrip("-").replace(".", "").isdigit() for question in questions)
    # the worked solution, read as a model's answer, is right by the task's own rule
    for line, question in zip(file.read_text().splitlines(), questions, strict=True):
        assert TASKS["gsm8k"].is_right(last_number(json.loads(line)["answer"]), question)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_tables_are_read_by_named_columns(tmp_path, ending):
    mark = {"csv": ",", "tsv": "\t"}[ending]
    (tmp_path / f"q.{ending}").write_text(f'ask{mark}truth\n"two\nlines"{mark}yes\n')
    assert read_questions(tmp_path / f"q.{ending}", TASKS["plain"], "ask", "truth") == [
        Question("two\nlines", ("yes",))
    ]


def test_parquet_is_read_as_the_hub_has_it(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([HUB_CSQA]), tmp_path / "q.parquet")
    assert read_questions(tmp_path / "q.parquet", TASKS["csqa"])[0].references == ("B",)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip())


@given(st.lists(st.builds(Question, texts, st.lists(texts, min_size=1).map(tuple), st.text("ab")), min_size=1))
def test_what_is_written_is_read_again(tmp_path_factory, questions):
    file = tmp_path_factory.mktemp("q") / "q.jsonl"
    write_questions(file, questions)
    assert read_questions(file, TASKS["plain"]) == questions
    assert read_questions(file, TASKS["plain"], limit=1) == questions[:1]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ('{"question": "a", "truth": "b"}', "q.jsonl", "row 1: has no column 'answer', only 'question', 'truth'"),
        ('{"question": "a", "answer": "b"}\n{"question": "a"}', "q.jsonl", "row 2: has no column 'answer'"),
        ('{"question": "a", "answer": " "}', "q.jsonl", "row 1: its question or answer is empty"),
        ('{"question": "a"', "q.jsonl", "line 1: is no JSON"),
        ("[1]", "q.json", "row 1: is no JSON object"),
        ('{"other": 1}', "q.json", "is no JSON list"),
        ("", "q.jsonl", "has no questions"),
        ("a", "q.docx", "its ending is not known"),
    ],
)
def test_bad_files_are_named(tmp_path, content, name, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read_questions(tmp_path / name, TASKS["plain"])


def test_a_file_of_another_task_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"row 1: no question as in gsm8k .* choose another task"):
        read_questions(lines(tmp_path / "q.jsonl", {"question": "a", "answer": "b"}), TASKS["gsm8k"])
    with pytest.raises(ValueError, match="row 1: no question as in triviaqa"):
        read_questions(lines(tmp_path / "q.jsonl", {"question": "a", "answer": "b"}), TASKS["triviaqa"])
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_questions(tmp_path / "latin.jsonl", TASKS["plain"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So 3 + 4 = 7. The answer is 1,234.50 dollars, not 9.", "1,234.50"),
        ("… #### -18", "-18"),
        ("She has 2, then 5.", "5"),
        ("none", ""),
        ("The answer is unknown; 4 it may be", "4"),
    ],
)
def test_the_number_is_the_one_that_the_text_concludes_with(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"), [("(B) sky", "B"), ("A sea? No: the answer is C.", "C"), ("I can't", ""), ("BCD", "")]
)
def test_the_letter_stands_alone(text, letter):
    assert choice_letter(text) == letter


@pytest.mark.parametrize(
    ("one", "other"), [("The Ann-Lee.", "ann lee"), ("$1,200", "1200.0"), ("18.", "18"), ("an  apple", "Apple!")]
)
def test_wordings_of_one_answer_are_normalised_to_one(one, other):
    assert normalise(one) == normalise(other) != normalise("something else")


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    assert normalise(normalise(text)) == normalise(text)
