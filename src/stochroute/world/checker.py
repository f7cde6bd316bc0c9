"""Reads a told story back into its plot and says whether it is coherent.

Strict: every sentence must be one of the world's, in order, up to the last character; whatever a sentence
says must agree with the sentences before it; and the plot that comes out must obey the world's rules.
"""

from __future__ import annotations

from dataclasses import dataclass

from stochroute.world.grammar import Grammar
from stochroute.world.plots import GENDERS, ROLES, WORLD, Plot
from stochroute.world.telling import grammar_for

EXCERPT = 40  # characters of an unknown sentence that a problem quotes


@dataclass(frozen=True)
class Verdict:
    """What the checker found.

    `coherent`: the text is a whole story of this world and nothing is wrong with it. `plot`: what it tells,
    None if it contradicts itself or leaves something out; a plot that breaks the rules is still a plot.
    `problems`: what is wrong, in words; empty if and only if coherent. `complete`: the text reaches the end
    of its last sentence.
    """

    coherent: bool
    plot: Plot | None
    problems: tuple[str, ...]
    complete: bool
    language: str
    form: str


def check(text: str, language: str | None = None, form: str | None = None) -> Verdict:
    """The verdict on this text, white space around it ignored.

    `language` ("en", "zh") and `form` ("story", "dialogue") are recognised when not given: Chinese by its
    characters, a dialogue by its lines. Raises ValueError for another language or form.
    """
    text = text.strip()
    if language is None:
        language = "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
    if form is None:
        form = "dialogue" if "\n" in text else "story"
    grammar = grammar_for(language, form)
    facts, problems = _read(grammar, text)
    plot = None
    if not problems:
        plot = Plot(**{role: facts[role] for role in ROLES})
        problems = WORLD.problems(plot)
    return Verdict(not problems, plot, tuple(problems), _ends_whole(grammar, text), language, form)


def _read(grammar: Grammar, text: str) -> tuple[dict[str, str], list[str]]:
    """(role -> value as first said, problems). Without problems every role has a value."""
    facts: dict[str, str] = {}
    problems: list[str] = []
    position = 0
    for step, beat in enumerate(grammar.beats):
        gap = grammar.separator if step else ""
        reading = grammar.read(beat, text, position + len(gap)) if text.startswith(gap, position) else None
        if reading is None and beat.optional:
            continue
        if reading is None:
            rest = text[position:].strip()[:EXCERPT]
            unknown = f"unknown sentence where the {beat.name} should be: {rest!r}"
            problems.append(unknown if rest else f"the text ends before its {beat.name}")
            return facts, problems
        position = reading.end
        for role, value in reading.facts:
            known = facts.setdefault(role, value)
            if known != value:
                problems.append(f"{role} is {known!r}, but the {beat.name} says {value!r}")
    gender = GENDERS[facts["hero"]]
    if facts.get("hero_gender", gender) != gender:
        problems.append(f"{facts['hero']!r} is {gender!r}, but the text says {facts['hero_gender']!r}")
    if position < len(text):
        problems.append(f"text after the end: {text[position:].strip()[:EXCERPT]!r}")
    return facts, problems


def _ends_whole(grammar: Grammar, text: str) -> bool:
    """Whether a whole sentence of the last beat stands at the very end of the text."""
    readings = (grammar.read(grammar.beats[-1], text, start) for start in range(len(text)))
    return any(reading is not None and reading.end == len(text) for reading in readings)
