"""The text of a growing row: whole characters only, cut at stop strings."""

from collections.abc import Sequence
from typing import Any

_CONTEXT = 6  # tokens before a new one that a tokenizer may look at to place white space
_UNFINISHED = "\ufffd"  # what a tokenizer writes for bytes that are no whole character yet


class GrowingText:
    """Turns token ids into text piece by piece; the pieces put together are the same however many ids come at once.

    A piece is held back while it ends inside a character, or with something that may become a stop string.

    Attributes:
        stopped: whether a stop string was found; the text ends before it, and nothing follows.
        length: characters handed out so far.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stops: Sequence[str]):
        self._tokenizer = tokenizer
        self._ids = list(prompt[-_CONTEXT:])
        self._shown = len(self._ids)  # ids whose text has been taken
        self._before = 0  # where the ids begin that are decoded again with new ones
        self._stops = stops
        self._held = ""
        self.stopped = False
        self.length = 0

    def push(self, ids: Sequence[int]) -> str:
        """The text that these further ids complete; "" while it has to be held back."""
        if self.stopped:
            return ""
        self._ids += ids
        text = self._pass(self._decoded())
        self.length += len(text)
        return text

    def finish(self) -> str:
        """What was held back: the row ends here, unfinished characters included."""
        if self.stopped:
            return ""
        rest = self._held + self._pending()
        self._held, self._shown = "", len(self._ids)
        for stop in self._stops:
            if stop in rest:
                rest, self.stopped = rest[: rest.index(stop)], True
        self.length += len(rest)
        return rest

    def _pending(self) -> str:
        """The text of the ids that have not been shown, decoded behind those before them."""
        known = self._tokenizer.decode(self._ids[self._before : self._shown], skip_special_tokens=True)
        whole = self._tokenizer.decode(self._ids[self._before :], skip_special_tokens=True)
        return whole[len(known) :]

    def _decoded(self) -> str:
        piece = self._pending()
        if piece.endswith(_UNFINISHED):
            return ""
        if piece:
            self._before, self._shown = self._shown, len(self._ids)
        return piece

    def _pass(self, piece: str) -> str:
        """What can be handed out of the held text with this piece behind it."""
        text = self._held + piece
        found = [text.index(stop) for stop in self._stops if stop in text]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that a stop string begins with."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
