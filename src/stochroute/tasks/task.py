"""What every task offers: who a sample is, whether it holds, and a score with a known ceiling."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

import numpy as np

from stochroute.tasks.occupancy import expected_distinct, variance_distinct
from stochroute.tasks.settings import Purpose, check_count, open_stream
from stochroute.tasks.training_set import IGNORED, TrainingSet
from stochroute.tasks.vocabulary import TokenSample, Vocabulary

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Score:
    """How a set of samples does. creativity ≤ unique ≤ coherence, always.

    Attributes:
        creativity: forms that are coherent and not memorised, each counted once, over all samples.
        coherence: coherent samples over all samples.
        memorised: samples whose form is in the training set, over the coherent samples; None if none is coherent.
        chance: what `memorised` would be for a perfect uniform sampler, which copies without knowing. A share above it
            is memorisation, a share at it is none.
        unique: different coherent forms, memorised or not, over all samples.
        samples: how many samples were scored.
    """

    creativity: float
    coherence: float
    memorised: float | None
    chance: float
    unique: float
    samples: int


class Task(ABC, Generic[Sample]):
    """A set of equally likely forms, some of them in a training set.

    A *form* is the identity of a sample: two samples of one form say the same thing. A *perfect uniform sampler* emits
    every form equally often, coherent always, and knows nothing of the training set; `sample` is one, and its expected
    creativity is the `ceiling`.
    """

    PUBLISHED_SAMPLES: ClassVar[int]  # how many samples the published score is over

    training_size: int
    seed: int

    @property
    @abstractmethod
    def number_of_forms(self) -> int:
        """How many forms there are, exactly."""

    @property
    @abstractmethod
    def training_forms(self) -> frozenset[Hashable]:
        """The forms in the training set, each once."""

    @abstractmethod
    def canonical(self, sample: Sample) -> Hashable | None:
        """The form of this sample; None if the sample is not coherent."""

    @abstractmethod
    def sample(self, count: int, seed: int) -> Sequence[Sample]:
        """`count` samples of the perfect uniform sampler; the same (count, seed) gives the same samples."""

    def coherent(self, sample: Sample) -> bool:
        """Whether the sample obeys every rule of the task, its length included."""
        return self.canonical(sample) is not None

    def memorised(self, sample: Sample) -> bool:
        """Whether the form of the sample is in the training set; False for an incoherent sample."""
        return self.canonical(sample) in self.training_forms

    @property
    def chance(self) -> float:
        """Share of all forms that the training set holds: what a perfect uniform sampler copies by chance."""
        return len(self.training_forms) / self.number_of_forms

    def score(self, samples: Iterable[Sample]) -> Score:
        """The score of these samples; ValueError if there are none."""
        forms = [self.canonical(sample) for sample in samples]
        if not forms:
            raise ValueError("samples=[] gives no score: pass at least one sample")
        coherent = [form for form in forms if form is not None]
        distinct = set(coherent)
        memorised = sum(form in self.training_forms for form in coherent)
        return Score(
            creativity=len(distinct - self.training_forms) / len(forms),
            coherence=len(coherent) / len(forms),
            memorised=memorised / len(coherent) if coherent else None,
            chance=self.chance,
            unique=len(distinct) / len(forms),
            samples=len(forms),
        )

    def ceiling(self, samples_scored: int) -> float:
        """Expected creativity of the perfect uniform sampler over so many samples: exact, for this training set.

        (M − T) (1 − (1 − 1/M)ⁿ) / n, with M forms, T of them in the training set, n samples.
        """
        check_count("samples_scored", samples_scored, 1, "give how many samples the score is over")
        unseen = self.number_of_forms - len(self.training_forms)
        return expected_distinct(self.number_of_forms, unseen, samples_scored) / samples_scored

    def spread(self, samples_scored: int) -> float:
        """Standard deviation of the perfect uniform sampler's creativity from one draw of samples to the next."""
        check_count("samples_scored", samples_scored, 1, "give how many samples the score is over")
        unseen = self.number_of_forms - len(self.training_forms)
        variance = variance_distinct(self.number_of_forms, unseen, samples_scored)
        return math.sqrt(max(0.0, variance)) / samples_scored


class TokenTask(Task[TokenSample]):
    """A task over token ids of its own.

    A training row is `start`, the body, `end`. A sample is what a model emits after the prompt (`prompts`), at most
    `sample_length` tokens, `end` among them; cut the prompt off before scoring.
    """

    prefix_tokens: int

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The token ids of this task."""

    @property
    @abstractmethod
    def body_length(self) -> int:
        """Tokens of a coherent sample before its end."""

    @abstractmethod
    def _draw_bodies(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """int64 (count, body_length): samples of the perfect uniform sampler without their ends."""

    @property
    def sample_length(self) -> int:
        """Tokens of a coherent sample with its end (max_new_tokens in `generate`)."""
        return self.body_length + 1

    def sample(self, count: int, seed: int) -> np.ndarray:
        """int64 (count, sample_length): samples of the perfect uniform sampler, from a stream of this seed alone."""
        check_count("count", count, 1, "ask for at least one sample")
        return self._ended(self._draw_bodies(open_stream(Purpose.SAMPLES, seed), count))

    def prompts(self, count: int, prefixes: np.ndarray | None = None) -> np.ndarray:
        """int64 (count, k + 1): what to generate from: `start` in every row, after its prefix if prefixes are given."""
        check_count("count", count, 1, "ask for at least one prompt")
        start = np.full((count, 1), self.vocabulary.start, dtype=np.int64)
        return start if prefixes is None else np.hstack([prefixes, start])

    def training_set(self) -> TrainingSet:
        """The training set, drawn afresh from the seed: the same at every call.

        Its examples are independent draws, so that a form may come twice, under two ids.
        """
        bodies = self._ended(self._training_bodies())
        prompt = np.full((len(bodies), 1), self.vocabulary.start, dtype=np.int64)
        return TrainingSet(
            tokens=np.hstack([prompt, bodies]),
            labels=np.hstack([np.full_like(prompt, IGNORED), bodies]),
            ids=np.arange(len(bodies)),
            prompt_length=1,
        )

    @cached_property
    def training_forms(self) -> frozenset[Hashable]:
        """The forms in the training set, each once."""
        return frozenset(map(self.canonical, self._ended(self._training_bodies())))

    def _training_bodies(self) -> np.ndarray:
        """int64 (number of whole samples in the training set, body_length)."""
        return self._draw_bodies(open_stream(Purpose.TRAINING, self.seed), self.training_size)

    def _ended(self, bodies: np.ndarray) -> np.ndarray:
        return np.pad(bodies, ((0, 0), (0, 1)), constant_values=self.vocabulary.end)

    def _check_training(self) -> None:
        check_count("training_size", self.training_size, 1, "give how many examples to train on")
        check_count("prefix_tokens", self.prefix_tokens, 0, "give how many ids to keep for prefixes, 0 for none")
        open_stream(Purpose.TRAINING, self.seed)
