"""Exact checkers: what a text says, read by rule and not by opinion."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stochroute.world import check

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_MARKED = re.compile(r"(?:####|ANSWER:|[Aa]nswer is:?)\s*(-?\$?\d[\d,]*(?:\.\d+)?)")


@dataclass(frozen=True)
class Reading:
    """What a checker found.

    Attributes:
        coherent: whether the text is one that can be read at all.
        correct: whether it is right.
        identity: what it says; equal for two texts that say the same. None where nothing could be read.
    """

    coherent: bool
    correct: bool
    identity: str | None


class Checker(Protocol):
    """Reads the text that continues a prompt."""

    name: str

    def read(self, prompt_index: int, prompt: str, text: str) -> Reading:
        """The reading of `text`, which continues `prompt`."""
        ...


class StoryWorld:
    """The story world's own checker: coherent and correct are one, and a plot is an identity."""

    name = "story world"

    def read(self, prompt_index: int, prompt: str, text: str) -> Reading:
        """The plot of prompt and text together."""
        verdict = check(prompt + text)
        identity = str(verdict.plot) if verdict.coherent else None
        return Reading(verdict.coherent, verdict.coherent, identity)


class Answers:
    """Answers that are numbers, as in GSM8K (Cobbe et al. 2021): the marked number, or else the last one."""

    name = "answers"

    def __init__(self, expected: Sequence[str]):
        """expected: the right answer of each prompt, or a worked solution that ends in one.

        Raises ValueError for an answer without a number.
        """
        self._expected = [final_number(answer) for answer in expected]
        missing = next((i for i, number in enumerate(self._expected, 1) if number is None), None)
        if missing is not None:
            raise ValueError(f"the answer of prompt {missing} holds no number: {expected[missing - 1][:60]!r}")

    def read(self, prompt_index: int, prompt: str, text: str) -> Reading:
        """The final number of the text."""
        number = final_number(text)
        return Reading(number is not None, number == self._expected[prompt_index], number)


def final_number(text: str) -> str | None:
    """The number after the last mark ("####", "ANSWER:", "answer is"), else the last number; written without commas,
    currency or needless zeros. None where there is none."""
    found = _MARKED.findall(text) or _NUMBER.findall(text)
    if not found:
        return None
    plain = found[-1].replace(",", "").replace("$", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
