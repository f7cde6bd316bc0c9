"""Many texts from one prompt: the prompt computed once, replayed by path id, through transformers' own generate.

The oracle is transformers' generate inside `follow`, with every row's prompt computed by itself.
"""

import pytest
import torch

import stochroute as sr
from generation_runs import IDS, LENGTHS, MANY, MANY_MASK, NEW, PROMPT, config, end_of_one_row, forwards, unshared
from matrix import PATHS, routed_model

# -- the shared prefill


@pytest.mark.parametrize("cache", [None, "dynamic", "static"])
def test_sharing_the_prefill_gives_the_tokens_of_unshared_generation(routed, cache):
    out = routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW, cache_implementation=cache)
    assert torch.equal(out.sequences, unshared(routed, PROMPT, PATHS))
    assert torch.equal(out.sequences, unshared(routed, PROMPT, PATHS, use_cache=False))
    assert len({tuple(row) for row in out.generated.tolist()}) == len(PATHS)


def test_use_cache_false_gives_the_same_tokens_without_sharing(routed):
    out, shapes = forwards(routed, input_ids=PROMPT, paths=PATHS, use_cache=False)
    assert shapes == [(3, 9 + step) for step in range(NEW)]
    assert torch.equal(out.sequences, routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW).sequences)


@pytest.mark.parametrize("cache", [None, "dynamic", "static"])
@pytest.mark.parametrize("samples", [False, True])
def test_the_prompt_is_computed_once_for_all_paths(routed, cache, samples):
    _, shapes = forwards(routed, input_ids=PROMPT, paths=5, seed=1, cache_implementation=cache, do_sample=samples)
    assert shapes == [(1, 8)] + [(5, 1)] * NEW


def test_every_prompt_is_computed_once_also_when_rows_come_in_chunks(routed):
    inputs = {"input_ids": MANY, "attention_mask": MANY_MASK}
    _, shapes = forwards(routed, **inputs, paths=4, seed=1, rows_at_once=2)
    assert [shape for shape in shapes if shape[1] > 1] == [(1, 8)] * 3
    assert shapes.count((2, 1)) == 6 * NEW


def test_with_span_all_every_row_computes_its_own_noised_prompt():
    with routed_model("llama", config("all")) as routed:
        out, shapes = forwards(routed, input_ids=PROMPT, paths=PATHS)
        assert shapes == [(3, 9)] + [(3, 1)] * (NEW - 1)
        assert out.starts == [0, 0, 0]
        assert torch.equal(out.sequences, unshared(routed, PROMPT, PATHS, start=0))
        assert not torch.equal(out.sequences, unshared(routed, PROMPT, PATHS, start=8))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_with_span_all_every_cache_gives_the_same_tokens(cache):
    with routed_model("llama", config("all")) as routed:
        out = routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW, cache_implementation=cache)
        assert torch.equal(out.sequences, unshared(routed, PROMPT, PATHS, start=0, use_cache=False))


def test_a_static_cache_named_in_the_models_own_generation_config_is_used(routed, monkeypatch):
    expected = routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW).sequences
    monkeypatch.setattr(routed.model.generation_config, "cache_implementation", "static")
    assert torch.equal(routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW).sequences, expected)


# -- rows, prompts, chunks


def test_autocast_generates_what_it_does_without_sharing_and_the_receipt_says_so():
    with routed_model("llama", config(), dtype=torch.float32) as routed, torch.autocast("cpu", dtype=torch.bfloat16):
        out = routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW)
        assert torch.equal(out.sequences, unshared(routed, PROMPT, PATHS))
    assert {receipt.dtype for receipt in out.receipts} == {"float32, autocast bfloat16"}
    with pytest.warns(sr.ReplayMismatch, match="dtype was 'float32, autocast bfloat16', now 'float32'"):
        routed.generate(PROMPT, paths=[out.receipts[0]], max_new_tokens=NEW)


def test_rows_of_one_prompt_stand_together(routed):
    out = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, max_new_tokens=NEW)
    assert out.prompt_index == [0, 0, 1, 1, 2, 2]
    assert out.paths == [path for prompt in range(3) for path in sr.derive_paths(5, 2, prompt=prompt)]
    assert out.starts == [8, 8, 3, 3, 0, 0]
    assert out.sequences.dtype == torch.int64
    assert torch.equal(out.sequences[:, :9], MANY.repeat_interleave(2, dim=0))


