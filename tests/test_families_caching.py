"""A path is the same computed at once, in chunks or token by token, with whichever cache."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache, StaticCache

from matrix import (
    PATHS,
    assert_same,
    every_family,
    every_pair,
    generates_in,
    kinds_of,
    logits_in_chunks,
    logits_of,
    padded,
    pads_in,
    random_ids,
    routed_model,
)

LENGTH = 13
IDS, MASK = padded(random_ids(3, LENGTH), [13, 6, 9], LENGTH)
STARTS = [0, 2, 5]
CHUNKINGS = {"token by token": [1] * LENGTH, "prefill then decode": [8, 1, 1, 1, 1, 1], "chunks": [4, 6, 1, 2]}
CACHES = {
    "dynamic": lambda config: DynamicCache(),
    "sliding": lambda config: DynamicCache(config=config),
    "static": lambda config: StaticCache(config=config, max_cache_len=LENGTH + 3),
}


def greedy(routed, prompt: torch.Tensor, path: int, start: int, steps: int) -> torch.Tensor:
    """The most likely continuation, by a whole forward without cache for each token."""
    ids = prompt[None]
    with routed.follow([path], start=start):
        for _ in range(steps):
            ids = torch.cat((ids, logits_of(routed.model, ids, use_cache=False)[:, -1:].argmax(-1)), dim=1)
    return ids[0, prompt.shape[0] :]


@every_pair
@pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS.keys())
@torch.no_grad()
def test_decoding_and_chunked_prefill_give_the_logits_of_one_pass(family, kind, chunks):
    with routed_model(family, kind, pads_in(family, kind)) as routed, routed.follow(PATHS, start=STARTS):
        whole = logits_of(routed.model, IDS, MASK, use_cache=False)[MASK.bool()]
        cached = logits_in_chunks(routed.model, DynamicCache(config=routed.model.config), IDS, MASK, chunks)
    assert_same(cached, whole)


@every_family
@pytest.mark.parametrize("kind", ["mixed", "attention-3"])
@pytest.mark.parametrize("cache", CACHES)
@torch.no_grad()
def test_every_kind_of_cache_gives_the_logits_of_one_pass(family, kind, cache):
    with routed_model(family, kind) as routed, routed.follow(PATHS, start=STARTS):
        whole = logits_of(routed.model, IDS, MASK, use_cache=False)[MASK.bool()]
        cached = logits_in_chunks(routed.model, CACHES[cache](routed.model.config), IDS, MASK, [7, 1, 3, 1, 1])
    assert_same(cached, whole)


@every_family
@pytest.mark.parametrize("span", ["generated", "all"])
@torch.no_grad()
def test_generate_writes_what_whole_forwards_without_cache_predict(family, span):
    """Shared prefill, static or dynamic cache, left padding: against a loop that has none of them."""
    prompts, mask = IDS[:2], MASK[:2]
    config = replace(kinds_of(family)["mixed"], span=span)
    with routed_model(family, config, generates_in(family, span)) as routed:
        out = routed.generate(input_ids=prompts, attention_mask=mask, paths=2, seed=7, max_new_tokens=9)
        for row, (path, start) in enumerate(zip(out.paths, out.starts, strict=True)):
            prompt = prompts[out.prompt_index[row]][mask[out.prompt_index[row]].bool()]
            assert start == (len(prompt) - 1 if span == "generated" else 0)
            assert out.generated[row].tolist() == greedy(routed, prompt, path, start, 9).tolist()


@every_family
@torch.no_grad()
def test_generate_with_any_cache_writes_the_same_tokens(family):
    with routed_model(family, "mixed") as routed:
        texts = [
            routed.generate(
                input_ids=IDS, attention_mask=MASK, paths=2, seed=7, max_new_tokens=9, **cache
            ).sequences.tolist()
            for cache in (
                {"cache_implementation": "static"},
                {"cache_implementation": "dynamic"},
                {"use_cache": False},
                {"rows_at_once": 4},
            )
        ]
    assert all(text == texts[0] for text in texts)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_oss", "gpt2"])
@pytest.mark.parametrize("span", ["generated", "all"])
@torch.no_grad()
def test_prefill_in_chunks_by_transformers_writes_the_same_tokens(family, span):
    config = replace(kinds_of(family)["mixed"], span=span)
    with routed_model(family, config, generates_in(family, span)) as routed:
        arguments = {"input_ids": IDS, "attention_mask": MASK, "paths": 2, "seed": 7, "max_new_tokens": 6}
        whole = routed.generate(**arguments)
        chunked = routed.generate(**arguments, prefill_chunk_size=4)
    assert torch.equal(whole.sequences, chunked.sequences)


@every_family
@torch.no_grad()
def test_a_sampled_text_replays_alone_and_with_another_cache(family):
    with routed_model(family, "mixed") as routed:
        sampled = {"max_new_tokens": 9, "do_sample": True, "temperature": 1.3, "top_k": 40}
        together = routed.generate(input_ids=IDS, attention_mask=MASK, paths=2, seed=7, **sampled)
        for row, path in enumerate(together.paths):
            prompt = IDS[together.prompt_index[row]][MASK[together.prompt_index[row]].bool()]
            alone = routed.generate(input_ids=prompt[None], paths=[path], cache_implementation="dynamic", **sampled)
            assert alone.generated[0].tolist() == together.generated[row].tolist()
        assert len({tuple(row) for row in together.generated.tolist()}) == len(together.paths)
