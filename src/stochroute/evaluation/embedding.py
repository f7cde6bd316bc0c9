"""Texts as points, by a small model that travels in a wheel or by any encoder, and groups of the same meaning."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_SHORT = 5  # words; NoveltyBench compares shorter texts by their words


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    name: str

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 (texts, width), every row of length 1; a text that has no token gives zeros."""
        ...


class WordLlamaEmbedder:
    """WordLlama (Miller 2024): averaged token vectors of 256 numbers, 16 MB inside the wheel, so no download."""

    name = "wordllama 256"

    def __init__(self) -> None:
        """Raises ImportError where the package is missing."""
        with _logging_untouched():
            import wordllama

            # it looks for its tokenizer in a folder of another name than the one it ships; the cache is pointed there
            home = Path(wordllama.__file__).parent
            self._model: Any = wordllama.WordLlama.load(cache_dir=home, disable_download=True)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        return _unit(self._model.embed(list(texts), norm=False)) if texts else np.zeros((0, 256), np.float32)


class EncoderEmbedder:
    """The mean of a transformers encoder's last hidden states (Reimers & Gurevych 2019, arXiv 1908.10084)."""

    def __init__(self, name: str, model: Any, tokenizer: Any, batch: int = 32):
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        import torch

        found = []
        with torch.no_grad():
            for first in range(0, len(texts), self._batch):
                batch = self._tokenizer(
                    list(texts[first : first + self._batch]), padding=True, truncation=True, return_tensors="pt"
                ).to(self._model.device)
                states = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                found.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).float().cpu().numpy())
        return _unit(np.concatenate(found))


Same = Callable[[int, int], bool]


def partition(count: int, same: Same) -> list[int]:
    """The group of each of `count` texts, numbered from 0: a text joins the first group whose first text says the same.

    This is NoveltyBench's partition (Zhang et al. 2025, arXiv 2504.05228).

    Args:
        same: whether texts i and j say the same, i being the later one.
    """
    groups: list[int] = []
    firsts: list[int] = []
    for i in range(count):
        group = next((g for g, first in enumerate(firsts) if same(i, first)), len(firsts))
        if group == len(firsts):
            firsts.append(i)
        groups.append(group)
    return groups


def same_by_embedding(texts: Sequence[str], vectors: np.ndarray, threshold: float) -> Same:
    """Says the same: a cosine of at least the threshold; of two texts of at most five words, half the words in common,
    as in NoveltyBench."""
    cosines = vectors @ vectors.T

    def same(i: int, j: int) -> bool:
        first, second = (text.lower().split() for text in (texts[i], texts[j]))
        longer = max(len(first), len(second))
        if longer <= _SHORT:
            return 2 * len(set(first) & set(second)) >= longer
        return bool(cosines[i, j] >= threshold)

    return same


class Entailment:
    """An NLI model: two texts say the same when each entails the other (Kuhn et al. 2023, arXiv 2302.09664)."""

    def __init__(self, name: str, model: Any, tokenizer: Any):
        """Raises ValueError when the model has no label called entailment."""
        labels = {label.lower(): int(index) for index, label in model.config.id2label.items()}
        if "entailment" not in labels:
            raise ValueError(
                f"NLI model {name} has the labels {', '.join(labels)}, none of them 'entailment': name a "
                f"model trained on natural language inference"
            )
        self.name = name
        self._label = labels["entailment"]
        self._model = model.eval()
        self._tokenizer = tokenizer

    def same(self, texts: Sequence[str]) -> Same:
        """Whether texts i and j entail each other."""
        return lambda i, j: self._entails(texts[i], texts[j]) and self._entails(texts[j], texts[i])

    def _entails(self, premise: str, hypothesis: str) -> bool:
        import torch

        batch = self._tokenizer(premise, hypothesis, truncation=True, return_tensors="pt").to(self._model.device)
        with torch.no_grad():
            return int(self._model(**batch).logits[0].argmax()) == self._label


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@contextmanager
def _logging_untouched() -> Iterator[None]:
    """wordllama sets up logging for the whole process when it is imported; that is not its to do."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
