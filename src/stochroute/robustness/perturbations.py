"""Prompts made worse on purpose: pure functions of a text, a rate and a key.

    perturb("Where did Mira live?", "typos", rate=0.5, key=7)     # the same text for the same key, on every machine

A perturbation names the places of a text that it can change, and what may stand there; `perturb` changes the share
`rate` of them. What a key changes at one rate it also changes at every higher one, so that a sweep is smooth.
The kinds follow TextAttack's transformations (Morris et al. 2020, arXiv 2005.05909), "characters" SmoothLLM's swaps
(Robey et al. 2023, arXiv 2310.03684).
"""

import difflib
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from stochroute.robustness.tables import Alternatives, Tables

_HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# a run of letters; in scripts written without spaces, one character
_WORD = re.compile(rf"[{_HAN}]|[^\W\d_{_HAN}]+(?:['’][^\W\d_{_HAN}]+)*")
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
_TOLD_APART = 2  # letters of the shortest word that a typo, a swap or a deletion touches


@dataclass(frozen=True)
class Site:
    """One place that can be changed.

    Attributes:
        spans: (start, end) in the text; several where one change recurs.
        options: what may stand there instead, each unlike what stands there now.
    """

    spans: tuple[tuple[int, int], ...]
    options: tuple[str, ...]


def perturb(text: str, kind: str, rate: float, key: int, tables: Tables | None = None, keep: str = "") -> str:
    """The text with the share `rate` of its sites changed, chosen by the key.

    With n sites ⌊rate · n + u⌋ are changed, u uniform in [0, 1) by the key: on average exactly the share asked for.

    Args:
        text: any text.
        kind: one of KINDS.
        rate: in [0, 1]; 0 gives the text back.
        key: an integer, such as a path id.
        tables: what may stand for what; None takes this project's own.
        keep: for the kind "names", a text whose words are left alone.

    Raises:
        ValueError: the kind is unknown, or the rate is outside [0, 1].
    """
    check_rate("rate", rate)
    sites = find_sites(text, kind, tables or Tables(), keep)
    draws = random.Random(key)  # of which only random() is used: it alone is the same in every version of Python
    extra = draws.random()
    drawn = [(draws.random(), index, draws.random()) for index in range(len(sites))]
    touched = sorted(drawn)[: min(len(sites), int(rate * len(sites) + extra))]
    edits: list[tuple[int, int, str]] = []
    for _, index, choice in touched:
        site = sites[index]
        edits += [(start, end, site.options[int(choice * len(site.options))]) for start, end in site.spans]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def find_sites(text: str, kind: str, tables: Tables, keep: str = "") -> list[Site]:
    """The places of the text that a perturbation can change, in order. ValueError for a kind that is none of KINDS."""
    check_kind(kind)
    return KINDS[kind](text, tables, keep)


def check_kind(kind: str) -> None:
    """ValueError unless it is one of KINDS."""
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"perturbation {kind!r} is unknown{meant}: choose of {', '.join(KINDS)}")


