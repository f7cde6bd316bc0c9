"""What may stand for what: keys beside keys, look-alike letters, words of one meaning, names of one kind.

    tables = Tables()                                   # a small set of this project's own
    tables = read_tables("textattack_lists.json")       # with the lists of a file in place of its own

A file is one JSON object. Its keys are those of TextAttack's own lists (textattack/shared/data.py), and two more:

    EXTENSION_MAP      {"can't": "cannot", …}; read both ways
    MORPHONYM_LS       [["延", "诞", "蜒"], …], Chinese characters that look or sound alike
    PERSON_NAMES       {"first": ["Michael", …], …}
    NAMED_ENTITIES     {"country": ["China", …], …}
    SYNONYMS           [["small", "little"], …]
    HOMOGLYPHS         {"a": "аɑ", …}
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Alternatives = Mapping[str, tuple[str, ...]]

_UNUSED = ("CHN_STOPWORD",)  # of TextAttack's lists: words to be left alone, which no perturbation here needs

# letters that most fonts draw alike: Cyrillic, Greek, Armenian and phonetic ones
_HOMOGLYPHS = {
    "a": "аɑ", "c": "сϲ", "d": "ԁ", "e": "еҽ", "g": "ɡ", "h": "һ", "i": "і", "j": "јϳ", "l": "ӏ", "n": "ո", "o": "оο",
    "p": "рρ", "q": "ԛ", "s": "ѕ", "u": "սυ", "v": "νѵ", "w": "ԝ", "x": "хҳ", "y": "уү",
    "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "J": "Ј", "K": "КΚ", "M": "МΜ", "N": "Ν",
    "O": "ОΟ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "ҮΥ", "Z": "Ζ",
}  # fmt: skip

_SYNONYMS = (
    "big large huge", "small little tiny", "old ancient", "new fresh", "happy glad cheerful", "sad unhappy gloomy",
    "good fine great", "bad poor awful", "fast quick rapid", "slow sluggish", "cold chilly icy", "warm heated",
    "dark dim", "bright shiny", "quiet silent calm", "loud noisy", "angry furious cross", "clever smart wise",
    "brave bold fearless", "strange odd curious", "hard difficult tough", "easy simple", "wide broad", "deep profound",
    "wanted wished hoped", "lived dwelt resided", "decided chose resolved", "learned discovered", "called named",
    "said stated remarked", "met encountered", "saw noticed spotted", "found located", "made built created",
    "gave offered", "took grabbed", "walked strolled", "ran rushed", "began started", "ended finished", "helped aided",
    "asked requested", "showed displayed", "hid concealed", "kept held", "friend companion pal", "idea thought plan",
    "problem trouble issue", "road street lane", "path trail track", "forest woods", "sea ocean", "hill slope",
    "home house",
    "town village", "story tale", "movie film picture", "answer reply", "child kid", "children kids", "job work task",
    "begin start", "end finish", "help aid", "find locate", "make build create", "see view", "show display",
    "soon shortly", "often frequently", "almost nearly", "very really quite", "many numerous", "because since",
    "however nevertheless", "sadly unfortunately", "luckily fortunately", "maybe perhaps", "finally lastly",
)  # fmt: skip

_CONTRACTIONS = {
    "can't": "cannot", "won't": "will not", "don't": "do not", "doesn't": "does not", "didn't": "did not",
    "isn't": "is not", "aren't": "are not", "wasn't": "was not", "weren't": "were not", "couldn't": "could not",
    "wouldn't": "would not", "shouldn't": "should not", "haven't": "have not", "hasn't": "has not",
    "hadn't": "had not", "it's": "it is", "that's": "that is", "there's": "there is", "what's": "what is",
    "i'm": "i am", "you're": "you are", "we're": "we are", "they're": "they are", "let's": "let us",
}  # fmt: skip

# centres of the keys of a keyboard, in key widths: the rows are shifted against each other
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
_NEXT_KEY = 1.3  # key widths between the centres of neighbours, at most


def _neighbours() -> dict[str, tuple[str, ...]]:
    places = {key: (x + shift, float(y)) for y, (row, shift) in enumerate(_ROWS) for x, key in enumerate(row)}
    return {
        key: tuple(
            other
            for other, (x, y) in places.items()
            if other != key and ((x - places[key][0]) ** 2 + (y - places[key][1]) ** 2) ** 0.5 <= _NEXT_KEY
        )
        for key in places
    }


def groups(lists: Iterable[Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """word -> the words of its groups, in order, itself among them; words are compared as they are written."""
    found: dict[str, dict[str, None]] = {}
    for group in lists:
        words = dict.fromkeys(word for word in group if word)
        for word in words:
            found.setdefault(word, {}).update(words)
    return {word: tuple(others) for word, others in found.items() if len(others) > 1}


@dataclass(frozen=True)
class Tables:
    """What each perturbation that looks things up may put in a word's or letter's place; the word itself may be listed.

    Attributes:
        neighbours: lower-case letter -> letters on the keys around it (QWERTY).
        homoglyphs: letter -> letters that look like it.
        synonyms: lower-case word -> words of about the same meaning.
        contractions: lower-case words -> the same written out, or drawn together.
        morphonyms: Chinese character -> characters that look or sound like it.
        names: name -> names of its kind.
    """

    neighbours: Alternatives = field(default_factory=_neighbours)
    homoglyphs: Alternatives = field(default_factory=lambda: {c: tuple(alike) for c, alike in _HOMOGLYPHS.items()})
    synonyms: Alternatives = field(default_factory=lambda: groups(words.split() for words in _SYNONYMS))
    contractions: Alternatives = field(default_factory=lambda: groups(_CONTRACTIONS.items()))
    morphonyms: Alternatives = field(default_factory=dict)
    names: Alternatives = field(default_factory=dict)

    def digest(self) -> str:
        """16 hex digits over everything in them."""
        whole = hashlib.sha256()
        known: dict[int, bytes] = {}  # of tuples that many words share
        for name, table in vars(self).items():
            whole.update(name.encode())
            for word, others in table.items():
                if id(others) not in known:
                    known[id(others)] = hashlib.sha256("\0".join(others).encode()).digest()
                whole.update(f"{word}\0".encode() + known[id(others)])
        return whole.hexdigest()[:16]


def read_tables(file: str | Path) -> Tables:
    """The tables of a file, and this project's own where it has none of that kind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object with the keys above, or one of them holds something else.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"tables {path}: no such file; name a JSON file with SYNONYMS, HOMOGLYPHS, …")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"tables {path}: no JSON ({error}); write one object with SYNONYMS, HOMOGLYPHS, …") from error
    if not isinstance(content, dict):
        raise ValueError(f"tables {path}: holds a {type(content).__name__}; write one object with SYNONYMS, …")
    known = (*_READERS, *_UNUSED)
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"tables {path}: key {key!r} is unknown{meant}: the keys are {', '.join(_READERS)}")
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for key, (attribute, read) in _READERS.items():
        if key in content:
            try:
                found.setdefault(attribute, {}).update(read(content[key]))
            except (TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"tables {path}: {key} does not hold what it should; see the module's text") from error
    return replace(Tables(), **found)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError
    return list(values)


def _lists(values: Any) -> dict[str, tuple[str, ...]]:
    return groups([_texts(group) for group in values])


def _words(values: Any) -> dict[str, tuple[str, ...]]:
    return groups([word.lower() for word in _texts(group)] for group in values)


def _named(values: Any) -> dict[str, tuple[str, ...]]:
    # thousands of names: they share the tuple of the first list that has them
    lists = [tuple(dict.fromkeys(_texts(group))) for group in values.values()]
    return {name: names for names in reversed(lists) for name in names if name}


def _pairs(values: Any) -> dict[str, tuple[str, ...]]:
    return groups([word.lower() for word in _texts([*pair])] for pair in values.items())


def _letters(values: Any) -> dict[str, tuple[str, ...]]:
    return {letter: tuple("".join(_texts([alike]))) for letter, alike in values.items()}


_READERS = {
    "EXTENSION_MAP": ("contractions", _pairs),
    "MORPHONYM_LS": ("morphonyms", _lists),
    "PERSON_NAMES": ("names", _named),
    "NAMED_ENTITIES": ("names", _named),
    "SYNONYMS": ("synonyms", _words),
    "HOMOGLYPHS": ("homoglyphs", _letters),
}