def test_generated_are_the_sequences_without_their_prompts(routed):
    out = routed.generate(PROMPT, paths=2, seed=5, max_new_tokens=NEW)
    assert out.prompt_width == 9
    assert out.generated.shape == (2, NEW)
    assert torch.equal(torch.cat((PROMPT.expand(2, -1), out.generated), dim=1), out.sequences)


@pytest.mark.parametrize("samples", [False, True])
def test_left_padded_prompts_of_different_lengths_are_each_prompt_alone(span, samples):
    with routed_model("llama", config(span)) as routed:
        asked = {"max_new_tokens": NEW, "do_sample": samples}
        out = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, **asked)
        for prompt, length in enumerate(LENGTHS):
            rows = slice(2 * prompt, 2 * prompt + 2)
            alone = routed.generate(IDS[prompt : prompt + 1, :length], paths=out.paths[rows], **asked)
            assert torch.equal(alone.generated, out.generated[rows])


def test_without_a_mask_padding_is_found_by_the_pad_token(routed):
    masked = routed.generate(MANY, attention_mask=MANY_MASK, paths=2, seed=5, max_new_tokens=NEW)
    assert torch.equal(routed.generate(MANY, paths=2, seed=5, max_new_tokens=NEW).sequences, masked.sequences)


def test_a_path_replays_alone_and_in_any_order(span):
    with routed_model("llama", config(span)) as routed:
        out = routed.generate(PROMPT, paths=6, seed=7, max_new_tokens=NEW)
        for order in ([3], [5, 0, 2], [4, 4, 1]):
            again = routed.generate(PROMPT, paths=[out.paths[i] for i in order], max_new_tokens=NEW)
            assert again.paths == [out.paths[i] for i in order]
            assert torch.equal(again.sequences, out.sequences[order])


def test_a_longer_text_begins_with_the_shorter_one(routed):
    short = routed.generate(PROMPT, paths=PATHS, max_new_tokens=3)
    assert torch.equal(routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW).sequences[:, :12], short.sequences)


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
@pytest.mark.parametrize("samples", [False, True])
def test_the_number_of_rows_at_once_changes_no_text(span, samples, rows_at_once):
    asked = {"attention_mask": MANY_MASK, "paths": 2, "seed": 5, "max_new_tokens": NEW, "do_sample": samples}
    with routed_model("llama", config(span)) as routed:
        expected = routed.generate(MANY, **asked)
        out, shapes = forwards(routed, input_ids=MANY, rows_at_once=rows_at_once, **asked)
    assert max(rows for rows, tokens in shapes if tokens == 1) <= rows_at_once
    assert torch.equal(out.sequences, expected.sequences)
    assert out.paths == expected.paths


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("rows_at_once", [None, 1, 2])
def test_a_row_ends_at_its_eos_token_and_is_padded_after_it(routed, rows_at_once, samples):
    asked = {"paths": 5, "seed": 3, "max_new_tokens": NEW, "do_sample": samples}
    free = routed.generate(PROMPT, **asked)
    end = end_of_one_row(free)
    out = routed.generate(PROMPT, eos_token_id=end, rows_at_once=rows_at_once, **asked)
    for row, text in zip(out.generated.tolist(), free.generated.tolist(), strict=True):
        expected = text[: text.index(end) + 1] if end in text else text
        assert row == expected + [0] * (out.generated.shape[1] - len(expected))
    assert any(end in row for row in out.generated.tolist())


def test_chunks_that_end_early_have_nan_for_scores(routed):
    asked = {"paths": 5, "seed": 3, "max_new_tokens": NEW, "output_scores": True, "return_dict_in_generate": True}
    free = routed.generate(PROMPT, **asked)
    end = end_of_one_row(free)
    out = routed.generate(PROMPT, eos_token_id=end, rows_at_once=1, **asked)
    assert len(out.scores) == NEW
    for row, text in enumerate(free.generated.tolist()):
        steps = text.index(end) + 1 if end in text else NEW
        scores = torch.stack([step[row] for step in out.scores])
        assert torch.equal(scores[:steps], torch.stack([step[row] for step in free.scores])[:steps])
        assert scores[steps:].isnan().all()


