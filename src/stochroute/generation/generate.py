"""Many texts from each prompt through transformers' own generate: prompts computed once, rows in chunks."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.configuration_utils import GenerationMode

from stochroute.generation.outputs import RoutedOutput, stack_rows, stack_steps
from stochroute.generation.prefill import Prefill, can_be_shared, can_be_static, prefill, rows_that_fit
from stochroute.generation.receipts import ReplayMismatch, write_receipts
from stochroute.generation.request import (
    PathId,
    Prompts,
    Rows,
    check_difference,
    pick_inputs,
    read_prompts,
    read_rows,
)
from stochroute.generation.settings import check_mode, own_defaults_aside, read_settings, set_new_tokens
from stochroute.generation.spreading import SpreadTokenRouting
from stochroute.generation.token_routing import TokenRouting
from stochroute.routing.attached import AttachedRouting


@torch.no_grad()
def generate(
    routed: AttachedRouting,
    inputs: Tensor | None,
    paths: int | Sequence[PathId] | Sequence[Sequence[PathId]],
    seed: int | None,
    spread: bool,
    rows_at_once: int | None,
    arguments: dict[str, Any],
) -> RoutedOutput:
    """See `stochroute.routed.RoutedModel.generate`; `arguments` are those of transformers' generate."""
    call = _Call(routed, inputs, paths, seed, spread, rows_at_once, arguments)
    rows, most = range(len(call.rows.paths)), call.rows_at_once
    return call.collect([call.write(rows[first : first + most]) for first in range(0, len(rows), most)])


