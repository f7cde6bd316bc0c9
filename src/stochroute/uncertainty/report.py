"""What a run found: for each arm its accuracy and how well each score detects its errors, and what paths gain."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stochroute.uncertainty.answers import Answered
from stochroute.uncertainty.datasets import Question
from stochroute.uncertainty.detection import Estimate, Undefined, auroc, detect, gain
from stochroute.uncertainty.equivalence import Equivalence, same_text
from stochroute.uncertainty.scores import EPISTEMIC, scores_of

RIVALS = ("answer entropy", "single-pass entropy", "1 − p(max)", "token transmission")


def report(
    rows: Sequence[Answered],
    arms: Sequence[str],
    questions: Sequence[Question],
    equivalence: Equivalence = same_text,
    seed: int = 0,
) -> dict[str, Any]:
    """{"arms": {arm: {"accuracy", "undefined", "scores": {score: a Detection}}}, "gains": […]} as JSON types.

    "undefined" says why an arm has no AUROC, "" where it has. "gains" are differences of AUROC over the same questions:
    answer entropy and the epistemic scores of the first arm, against what every other arm has: the last of
    RIVALS only under dropout.

    Args:
        rows: every question answered by every arm.
        arms: their names, the one with paths first.
        questions: by index.
        equivalence: which answers mean the same.
        seed: of the bootstrap.
    """
    measured = {arm: Measured.of([row for row in rows if row.arm == arm], questions, equivalence) for arm in arms}
    gains = [
        {"arm": arms[0], "score": score, "against": other, "against_score": rival, "gain": asdict(found)}
        for other in arms[1:]
        for rival in RIVALS
        for score in ("answer entropy", *EPISTEMIC)
        if (found := measured[arms[0]].gain(score, measured[other], rival, seed)) is not None
    ]
    return {"arms": {arm: found.detections(seed) for arm, found in measured.items()}, "gains": gains}


@dataclass(frozen=True)
class Measured:
    """One arm over all questions, in their order.

    Attributes:
        wrong: whether each answer given is.
        scores: by name, one value a question.
    """

    wrong: list[bool]
    scores: dict[str, list[float]]

    @classmethod
    def of(
        cls, rows: Sequence[Answered], questions: Sequence[Question], equivalence: Equivalence = same_text
    ) -> "Measured":
        """The rows of one arm, scored."""
        ordered = sorted(rows, key=lambda row: row.index)
        scored = [scores_of(row, questions[row.index].text, equivalence) for row in ordered]
        return cls([row.wrong for row in ordered], {name: [values[name] for values in scored] for name in scored[0]})

    @property
    def accuracy(self) -> float:
        """Share of answers given that are right."""
        return 1 - sum(self.wrong) / len(self.wrong)

    @property
    def undefined(self) -> str:
        """Why there is no AUROC, "" where there is one."""
        try:
            auroc(self.wrong, [0.0] * len(self.wrong))
        except Undefined as error:
            return str(error)
        return ""

    def detections(self, seed: int) -> dict[str, Any]:
        """Accuracy, and for each score how well it detects what is wrong."""
        scores = (
            {} if self.undefined else {name: detect(self.wrong, v, seed).to_dict() for name, v in self.scores.items()}
        )
        return {"accuracy": self.accuracy, "undefined": self.undefined, "scores": scores}

    def gain(self, score: str, other: "Measured", rival: str, seed: int) -> Estimate | None:
        """AUROC of a score minus that of another arm's; None where one of them does not exist."""
        if self.undefined or other.undefined or score not in self.scores or rival not in other.scores:
            return None
        return gain(self.wrong, self.scores[score], other.wrong, other.scores[rival], seed)
