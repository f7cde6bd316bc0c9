"""Dialogues of the story world: a scene to begin with, and what its checker says of the talk so far."""

from collections.abc import Sequence

from stochroute.applications.chat.frames import Exchange, Script
from stochroute.world import check, draw_text

COLONS = {"en": ": ", "zh": "："}


def draw_scene(seed: int, language: str = "en") -> Script:
    """The scene of a dialogue drawn from the seed: two friends and a place. The person speaks for the one who has a
    wish, the model for the one who helps.

    Raises:
        ValueError: a language that the world does not speak; it speaks "en" and "zh".
    """
    scene, wish, question, *_ = draw_text(seed, 0, language, "dialogue").split("\n")
    colon = COLONS[language]
    return Script(wish.partition(colon)[0], question.partition(colon)[0], scene, colon)


def verdict(script: Script, exchanges: Sequence[Exchange]) -> tuple[bool, str]:
    """Whether the world's checker finds nothing wrong with the talk so far, and what it says in a line."""
    found = check(script.whole(exchanges), form="dialogue")
    if found.coherent:
        return True, "the dialogue is whole and coherent"
    # facts that contradict each other come before the note that the text ends
    missing = found.problems[0].startswith("the text ends before its ")
    if missing:
        return True, f"coherent so far; {found.problems[0].removeprefix('the text ends before its ')} is next"
    return False, "; ".join(found.problems)
