"""Which answers say the same: compared as normalised text, by entailment both ways, or by nearness of embeddings.

Semantic entropy counts meanings, not wordings (Kuhn, Gal & Farquhar 2023, arXiv 2302.09664).
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from stochroute.uncertainty.datasets import normalise

Equivalence = Callable[[str, Sequence[str]], list[list[bool]]]
"""(question, n answers) -> (n × n) whether answer i says the same as answer j; symmetric, True on the diagonal."""


def same_text(question: str, answers: Sequence[str]) -> list[list[bool]]:
    """Equal after `normalise`: lower case, no punctuation, no articles."""
    plain = [normalise(answer) for answer in answers]
    return [[a == b for b in plain] for a in plain]


def mutual_entailment(name: str) -> Equivalence:
    """Answers are the same when each entails the other, by a natural-language-inference model of transformers.

    Args:
        name: a folder or hub name of a sequence classifier with a label that begins with "entail".

    Raises:
        OSError, ValueError: there is no such model, or it has no such label.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name)
    model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval()
    labels: dict[int, str] = model.config.id2label
    entails = next((index for index, label in labels.items() if label.lower().startswith("entail")), None)
    if entails is None:
        raise ValueError(f"{name}: none of its labels ({', '.join(labels.values())}) is entailment: name an NLI model")

    @torch.no_grad()
    def compare(question: str, answers: Sequence[str]) -> list[list[bool]]:
        whole = [f"{question} {answer}" for answer in answers]
        pairs = [(a, b) for a in whole for b in whole]
        inputs = tokenizer(
            [a for a, _ in pairs], [b for _, b in pairs], return_tensors="pt", padding=True, truncation=True
        )
        entailed = (model(**inputs).logits.argmax(-1) == entails).view(len(whole), len(whole))
        entailed |= torch.eye(len(whole), dtype=torch.bool)
        return cast(list[list[bool]], (entailed & entailed.T).tolist())

    return compare


def near_embeddings(name: str, threshold: float = 0.9) -> Equivalence:
    """Answers are the same when the cosine of their embeddings reaches the threshold: mean of the last hidden states.

    Args:
        name: a folder or hub name of an encoder of transformers.
        threshold: in (0, 1].

    Raises:
        OSError: there is no such model.
        ValueError: the threshold is outside its range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(
            f"threshold={threshold} must be in (0, 1]: it is the least cosine of answers that are the same"
        )
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name)
    model: Any = AutoModel.from_pretrained(name).eval()

    @torch.no_grad()
    def compare(question: str, answers: Sequence[str]) -> list[list[bool]]:
        whole = [f"{question} {answer}" for answer in answers]
        inputs = tokenizer(whole, return_tensors="pt", padding=True, truncation=True)
        mask = inputs["attention_mask"][..., None]
        states = model(**inputs).last_hidden_state
        means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        near = means @ means.T >= threshold
        near |= torch.eye(len(whole), dtype=torch.bool)
        return cast(list[list[bool]], near.tolist())

    return compare


def clusters(same: Sequence[Sequence[bool]]) -> list[int]:
    """The cluster of each answer, numbered from 0 as they come: an answer joins the first cluster whose first member
    says the same (the greedy rule of Kuhn et al., which needs no transitivity)."""
    firsts: list[int] = []
    found: list[int] = []
    for index in range(len(same)):
        own = next((number for number, first in enumerate(firsts) if same[index][first]), len(firsts))
        if own == len(firsts):
            firsts.append(index)
        found.append(own)
    return found
