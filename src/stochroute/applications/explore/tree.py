"""Texts as a tree: what they share stands once, and they branch where they part."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# a word or a sign with the white space before it; a CJK character is a word
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"\s*[{_CJK}]|\s*[^\W{_CJK}]+|\s*[^\w\s]|\s*_|\s+$")


def words_of(text: str) -> list[str]:
    """The words of a text; joined they are the text again."""
    return _WORD.findall(text)


@dataclass(frozen=True)
class Node:
    """Words that texts share from one branching to the next.

    Attributes:
        words: together, with the white space before them.
        at: how many words of each text stand before this node.
        rows: which texts go through it.
        children: how they go on; texts that all end here have none.
    """

    words: str
    at: int
    rows: tuple[int, ...]
    children: tuple["Node", ...]

    @property
    def end(self) -> int:
        """How many words of each text stand before its children: where a fork leaves the others."""
        return self.at + len(words_of(self.words))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "words": self.words,
            "at": self.at,
            "end": self.end,
            "rows": list(self.rows),
            "children": [child.to_dict() for child in self.children],
        }


def tree(texts: Sequence[str]) -> Node:
    """The tree of at least one text; children in the order of their most frequent first, then of their rows."""
    lists = [words_of(text) for text in texts]
    return _node(lists, tuple(range(len(texts))), 0)


def _node(lists: Sequence[list[str]], rows: tuple[int, ...], at: int) -> Node:
    first = lists[rows[0]]
    end = at
    while end < len(first) and all(end < len(lists[row]) and lists[row][end] == first[end] for row in rows):
        end += 1
    groups: dict[str | None, list[int]] = {}
    for row in rows:
        groups.setdefault(lists[row][end] if end < len(lists[row]) else None, []).append(row)
    words = "".join(first[at:end])
    if len(groups) == 1:  # one text, or all the same
        return Node(words, at, rows, ())
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0]))
    return Node(words, at, rows, tuple(_node(lists, tuple(group), end) for group in ordered))


def branching(texts: Sequence[str], row: int) -> int:
    """How many words a text shares with the text that is most like it at its beginning, and differs from."""
    own = words_of(texts[row])
    shared = 0
    for other in texts:
        theirs = words_of(other)
        if theirs == own:
            continue
        same = next(
            (i for i, (a, b) in enumerate(zip(own, theirs, strict=False)) if a != b), min(len(own), len(theirs))
        )
        shared = max(shared, same)
    return shared
