"""Walks the paths that a request asks for, batch by batch, and hands back rows in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from stochroute.cli.errors import BadInput
from stochroute.cli.request import DecodingOptions, Request
from stochroute.cli.routings import calibrated_model
from stochroute.cli.rows import Row
from stochroute.generation.outputs import RoutedOutput
from stochroute.generation.padding import pad_left
from stochroute.loading import LoadedModel, continuation, encode
from stochroute.paths import derive_paths

# New tokens when nothing is asked for. A story of the embedded model ends by itself well before.
_DEFAULT_NEW_TOKENS = 128
_STORY_TOKENS = 256


@dataclass(frozen=True)
class Batch:
    """Rows to be computed at once: for each prompt (by index) the same number of path ids."""

    prompts: list[int]
    paths: list[list[int]]


class Walks:
    """Everything that one call of generate keeps: the routed model, the prompts as tokens, the ids of each prompt.

    `report` is what a calibration found, None where there was none.
    """

    def __init__(self, request: Request, prompts: list[str], seed: int | None, loaded: LoadedModel):
        """Raises BadInput when the routing, the prompts or the decoding do not fit the model."""
        self.prompts = prompts
        self.seed = seed
        self.loaded = loaded
        self.paths_each = request.paths or len(request.replay)
        self._replay = request.replay
        self._tokens = encode(loaded, prompts, request.chat)
        self._decoding = request.decoding.choice
        self._new_tokens = _new_tokens(request.decoding, loaded, max(map(len, self._tokens)))
        self._routed, self.report = calibrated_model(loaded, request.routing, request.noise)
        self._spread = self._decoding.spread or self._routed.config.spreads

    @property
    def total(self) -> int:
        return len(self.prompts) * self.paths_each

    def ids(self, prompt: int) -> list[int]:
        """The path ids of a prompt, whatever else is asked for and however it is batched."""
        if self.seed is None:
            return self._replay
        return derive_paths(self.seed, self.paths_each, prompt=prompt, spread=self._spread)

    def batches(self, finished: int, most: int) -> Iterator[Batch]:
        """What is left after the first `finished` rows, in order, at most `most` rows at once."""
        whole = Batch([], [])
        for prompt in range(finished // self.paths_each, len(self.prompts)):
            ids = self.ids(prompt)[max(0, finished - prompt * self.paths_each) :]
            if len(whole.prompts) * self.paths_each + len(ids) > most or len(ids) < self.paths_each:
                if whole.prompts:
                    yield whole
                whole = Batch([], [])
            if len(ids) > most or len(ids) < self.paths_each:
                for first in range(0, len(ids), most):
                    yield Batch([prompt], [ids[first : first + most]])
            else:
                whole.prompts.append(prompt)
                whole.paths.append(ids)
        if whole.prompts:
            yield whole

    def walk(self, batch: Batch) -> list[Row]:
        """The rows of the batch."""
        tokens = [self._tokens[prompt] for prompt in batch.prompts]
        out: RoutedOutput = self._routed.generate(
            **pad_left(tokens, self.loaded.pad, self.loaded.model.device),
            paths=batch.paths,
            max_new_tokens=self._new_tokens,
            pad_token_id=self.loaded.pad,
            **self._decoding.arguments(),
        )
        rows: list[Row] = []
        generated = cast(list[list[int]], cast(Any, out.generated).tolist())
        for new_ids, receipt, index in zip(generated, out.receipts, out.prompt_index, strict=True):
            prompt = batch.prompts[index]
            text = continuation(self.loaded, self._tokens[prompt], new_ids)
            rows.append(
                Row(self.prompts[prompt], prompt, text, receipt.path, receipt.start, self.seed, receipt.to_dict())
            )
        return rows


def _new_tokens(decoding: DecodingOptions, loaded: LoadedModel, longest_prompt: int) -> int:
    asked = decoding.max_new_tokens
    room = None if loaded.context is None else loaded.context - longest_prompt
    if asked is None:
        default = _STORY_TOKENS if loaded.embedded else _DEFAULT_NEW_TOKENS
        return default if room is None else min(default, room)
    if room is not None and asked > room:
        raise BadInput(
            f"--max-new-tokens {asked}: the longest prompt has {longest_prompt} tokens and {loaded.name} holds "
            f"{loaded.context}; ask for at most {room}"
        )
    return asked
