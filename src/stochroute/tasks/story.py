"""Story: the story world as a task, in text. A sample is what the checker reads in it."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from stochroute.paths import check_seed
from stochroute.tasks.settings import Purpose, check_count
from stochroute.tasks.task import Task
from stochroute.world import FORMS, LANGUAGES, Plot, check, draw_plot, draw_text, number_of_plots
from stochroute.world.plots import mix


@dataclass(frozen=True)
class Story(Task[str]):
    """Tell a story of the story world; its identity is its plot, in whatever words or language.

    Attributes:
        mixture: (language, form) of the texts, in turn; a sample in any other is incoherent. The embedded model's
            mixture, `stochroute.embedded.texts.MIXTURE`, gives its training texts.
        training_size: texts in the training set, plots and wordings drawn independently and uniformly.
        seed: of the training set.
    """

    PUBLISHED_SAMPLES: ClassVar[int] = 1_024

    mixture: tuple[tuple[str, str], ...] = (("en", "story"),)
    training_size: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.mixture:
            raise ValueError("mixture=() tells nothing: give at least one (language, form), such as ('en', 'story')")
        for language, form in self.mixture:
            if language not in LANGUAGES or form not in FORMS:
                raise ValueError(
                    f"mixture names {(language, form)!r}: "
                    f"choose a language of {', '.join(LANGUAGES)} and a form of {', '.join(FORMS)}"
                )
        check_count("training_size", self.training_size, 1, "give how many texts to train on")
        check_seed(self.seed)

    @property
    def number_of_forms(self) -> int:
        """The plots of the story world."""
        return number_of_plots()

    @cached_property
    def training_forms(self) -> frozenset[Hashable]:
        """The plots of the training texts."""
        return frozenset(draw_plot(self.seed, index) for index in range(self.training_size))

    def canonical(self, sample: str) -> Plot | None:
        """The plot; None unless the text is a whole story without a flaw, in a language and form of the mixture."""
        verdict = check(sample)
        known = (verdict.language, verdict.form) in self.mixture
        return verdict.plot if verdict.coherent and known else None

    def sample(self, count: int, seed: int) -> list[str]:
        """`count` texts of plots drawn uniformly, from a stream of this seed alone."""
        check_count("count", count, 1, "ask for at least one sample")
        return self._texts(mix(check_seed(seed), Purpose.SAMPLES), count)

    def training_texts(self) -> list[str]:
        """The training set, text i with id i: the same at every call."""
        return self._texts(self.seed, self.training_size)

    def _texts(self, seed: int, count: int) -> list[str]:
        return [draw_text(seed, index, *self.mixture[index % len(self.mixture)]) for index in range(count)]
