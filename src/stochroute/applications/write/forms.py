"""Forms of text: what the steps are, where a text of the form ends, and what is wrong with one that is none.

A form counts lines, characters and sentences; whether a text is a good one is not its business.
"""

import re
from dataclasses import dataclass
from typing import Protocol

# a sentence, with the quotation marks or brackets that close after it and the white space before it
_SENTENCE = re.compile(r"""\s*\S.*?(?:[.!?…]+["'”’)\]]*(?=\s|$)|[。！？…]+[”’」』）]*)""", re.DOTALL)
_LINE = re.compile(r"[^\S\n]*\n*[^\n]+\n?")
# a line of classical verse ends with a sign or with the line of print
_VERSE = re.compile(r"\s*[^，。！？；、,.!?;\n]+(?:[，。！？；、,.!?;]\s*\n?|\n|$)")
_HAN = re.compile(r"[\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_SIGNS = re.compile(r"[\s，。！？；、,.!?;]")

_LONGEST_LINE = 80  # characters of a line of free verse; a longer one is prose


class Form(Protocol):
    """What a text has to be. `whole` is the opening and all that continues it.

    Attributes:
        name: as on the command line.
        steps: how many steps a text has, None for any number.
    """

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int | None: ...

    def parts(self, whole: str) -> list[str]:
        """The steps of the text, the last of them perhaps unfinished; joined, they are the text up to its end."""
        ...

    def problems(self, whole: str, finished: bool) -> tuple[str, ...]:
        """What breaks the form's rules, in words; a text that is not finished may still lack steps."""
        ...


@dataclass(frozen=True)
class Story:
    """Whole sentences, however many. A step is a sentence."""

    name: str = "story"
    steps: int | None = None

    def parts(self, whole: str) -> list[str]:
        """The whole sentences; what follows the last one is left out."""
        return _matches(_SENTENCE, whole)

    def problems(self, whole: str, finished: bool) -> tuple[str, ...]:
        """A finished story has at least two sentences."""
        count = len(self.parts(whole))
        if count < (2 if finished else 1):
            return (f"has {count} whole sentence{'s' * (count != 1)}",)
        return ()


@dataclass(frozen=True)
class Poem:
    """Free verse: so many lines, none of them empty or longer than 80 characters. A step is a line."""

    lines: int = 4
    name: str = "poem"

    def __post_init__(self) -> None:
        if self.lines < 2:
            raise ValueError(f"lines={self.lines}: a poem has at least 2 lines")

    @property
    def steps(self) -> int | None:
        """The number of lines."""
        return self.lines

    def parts(self, whole: str) -> list[str]:
        """The lines with their line breaks."""
        return _matches(_LINE, whole)[: self.lines]

    def problems(self, whole: str, finished: bool) -> tuple[str, ...]:
        """The number of lines, and lines that are prose."""
        lines = [part.strip() for part in self.parts(whole)]
        found: list[str] = []
        if finished and len(lines) != self.lines:
            found.append(f"has {len(lines)} lines, not {self.lines}")
        found += [
            f"line {i} has {len(line)} characters" for i, line in enumerate(lines, 1) if len(line) > _LONGEST_LINE
        ]
        return tuple(found)


@dataclass(frozen=True)
class Quatrain:
    """A Chinese quatrain (绝句): four lines of exactly so many Han characters. A step is a line.

    Rhyme and tones are not checked.
    """

    characters: int
    name: str

    steps: int | None = 4

    def parts(self, whole: str) -> list[str]:
        """The lines with the signs that end them."""
        return _matches(_VERSE, whole)[:4]

    def problems(self, whole: str, finished: bool) -> tuple[str, ...]:
        """The number of lines, the number of characters in each, and what is no Han character."""
        parts = self.parts(whole)
        lines = [_SIGNS.sub("", part) for part in parts]
        found: list[str] = []
        if finished and len(lines) != 4:
            found.append(f"has {len(lines)} line{'s' * (len(lines) != 1)}, not 4")
        for number, line in enumerate(lines, 1):
            foreign = _HAN.sub("", line)
            if foreign:
                found.append(f"line {number} holds {foreign[:12]!r}, which is not Chinese")
            elif len(line) != self.characters:
                found.append(f"line {number} has {len(line)} characters, not {self.characters}")
        return tuple(found)


FORMS: dict[str, Form] = {
    "story": Story(),
    "poem": Poem(),
    "五绝": Quatrain(5, "五绝"),
    "七绝": Quatrain(7, "七绝"),
}
_OTHER_NAMES = {"wujue": "五绝", "qijue": "七绝", "五絕": "五绝", "七絕": "七绝"}


def form_named(name: str, lines: int | None = None) -> Form:
    """The form of this name: story, poem, 五绝 (or wujue), 七绝 (or qijue).

    Args:
        lines: of a poem; None for 4.

    Raises:
        ValueError: there is no such form, or it has no number of lines to choose.
    """
    name = _OTHER_NAMES.get(name, name)
    if name not in FORMS:
        raise ValueError(f"form {name!r} is unknown: choose one of {', '.join(FORMS)} (or {', '.join(_OTHER_NAMES)})")
    if lines is None:
        return FORMS[name]
    if name != "poem":
        raise ValueError(f"lines={lines} has no effect on the form {name}: only a poem has as many as one likes")
    return Poem(lines)


def cut(form: Form, opening: str, text: str, most: int | None = None) -> str:
    """What of `text` continues the opening within the form: `most` steps at most, the one that the opening has begun
    counted; None for all.
    """
    whole = opening + text
    begun = len(_done(form, opening))
    parts = form.parts(whole) if most is None else form.parts(whole)[: begun + most]
    kept = "".join(parts)
    return kept[len(opening) :] if len(kept) > len(opening) else ""


def has_ended(form: Form, opening: str, text: str, most: int | None = None) -> bool:
    """Whether something stands after the last step that `cut` keeps, so that no more text can change it."""
    limit = form.steps if most is None else len(_done(form, opening)) + most
    if limit is None:
        return False
    whole = opening + text
    parts = form.parts(whole)
    return len(parts) >= limit and len("".join(parts[:limit]).rstrip()) < len(whole.rstrip())


def _done(form: Form, opening: str) -> list[str]:
    """The steps that the opening has finished: those that more text does not change."""
    parts = form.parts(opening)
    longer = form.parts(opening + " 字a")[: len(parts)]
    same = [part.rstrip() for part in longer] == [part.rstrip() for part in parts]
    return parts if same else parts[:-1]


def _matches(pattern: re.Pattern[str], text: str) -> list[str]:
    """What matches one after another from the beginning, up to the first place where nothing does."""
    found: list[str] = []
    place = 0
    while match := pattern.match(text, place):
        found.append(match.group())
        place = match.end()
    return found