def check_rate(name: str, rate: float) -> None:
    """ValueError unless the rate lies in [0, 1]."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:  # false for NaN as well
        raise ValueError(f"{name}={rate!r} is outside [0, 1]: give the share of words or letters to change")


def _edits_of_a_word(text: str, variants: Callable[[str], list[str]]) -> list[Site]:
    """A site for each word that has another form."""
    sites = []
    for found in _WORD.finditer(text):
        options = tuple(dict.fromkeys(form for form in variants(found[0]) if form != found[0]))
        if options:
            sites.append(Site((found.span(),), options))
    return sites


def _typos(text: str, tables: Tables, keep: str) -> list[Site]:
    """In a word one letter becomes a letter of a key beside it."""

    def variants(word: str) -> list[str]:
        return [
            word[:i] + (other.upper() if letter.isupper() else other) + word[i + 1 :]
            for i, letter in enumerate(word)
            if len(word) >= _TOLD_APART
            for other in tables.neighbours.get(letter.lower(), ())
        ]

    return _edits_of_a_word(text, variants)


def _swaps(text: str, tables: Tables, keep: str) -> list[Site]:
    """In a word two letters that stand side by side change places."""

    def variants(word: str) -> list[str]:
        return [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]

    return _edits_of_a_word(text, variants)


def _deletions(text: str, tables: Tables, keep: str) -> list[Site]:
    """A word loses one letter."""

    def variants(word: str) -> list[str]:
        return [word[:i] + word[i + 1 :] for i in range(len(word)) if len(word) >= _TOLD_APART]

    return _edits_of_a_word(text, variants)


def _drops(text: str, tables: Tables, keep: str) -> list[Site]:
    """A word is left out with the white space before it; the last one stays, so that some text is left."""
    words = list(_WORD.finditer(text))[:-1]
    return [Site(((len(text[: word.start()].rstrip()), word.end()),), ("",)) for word in words]


def _synonyms(text: str, tables: Tables, keep: str) -> list[Site]:
    """A word becomes another of about the same meaning."""

    def variants(word: str) -> list[str]:
        return [_cased(other, word) for other in tables.synonyms.get(word.lower(), ())]

    return _edits_of_a_word(text, variants)


def _contractions(text: str, tables: Tables, keep: str) -> list[Site]:
    """ "do not" becomes "don't", or the other way round."""
    sites = []
    for found in _whole_words(text, tables.contractions, re.IGNORECASE):
        forms = (_cased(other, found[0]) for other in tables.contractions.get(found[0].lower(), ()))
        options = tuple(form for form in forms if form.lower() != found[0].lower())
        if options:
            sites.append(Site((found.span(),), options))
    return sites


def _names(text: str, tables: Tables, keep: str) -> list[Site]:
    """A name becomes another of its kind, wherever it stands: whoever it was stays one person."""
    kept = set(_WORD.findall(keep))
    spans: dict[str, list[tuple[int, int]]] = {}
    for found in _whole_words(text, tables.names):
        spans.setdefault(found[0], []).append(found.span())
    present = kept | spans.keys()  # nobody takes the name of somebody else
    sites = []
    for name, places in spans.items():
        options = tuple(other for other in tables.names[name] if other not in present)
        if options and name not in kept:
            sites.append(Site(tuple(places), options))
    return sites


def _homoglyphs(text: str, tables: Tables, keep: str) -> list[Site]:
    """A letter becomes one that looks like it."""
    return _letters(text, tables.homoglyphs)


def _morphonyms(text: str, tables: Tables, keep: str) -> list[Site]:
    """A Chinese character becomes one that looks or sounds like it."""
    return _letters(text, tables.morphonyms)


def _characters(text: str, tables: Tables, keep: str) -> list[Site]:
    """A character becomes any printable one."""
    return [
        Site(((i, i + 1),), tuple(other for other in _PRINTABLE if other != character))
        for i, character in enumerate(text)
    ]


# kind -> where it can change a text, and into what
KINDS: dict[str, Callable[[str, Tables, str], list[Site]]] = {
    "typos": _typos,
    "swaps": _swaps,
    "deletions": _deletions,
    "homoglyphs": _homoglyphs,
    "synonyms": _synonyms,
    "contractions": _contractions,
    "names": _names,
    "morphonyms": _morphonyms,
    "drops": _drops,
    "characters": _characters,
}


def _letters(text: str, table: Alternatives) -> list[Site]:
    options = {letter: tuple(other for other in table.get(letter, ()) if other != letter) for letter in set(text)}
    return [Site(((i, i + 1),), options[letter]) for i, letter in enumerate(text) if options[letter]]


def _whole_words(text: str, table: Alternatives, flags: re.RegexFlag = re.NOFLAG) -> list[re.Match[str]]:
    """Where keys of the table stand in the text as whole words; of two that begin together the longer one."""
    if not table:
        return []
    # one pattern over all keys, because some are several words
    keys = "|".join(map(re.escape, sorted(table, key=len, reverse=True)))
    return list(re.finditer(rf"(?<!\w)(?:{keys})(?!\w)", text, flags))


def _cased(word: str, like: str) -> str:
    """The word in the case of another one."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
