"""The settings of a call of `generate`: transformers' own, with the model's defaults filled in and checked."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, StopStringCriteria
from transformers.generation.configuration_utils import GenerationMode

# Sampling with nothing cut off. A model's defaults fill in what a call leaves out, and transformers has a top-k of 50.
UNTRUNCATED: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}

_DEFAULT_NEW_TOKENS = 20  # transformers' own
_UNSUPPORTED = ("custom_generate", "past_key_values")


def read_settings(model: Any, arguments: dict[str, Any]) -> tuple[GenerationConfig, dict[str, Any]]:
    """The settings in force, and the arguments that are no settings.

    Raises:
        ValueError: a setting is bad, or is one that `routed.generate` does not support.
    """
    asked = arguments.pop("num_return_sequences", None) or 1
    given = arguments.pop("generation_config", None)
    config = GenerationConfig() if given is None else copy.deepcopy(given)
    extra: dict[str, Any] = config.update(**arguments)
    for name in _UNSUPPORTED:
        if extra.get(name) is not None:
            raise ValueError(f"{name}= is not supported by routed.generate: call the model inside follow() instead")
    settings, _ = model._prepare_generation_config(config)
    settings.min_p = settings.min_p or None  # 0 keeps every token, and None does not sort them for that
    asked = max(asked, settings.num_return_sequences or 1)
    if asked > 1:
        raise ValueError(f"num_return_sequences={asked} would walk one path several times: pass paths={asked}")
    if settings.token_healing:
        raise ValueError("token_healing=True rewrites the prompt, on which positions rest: heal the prompt beforehand")
    defaults = model.generation_config
    if all(c.max_length is None and c.max_new_tokens is None for c in (config, defaults)):
        settings.max_length = None  # a length that nobody asked for
    if settings.compile_config is None and settings.disable_compile is None:
        # a static cache would have transformers compile on accelerators: minutes for what is often one call
        settings.disable_compile = True
    settings.return_dict_in_generate = bool(
        settings.return_dict_in_generate or settings.output_scores or settings.output_logits
    )
    _read_stopping(settings, extra)
    return settings, extra


def check_mode(settings: GenerationConfig, extra: dict[str, Any]) -> GenerationMode:
    """transformers' decoding mode; ValueError for one that a path cannot replay or transformers no longer has."""
    mode = settings.get_generation_mode(extra.get("assistant_model"))
    if mode == GenerationMode.BEAM_SAMPLE:
        raise ValueError(
            f"num_beams={settings.num_beams} with do_sample=True is beam sampling, which token routing cannot replay: "
            f"turn one of them off"
        )
    if mode == GenerationMode.ASSISTED_GENERATION and settings.do_sample:
        raise ValueError(
            "assisted decoding with do_sample=True draws from the global generator, which no path can replay: "
            "pass do_sample=False"
        )
    supported = (
        GenerationMode.GREEDY_SEARCH,
        GenerationMode.SAMPLE,
        GenerationMode.BEAM_SEARCH,
        GenerationMode.ASSISTED_GENERATION,
    )
    if mode not in supported:
        raise ValueError(f"{mode.value} is not supported: choose greedy search, sampling, beam search or assistance")
    return mode


def set_new_tokens(settings: GenerationConfig, config: Any, width: int, longest: int) -> None:
    """Settles `max_new_tokens`, for prompts of `width` columns of which the longest has `longest` tokens.

    Raises:
        ValueError: the prompts, or the prompts with the new tokens, do not fit into the model's context.
    """
    context = getattr(config, "max_position_embeddings", None)
    room = context - longest if isinstance(context, int) and context > 0 else None
    if room is not None and room < 1:
        raise ValueError(f"a prompt of {longest} tokens fills the model's context of {context}: shorten it")
    if settings.max_new_tokens is None:
        if settings.max_length is not None:
            settings.max_new_tokens = max(0, settings.max_length - width)
        else:
            settings.max_new_tokens = _DEFAULT_NEW_TOKENS if room is None else min(_DEFAULT_NEW_TOKENS, room)
    settings.max_length = None
    if room is not None and settings.max_new_tokens > room:
        raise ValueError(
            f"max_new_tokens={settings.max_new_tokens} and a prompt of {longest} tokens exceed the model's context of "
            f"{context}: ask for at most {room}"
        )


@contextmanager
def own_defaults_aside(model: Any) -> Iterator[None]:
    """Inside, the model has no generation defaults, so that settings which hold them already are not filled again."""
    inner = getattr(model, "get_base_model", lambda: model)()
    defaults = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = defaults


def _read_stopping(settings: GenerationConfig, extra: dict[str, Any]) -> None:
    criteria = StoppingCriteriaList(extra.pop("stopping_criteria", None) or [])
    if settings.stop_strings is not None:
        # a custom decoding method is not handed the tokenizer, so the criterion is made here
        if extra.get("tokenizer") is None:
            raise ValueError(f"stop_strings={settings.stop_strings!r} needs the tokenizer: pass tokenizer=")
        criteria.append(StopStringCriteria(tokenizer=extra["tokenizer"], stop_strings=settings.stop_strings))
    extra.pop("tokenizer", None)
    if criteria and settings.eos_token_id is None:
        criteria.append(_PadEndedRows())
    if criteria:
        extra["stopping_criteria"] = criteria


class _PadEndedRows(StoppingCriteria):
    """Never stops. transformers pads rows that have ended only where some criterion knows an end token; without it
    an ended text would go on for as long as its batch does."""

    eos_token_id = None

    def __call__(self, input_ids: Tensor, scores: Any, **unused: Any) -> Tensor:
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
