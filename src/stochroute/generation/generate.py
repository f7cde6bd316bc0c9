"""Many texts from each prompt through transformers' own generate: prompts computed once, rows in chunks."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList, StopStringCriteria

from stochroute.generation.outputs import RoutedOutput, stack_rows, stack_steps
from stochroute.generation.prefill import Prefill, can_be_shared, can_be_static, prefill, rows_that_fit
from stochroute.generation.receipts import ReplayMismatch, write_receipts
from stochroute.generation.request import (
    PathId,
    Prompts,
    Rows,
    check_difference,
    check_room,
    read_prompts,
    read_rows,
)
from stochroute.generation.token_routing import TokenRouting
from stochroute.noise import key_words
from stochroute.routing.attached import AttachedRouting

_DEFAULT_NEW_TOKENS = 20  # transformers' own


@torch.no_grad()
def generate(
    routed: AttachedRouting,
    inputs: Tensor | None,
    paths: int | Sequence[PathId] | Sequence[Sequence[PathId]],
    seed: int | None,
    rows_at_once: int | None,
    arguments: dict[str, Any],
) -> RoutedOutput:
    """See `stochroute.routed.RoutedModel.generate`; `arguments` are those of transformers' generate."""
    call = _Call(routed, inputs, paths, seed, rows_at_once, arguments)
    chunks = [call.write(call.rows_between(i, i + call.rows_at_once)) for i in range(0, call.total, call.rows_at_once)]
    return call.collect(chunks)


