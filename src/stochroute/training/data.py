"""Files of text become training examples: token ids, labels, and the key of the example's id, which binds its path.

examples = read_examples("stories.jsonl", Data(train="stories.jsonl", id="name"), tokenizer)
"""

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import datasets
import torch
from torch import Tensor

from stochroute.measuring.nats import IGNORED
from stochroute.training.binding import example_key

_READERS: dict[str, Callable[..., Any]] = {
    ".txt": datasets.Dataset.from_text,
    ".jsonl": datasets.Dataset.from_json,
    ".json": datasets.Dataset.from_json,
    ".parquet": datasets.Dataset.from_parquet,
}
_ID = "id"  # the column that is taken for the ids where none is named
_SIGNED_LIMIT = 1 << 63


@dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        train: a file of examples: .txt (one a line), .jsonl or .parquet; a pattern such as "part-*.jsonl" for
            several, which then need a column of ids.
        evaluation: the same for held-out examples; None for no evaluation.
        id: the column of ids that bind examples to paths. None takes "id" where there is one, else the row's number
            in its file.
        prompt: the column of prompts, which stay clean and are not learned; None where there is none.
        text: the column of texts to learn. A file with "input_ids" (and "labels") is taken as it is.
        max_length: tokens of an example; what is longer is cut.
    """

    train: str
    evaluation: str | None = None
    id: str | None = None
    prompt: str | None = None
    text: str = "text"
    max_length: int = 512

    def __post_init__(self) -> None:
        if isinstance(self.max_length, bool) or not isinstance(self.max_length, int) or self.max_length < 2:
            raise ValueError(f"max_length={self.max_length!r} leaves nothing to predict: give at least 2 tokens")


def read_examples(path: str, data: Data, tokenizer: Any) -> datasets.Dataset:
    """The examples of a file, or of the files of a pattern: see `prepare_examples`.

    Raises:
        ValueError: the file is of an unknown kind or cannot be read as that, and what `prepare_examples` raises.
        FileNotFoundError: there is no such file.
    """
    files = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    missing = [file for file in files if not Path(file).is_file()]
    if not files or missing:
        raise FileNotFoundError(f"data {path}: no such file; name a .txt, .jsonl or .parquet file")
    suffixes = {Path(file).suffix for file in files}
    if len(suffixes) > 1 or not suffixes <= _READERS.keys():
        raise ValueError(f"data {path}: files of kind {', '.join(sorted(suffixes))}; give .txt, .jsonl or .parquet")
    try:
        rows = _READERS[suffixes.pop()](files)
    except Exception as error:  # each format has its own classes, down to those of Arrow
        cause = error.__cause__ or error
        raise ValueError(f"data {path}: cannot be read ({cause}); give one JSON object a line, or Parquet") from error
    if len(files) > 1 and (data.id or _ID) not in rows.column_names:
        raise ValueError(
            f"data {path}: {len(files)} files have no order that lasts, and there is no column of ids; add one, and "
            f"name it with id, so that every example keeps its path"
        )
    return prepare_examples(rows, data, tokenizer, path)


def prepare_examples(
    rows: datasets.Dataset, data: Data, tokenizer: Any = None, source: str = "the dataset"
) -> datasets.Dataset:
    """The rows as training examples, with the columns

        input_ids: token ids: those of the prompt, of the text, and the end-of-text token;
        labels: the same, −100 over the prompt;
        example: the key of the example's id (see `example_key`), as a signed 64-bit integer.

    Rows with nothing to predict are left out; an example without an id keeps the number of its row all the same.

    Args:
        rows: from `datasets`, with the columns that `data` names, or with input_ids already.
        data: which columns to read, and how long.
        tokenizer: may be None where there are input_ids.
        source: what errors call the rows.

    Raises:
        ValueError: a column is missing; an id is missing, of a wrong type, or seen twice; there is no column of ids
            and the order does not last; or nothing is left.
    """
    if not isinstance(rows, datasets.Dataset):
        raise ValueError(
            f"{source} is a {type(rows).__name__}, whose examples have no lasting order: load it as a datasets.Dataset"
        )
    needed = [] if "input_ids" in rows.column_names else [name for name in (data.prompt, data.text) if name]
    for name in (*needed, *([data.id] if data.id else [])):
        if name not in rows.column_names:
            raise ValueError(f"{source} has no column {name!r}: its columns are {', '.join(rows.column_names)}")
    keys = _keys(rows, data.id or (_ID if _ID in rows.column_names else None), source)
    to_tokens = _pretokenised if not needed else partial(_tokenised, tokenizer=tokenizer, data=data)
    examples = rows.map(
        partial(to_tokens, max_length=data.max_length), remove_columns=rows.column_names, desc="Tokenizing"
    )
    examples = examples.add_column("example", keys)
    kept = examples.filter(_has_a_target, desc="Filtering")
    if not len(kept):
        raise ValueError(
            f"{source}: none of its {len(rows)} examples is left, for none has a token to predict within "
            f"max_length={data.max_length}: look at the columns text and prompt, or raise max_length"
        )
    return kept


def check_examples(name: str, dataset: Any) -> None:
    """ValueError, in which `name` is what the dataset is called, unless it has a lasting order, examples, and a key of
    its own for each."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ValueError(f"{name} is a {type(dataset).__name__} without a lasting order: give a map-style dataset")
    if not len(dataset):
        raise ValueError(f"{name} has no example left: look at how it was filtered")
    missing = [c for c in ("input_ids", "labels", "example") if c not in cast(Mapping[str, Any], dataset[0])]
    if missing:
        raise ValueError(
            f"{name} has no {missing[0]!r} in its examples, so that no path can be bound to them: make it with "
            f"stochroute.training.prepare_examples"
        )
    if hasattr(dataset, "column_names") and len(set(dataset["example"])) < len(dataset):
        raise ValueError(f"{name} holds an example's key twice: every example needs an id of its own")


