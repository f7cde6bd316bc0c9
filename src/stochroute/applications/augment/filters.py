"""Which new texts are kept: by length, by likelihood under a judge, by the label that a classifier reads in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stochroute.generation.receipts import fingerprint


@dataclass(frozen=True)
class Filters:
    """Bounds on a new text; None leaves one out.

    Attributes:
        min_length, max_length: in characters.
        ended: whether a text must have come to its own end.
        max_nats: under the judge, per byte of the text.
        min_confidence: probability that the classifier gives its label; 0 asks only that the label is the row's.
    """

    min_length: int = 1
    max_length: int | None = None
    ended: bool = False
    max_nats: float | None = None
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.min_length < 1 or (self.max_length is not None and self.max_length < self.min_length):
            raise ValueError(
                f"lengths of {self.min_length} to {self.max_length} characters: give at least 1, and no maximum below "
                f"the minimum"
            )
        if self.max_nats is not None and not self.max_nats > 0:
            raise ValueError(f"max-nats {self.max_nats}: give a positive number of nats per byte")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min-confidence {self.min_confidence}: give a probability in [0, 1]")

    def by_form(self, text: str, ended: bool) -> str | None:
        """Why the text is dropped for its form; None when it is not."""
        if len(text) < self.min_length:
            return "too short"
        if self.max_length is not None and len(text) > self.max_length:
            return "too long"
        return "cut off" if self.ended and not ended else None


class Classifier(Protocol):
    """Reads labels in texts. Any object of this form will do, around scikit-learn for instance."""

    name: str
    labels: Sequence[Any]

    def predict(self, texts: Sequence[str]) -> tuple[Sequence[Any], Sequence[float]]:
        """The label of each text, one of `labels`, and its probability."""
        ...


class SequenceClassifier:
    """A transformers sequence classifier, its labels those in its config."""

    def __init__(self, name: str, model: Any, tokenizer: Any, batch: int = 32):
        self.name = f"{name} ({fingerprint(model)})"
        names = model.config.id2label
        self.labels = [names[index] for index in sorted(names)]
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch

    def predict(self, texts: Sequence[str]) -> tuple[Sequence[Any], Sequence[float]]:
        """See `Classifier.predict`."""
        import torch

        chosen: list[Any] = []
        sure: list[float] = []
        with torch.no_grad():
            for first in range(0, len(texts), self._batch):
                batch = self._tokenizer(
                    list(texts[first : first + self._batch]), padding=True, truncation=True, return_tensors="pt"
                ).to(self._model.device)
                probabilities = self._model(**batch).logits.float().softmax(-1)
                chosen += [self.labels[index] for index in probabilities.argmax(-1).tolist()]
                sure += probabilities.amax(-1).tolist()
        return chosen, sure


class Judge(Protocol):
    """See `stochroute.evaluation.judging.Judge`."""

    name: str
    fingerprint: str

    def nats(self, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """−ln p(text | prompt) of each pair."""
        ...


def label_index(classifier: Classifier, label: Any) -> int:
    """Which of the classifier's labels a row's label is: by value, by its name, or by its number.

    Raises:
        ValueError: none of them.
    """
    names = [str(known) for known in classifier.labels]
    if str(label) in names:
        return names.index(str(label))
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        return label
    raise ValueError(f"label {label!r} is unknown to the classifier {classifier.name}, which has {', '.join(names)}")


def by_judge(filters: Filters, judge: Judge, texts: Sequence[str]) -> list[str | None]:
    """Why each text is dropped by its likelihood, read without its prompt; None where it is not."""
    assert filters.max_nats is not None
    nats = judge.nats([""] * len(texts), texts)
    sizes = [len(text.encode()) for text in texts]
    return ["unlikely" if n / size > filters.max_nats else None for n, size in zip(nats, sizes, strict=True)]


def by_classifier(
    filters: Filters, classifier: Classifier, texts: Sequence[str], rows: Sequence[Mapping[str, Any]], label: str
) -> list[str | None]:
    """Why each text is dropped by the label read in it; None where it is its row's."""
    found, sure = classifier.predict(texts)
    reasons: list[str | None] = []
    for read, probability, row in zip(found, sure, rows, strict=True):
        if label_index(classifier, read) != label_index(classifier, row[label]):
            reasons.append("another label")
        else:
            reasons.append("unsure label" if probability < filters.min_confidence else None)
    return reasons
