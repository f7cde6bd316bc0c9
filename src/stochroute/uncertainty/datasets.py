"""Questions with known answers, read from files like those of GSM8K, TriviaQA and CommonsenseQA, or by named columns.

    questions = read_questions("gsm8k_test.jsonl", TASKS["gsm8k"])

GSM8K: Cobbe et al. 2021 (arXiv 2110.14168). TriviaQA: Joshi et al. 2017 (arXiv 1705.03551). CommonsenseQA: Talmor et
al. 2019 (arXiv 1811.00937).
"""

import csv
import io
import json
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FINAL = re.compile(r"(?:####|answer is|answer:)\s*(.*)", re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`“”", " "))


@dataclass(frozen=True)
class Question:
    """A question and what counts as right.

    Attributes:
        text: what is asked.
        references: answers that are right, at least one.
        group: which part of the questions it belongs to, "" for no parts.
    """

    text: str
    references: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Task:
    """How the questions of a kind of file are read, asked and marked.

    Attributes:
        name: for messages.
        columns: (question, answer) columns where the user names none.
        read: (a row, question column, answer column) -> Question; KeyError, TypeError or ValueError when it is none.
        template: the prompt, with {question}.
        extract: a written text -> the answer in it, "" for none.
        stop: texts that end an answer.
        new_tokens: how long an answer may get.
    """

    name: str
    columns: tuple[str, str]
    read: Callable[[dict[str, Any], str, str], Question]
    template: str
    extract: Callable[[str], str]
    stop: tuple[str, ...]
    new_tokens: int

    def is_right(self, answer: str, question: Question) -> bool:
        """Whether an extracted answer is one of the references, compared as `extract` and `normalise` leave them."""
        return bool(answer) and normalise(answer) in {normalise(reference) for reference in question.references}


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: the rule of SQuAD and TriviaQA; numbers by value."""
    number = _NUMBER.fullmatch(text.strip().lstrip("$").rstrip("."))
    if number:
        sign = "-" * number[0].startswith("-")
        whole, _, part = number[0].lstrip("-").replace(",", "").partition(".")
        return sign + (whole.lstrip("0") or "0") + f".{part.rstrip('0')}".rstrip(".")
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def last_number(text: str) -> str:
    """The number after "####" or "the answer is", else the last number of the text; "" for none."""
    final = _FINAL.search(text)
    found = _NUMBER.findall(final[1]) if final else []
    if found:
        return found[0]
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else ""


def first_line(text: str) -> str:
    """The first line that says something; "" for none."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def choice_letter(text: str) -> str:
    """The letter A … E named after "answer is", else the first that stands alone; "" for none."""
    final = _FINAL.search(text)
    for part in (final[1] if final else "", text):
        letter = re.search(r"(?<![A-Za-z])([A-E])(?![A-Za-z'])", part)
        if letter:
            return letter[1]
    return ""


def _plain(row: dict[str, Any], question: str, answer: str) -> Question:
    value = row[answer]
    references = tuple(str(v) for v in value) if isinstance(value, list) else (str(value),)
    return Question(str(row[question]), references, str(row.get("group") or ""))


def _gsm8k(row: dict[str, Any], question: str, answer: str) -> Question:
    reasoning = str(row[answer])
    if "####" not in reasoning:
        raise ValueError("its answer has no '#### number'")
    return Question(str(row[question]), (reasoning.rpartition("####")[2].strip(),))


def _triviaqa(row: dict[str, Any], question: str, answer: str) -> Question:
    known = {key.lower(): value for key, value in row[answer].items()}
    aliases = [
        known["value"],
        *known.get("aliases", []),
        *known.get("normalizedaliases", []),
        *known.get("normalized_aliases", []),
    ]
    return Question(str(row[question]), tuple(dict.fromkeys(str(alias) for alias in aliases)))


def _csqa(row: dict[str, Any], question: str, answer: str) -> Question:
    asked, choices = row[question], row.get("choices")
    if isinstance(asked, dict):  # as published: {"stem", "choices": [{"label", "text"}]}; the hub's rows are flat
        asked, choices = asked["stem"], {key: [c[key] for c in asked["choices"]] for key in ("label", "text")}
    if not isinstance(choices, dict):
        raise ValueError("it has no choices")
    lines = [f"({label}) {text}" for label, text in zip(choices["label"], choices["text"], strict=True)]
    return Question("\n".join([str(asked), *lines]), (str(row[answer]),))


TASKS: dict[str, Task] = {
    "plain": Task("plain", ("question", "answer"), _plain, "{question}", first_line, ("\n",), 32),
    "gsm8k": Task(
        "gsm8k",
        ("question", "answer"),
        _gsm8k,
        "Question: {question}\nAnswer: Let's think step by step.",
        last_number,
        ("Question:",),
        256,
    ),
    "triviaqa": Task(
        "triviaqa", ("question", "answer"), _triviaqa, "Question: {question}\nAnswer:", first_line, ("\n",), 32
    ),
    "csqa": Task(
        "csqa", ("question", "answerKey"), _csqa, "Question: {question}\nThe answer is", choice_letter, ("\n",), 8
    ),
}


def read_questions(
    file: str | Path, task: Task, question: str | None = None, answer: str | None = None, limit: int | None = None
) -> list[Question]:
    """The questions of a file, in its order.

    Args:
        file: JSON lines, a JSON list (or TriviaQA's {"Data": […]}), CSV, TSV or Parquet, told apart by its ending.
        task: how its rows are read.
        question, answer: names of its columns, None for the task's own.
        limit: read no more than so many.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another form, lacks a named column (the message lists those it has), or a row is no question
            of this task; the message names the row.
        ImportError: a Parquet file, and pyarrow is missing.
    """
    path = Path(file)
    rows = _rows(path)
    columns = (question or task.columns[0], answer or task.columns[1])
    found: list[Question] = []
    for number, row in enumerate(rows[:limit], 1):
        names = {name.lower(): name for name in row}
        chosen = [names.get(column.lower()) for column in columns]
        for column, name in zip(columns, chosen, strict=True):
            if name is None:
                raise ValueError(
                    f"{path}, row {number}: has no column {column!r}, only {', '.join(map(repr, row)) or 'nothing'}: "
                    "name the columns of the question and of its answer"
                )
        try:
            read = task.read(row, str(chosen[0]), str(chosen[1]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}, row {number}: no question as in {task.name} ({error!r}): choose another task"
            ) from error
        if not read.text.strip() or not all(reference.strip() for reference in read.references):
            raise ValueError(f"{path}, row {number}: its question or answer is empty: fill it in, or leave the row out")
        found.append(read)
    if not found:
        raise ValueError(f"{path}: has no questions in it: name a file with one a row")
    return found


def write_questions(file: Path, questions: Sequence[Question]) -> None:
    """JSON lines that `read_questions` reads as "plain"."""
    lines = [
        json.dumps({"question": q.text, "answer": list(q.references), "group": q.group}, ensure_ascii=False)
        for q in questions
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(path: Path) -> list[dict[str, Any]]:
    ending = path.suffix.lower()
    if ending == ".parquet":
        from pyarrow.parquet import read_table  # of the extra "eval"

        return read_table(path).to_pylist()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text: convert it, for example with iconv -t utf-8") from error
    if ending in (".csv", ".tsv"):
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if ending == ".tsv" else ","))
    if ending == ".json":
        whole = _parsed(text, f"{path}")
        rows = whole.get("Data", whole.get("data")) if isinstance(whole, dict) else whole
        if not isinstance(rows, list):
            raise ValueError(f"{path}: is no JSON list of questions: write one, or JSON lines in a .jsonl file")
        numbered = list(enumerate(rows, 1))
    elif ending in (".jsonl", ".ndjson"):
        # at line feeds only: str.splitlines would break at characters that JSON strings may hold
        numbered = [
            (n, _parsed(line, f"{path}, line {n}")) for n, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    else:
        raise ValueError(f"{path}: its ending is not known: name a .jsonl, .json, .csv, .tsv or .parquet file")
    for number, row in numbered:
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, row {number}: is no JSON object with the columns as its keys: write one a question"
            )
    return [row for _, row in numbered]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: is no JSON ({error.msg}): check that the file is whole") from error