# -- paths, seeds, receipts


def test_a_seed_is_drawn_where_none_is_given_and_reported(routed):
    out, other = (routed.generate(PROMPT, paths=3, max_new_tokens=NEW) for _ in range(2))
    assert out.seed != other.seed
    assert out.paths == sr.derive_paths(out.seed, 3)
    again = routed.generate(PROMPT, paths=3, seed=out.seed, max_new_tokens=NEW)
    assert (again.seed, again.paths) == (out.seed, out.paths)
    assert torch.equal(again.sequences, out.sequences)


def test_one_path_is_walked_where_no_number_is_given(routed):
    out = routed.generate(PROMPT, seed=4, max_new_tokens=NEW)
    assert out.paths == sr.derive_paths(4, 1)


def test_ids_are_integers_hex_strings_or_receipts(routed):
    out = routed.generate(PROMPT, paths=3, seed=7, max_new_tokens=NEW)
    stored = [sr.Receipt.from_dict(receipt.to_dict()) for receipt in out.receipts]
    for ids in (out.paths, tuple(out.paths), [sr.format_path(p) for p in out.paths], out.receipts, stored):
        again = routed.generate(PROMPT, paths=ids, max_new_tokens=NEW)
        assert again.paths == out.paths
        assert again.seed is None
        assert torch.equal(again.sequences, out.sequences)


def test_several_prompts_take_a_flat_list_or_a_list_each(routed):
    asked = {"attention_mask": MANY_MASK, "max_new_tokens": NEW}
    out = routed.generate(MANY, paths=2, seed=7, **asked)
    flat = out.paths
    for ids in (flat, [flat[:2], [sr.format_path(p) for p in flat[2:4]], tuple(out.receipts[4:])]):
        again = routed.generate(MANY, paths=ids, **asked)
        assert (again.paths, again.prompt_index) == (flat, [0, 0, 1, 1, 2, 2])
        assert torch.equal(again.sequences, out.sequences)


def test_a_list_each_may_hold_different_numbers_of_paths(routed):
    out = routed.generate(MANY, attention_mask=MANY_MASK, paths=[PATHS, PATHS[:1], PATHS[1:]], max_new_tokens=NEW)
    assert out.prompt_index == [0, 0, 0, 1, 2, 2]
    alone = routed.generate(IDS[1:2, :4], paths=PATHS[:1], max_new_tokens=NEW)
    assert torch.equal(out.generated[3:4], alone.generated)


def test_a_receipt_names_what_a_replay_needs(routed):
    out = routed.generate(PROMPT, paths=2, seed=7, max_new_tokens=NEW, repetition_penalty=1.3)
    for path, receipt in zip(out.paths, out.receipts, strict=True):
        assert receipt.path == sr.format_path(path)
        assert (receipt.start, receipt.dtype) == (8, "float64")
        assert receipt.decoding == {"max_new_tokens": NEW, "repetition_penalty": 1.3}


def test_a_replay_under_other_circumstances_says_in_what_they_differ(routed):
    receipt = routed.generate(PROMPT, paths=1, seed=7, max_new_tokens=NEW).receipts[0]
    with pytest.warns(sr.ReplayMismatch, match="decoding was .*start was 8, now 3|start was 8, now 3.*decoding was"):
        routed.generate(PROMPT[:, :4], paths=[receipt], max_new_tokens=NEW, repetition_penalty=1.3)


def test_a_receipt_of_another_routing_is_noticed(routed):
    with routed_model("qwen3", config()) as other:
        receipt = other.generate(PROMPT, paths=1, seed=7, max_new_tokens=NEW).receipts[0]
    with pytest.warns(sr.ReplayMismatch, match="model was"):
        routed.generate(PROMPT, paths=[receipt], max_new_tokens=NEW)
    changed = routed.generate(PROMPT, paths=1, seed=7, max_new_tokens=NEW).receipts[0]
    with torch.no_grad():
        routed.structural.sigma.mul_(2)
    with pytest.warns(sr.ReplayMismatch, match="routing was"):
        routed.generate(PROMPT, paths=[changed], max_new_tokens=NEW)
