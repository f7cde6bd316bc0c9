"""Prompts, with what is known of them: the text that really follows, the right answer."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_CORPUS = 512  # texts that set the standard, at most
_SEPARATOR = "<|endoftext|>"
_STORY_SEED = 20261126  # of the story world's texts; the embedded model was trained on others
_FIRST_SENTENCE = re.compile(r"^.*?[.!?](?=\s)", re.DOTALL)


@dataclass(frozen=True)
class Inputs:
    """What the arms continue.

    Attributes:
        prompts: in order.
        references: what follows each prompt in a real text; None where that is not known.
        answers: the right answer to each prompt, likewise.
        corpus: (beginning, what follows) of many real texts, those of the prompts among them; () where there are none.
            They say what real texts look like to the judge, and MAUVE compares with them.
    """

    prompts: tuple[str, ...]
    references: tuple[str, ...] | None = None
    answers: tuple[str, ...] | None = None
    corpus: tuple[tuple[str, str], ...] = ()

    def first(self, count: int) -> "Inputs":
        """The first `count` prompts; all of the corpus."""

        def cut(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if values is None else values[:count]

        return replace(self, prompts=self.prompts[:count], references=cut(self.references), answers=cut(self.answers))


def read_texts(file: Path, prompt_words: int, count: int) -> Inputs:
    """`count` prompts from whole texts: the first words of each, and as the reference what follows them.

    The file holds JSON lines with "text", or plain texts with <|endoftext|> between them. Of plain texts the first and
    the last are left out, because such files are often cut from larger ones; texts are taken at even distances.

    Raises:
        ValueError: no text is long enough.
        OSError: the file cannot be read.
    """
    data = file.read_text(encoding="utf-8")
    if data.lstrip().startswith("{"):
        texts = [_field(row, "text", file, number) for number, row in _json_lines(data, file)]
    else:
        texts = [text.strip() for text in data.split(_SEPARATOR)]
        texts = texts[1:-1] if len(texts) > 2 else texts
    pattern = re.compile(rf"\s*(?:\S+\s+){{{prompt_words - 1}}}\S+")
    cut = [(match.group(), text[match.end() :]) for text in texts if (match := pattern.match(text))]
    cut = [(prompt, rest) for prompt, rest in cut if rest.strip()]
    if not cut:
        raise ValueError(f"{file} holds no text of more than {prompt_words} words: ask for fewer, or name another file")
    chosen = cut[:: max(1, len(cut) // count)][:count]
    prompts, references = zip(*chosen, strict=True)
    return Inputs(prompts, references, corpus=tuple(cut[:: -(-len(cut) // _CORPUS)]))


def read_prompt_file(file: Path) -> Inputs:
    """A prompt a line, or JSON lines with "prompt", and where every line has them "reference" and "answer".

    GSM8K's own key "question" is taken for "prompt" as well.

    Raises:
        ValueError: a line is no JSON or holds no prompt, or only some lines hold a reference or an answer.
        OSError: the file cannot be read.
    """
    data = file.read_text(encoding="utf-8-sig")
    if not data.lstrip().startswith("{"):
        prompts = tuple(line.strip() for line in data.split("\n") if line.strip())
        if not prompts:
            raise ValueError(f"{file} holds no prompt: write one a line")
        return Inputs(prompts)
    rows = [row for _, row in _json_lines(data, file)]
    key = "prompt" if "prompt" in rows[0] else "question"
    prompts = tuple(_field(row, key, file, number) for number, row in _json_lines(data, file))
    references = _all_or_none(rows, "reference", file)
    corpus = () if references is None else tuple(zip(prompts, references, strict=True))
    return Inputs(prompts, references, _all_or_none(rows, "answer", file), corpus)


def story_inputs(count: int) -> Inputs:
    """First sentences of English stories of the story world, each with the rest of its story."""
    from stochroute.world import draw_text

    prompts: list[str] = []
    references: list[str] = []
    for index in range(count):
        text = draw_text(_STORY_SEED, index)
        match = _FIRST_SENTENCE.match(text)
        assert match is not None, "a story has several sentences"
        prompts.append(match.group())
        references.append(text[match.end() :])
    return Inputs(tuple(prompts), tuple(references))


def _json_lines(data: str, file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(data.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{file}, line {number}: no JSON ({error.msg}); the first line is, so every line must be"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f'{file}, line {number}: no object; write {{"prompt": "Once upon a time"}}')
        rows.append((number, row))
    return rows


def _field(row: dict[str, Any], key: str, file: Path, number: int) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f'{file}, line {number}: no "{key}" with a text')
    return value


def _all_or_none(rows: Sequence[dict[str, Any]], key: str, file: Path) -> tuple[str, ...] | None:
    values = [row.get(key) for row in rows]
    if all(value is None for value in values):
        return None
    missing = next((n for n, value in enumerate(values, 1) if not isinstance(value, str)), None)
    if missing is not None:
        raise ValueError(f'{file}: row {missing} has no "{key}", others have: give one for every prompt or for none')
    return tuple(str(value) for value in values)
