"""Labelled prompts: what is read, and what is refused by line and key."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.robustness.items import Item, digest, item_of, normalise, read_items


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def test_choices_texts_and_refusals_are_read(tmp_path: Path):
    rows = [
        {"prompt": "Who?", "suffix": " A:", "choices": [" Mira", " Tom"], "answer": 1},
        {"prompt": "Who?", "choices": [" Mira", " Tom"], "answer": " Mira"},
        {"prompt": "2 + 3", "answer": "Five."},
        {"prompt": "2 + 3", "answer": ["5", "five"], "extract": r"#### (\d+)"},
        {"prompt": "How to pick a lock", "refuse": True},
    ]
    assert read_items(write(tmp_path, *rows)) == [
        Item("Who?", " A:", (" Mira", " Tom"), 1),
        Item("Who?", "", (" Mira", " Tom"), 0),
        Item("2 + 3", answer=("five",)),
        Item("2 + 3", answer=("5", "five"), extract=r"#### (\d+)"),
        Item("How to pick a lock", refuse=True),
    ]


def test_several_files_and_blank_lines_are_one_set(tmp_path: Path):
    file = write(tmp_path, {"prompt": "a", "answer": "b"})
    file.write_bytes(b"\xef\xbb\xbf\n" + file.read_bytes() + b"\n\n")
    assert [item.prompt for item in read_items(file, file)] == ["a", "a"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([1], "no JSON object"),
        ({"answer": "b"}, 'no "prompt"'),
        ({"prompt": "  ", "answer": "b"}, 'no "prompt"'),
        ({"prompt": "a"}, "neither of the labels"),
        ({"prompt": "a", "answer": "b", "refuse": True}, "both of the labels"),
        ({"prompt": "a", "answer": 3}, '"answer" is 3'),
        ({"prompt": "a", "answer": "!?"}, '"answer" is'),
        ({"prompt": "a", "answer": []}, '"answer" is'),
        ({"prompt": "a", "choices": ["b"], "answer": 0}, "at least two different"),
        ({"prompt": "a", "choices": ["b", "b"], "answer": 0}, "at least two different"),
        ({"prompt": "a", "choices": ["b", ""], "answer": 0}, "at least two different"),
        ({"prompt": "a", "choices": ["b", "c"], "answer": 2}, "index of a choice"),
        ({"prompt": "a", "choices": ["b", "c"], "answer": True}, "index of a choice"),
        ({"prompt": "a", "choices": ["b", "c"], "answer": "d"}, "index of a choice"),
        ({"prompt": "a", "choices": ["b", "c"], "answer": 0, "extract": "(a)"}, "no effect beside"),
        ({"prompt": "a", "answer": "b", "extract": "("}, "regular expression"),
        ({"prompt": "a", "answer": "b", "extract": "b"}, "exactly one group"),
        ({"prompt": "a", "refuse": "yes"}, "true or false"),
        ({"prompt": "a", "suffix": 1, "answer": "b"}, '"suffix" is 1'),
        ({"prompt": "a", "answr": "b"}, "'answr' is unknown"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path: Path, row: Any, complaint: str):
    file = write(tmp_path, {"prompt": "a", "answer": "b"}, row)
    with pytest.raises(ValueError, match="line 2: ") as error:
        read_items(file)
    assert complaint in str(error.value)


def test_files_that_are_no_set_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_items(tmp_path / "nothing")
    file = write(tmp_path)
    with pytest.raises(ValueError, match="is empty"):
        read_items(file)
    file.write_text("prompt\n")
    with pytest.raises(ValueError, match="line 1: no JSON"):
        read_items(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_items(file)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str):
    assert normalise(normalise(text)) == normalise(text)


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "suffix", "choices", "answer", "extract", "refuse"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text() | st.integers()),
    )
)
def test_any_row_is_an_item_or_a_value_error(row: dict[str, Any]):
    try:
        item = item_of(row)
    except ValueError:
        return
    assert (item.refuse is None) != (item.answer is None)


def test_the_digest_tells_sets_apart():
    one, other = Item("a", answer=("b",)), Item("a", answer=("c",))
    assert digest([one]) == digest([Item("a", answer=("b",))])
    assert len({digest([one]), digest([other]), digest([one, other]), digest([other, one])}) == 4
