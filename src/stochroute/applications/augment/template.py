"""Prompts from rows: a text with named columns in braces.

Template("Review: {text}\nAnother review, as {label} as this one:").fill(row)
Template("{text:8}").fill(row)  # the first eight words of the column
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

_WORD = re.compile(r"\s*[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\s*[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def first_words(text: str, count: int) -> str:
    """The beginning of the text with so many words, white space kept; a Chinese or Japanese character is a word."""
    end = 0
    for number, word in enumerate(_WORD.finditer(text)):
        if number == count:
            break
        end = word.end()
    return text[:end]


@dataclass(frozen=True)
class Template:
    """A prompt with columns in braces: {text}, or {text:8} for the column's first eight words; {{ and }} are braces.

    Raises:
        ValueError: braces do not pair, or hold something else than a column's name and a number of words.
    """

    text: str

    def __post_init__(self) -> None:
        assert self.parts is not None

    @cached_property
    def parts(self) -> tuple[tuple[str, str | None, int | None], ...]:
        """(literal, column after it, first words of it), the column None at the end of the text."""
        found: list[tuple[str, str | None, int | None]] = []
        try:
            parsed = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"template {self.text!r}: {error}; write a brace that is none as {{{{ or }}}}") from error
        for literal, column, words, conversion in parsed:
            if column is None:
                found.append((literal, None, None))
                continue
            if not column.strip() or conversion or (words and not (words.isdecimal() and int(words))):
                raise ValueError(
                    f"template {self.text!r}: {{{column}{f'!{conversion}' if conversion else ''}"
                    f"{f':{words}' if words else ''}}} names no column; write {{text}}, or {{text:8}} for 8 words"
                )
            found.append((literal, column, int(words) if words else None))
        return tuple(found)

    @property
    def columns(self) -> list[str]:
        """The columns that it names, each once."""
        return list(dict.fromkeys(column for _, column, _ in self.parts if column is not None))

    def fill(self, row: Mapping[str, Any]) -> str:
        """The prompt of a row that has all of its columns."""
        texts: list[str] = []
        for literal, column, words in self.parts:
            texts.append(literal)
            if column is not None:
                value = str(row[column])
                texts.append(value if words is None else first_words(value, words))
        return "".join(texts)


@dataclass(frozen=True)
class Shots:
    """Examples before each prompt, few-shot: rows of the same dataset in a template of their own.

    Attributes:
        template: of one example; ends in whatever separates it from the next.
        count: examples a prompt.
        pool: they are drawn from the first so many rows.
    """

    template: Template
    count: int
    pool: int = 1000

    def __post_init__(self) -> None:
        if self.count < 1 or self.pool < 2:
            raise ValueError(f"shots {self.count} from a pool of {self.pool}: give at least 1 from at least 2")

    def before(self, index: int, row: Mapping[str, Any], pool: Sequence[Any], label: str | None, seed: int) -> str:
        """The examples for row `index`: others of the pool, with the same label where a label column is named.

        Raises:
            ValueError: there are not enough of them.
        """
        others = [
            number
            for number, other in enumerate(pool)
            if number != index and (label is None or other[label] == row[label])
        ]
        if len(others) < self.count:
            like = "" if label is None else f" with {label} {row[label]!r}"
            raise ValueError(
                f"row {index + 1}: {self.count} examples asked for, but among the first {len(pool)} rows there are "
                f"{len(others)} others{like}; give fewer shots"
            )
        chosen = random.Random(f"{seed} {index}").sample(others, self.count)
        return "".join(self.template.fill(pool[number]) for number in chosen)
