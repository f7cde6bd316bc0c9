"""Tiny random models in folders that both transformers and vLLM load, and the check that both write the same."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# vLLM reads these when it starts; the processor is shared with everything else that is being tested
os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",  # it would want a NUMA node for each rank
    OMP_NUM_THREADS="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # in this process, unless a test says otherwise
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
    VLLM_USE_V2_MODEL_RUNNER="0",
)

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import stochroute as sr
from cli_model import save_tokenizer
from stochroute.engines.agreement import Text, agreement

CONTEXT = 512
# What vLLM's engines are started with here; a cache of the default size alone would take longer than any test.
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "block_size": 32,
    "kv_cache_memory_bytes": 1 << 26,
    "max_model_len": CONTEXT,
    "max_num_seqs": 16,
    "seed": 0,
}
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the smallest that vLLM's CPU attention takes
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,  # with 0.02 hardly any noise would change a token
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def save_model(folder: Path, family: str = "llama", **settings: Any) -> str:
    """Writes a random float32 model of the family with a byte-level tokenizer, and returns the folder's name."""
    config = AutoConfig.for_model(family, **{"vocab_size": save_tokenizer(folder), **_SIZES, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder)


def load(folder: str) -> Any:
    """The model in transformers, float32, evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def sampling(new_tokens: int, path: int | None = None, **settings: Any) -> Any:
    """Greedy decoding of so many tokens, along a path or none, for vLLM."""
    from vllm import SamplingParams

    fields = settings.pop("extra_args", None) if path is None else {"stochroute_path": sr.format_path(path)}
    options = {"temperature": 0, "max_tokens": new_tokens, "ignore_eos": True, "detokenize": False, **settings}
    return SamplingParams(extra_args=fields, **options)


def outputs_of(llm: Any, prompts: Sequence[Sequence[int]], parameters: Sequence[Any] | Any) -> list[Any]:
    """vLLM's outputs, one a prompt."""
    given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
    return llm.generate(given, parameters, use_tqdm=False)


def texts_of(llm: Any, prompts: Sequence[Sequence[int]], paths: Sequence[int | None], new_tokens: int) -> list[Text]:
    """What vLLM writes, one text a prompt, each along its own path; all requests at once."""
    outputs = outputs_of(llm, prompts, [sampling(new_tokens, path, logprobs=0) for path in paths])
    return [text_of(output.outputs[0]) for output in outputs]


def text_of(choice: Any) -> Text:
    """One choice of vLLM's outputs, with its log-probabilities."""
    tokens = list(choice.token_ids)
    return Text(tokens, [at[token].logprob for at, token in zip(choice.logprobs, tokens, strict=True)])


def check_against_transformers(
    folder: str,
    routing: sr.RoutingConfig | str,
    prompts: Sequence[Sequence[int]],
    paths: Sequence[int | None],
    texts: Sequence[Text],
) -> None:
    """Fails unless every text is what transformers writes, but for ties, and the log-probabilities agree."""
    model = load(folder)
    routed = sr.RoutedModel.from_pretrained(model, routing) if isinstance(routing, str) else sr.route(model, routing)
    found = agreement(routed, prompts, paths, texts)
    assert found.mistakes == []
    assert found.difference < 1e-3
    # partings are rare, so that a mistake cannot hide behind a difference that it caused itself
    assert len(found.partings) <= len(texts) // 10


def random_prompts(n: int, shortest: int, longest: int, seed: int = 0) -> list[list[int]]:
    """n prompts of printable tokens of the tiny models."""
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (n,), generator=stream).tolist()
    return [torch.randint(2, 250, (length,), generator=stream).tolist() for length in lengths]
