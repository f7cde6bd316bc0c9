"""How the next token is chosen: the likeliest one, or a draw from the path."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Decoding:
    """Greedy by default. Any sampling setting turns sampling on; one left out is off, whatever the model's own
    defaults say (transformers would add a top-k of 50).

    Attributes:
        temperature: the logits are divided by it; 1 for a sampler without it.
        top_p, top_k, min_p, typical_p: what is cut off, as transformers names it.
        spread: whether the sampled texts of one prompt share its distribution out (`generation.spreading`).
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    spread: bool = False

    def __post_init__(self) -> None:
        if self.temperature is not None and not (0 < self.temperature < math.inf):
            raise ValueError(f"temperature {self.temperature}: must be above 0; leave it out for greedy decoding")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k}: must be at least 1; leave it out to keep every token")
        for name in ("top_p", "typical_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} {value}: must be in (0, 1]; leave it out to keep every token")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p {self.min_p}: must be in [0, 1]; leave it out to keep every token")
        if self.spread and not self.samples:
            raise ValueError("spread=True has no effect without sampling: add temperature=1.0, or leave it out")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return bool(self._asked())

    def arguments(self) -> dict[str, Any]:
        """The arguments of `generate` that choose tokens, with every truncation stated."""
        # imported here, so that options can be read without torch
        from stochroute.generation.settings import UNTRUNCATED

        if not self.samples:
            return {"do_sample": False}
        return {"do_sample": True, "spread": self.spread, **UNTRUNCATED, **self._asked()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, without what is left out; `Decoding(**found)` reads it again."""
        return self._asked() | ({"spread": True} if self.spread else {})

    def _asked(self) -> dict[str, Any]:
        names = ("temperature", "top_p", "top_k", "min_p", "typical_p")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


GREEDY = Decoding()
