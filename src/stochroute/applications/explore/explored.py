"""What an exploration found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from stochroute.applications.explore.estimates import Abundance, Interval, chao1, coverage
from stochroute.applications.explore.tree import Node, branching, tree, words_of
from stochroute.paths import format_path


@dataclass(frozen=True)
class Text:
    """One text.

    Attributes:
        path: the path id, 16 hex digits.
        text: the continuation, without the prompt.
        ended: whether it came to its own end.
        answer: what it says, equal for the same answer; None for a text that is none.
    """

    path: str
    text: str
    ended: bool
    answer: str | None


@dataclass(frozen=True)
class Explored:
    """All texts of one prompt, in the order of their paths, and what follows from them.

    Attributes:
        prompt: what they continue.
        texts: those written.
        batch: texts between two looks at the estimates.
        until: the coverage that was asked for.
    """

    prompt: str
    texts: tuple[Text, ...]
    batch: int
    until: float

    @property
    def seen(self) -> Abundance:
        """How often the answers came."""
        return self._seen(len(self.texts))

    @property
    def coverage(self) -> Interval:
        """The probability that another text brings an answer seen before."""
        return coverage(self.seen)

    @property
    def answers(self) -> Interval:
        """How many answers there are, seen and unseen."""
        return chao1(self.seen)

    @property
    def saturated(self) -> bool:
        """Whether the coverage that was asked for is reached, by the lower end of its interval."""
        return self.coverage.low >= self.until

    @cached_property
    def counts(self) -> Counter[str]:
        """Answer -> how many texts gave it."""
        return Counter(text.answer for text in self.texts if text.answer is not None)

    @cached_property
    def firsts(self) -> list[int]:
        """The row of each answer's first text, in order."""
        first: dict[str, int] = {}
        for row, text in enumerate(self.texts):
            if text.answer is not None:
                first.setdefault(text.answer, row)
        return list(first.values())

    @cached_property
    def tree(self) -> Node:
        """The texts as a tree."""
        return tree([text.text for text in self.texts])

    def curve(self) -> list[dict[str, Any]]:
        """After each batch: texts, answers seen, and the estimates at that time."""
        found: list[dict[str, Any]] = []
        for end in [*range(self.batch, len(self.texts), self.batch), len(self.texts)]:
            seen = self._seen(end)
            found.append(
                {
                    "texts": end,
                    "answers": seen.answers,
                    "coverage": asdict(coverage(seen)),
                    "estimate": asdict(chao1(seen)),
                }
            )
        return found

    def row_of(self, path: str) -> int:
        """The row of a path id; ValueError when it was not walked."""
        wanted = format_path(path)
        for row, text in enumerate(self.texts):
            if text.path == wanted:
                return row
        raise ValueError(f"path {wanted} is none of the {len(self.texts)} of this exploration: copy one of its ids")

    def fork(self, path: str, at: int | None = None) -> str:
        """The prompt and the first words of a path's text: what another exploration goes on from.

        Args:
            path: one of the paths.
            at: how many words to keep; None for those before the place where the path leaves the text most like it.

        Raises:
            ValueError: the path was not walked, or its text has fewer words.
        """
        row = self.row_of(path)
        words = words_of(self.texts[row].text)
        if at is None:
            at = branching([text.text for text in self.texts], row)
        if not 0 <= at <= len(words):
            raise ValueError(f"at {at}: the text of path {self.texts[row].path} has {len(words)} words")
        return self.prompt + "".join(words[:at])

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, without tree and clusters."""
        seen = self.seen
        return {
            "prompt": self.prompt,
            "texts": len(self.texts),
            "no_answer": len(self.texts) - seen.texts,
            "answers_seen": seen.answers,
            "once": seen.once,
            "twice": seen.twice,
            "coverage": asdict(self.coverage),
            "answers": asdict(self.answers),
            "until": self.until,
            "saturated": self.saturated,
            "curve": self.curve(),
        }

    def _seen(self, end: int) -> Abundance:
        return Abundance.of(text.answer for text in self.texts[:end] if text.answer is not None)


def read_texts(prompt: str, batches: Sequence[Any], reader: Any) -> list[Text]:
    """The texts of stored batches, with what they say."""
    return [
        Text(one["path"], one["text"], one["ended"], reader.read(prompt, one["text"]))
        for batch in batches
        for one in batch["texts"]
    ]
