"""Text, JSONL and Parquet become examples; what cannot be used is named."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoTokenizer

from cli_model import save_tiny_model
from stochroute.training import Data, example_key, prepare_examples, read_examples
from stochroute.training.data import Collate

END = 1  # </s> of the tiny tokenizer, which adds nothing by itself; a byte stands for itself


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path: Path, rows: list[dict]) -> str:
    """The rows in the format that the file's name asks for."""
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def text_of(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode([i for i in ids if i != END and i != -100])


def test_a_text_file_has_an_example_a_line_and_the_lines_number_as_its_id(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("one\n\ntwo\nx\n")
    examples = read_examples(str(tmp_path / "a.txt"), Data(train=""), tokenizer)
    assert [text_of(tokenizer, ids) for ids in examples["input_ids"]] == ["one", "two", "x"]
    assert examples["example"] == [0, 2, 3]
    assert all(example["input_ids"] == example["labels"] for example in examples)
    assert all(example["input_ids"][-1] == END for example in examples)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_prompts_stay_unlearned_and_ids_bind(tmp_path, tokenizer, kind):
    rows = [{"name": f"n{i}", "q": "ab" * i, "a": f"c{i}"} for i in range(3)]
    path = write(tmp_path / f"a.{kind}", rows)
    examples = read_examples(path, Data(train="", id="name", prompt="q", text="a"), tokenizer)
    assert [text_of(tokenizer, ids) for ids in examples["input_ids"]] == ["c0", "abc1", "ababc2"]
    assert [text_of(tokenizer, labels) for labels in examples["labels"]] == ["c0", "c1", "c2"]
    assert [key % (1 << 64) for key in examples["example"]] == [example_key(f"n{i}") for i in range(3)]


def test_a_long_example_is_cut_and_one_whose_prompt_fills_it_is_left_out(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", [{"prompt": "abcdef", "text": "g"}, {"prompt": "a", "text": "bcdefgh"}])
    examples = read_examples(path, Data(train="", prompt="prompt", max_length=5), tokenizer)
    assert [text_of(tokenizer, ids) for ids in examples["input_ids"]] == ["abcde"]
    assert examples["example"] == [1]


def test_token_ids_are_taken_as_they_are(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"input_ids": [5, 6, 7], "labels": [-100, -100, 7], "id": 9}])
    examples = read_examples(path, Data(train=""), None)
    assert examples[0] == {"input_ids": [5, 6, 7], "labels": [-100, -100, 7], "example": 9}


def test_a_batch_is_padded_at_the_right_and_its_first_column_is_predicted_by_nothing():
    rows = datasets.Dataset.from_dict({"input_ids": [[5, 6, 7], [8, 9]]})
    batch = Collate()(list(prepare_examples(rows, Data(train=""))))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, 9, -100]]
    assert batch["example"].dtype == torch.int64


def test_several_files_need_ids(tmp_path, tokenizer):
    for part in range(2):
        write(tmp_path / f"part-{part}.jsonl", [{"text": f"t{part}", "id": part}])
        write(tmp_path / f"bare-{part}.jsonl", [{"text": f"t{part}"}])
    examples = read_examples(str(tmp_path / "part-*.jsonl"), Data(train=""), tokenizer)
    assert examples["example"] == [0, 1]
    with pytest.raises(ValueError, match=r"bare-\*\.jsonl: 2 files have no order that lasts.*ids"):
        read_examples(str(tmp_path / "bare-*.jsonl"), Data(train=""), tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "data", "named"),
    [
        ("a.jsonl", '{"text": "a", "id": 1}\n{"text": "b", "id": 1}\n', {}, "id 1 .*rows 0 and 1"),
        ("a.jsonl", '{"story": "a"}\n', {}, "no column 'text': its columns are story"),
        ("a.jsonl", '{"text": "ab"}\n', {"id": "name"}, "no column 'name'"),
        ("a.jsonl", '{"text": "", "id": 1}\n{"text": null, "id": 2}\n', {}, "none of its 2 examples is left"),
        ("a.jsonl", '{"text": "a\n', {}, "cannot be read"),
        ("a.parquet", "nonsense", {}, "cannot be read"),
        ("a.csv", "text\na\n", {}, r"kind \.csv; give \.txt, \.jsonl or \.parquet"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, tokenizer, name, content, data, named):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.*{named}"):
        read_examples(str(tmp_path / name), Data(train="", **data), tokenizer)


def test_a_file_that_is_not_there_is_named(tmp_path, tokenizer):
    for path in (tmp_path / "no.jsonl", tmp_path / "no-*.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no such file; name a \.txt"):
            read_examples(str(path), Data(train=""), tokenizer)


def test_a_length_that_leaves_nothing_to_predict_is_refused():
    with pytest.raises(ValueError, match="max_length=1"):
        Data(train="", max_length=1)
