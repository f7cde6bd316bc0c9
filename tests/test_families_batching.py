"""A path is the same alone, in any batch, in any order, padded or not."""

import pytest
import torch

from families import FAMILIES
from matrix import (
    PATHS,
    assert_differ,
    assert_equal_or_tied,
    assert_same,
    every_family,
    every_pair,
    logits_of,
    padded,
    pads_in,
    random_ids,
    routed_model,
)

IDS = random_ids(3, 13)
LENGTHS = [13, 6, 9]
STARTS = [0, 2, 5]


def alone(routed, row: int) -> torch.Tensor:
    """The logits of one row without company or padding: (length, vocabulary)."""
    with routed.follow([PATHS[row]], start=STARTS[row]):
        return logits_of(routed.model, IDS[row : row + 1, : LENGTHS[row]])[0]


@every_pair
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_path_alone_is_the_path_in_a_padded_batch(family, kind, side):
    ids, mask = padded(IDS, LENGTHS, 15, side)
    with routed_model(family, kind, pads_in(family, kind)) as routed:
        with routed.follow(PATHS, start=STARTS):
            batch = logits_of(routed.model, ids, mask)
        for row in range(3):
            assert_same(batch[row][mask[row].bool()], alone(routed, row))


@every_pair
@torch.no_grad()
def test_a_path_alone_is_the_path_in_a_reordered_batch_with_other_company(family, kind):
    order = [2, 0, 1, 0]
    ids, mask = padded(IDS[order], [LENGTHS[row] for row in order], 13)
    paths = [PATHS[row] for row in order[:3]] + [None]
    with routed_model(family, kind, pads_in(family, kind)) as routed:
        with routed.follow(paths, start=[STARTS[row] for row in order]):
            batch = logits_of(routed.model, ids, mask)
        for place, row in enumerate(order[:3]):
            assert_same(batch[place][mask[place].bool()], alone(routed, row))


@pytest.mark.parametrize("family", [name for name in FAMILIES if not FAMILIES[name].needs_position_ids])
@torch.no_grad()
def test_positions_come_from_the_mask_where_no_position_ids_are_given(family):
    """Rotary angles of shifted positions agree only to float32 rounding; noise of other positions would not."""
    ids, mask = padded(IDS, LENGTHS, 13)
    with routed_model(family, "mixed") as routed:
        with routed.follow(PATHS, start=STARTS):
            batch = routed.model(input_ids=ids, attention_mask=mask).logits
        for row in range(3):
            expected = alone(routed, row)
            assert (batch[row][mask[row].bool()] - expected).abs().max() < 1e-4 * expected.abs().max()


@every_pair
@torch.no_grad()
def test_different_paths_differ_and_equal_ones_do_not(family, kind):
    ids = IDS[:1].expand(3, -1)
    with routed_model(family, kind) as routed, routed.follow([PATHS[0], PATHS[1], PATHS[0]]):
        logits = logits_of(routed.model, ids)
    assert_same(logits[2], logits[0])
    assert_differ(logits[1], logits[0])


@every_family
@torch.no_grad()
def test_generated_tokens_are_those_of_the_path_alone(family):
    ids, mask = padded(IDS, LENGTHS, 13)
    with routed_model(family, "mixed") as routed:
        together = routed.generate(input_ids=ids, attention_mask=mask, paths=[[p] for p in PATHS], max_new_tokens=8)
        for row in range(3):
            prompt = IDS[row : row + 1, : LENGTHS[row]]
            single = routed.generate(input_ids=prompt, paths=[PATHS[row]], max_new_tokens=8)
            assert torch.equal(single.generated[0], together.generated[row])
        assert together.paths == PATHS


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_oss", "mixtral", "gpt_bigcode"])
@torch.no_grad()
def test_in_float32_generated_tokens_part_only_at_ties(family):
    ids, mask = padded(IDS, LENGTHS, 13)
    asked = {"max_new_tokens": 24, "output_logits": True, "return_dict_in_generate": True}
    with routed_model(family, "mixed", torch.float32) as routed:
        together = routed.generate(input_ids=ids, attention_mask=mask, paths=[[p] for p in PATHS], **asked)
        for row in range(3):
            prompt = IDS[row : row + 1, : LENGTHS[row]]
            single = routed.generate(input_ids=prompt, paths=[PATHS[row]], **asked)
            assert_equal_or_tied(
                single.generated,
                together.generated[row : row + 1],
                single.logits,
                tuple(step[row : row + 1] for step in together.logits),
            )


def test_the_rule_of_ties_tells_a_tie_from_a_difference():
    tokens, expected = torch.tensor([[1]]), torch.tensor([[2]])
    logits, others = (torch.tensor([[0.0, 1.0, 0.99]]),), (torch.tensor([[0.0, 0.99, 1.0]]),)
    assert_equal_or_tied(tokens, expected, logits, others)
    with pytest.raises(AssertionError, match="parts at step 0"):
        assert_equal_or_tied(tokens, expected, logits, (torch.tensor([[0.0, 0.999, 0.99]]),))
