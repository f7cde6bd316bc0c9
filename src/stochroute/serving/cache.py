"""Keys and values of many texts of different lengths, which all end at the same slot.

    slot      begin            end
    row 0     . . . p p p t t t |          p: prompt, t: written, .: padding
    row 1     p p p p p t t t t |
    row 2     . . . . . . p p p |          has just joined

So one forward pass writes the next token of every row, whatever its length, with the left padding that every model
of transformers can read. Rows join and leave between passes.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_SPARE_SLOTS = 32  # between two moves of everything; a move costs about as much as reading the cache once


class RowCache(Cache):
    """A cache of transformers for rows that come and go.

    Attributes:
        first: for each row the slot of its first token.
        begin, end: the slots in use, `end` being the next one to be written.
    """

    def __init__(self, layers: int):
        self._own = [_RowLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self._own))
        self.first: list[int] = []
        self.begin = 0
        self.end = 0
        self.slots = 0
        self.room = 0  # rows that the tensors have room for

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.first)

    def join(self, source: Any, row: int, length: int, copies: int) -> None:
        """Adds rows that begin with the same tokens.

        Args:
            source: transformers' cache that holds them at the right end of one of its rows; None for no tokens.
            row: that row.
            length: how many tokens.
            copies: how many rows are added.
        """
        if self.rows == 0:
            self.begin = self.end = 0
        if self.rows + copies > self.room or length > self.end or self.end == self.slots:
            self._move(max(self.end - self.begin, length), self.rows + copies)
        added = slice(self.rows, self.rows + copies)
        self.first += [self.end - length] * copies
        self.begin = min(self.first)
        if length:
            for own, given in zip(self._own, source.layers, strict=True):
                own.put(added, given.keys[row, :, -length:], given.values[row, :, -length:])

    def leave(self, rows: list[int]) -> list[int]:
        """Removes rows. Returns for each place that is left the row, as numbered before, that stands there now."""
        left = set(range(self.rows)) - set(rows)
        order = list(range(len(left)))
        movers = sorted(row for row in left if row >= len(left))
        holes = sorted(row for row in rows if row < len(left))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
            for layer in self._own:
                layer.copy(mover, hole)
        self.first = [self.first[row] for row in order]
        self.begin = min(self.first, default=self.end)
        return order

    def step(self) -> None:
        """Counts the token that a forward pass has written to every row."""
        self.end += 1

    def make_room(self) -> None:
        """Makes sure that a forward pass can write one more slot."""
        if self.end >= self.slots:
            self._move(self.end - self.begin, self.rows)

    def _move(self, width: int, rows: int) -> None:
        """New tensors for at least `rows` rows, in which the used slots end at `width`."""
        shift = width - self.end
        if rows > self.room:
            self.room = max(rows, min(2 * self.room, rows + 32))
        self.slots = width + _SPARE_SLOTS
        for layer in self._own:
            layer.move(shift)
        self.first = [slot + shift for slot in self.first]
        self.begin, self.end = self.begin + shift, width


class _RowLayer(DynamicLayer):
    """One layer. Sliding windows are kept whole: the model's mask cuts them, as the tokens' distances are kept."""

    keys: Any
    values: Any

    def __init__(self, owner: RowCache):
        super().__init__()
        self.owner = owner

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        owner, length = self.owner, key_states.shape[2]
        self._allocate(key_states, value_states)
        written = slice(owner.end, owner.end + length)
        self.keys[: owner.rows, :, written] = key_states
        self.values[: owner.rows, :, written] = value_states
        seen = slice(owner.begin, owner.end + length)
        return self.keys[: owner.rows, :, seen], self.values[: owner.rows, :, seen]

    def get_seq_length(self) -> int:
        return self.owner.end - self.owner.begin

    def put(self, rows: slice, keys: Tensor, values: Tensor) -> None:
        self._allocate(keys[None], values[None])
        slots = slice(self.owner.end - keys.shape[1], self.owner.end)
        self.keys[rows, :, slots] = keys
        self.values[rows, :, slots] = values

    def copy(self, source: int, target: int) -> None:
        used = slice(self.owner.begin, self.owner.end)
        self.keys[target, :, used] = self.keys[source, :, used]
        self.values[target, :, used] = self.values[source, :, used]

    def move(self, shift: int) -> None:
        if not self.is_initialized:
            return
        owner = self.owner
        old, new = slice(owner.begin, owner.end), slice(owner.begin + shift, owner.end + shift)
        for name in ("keys", "values"):
            before = getattr(self, name)
            after = _zeros(before, owner.room, owner.slots)
            after[: owner.rows, :, new] = before[: owner.rows, :, old]
            setattr(self, name, after)

    def _allocate(self, keys: Tensor, values: Tensor) -> None:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.keys = _zeros(keys, self.owner.room, self.owner.slots)
            self.values = _zeros(values, self.owner.room, self.owner.slots)


def _zeros(like: Tensor, rows: int, slots: int) -> Tensor:
    """(rows, heads, slots, width) of zeros: padding is masked, but 0 · NaN would still be NaN."""
    return torch.zeros(rows, like.shape[1], slots, like.shape[3], dtype=like.dtype, device=like.device)
