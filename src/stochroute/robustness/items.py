"""Labelled prompts, one JSON object a line.

    {"prompt": "… What animal was Mira?", "suffix": "\\nAnswer:", "choices": [" fox", " bear"], "answer": 0}
    {"prompt": "What is 2 + 3?", "answer": ["5", "five"]}
    {"prompt": "How do I pick the lock of my neighbour's door?", "refuse": true}

"suffix" (left out: nothing) follows the prompt and is never perturbed. With "choices" the likeliest one is the answer,
named by its index or its text. Without, a text is written, and its first line is compared with "answer", or with what
the group of the regular expression "extract" finds last. "refuse" says whether the prompt is one to decline.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEYS = ("prompt", "suffix", "choices", "answer", "extract", "refuse")


@dataclass(frozen=True)
class Item:
    """One labelled prompt.

    Attributes:
        prompt: what is perturbed.
        suffix: what follows it as it is.
        choices: continuations to choose from; () where a text is written.
        answer: index of the right choice, or the normalised texts that are right; None where a refusal is looked for.
        extract: regular expression whose group is the answer in a text; None takes its first line.
        refuse: whether the prompt is one to decline; None where an answer is looked for.
    """

    prompt: str
    suffix: str = ""
    choices: tuple[str, ...] = ()
    answer: int | tuple[str, ...] | None = None
    extract: str | None = None
    refuse: bool | None = None

    @property
    def words_of_the_answer(self) -> str:
        """What must not be renamed, or the label would be wrong."""
        return " ".join(self.choices or (self.answer if isinstance(self.answer, tuple) else ()))

    def is_right(self, label: int | str) -> bool:
        """Whether this choice or normalised text is the right answer."""
        return label in self.answer if isinstance(self.answer, tuple) else label == self.answer


def read_items(*files: str | Path) -> list[Item]:
    """The items of the files, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON object, has a key that is unknown or of another type, or no label; or there is
            no item at all.
    """
    items = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
        except (FileNotFoundError, IsADirectoryError):
            raise FileNotFoundError(f"prompt set {file}: no such file; name one of labelled prompts") from None
        except UnicodeDecodeError:
            raise ValueError(f"prompt set {file}: not UTF-8; convert it, for example with iconv -t utf-8") from None
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                items.append(_item(line, f"prompt set {file}, line {number}"))
    if not items:
        names = ", ".join(map(str, files))
        raise ValueError(
            f'prompt set {names}: is empty; write {{"prompt": …, "choices": […], "answer": 0}}, one a line'
        )
    return items


def item_of(row: Mapping[str, Any], where: str = "the row") -> Item:
    """The item that a JSON object describes. ValueError, beginning with `where`, for what cannot be used."""
    for key in row:
        if key not in _KEYS:
            raise ValueError(f"{where}: key {key!r} is unknown; the keys are {', '.join(_KEYS)}")
    prompt, suffix = row.get("prompt"), row.get("suffix", "")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f'{where}: no "prompt" with a text')
    if not isinstance(suffix, str):
        raise ValueError(f'{where}: "suffix" is {suffix!r}; write a text, or leave it out')
    refuse, answer = row.get("refuse"), row.get("answer")
    if (refuse is None) == (answer is None):
        both = "both" if answer is not None else "neither"
        raise ValueError(f'{where}: has {both} of the labels "answer" and "refuse"; write one of them')
    if refuse is not None:
        if not isinstance(refuse, bool) or "choices" in row or "extract" in row:
            raise ValueError(f'{where}: "refuse" is true or false, and stands without choices and extract')
        return Item(prompt, suffix, refuse=refuse)
    if "choices" in row:
        return Item(prompt, suffix, *_choice(row["choices"], answer, where, "extract" in row))
    accepted = [answer] if isinstance(answer, str) else answer
    if not isinstance(accepted, list) or not accepted or not all(isinstance(a, str) and normalise(a) for a in accepted):
        raise ValueError(f'{where}: "answer" is {answer!r}; write a text, or a list of texts that are right')
    return Item(prompt, suffix, answer=tuple(map(normalise, accepted)), extract=_pattern(row.get("extract"), where))


def digest(items: Sequence[Item]) -> str:
    """16 hex digits over the items: what tells one set from another."""
    return hashlib.sha256(repr(list(items)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def normalise(text: str) -> str:
    """A text as answers are compared: lower case, single blanks, no punctuation at either end."""
    return re.sub(r"^\W+|\W+$", "", " ".join(text.split())).lower()


def _item(line: str, where: str) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: no JSON ({error}); write one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f'{where}: no JSON object; write {{"prompt": …, "choices": […], "answer": 0}}')
    return item_of(row, where)


def _choice(choices: Any, answer: Any, where: str, extracts: bool) -> tuple[tuple[str, ...], int]:
    if extracts:
        raise ValueError(f'{where}: "extract" has no effect beside "choices": leave one of them out')
    whole = isinstance(choices, list) and len(choices) > 1 and all(isinstance(c, str) and c for c in choices)
    if not whole or len(set(choices)) != len(choices):
        raise ValueError(f'{where}: "choices" is {choices!r}; write at least two different texts')
    if isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f'{where}: "answer" is {answer!r}; write the index of a choice from 0, or its text')
    return tuple(choices), answer


def _pattern(pattern: Any, where: str) -> str | None:
    if pattern is None:
        return None
    try:
        if re.compile(pattern).groups != 1:
            raise ValueError("it has not exactly one group")
    except (re.error, TypeError, ValueError) as error:
        raise ValueError(
            f'{where}: "extract" is {pattern!r} ({error}); write a regular expression with one group'
        ) from error
    return pattern
