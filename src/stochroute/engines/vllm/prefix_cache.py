"""The keys of the prefix cache: clean prompt blocks are shared by all, noised ones only within one path.

vLLM finds the cached keys and values of a block by a hash over its tokens, the hash of the block before it, and
extra keys. A block that ends at or before the start of the noise is the same for every path and for plain requests.
From the first noised position on, keys and values depend on the path and on where its noise began.
"""

from collections.abc import Callable
from typing import Any

from stochroute.engines.vllm.requests import walk_of

ExtraKeys = tuple[Any, ...] | None
KeyFunction = Callable[[Any, int, int, int], tuple[ExtraKeys, int]]


def keyed_by_path(extra_keys: KeyFunction) -> KeyFunction:
    """vLLM's `generate_block_hash_extra_keys`, with the path added where a block holds a noised position."""

    def with_path(request: Any, start: int, end: int, multimodal: int) -> tuple[ExtraKeys, int]:
        keys, multimodal = extra_keys(request, start, end, multimodal)
        walk = walk_of(getattr(request.sampling_params, "extra_args", None))
        if walk is not None and end > walk.start:
            keys = (*(keys or ()), ("stochroute", f"{walk.path:016x}", walk.start))
        return keys, multimodal

    return with_path
