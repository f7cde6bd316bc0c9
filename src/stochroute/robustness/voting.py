"""Several answers to one question become one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Label = int | str


@dataclass(frozen=True)
class Ballot:
    """What one run of the model answered.

    Attributes:
        id: what the run can be had again by, 16 hex digits: its path, or the key of its perturbed input; None for a
            clean run of the prompt as it is.
        label: the index of a choice, a normalised text, or "refused" or "answered".
        probabilities: of the choices, summing to 1; () where a text was written.
        text: what was written; "" where there were choices.
    """

    id: str | None
    label: Label
    probabilities: tuple[float, ...] = ()
    text: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Ballot":
        """The ballot from JSON types; TypeError or KeyError for anything else."""
        return cls(data["id"], data["label"], tuple(data["probabilities"]), data["text"])


def majority(ballots: Sequence[Ballot]) -> Label:
    """The label with the most ballots.

    Ties are broken by the mean probability of the label over all ballots; where texts were written, there are none,
    and the label that came first wins.

    Raises:
        ValueError: there are fewer than two ballots.
    """
    if len(ballots) < 2:
        raise ValueError(f"{len(ballots)} ballot is no vote: ask for at least two paths")
    counts = Counter(ballot.label for ballot in ballots)
    most = max(counts.values())
    tied = [label for label, count in counts.items() if count == most]  # in the order they came
    return max(tied, key=lambda label: sum(_probability(ballot, label) for ballot in ballots))


def _probability(ballot: Ballot, label: Label) -> float:
    return ballot.probabilities[label] if isinstance(label, int) and ballot.probabilities else 0.0