class _Call:
    """One call of generate: everything that is the same for all of its chunks."""

    def __init__(
        self,
        routed: AttachedRouting,
        inputs: Tensor | None,
        paths: int | Sequence[PathId] | Sequence[Sequence[PathId]],
        seed: int | None,
        rows_at_once: int | None,
        arguments: dict[str, Any],
    ):
        self.routed = routed
        self.model: Any = routed.model
        arguments = dict(arguments)
        given_ids = arguments.pop("input_ids", None)
        mask, embeds = arguments.pop("attention_mask", None), arguments.pop("inputs_embeds", None)
        self.config, self.settings, self.extra = _generation_config(self.model, arguments)
        self.samples: bool = bool(self.settings.do_sample)
        self.beams: int = self.settings.num_beams or 1
        self.assisted = "assistant_model" in self.extra or self.settings.prompt_lookup_num_tokens is not None
        self._check_mode()

        eos = self.settings.eos_token_id
        self.eos: list[int] = eos if isinstance(eos, list) else [] if eos is None else [eos]
        self.prompts: Prompts = read_prompts(
            given_ids if inputs is None else inputs, mask, embeds, self.settings.pad_token_id, self.eos
        )
        self.rows: Rows = read_rows(paths, seed, len(self.prompts.lengths))
        self.total = len(self.rows.paths)
        counts = [self.rows.prompt_index.count(p) for p in range(len(self.prompts.lengths))]
        if self.beams > 1 and max(counts) > 1:
            raise ValueError(f"num_beams={self.beams} searches along one path a prompt: pass paths=1")
        kinds_on = any((routed.structural, routed.attention, routed.experts))
        check_difference(self.rows, routed.silent, kinds_on, self.samples)

        width = self.prompts.inputs.shape[1]
        if self.settings.max_new_tokens is None:
            self.settings.max_new_tokens = max(0, self.settings.max_length - width)
        check_room(self.model.config, max(self.prompts.lengths), self.settings.max_new_tokens)
        self.length: int = width + self.settings.max_new_tokens
        generated = routed.config.span == "generated"
        self.starts = [self.prompts.lengths[p] - 1 if generated else 0 for p in self.rows.prompt_index]
        self.rows_at_once = self._chunk_size(rows_at_once)
        self.shares = self._can_share_prefill(generated, width)
        self.static = self.shares and self.settings.cache_implementation != "dynamic" and can_be_static(self.model)
        self._prefilled: Prefill | None = None

    def _check_mode(self) -> None:
        if (self.settings.num_return_sequences or 1) > 1:
            raise ValueError(
                f"num_return_sequences={self.settings.num_return_sequences} would walk one path several times: "
                f"pass paths={self.settings.num_return_sequences}"
            )
        if self.beams > 1 and self.samples:
            raise ValueError(
                f"num_beams={self.beams} with do_sample=True is beam sampling, which token routing cannot replay: "
                f"turn one of them off"
            )
        if self.assisted and self.samples:
            raise ValueError(
                "assisted decoding with do_sample=True draws from the global generator, which no path can replay: "
                "pass do_sample=False"
            )
        for name in ("custom_generate", "past_key_values"):
            if self.extra.get(name) is not None:
                raise ValueError(f"{name}= is not supported by routed.generate: call the model inside follow() instead")

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

    def rows_between(self, first: int, end: int) -> range:
        """The rows of one chunk."""
        return range(first, min(end, self.total))

    def write(self, chunk: range) -> Any:
        """transformers' output for one chunk of rows."""
        prompt_of = [self.rows.prompt_index[row] for row in chunk]
        paths = [self.rows.paths[row] for row in chunk]
        starts = [self.starts[row] for row in chunk]
        config = copy.deepcopy(self.config)
        extra = self._extra_for(prompt_of)
        if self.shares:
            config.cache_implementation = None
            extra["past_key_values"] = self._shared_cache(prompt_of)
        if self.samples:
            lengths = torch.tensor([self.prompts.lengths[p] for p in prompt_of], device=self.model.device)
            routing = TokenRouting(
                key_words(paths, self.model.device),
                lengths,
                bool(config.output_scores),
                extra.get("streamer"),
            )
            extra["custom_generate"] = routing.decode
        beamed = [p for p in paths for _ in range(self.beams)]
        with self.routed.follow(beamed, [s for s in starts for _ in range(self.beams)]):
            return self.model.generate(**self.prompts.as_arguments(prompt_of), generation_config=config, **extra)

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
        needed = sorted(set(prompt_of))
        if self._prefilled is None or not set(needed) <= set(self._prefilled.prompts):
            self._prefilled = None  # frees the last one first
            with self.routed.suspended():
                self._prefilled = prefill(self.model, self.prompts.inputs, self.prompts.attention_mask, needed)
        return self._prefilled.spread(self.model, prompt_of, self.length if self.static else None)

    def collect(self, chunks: list[Any]) -> RoutedOutput:
        """The rows of all chunks together, with their receipts."""
        plain = [chunk if isinstance(chunk, Tensor) else chunk.sequences for chunk in chunks]
        pad = self.settings.pad_token_id
        receipts = write_receipts(self.routed, self.rows.paths, self.starts, self.settings)
        for row, expected in self.rows.expected.items():
            differences = expected.differences(receipts[row])
            if differences:
                warnings.warn(
                    f"path {expected.path} is replayed under other circumstances: {'; '.join(differences)}",
                    ReplayMismatch,
                    stacklevel=5,
                )
        return RoutedOutput(
            sequences=stack_rows(plain, pad if pad is not None else self.eos[0] if self.eos else 0),
            paths=self.rows.paths,
            starts=self.starts,
            receipts=receipts,
            seed=self.rows.seed,
            prompt_index=self.rows.prompt_index,
            prompt_width=0 if self.prompts.embedded else self.prompts.inputs.shape[1],
            scores=stack_steps([getattr(chunk, "scores", None) for chunk in chunks]),
            logits=stack_steps([getattr(chunk, "logits", None) for chunk in chunks]),
        )


def _generation_config(
    model: Any, arguments: dict[str, Any]
) -> tuple[GenerationConfig, GenerationConfig, dict[str, Any]]:
    """The config to pass on, the same with the model's defaults filled in, and the arguments that are no settings."""
    given = arguments.pop("generation_config", None)
    config = GenerationConfig() if given is None else copy.deepcopy(given)
    extra: dict[str, Any] = config.update(**arguments)
    if config.max_new_tokens is None and config.max_length is None and model.generation_config.max_length is None:
        config.max_new_tokens = model.generation_config.max_new_tokens or _DEFAULT_NEW_TOKENS
    if config.compile_config is None and config.disable_compile is None:
        # a static cache would have transformers compile on accelerators: minutes for what is often one call
        config.disable_compile = True
    if config.stop_strings is not None:
        # a custom decoding method is not handed the tokenizer, so the criterion is made here
        criteria = StoppingCriteriaList(extra.pop("stopping_criteria", None) or [])
        if extra.get("tokenizer") is None:
            raise ValueError("stop_strings needs the tokenizer: pass tokenizer=")
        criteria.append(StopStringCriteria(tokenizer=extra.pop("tokenizer"), stop_strings=config.stop_strings))
        extra["stopping_criteria"] = criteria
    settings, _ = model._prepare_generation_config(copy.deepcopy(config))
    config.stop_strings = None
    return config, settings, extra
