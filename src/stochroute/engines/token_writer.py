"""What an engine that has started can do, whichever it is."""

from collections.abc import Sequence
from typing import Protocol


class TokenWriter(Protocol):
    """An engine that has started, and writes texts along paths, greedily.

    Attributes:
        engine: its name and version, as a receipt names it.
    """

    engine: str

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        paths: Sequence[int],
        starts: Sequence[int],
        new_tokens: int,
        stops: Sequence[int],
    ) -> list[list[int]]:
        """The new token ids of each prompt along its own path; see `stochroute.engines.vllm.launch.Writer`."""
        ...