class _Call:
    """One call of generate: everything that is the same for all of its chunks."""

    def __init__(
        self,
        routed: AttachedRouting,
        inputs: Tensor | None,
        paths: int | Sequence[PathId] | Sequence[Sequence[PathId]],
        seed: int | None,
        spread: bool,
        rows_at_once: int | None,
        arguments: dict[str, Any],
    ):
        self.routed = routed
        self.model: Any = routed.model
        arguments = dict(arguments)
        given = pick_inputs(inputs, arguments.pop("input_ids", None), arguments.pop("inputs_embeds", None))
        mask = arguments.pop("attention_mask", None)
        self.settings, self.extra = read_settings(self.model, arguments)
        mode = check_mode(self.settings, self.extra)
        self.samples: bool = bool(self.settings.do_sample)
        self.spread = spread
        if spread and not self.samples:
            raise ValueError("spread=True has no effect without sampling: pass do_sample=True, or leave it out")
        self.beams: int = self.settings.num_beams or 1
        self.assisted = mode == GenerationMode.ASSISTED_GENERATION

        eos = self.settings.eos_token_id
        eos = eos if isinstance(eos, list) else [] if eos is None else [eos]
        self.prompts: Prompts = read_prompts(given, mask, self.settings.pad_token_id, eos)
        if self.settings.pad_token_id is None:
            self.settings.pad_token_id = eos[0] if eos else 0
        self.rows: Rows = read_rows(paths, seed, spread or routed.config.spreads, len(self.prompts.lengths))
        if self.beams > 1 and self.rows.most_for_one_prompt > 1:
            raise ValueError(f"num_beams={self.beams} searches along one path a prompt: pass paths=1")
        kinds_on = any((routed.structural, routed.attention, routed.experts))
        check_difference(self.rows, routed.silent, kinds_on, self.samples)

        width = self.prompts.inputs.shape[1]
        set_new_tokens(self.settings, self.model.config, width, max(self.prompts.lengths))
        self.length: int = width + self.settings.max_new_tokens
        generated = routed.config.span == "generated"
        self.starts = [self.prompts.lengths[p] - 1 if generated else 0 for p in self.rows.prompt_index]
        self.rows_at_once = self._chunk_size(rows_at_once)
        self.shares = self._can_share_prefill(generated, width)
        self.static = self.shares and self.settings.cache_implementation != "dynamic" and can_be_static(self.model)
        self._prefilled: Prefill | None = None

    def _chunk_size(self, asked: int | None) -> int:
        if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 1):
            raise ValueError(f"rows_at_once={asked!r} is no number of rows: give an integer ≥ 1, or None")
        if self.assisted:
            return 1  # transformers verifies candidates of one text at a time
        return asked or max(1, rows_that_fit(self.model, self.length) // self.beams)

    def _can_share_prefill(self, generated: bool, width: int) -> bool:
        return (
            generated
            and width > 1
            and self.beams == 1
            and not self.assisted
            and not self.prompts.embedded
            and self.settings.use_cache is not False
            and self.settings.cache_implementation in (None, "static", "dynamic")
            and not any(isinstance(value, Tensor) for value in self.extra.values())
            and can_be_shared(self.model)
        )

    def write(self, chunk: range) -> Any:
        """transformers' output for one chunk of rows."""
        prompt_of = [self.rows.prompt_index[row] for row in chunk]
        paths = [self.rows.paths[row] for row in chunk]
        starts = [self.starts[row] for row in chunk]
        settings = copy.deepcopy(self.settings)
        settings.stop_strings = None  # a criterion by now
        extra = self._extra_for(prompt_of)
        if self.shares:
            settings.cache_implementation = None
            extra["past_key_values"] = self._shared_cache(prompt_of)
        if self.samples:
            lengths = torch.tensor([self.prompts.lengths[p] for p in prompt_of], device=self.model.device)
            chooser = SpreadTokenRouting if self.spread else TokenRouting
            routing = chooser(paths, lengths, bool(settings.output_scores), extra.get("streamer"))
            extra["custom_generate"] = routing.decode
        beamed = [p for p in paths for _ in range(self.beams)]
        begins = [s for s in starts for _ in range(self.beams)]
        with self.routed.follow(beamed, begins), own_defaults_aside(self.model):
            return self.model.generate(**self.prompts.as_arguments(prompt_of), generation_config=settings, **extra)

    def _extra_for(self, prompt_of: list[int]) -> dict[str, Any]:
        extra = dict(self.extra)
        for name, value in extra.items():
            if isinstance(value, Tensor):
                extra[name] = value[torch.tensor(prompt_of, device=value.device)]
        allowed: Callable[[int, Tensor], list[int]] | None = extra.get("prefix_allowed_tokens_fn")
        if allowed is not None:  # the caller knows prompts, not rows of a chunk
            extra["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(prompt_of[row], ids)
        return extra

    def _shared_cache(self, prompt_of: list[int]) -> Any:
        every = list(range(len(self.prompts.lengths)))
        needed = every if len(every) <= self.rows_at_once else sorted(set(prompt_of))
        if self._prefilled is None or not set(prompt_of) <= set(self._prefilled.prompts):
            self._prefilled = None  # frees the last one first
            with self.routed.suspended():
                self._prefilled = prefill(self.model, self.prompts.inputs, self.prompts.attention_mask, needed)
        return self._prefilled.spread(self.model, prompt_of, self.length if self.static else None)

    def collect(self, chunks: list[Any]) -> RoutedOutput:
        """The rows of all chunks together, with their receipts."""
        plain = [chunk if isinstance(chunk, Tensor) else chunk.sequences for chunk in chunks]
        receipts = write_receipts(self.routed, self.rows.paths, self.starts, self.settings, self.spread)
        for row, expected in self.rows.expected.items():
            differences = expected.differences(receipts[row])
            if differences:
                warnings.warn(
                    f"path {expected.path} is replayed under other circumstances: {'; '.join(differences)}",
                    ReplayMismatch,
                    stacklevel=5,
                )
        return RoutedOutput(
            sequences=stack_rows(plain, self.settings.pad_token_id),
            paths=self.rows.paths,
            starts=self.starts,
            receipts=receipts,
            seed=self.rows.seed,
            prompt_index=self.rows.prompt_index,
            prompt_width=0 if self.prompts.embedded else self.prompts.inputs.shape[1],
            scores=stack_steps([getattr(chunk, "scores", None) for chunk in chunks]),
            logits=stack_steps([getattr(chunk, "logits", None) for chunk in chunks]),
        )
