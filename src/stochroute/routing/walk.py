"""The paths being walked, and where every token of one forward pass stands on them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stochroute.config import Hold, Schedule
from stochroute.noise import key_words
from stochroute.paths import read_sibling


class Inferred(NamedTuple):
    """What is known of each row's z from its text: z = mean + deviation ⊙ ξ, where ξ is the path's own draw.

    Attributes:
        mean, deviation: float32 (b, rank).
    """

    mean: Tensor
    deviation: Tensor


@dataclass(eq=False)
class Walk:
    """One path a batch row, as tensors.

    Attributes:
        keys: int64 (b, 2), the paths as Philox keys; zeros for a clean row.
        starts: int64 (b,), the first position that carries noise.
        on: bool (b, 1), False for a clean row.
        families: int64 (b, 2), the families of the paths as Philox keys.
        numbers: int64 (b,), the number of each path in its family.
        inferred: of the z of the latent form; None where the path alone says what z is.
    """

    keys: Tensor
    starts: Tensor
    on: Tensor
    families: Tensor
    numbers: Tensor
    inferred: Inferred | None = None

    @classmethod
    def along(cls, paths: list[int | None], starts: list[int], device: torch.device) -> "Walk":
        """The walk along one parsed path id a row (None: a clean row), from one start a row."""
        families, numbers = zip(*(read_sibling(p or 0) for p in paths), strict=True)
        return cls(
            keys=key_words([p or 0 for p in paths], device),
            starts=torch.tensor(starts, dtype=torch.int64, device=device),
            on=torch.tensor([[p is not None] for p in paths], device=device),
            families=key_words(list(families), device),
            numbers=torch.tensor(numbers, device=device),
        )

    def of_rows(self, rows: Tensor) -> "Walk":
        """The walk of a batch whose row i is row `rows[i]` of this one; int64 (any number,)."""
        return Walk(self.keys[rows], self.starts[rows], self.on[rows], self.families[rows], self.numbers[rows])


@dataclass(eq=False)
class Passage:
    """One forward pass of a walk.

    Attributes:
        walk: the walk it belongs to.
        positions: int64 (b, s), the number of real tokens before each token in its own sequence.
        shared: what the layers share in this pass, by the kind of noise.
        masks: the attention masks of this pass that were read already, with what they say.
    """

    walk: Walk
    positions: Tensor
    shared: dict[str, Any] = field(default_factory=dict)
    masks: list[tuple[Tensor, Any]] = field(default_factory=list)
    _factors: dict[Schedule, Tensor] = field(default_factory=dict)

    def factor(self, schedule: Schedule) -> Tensor:
        """float32 (b, s): the schedule's factor at each position, 0 before the start and in clean rows."""
        if schedule not in self._factors:
            self._factors[schedule] = self._factor(schedule)
        return self._factors[schedule]

    def _factor(self, schedule: Schedule) -> Tensor:
        distance = self.positions - self.walk.starts[:, None]
        carries = (distance >= 0) & self.walk.on
        if schedule.length is None:
            return carries.to(torch.float32)
        share = (distance.to(torch.float32) / schedule.length).clamp(0.0, 1.0)
        faded = 1 - share if schedule.decay == "linear" else (1 + torch.cos(torch.pi * share)) / 2
        return faded * carries

    def blocks(self, hold: Hold) -> Tensor:
        """int64 (b, s): the position block that shares one draw; (b, 1) zeros where one serves the whole sequence."""
        if hold == "sequence":
            return torch.zeros_like(self.positions[:, :1])
        return self.positions if hold == 1 else self.positions // hold


class Context:
    """What one routed model is doing now; every hook of the model refers to this one object.

    Attributes:
        walk: the walk that is followed, None while the model is the original.
        passage: the forward pass under way on it.
        switch: turns the model's attention over to ours for as long as it is entered; None without attention noise.
    """

    def __init__(self) -> None:
        self.walk: Walk | None = None
        self.passage: Passage | None = None
        self.switch: Callable[[bool], AbstractContextManager[None]] | None = None

    def current(self) -> Passage | None:
        """The passage under way, None while the model is the original.

        Raises:
            RuntimeError: a path is followed, but the layer runs outside of its model's forward.
        """
        if self.walk is not None and self.passage is None:
            raise RuntimeError(
                "a layer ran inside follow() but outside of its model's forward, so its positions are unknown: "
                "call the whole model"
            )
        return self.passage

    @contextmanager
    def along(self, walk: Walk | None, passage: Passage | None = None) -> Iterator[None]:
        """Follows the walk (None: the original model), then what was followed before."""
        before = self.walk, self.passage
        self.walk, self.passage = walk, passage
        try:
            with nullcontext() if self.switch is None else self.switch(walk is not None):
                yield
        finally:
            self.walk, self.passage = before


def token_positions(arguments: Mapping[str, Any]) -> Tensor:
    """int64 (b, s): the position of each token that a decoder's forward is about to read.

    Counted from the 2-D attention mask where there is one, else taken from the position ids (packed sequences,
    masks already expanded to 4-D), else the number of cached tokens and upwards.

    Raises:
        ValueError: the mask is shorter than the tokens it should cover, or a 4-D mask comes without position ids.
    """
    tokens = arguments.get("input_ids")
    if tokens is None:
        tokens = arguments["inputs_embeds"]
    batch, length = tokens.shape[:2]
    cache = arguments.get("past_key_values")
    seen = 0 if cache is None else cache.get_seq_length()
    slots = torch.arange(length, device=tokens.device) + seen
    mask = arguments.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        if isinstance(seen, int) and mask.shape[1] < seen + length:
            raise ValueError(
                f"attention_mask covers {mask.shape[1]} tokens, but {seen} are cached and {length} are new: "
                f"pass a mask over all {seen + length}"
            )
        counted = ((mask != 0).long().cumsum(-1) - 1).clamp_min(0).to(tokens.device)
        return counted[:, slots].expand(batch, -1)
    position_ids = arguments.get("position_ids")
    if position_ids is not None:
        if position_ids.dim() == 3:  # multi-axis rotary positions: the first axis counts text tokens
            position_ids = position_ids[0]
        return position_ids.long().to(tokens.device).expand(batch, -1)
    if mask is not None:
        raise ValueError(
            "attention_mask is already 4-D and there are no position_ids, so positions are unknown: pass the 2-D "
            "mask, or position_ids"
        )
    return slots.expand(batch, -1)
