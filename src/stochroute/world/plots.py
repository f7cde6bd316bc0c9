"""What can happen in the story world: its plots, the rules they obey and their exact number.

A plot says who (hero and helper), where, what the hero wishes, what stands in the way, how it is solved,
how it ends and what is learned. Three rules make it coherent: the obstacle belongs to the same kind of wish
as the goal; the solution fits the obstacle; the ending follows, its deed from the goal, its lesson from the
manner of the solution.

Plots are numbered 0 … N − 1 without gaps, so that drawing one is drawing an integer:

    plot = plot_at(123_456)
    number_of(plot) == 123_456
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

MASK = (1 << 64) - 1

# Two casts, so that nobody is mistaken for somebody else, with the pronoun each name takes; animals; places.
# The words themselves stand in english.py and chinese.py.
HEROES = {
    **dict.fromkeys(("Mira", "Luna", "Nina", "Rosa", "Ella", "Ida"), "she"),
    **dict.fromkeys(("Otto", "Leo", "Hugo", "Tom", "Max", "Finn"), "he"),
}
HELPERS = {
    **dict.fromkeys(("Zoe", "Lina", "Anna", "Dora", "Vera", "Ruby"), "she"),
    **dict.fromkeys(("Paul", "Emil", "Jack", "Carl", "Ivan", "Sam"), "he"),
}
GENDERS = HEROES | HELPERS
KINDS = (
    "fox", "bear", "rabbit", "mouse", "hedgehog", "otter",
    "badger", "squirrel", "cat", "pony", "elephant", "penguin",
)  # fmt: skip
PLACES = (
    "valley", "river", "sea", "village", "hill", "forest",
    "lake", "island", "farm", "mountain", "meadow", "mill",
)  # fmt: skip

# Manner of a solution -> the lessons that follow from it.
LESSONS = {
    "kindness": ("doors", "share"),
    "patience": ("time", "steps"),
    "cleverness": ("idea", "think"),
    "courage": ("fear", "heart"),
    "teamwork": ("two", "half"),
}


@dataclass(frozen=True)
class Branch:
    """One kind of wish: goal -> endings that follow from it; obstacle -> {solution that fits: its manner}."""

    goals: dict[str, tuple[str, ...]]
    obstacles: dict[str, dict[str, str]]


BRANCHES = (
    Branch(  # to get somewhere
        goals={
            "lighthouse": ("ships", "lamp"),
            "peak": ("view", "flag"),
            "garden": ("flowers", "seed"),
            "owl": ("tea", "questions"),
            "waterfall": ("swim", "bottle"),
        },
        obstacles={
            "bridge": {"rope": "cleverness", "planks": "patience", "beavers": "kindness"},
            "fog": {"sun": "patience", "bells": "cleverness", "through": "courage"},
            "goose": {"bread": "kindness", "creep": "cleverness", "stare": "courage"},
            "tree": {"push": "teamwork", "climb": "courage", "saw": "patience"},
        },
    ),
    Branch(  # to make something
        goals={
            "cake": ("feast", "candle"),
            "boat": ("sail", "name"),
            "blanket": ("sleep", "gift"),
            "picture": ("wall", "neighbours"),
            "pumpkin": ("soup", "prize"),
        },
        obstacles={
            "tools": {"borrow": "kindness", "sticks": "cleverness", "search": "patience"},
            "storm": {"again": "patience", "side": "teamwork", "tent": "cleverness"},
            "skill": {"book": "cleverness", "teacher": "kindness", "practice": "patience"},
            "heavy": {"halves": "teamwork", "lift": "teamwork", "wheel": "cleverness"},
        },
    ),
    Branch(  # to find something
        goals={
            "bell": ("ring", "door"),
            "key": ("secret", "string"),
            "kite": ("clouds", "children"),
            "box": ("dance", "return"),
            "map": ("chest", "bed"),
        },
        obstacles={
            "well": {"bucket": "cleverness", "descend": "courage", "frog": "kindness"},
            "dragon": {"pillow": "kindness", "feather": "cleverness", "walk": "courage"},
            "thorns": {"shoulders": "teamwork", "stick": "cleverness", "wind": "patience"},
            "dark": {"mirror": "cleverness", "step": "courage", "inch": "patience"},
        },
    ),
    Branch(  # to show something
        goals={
            "sing": ("three", "choir"),
            "party": ("midnight", "partner"),
            "joke": ("laugh", "kiss"),
            "drum": ("front", "drumming"),
            "play": ("king", "bow"),
        },
        obstacles={
            "crow": {"invite": "kindness", "join": "courage", "away": "patience"},
            "fright": {"breath": "courage", "rehearse": "patience", "stage": "teamwork"},
            "room": {"boxes": "cleverness", "everyone": "kindness", "free": "patience"},
            "costume": {"leaves": "cleverness", "stitch": "patience", "ends": "teamwork"},
        },
    ),
)


@dataclass(frozen=True)
class Plot:
    """Everything that a story tells, and nothing about how. All fields are keys of the vocabulary."""

    hero: str
    hero_kind: str
    helper: str
    helper_kind: str
    place: str
    goal: str
    obstacle: str
    solution: str
    ending: str
    lesson: str

    @property
    def thread(self) -> tuple[str, str, str, str, str]:
        """(goal, obstacle, solution, ending, lesson): what happens, whoever it happens to and wherever."""
        return (self.goal, self.obstacle, self.solution, self.ending, self.lesson)


ROLES = tuple(field.name for field in fields(Plot))
THREAD = ROLES[5:]  # what is bound by rules: goal, obstacle, solution, ending, lesson


@dataclass(frozen=True)
class World:
    """A vocabulary and its rules. The default one is `WORLD`; a smaller one can be counted by hand.

    All are distinct keys; no name is both a hero's and a helper's.
    """

    heroes: tuple[str, ...]
    helpers: tuple[str, ...]
    kinds: tuple[str, ...]
    places: tuple[str, ...]
    branches: tuple[Branch, ...]
    lessons: dict[str, tuple[str, ...]]

    @cached_property
    def cast(self) -> dict[str, tuple[str, ...]]:
        """What may be chosen freely: role -> its keys."""
        return {
            "hero": self.heroes,
            "hero_kind": self.kinds,
            "helper": self.helpers,
            "helper_kind": self.kinds,
            "place": self.places,
        }

    @cached_property
    def threads(self) -> tuple[tuple[str, str, str, str, str], ...]:
        """All coherent (goal, obstacle, solution, ending, lesson), in a fixed order."""
        return tuple(
            (goal, obstacle, solution, ending, lesson)
            for branch in self.branches
            for goal, endings in branch.goals.items()
            for obstacle, solutions in branch.obstacles.items()
            for solution, manner in solutions.items()
            for ending in endings
            for lesson in self.lessons[manner]
        )

    @cached_property
    def manners(self) -> dict[tuple[str, str], str]:
        """(obstacle, solution that fits it) -> the manner of the solution."""
        return {
            (obstacle, solution): manner
            for branch in self.branches
            for obstacle, solutions in branch.obstacles.items()
            for solution, manner in solutions.items()
        }

    @cached_property
    def number_of_plots(self) -> int:
        """The exact number of coherent plots."""
        who = len(self.heroes) * len(self.kinds) * len(self.helpers) * len(self.kinds)
        return who * len(self.places) * len(self.threads)

    def plot_at(self, number: int) -> Plot:
        """The plot with this number. Raises IndexError outside 0 … number_of_plots − 1."""
        if not 0 <= number < self.number_of_plots:
            raise IndexError(f"plot number {number} is outside 0 … {self.number_of_plots - 1}")
        number, thread = divmod(number, len(self.threads))
        values = dict(zip(THREAD, self.threads[thread], strict=True))
        for role, keys in reversed(self.cast.items()):
            number, index = divmod(number, len(keys))
            values[role] = keys[index]
        return Plot(**values)

    def number_of(self, plot: Plot) -> int:
        """The number of this plot. Raises ValueError, naming what does not fit, if it is not coherent."""
        if problems := self.problems(plot):
            raise ValueError(f"not a plot of this world: {'; '.join(problems)}")
        number = 0
        for role, keys in self.cast.items():
            number = number * len(keys) + keys.index(getattr(plot, role))
        return number * len(self.threads) + self.threads.index(plot.thread)

    def problems(self, plot: Plot) -> tuple[str, ...]:
        """What is wrong with this plot, in words; empty if it is coherent."""
        found = []
        for role, keys in self.cast.items():
            if getattr(plot, role) not in keys:
                found.append(f"{role} {getattr(plot, role)!r} is unknown")
        branch = next((branch for branch in self.branches if plot.goal in branch.goals), None)
        if branch is None:
            return (*found, f"goal {plot.goal!r} is unknown")
        if plot.obstacle not in branch.obstacles:
            found.append(f"obstacle {plot.obstacle!r} does not stand in the way of goal {plot.goal!r}")
        if (plot.obstacle, plot.solution) not in self.manners:
            found.append(f"solution {plot.solution!r} does not fit obstacle {plot.obstacle!r}")
        if plot.ending not in branch.goals[plot.goal]:
            found.append(f"ending {plot.ending!r} does not follow from goal {plot.goal!r}")
        manner = next((m for (_, solution), m in self.manners.items() if solution == plot.solution), "")
        if plot.lesson not in self.lessons.get(manner, ()):
            found.append(f"lesson {plot.lesson!r} does not follow from solution {plot.solution!r}")
        return tuple(found)


WORLD = World(tuple(HEROES), tuple(HELPERS), KINDS, PLACES, BRANCHES, LESSONS)


def mix(*words: int) -> int:
    """A 64-bit integer mixed from these integers (the finaliser of splitmix64, chained): a pure function."""
    state = 0x9E3779B97F4A7C15
    for word in words:
        state = (state ^ (word & MASK)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state + 0x9E3779B97F4A7C15) & MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state


def number_of_plots() -> int:
    """How many coherent plots the story world has, exactly."""
    return WORLD.number_of_plots


def plot_at(number: int) -> Plot:
    """The plot with this number, 0 … number_of_plots() − 1. Raises IndexError outside."""
    return WORLD.plot_at(number)


def number_of(plot: Plot) -> int:
    """The number of this plot, the inverse of `plot_at`. Raises ValueError if the plot is not coherent."""
    return WORLD.number_of(plot)


def draw_plot(seed: int, index: int) -> Plot:
    """The index-th plot of this seed: uniform over all plots, the same on every machine."""
    return WORLD.plot_at(mix(seed, index) % WORLD.number_of_plots)