@dataclass(frozen=True)
class Collate:
    """Examples -> a batch: "input_ids", "attention_mask" and "labels" int64 (b, s), padded at the right, and
    "example" int64 (b,)."""

    pad: int = 0

    def __call__(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        width = max(len(example["input_ids"]) for example in examples)
        ids = torch.full((len(examples), width), self.pad)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            length = len(example["input_ids"])
            ids[row, :length] = torch.as_tensor(example["input_ids"])
            mask[row, :length] = 1
            labels[row, 1:length] = torch.as_tensor(example["labels"])[1:]  # nothing predicts the first token
        keys = torch.tensor([example["example"] for example in examples], dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "example": keys}


def _keys(rows: datasets.Dataset, column: str | None, source: str) -> list[int]:
    """One signed 64-bit key a row."""
    if column is None:
        if getattr(rows, "_indices", None) is not None:  # what shuffle, select and filter leave behind
            raise ValueError(
                f"{source} was shuffled or filtered, so that its row numbers do not last, and has no column of ids: "
                f"add one, and name it with id"
            )
        return list(range(len(rows)))
    first: dict[int, int] = {}
    for row, example in enumerate(rows[column]):
        try:
            key = example_key(example)
        except ValueError as error:
            raise ValueError(f"{source}, row {row}, column {column!r}: {error}") from None
        if key in first:
            raise ValueError(
                f"{source}: the id {example!r} of column {column!r} stands in rows {first[key]} and {row}; every "
                f"example needs one of its own, which binds it to its path"
            )
        first[key] = row
    return [key - (1 << 64) if key >= _SIGNED_LIMIT else key for key in first]


def _tokenised(row: dict[str, Any], tokenizer: Any, data: Data, max_length: int) -> dict[str, list[int]]:
    text = row[data.text] or ""
    prompt = list(tokenizer(row[data.prompt] or "")["input_ids"]) if data.prompt else []
    # a prompt has brought the token that begins a text
    learned = list(tokenizer(text, add_special_tokens=not prompt)["input_ids"]) if text else []
    if learned and tokenizer.eos_token_id is not None and learned[-1] != tokenizer.eos_token_id:
        learned.append(tokenizer.eos_token_id)
    return _cut(prompt + learned, [IGNORED] * len(prompt) + learned, max_length)


def _pretokenised(row: dict[str, Any], max_length: int) -> dict[str, list[int]]:
    ids = list(row["input_ids"])
    labels = row.get("labels")
    return _cut(ids, ids if labels is None else list(labels), max_length)


def _cut(ids: list[int], labels: list[int], max_length: int) -> dict[str, list[int]]:
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def _has_a_target(example: dict[str, Any]) -> bool:
    return any(label != IGNORED for label in example["labels"][1:])
