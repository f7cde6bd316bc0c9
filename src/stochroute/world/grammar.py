"""One grammar both tells and reads: sentence templates with slots, filled to tell, matched to read.

A form (story or dialogue) is a sequence of beats; each beat offers several templates; each slot in a
template, such as `{goal}` or `{ending.past}`, stands for a role of the plot and knows the words of every
value that the role can take. A slot name with ^ at its end is the same slot with a capital letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from stochroute.world.plots import GENDERS, Plot, mix

SLOT = re.compile(r"{([a-z._]+\^?)}")


@dataclass(frozen=True)
class Slot:
    """A role of the plot and the words for each of its values: value -> words, unique within a slot."""

    role: str
    words: dict[str, str]

    @cached_property
    def values(self) -> dict[str, str]:
        """Words -> value."""
        return {words: value for value, words in self.words.items()}

    def capitalised(self) -> Slot:
        """The same slot at the start of a sentence."""
        return Slot(self.role, {value: words[0].upper() + words[1:] for value, words in self.words.items()})


@dataclass(frozen=True)
class Template:
    """A sentence with slots: literal text before, between and after them."""

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches every sentence that the template can say; one group a slot."""
        pattern = re.escape(self.literals[0])
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            longest_first = sorted(slot.values, key=len, reverse=True)
            pattern += f"({'|'.join(map(re.escape, longest_first))}){re.escape(literal)}"
        return re.compile(pattern)

    def fill(self, facts: dict[str, str]) -> str:
        """The sentence that says these facts (role -> value)."""
        words = (slot.words[facts[slot.role]] for slot in self.slots)
        return self.literals[0] + "".join(w + rest for w, rest in zip(words, self.literals[1:], strict=True))


@dataclass(frozen=True)
class Beat:
    """One step of a telling. An optional beat is left out in half of the tellings."""

    name: str
    templates: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True)
class Reading:
    """One sentence that was read: where it ends in the text, and its facts: (role, value) pairs."""

    end: int
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grammar:
    """All tellings of one language and form: beats in order, slots by name, what stands between sentences."""

    beats: tuple[Beat, ...]
    slots: dict[str, Slot]
    separator: str

    @cached_property
    def templates(self) -> dict[str, tuple[Template, ...]]:
        """Beat name -> its templates, parsed. Raises KeyError if one names a slot that is not in `slots`."""
        return {beat.name: tuple(map(self._parse, beat.templates)) for beat in self.beats}

    @cached_property
    def tellings(self) -> int:
        """In how many ways one plot can be told."""
        ways = 1
        for beat in self.beats:
            ways *= len(beat.templates) + beat.optional
        return ways

    def _parse(self, template: str) -> Template:
        parts = SLOT.split(template)  # literal, slot name, literal, slot name, …, literal
        slots = (
            self.slots[name[:-1]].capitalised() if name.endswith("^") else self.slots[name] for name in parts[1::2]
        )
        return Template(tuple(parts[::2]), tuple(slots))

    def render(self, plot: Plot, telling: int) -> str:
        """The plot in words; `telling` chooses the wording."""
        facts = vars(plot) | {"hero_gender": GENDERS[plot.hero]}
        sentences = []
        for step, beat in enumerate(self.beats):
            choice = mix(telling, step)
            if beat.optional and choice >> 32 & 1:
                continue
            templates = self.templates[beat.name]
            sentences.append(templates[(choice & 0xFFFFFFFF) % len(templates)].fill(facts))
        return self.separator.join(sentences)

    def read(self, beat: Beat, text: str, start: int) -> Reading | None:
        """The longest reading of a sentence of this beat at `start`, or None."""
        best = None
        for template in self.templates[beat.name]:
            found = template.pattern.match(text, start)
            if found and (best is None or found.end() > best.end):
                pairs = zip(template.slots, found.groups(), strict=True)
                best = Reading(found.end(), tuple((slot.role, slot.values[words]) for slot, words in pairs))
        return best
