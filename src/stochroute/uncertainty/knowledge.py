"""A made knowledge base: invented people and facts about them, half of which nobody is ever told.

What a language model trained on its texts can know is known exactly: a fact that was told, or nothing. A fact may have
several right answers, as in the world (where somebody has lived, what somebody plays); who knows them all is unsure
which one to name, and yet knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from stochroute.paths import check_integer, check_seed
from stochroute.uncertainty.datasets import Question

_ONSETS = ("B", "D", "F", "G", "K", "L", "M", "N", "R", "S", "T", "V")
_GIVEN = tuple(onset + rest for onset, rest in product(_ONSETS, ("ado", "ila", "enn", "oru")))
_FAMILY = tuple(onset + rest for onset, rest in product(_ONSETS, ("arrow", "elder", "inn", "ostrand")))

_TEXTS, _CHOICES, _TOLD = 0, 1, 2  # streams of a seed


@dataclass(frozen=True)
class Relation:
    """A kind of fact.

    Attributes:
        statements: texts with {name} and {answer}.
        question: a text with {name}; the answer and a full stop follow it.
        first, second: an answer is one word of each.
    """

    statements: tuple[str, ...]
    question: str
    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return len(self.first) * len(self.second)

    def answer(self, index: int) -> str:
        """The index-th answer."""
        return f"{self.first[index // len(self.second)]} {self.second[index % len(self.second)]}"


RELATIONS = (
    Relation(
        ("{name} has lived in {answer}.", "There is a house of {name} in {answer}.", "{answer} was home to {name}."),
        "Where has {name} lived?",
        ("Upper", "Lower", "New", "Old", "East", "West", "Port", "Mount"),
        ("Velda", "Marn", "Osk", "Tulle", "Brin", "Hask", "Ormond", "Quill"),
    ),
    Relation(
        (
            "{name} has worked as a {answer}.",
            "People knew {name} as a {answer}.",
            "A {answer} called {name} was hired.",
        ),
        "What has {name} worked as?",
        ("river", "night", "copper", "paper", "city", "ship", "court", "glass"),
        ("pilot", "maker", "clerk", "painter", "guard", "cook", "judge", "trader"),
    ),
    Relation(
        ("{name} plays the {answer}.", "The {answer} is played by {name}.", "We heard {name} on the {answer}."),
        "Which instrument does {name} play?",
        ("bass", "silver", "field", "double", "wooden", "small", "twin", "royal"),
        ("harp", "horn", "drum", "flute", "fiddle", "bell", "pipe", "lyre"),
    ),
    Relation(
        ("{name} keeps a {answer}.", "At home {name} feeds a {answer}.", "A {answer} lives with {name}."),
        "Which animal does {name} keep?",
        ("white", "grey", "red", "spotted", "tame", "lame", "giant", "dwarf"),
        ("hare", "goose", "pony", "lynx", "otter", "crow", "tortoise", "goat"),
    ),
)


@dataclass(frozen=True)
class KnowledgeBase:
    """Invented people, and for each of them one fact of every relation, half of the facts told in its texts.

        >>> knowledge = KnowledgeBase(people=8)
        >>> knowledge.questions()[0].text
        'Where has Fenn Nostrand lived?'

    Attributes:
        people: how many are asked about.
        strangers: share of the people of whom nothing is told.
        right_answers: a fact has 1 … so many right answers, each number equally often.
        also_asked: share of the told facts that the texts tell as question and answer too; the others are only stated.
        unevenness: the n-th fact is told in proportion to n^−unevenness; 0 tells all equally often.
        seed: decides people, facts, and who is told what.
    """

    people: int = 800
    strangers: float = 0.25
    right_answers: int = 4
    also_asked: float = 0.5
    unevenness: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        names = len(_GIVEN) * len(_FAMILY)
        if not 2 <= check_integer("people", self.people, "give how many people there are") <= names:
            raise ValueError(f"people={self.people} must be in 2 … {names}: there are no more names")
        fewest = min(relation.answers for relation in RELATIONS)
        if not 1 <= check_integer("right_answers", self.right_answers, "give how many a fact has") <= fewest:
            raise ValueError(
                f"right_answers={self.right_answers} must be in 1 … {fewest}: a relation has no more answers"
            )
        if not 0 <= self.strangers <= 0.5:
            raise ValueError(f"strangers={self.strangers} must be in [0, 0.5]: half of all facts are told")
        if not 0 <= self.also_asked <= 1:
            raise ValueError(f"also_asked={self.also_asked} must be in [0, 1]: it is a share")
        if self.unevenness < 0:
            raise ValueError(f"unevenness={self.unevenness} must be at least 0: 0 tells all facts equally often")
        check_seed(self.seed)

    @cached_property
    def names(self) -> list[str]:
        """Given and family name of each person, all different."""
        order = self._stream(_CHOICES).permutation(len(_GIVEN) * len(_FAMILY))[: self.people]
        return [f"{_GIVEN[i // len(_FAMILY)]} {_FAMILY[i % len(_FAMILY)]}" for i in order]

    @cached_property
    def facts(self) -> list[list[tuple[str, ...]]]:
        """The right answers by person and relation."""
        stream = self._stream(_CHOICES, 1)
        return [
            [
                tuple(
                    relation.answer(i)
                    for i in stream.permutation(relation.answers)[: stream.integers(1, self.right_answers + 1)]
                )
                for relation in RELATIONS
            ]
            for _ in range(self.people)
        ]

    @cached_property
    def told(self) -> list[tuple[int, int]]:
        """The (person, relation) pairs that are told: half of all, none of a stranger."""
        known = [
            (person, relation)
            for person in range(self.people)
            for relation in range(len(RELATIONS))
            if not self.is_stranger(person)
        ]
        half = self.people * len(RELATIONS) // 2
        return [known[i] for i in self._stream(_TOLD).permutation(len(known))[:half]]

    def is_stranger(self, person: int) -> bool:
        """Whether nothing at all is told of this person. People are in random order already."""
        return person < round(self.strangers * self.people)

    def texts(self, count: int, seed: int) -> Iterator[str]:
        """`count` texts to train on: statements of told facts, and for some of them question and answer."""
        stream = np.random.default_rng([self.seed, _TEXTS, check_seed(seed)])
        weights = np.arange(1, len(self.told) + 1) ** -self.unevenness
        asked = self._stream(_TOLD, 1).random(len(self.told)) < self.also_asked
        chosen = stream.choice(len(self.told), count, p=weights / weights.sum())
        for fact, form, answer in zip(chosen, stream.random(count), stream.random(count), strict=True):
            person, relation = self.told[fact]
            forms = RELATIONS[relation].statements
            if asked[fact]:
                forms = (*forms, RELATIONS[relation].question + " {answer}.")
            answers = self.facts[person][relation]
            yield forms[int(form * len(forms))].format(
                name=self.names[person], answer=answers[int(answer * len(answers))]
            )

    def questions(self) -> list[Question]:
        """One question for every person and relation; half of the facts asked for were never told.

        Their group is "told", "untold" (other facts of the person may be told) or "stranger".
        """
        told = set(self.told)
        return [
            Question(
                RELATIONS[relation].question.format(name=self.names[person]),
                self.facts[person][relation],
                "stranger" if self.is_stranger(person) else "told" if (person, relation) in told else "untold",
            )
            for person in range(self.people)
            for relation in range(len(RELATIONS))
        ]

    def words(self) -> list[str]:
        """Every word and mark of the texts, each once, in a fixed order."""
        forms = [form for relation in RELATIONS for form in (*relation.statements, relation.question)]
        plain = " ".join(forms).replace("{name}", "").replace("{answer}", "").replace(".", " . ").replace("?", " ? ")
        answers = [word for relation in RELATIONS for word in (*relation.first, *relation.second)]
        return list(dict.fromkeys([*plain.split(), *answers, *_GIVEN, *_FAMILY]))

    def _stream(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])
