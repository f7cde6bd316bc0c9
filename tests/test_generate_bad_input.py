"""Bad requests are clear errors that say what to do, and leave the model as it was."""

import copy
import re
from collections.abc import Iterator

import pytest
import torch

import stochroute as sr
from matrix import padded, random_ids, routed_model, stock_model
from stochroute.generation.request import NoDifference

IDS = random_ids(2, 9)
PROMPT = IDS[:1]
MANY, MANY_MASK = padded(IDS, [9, 4], 9)
CONTEXT = 128
CONFIG = sr.RoutingConfig(
    structural=sr.Structural(layers="all", strength=0.4, hold=1), attention=sr.Attention(strength=1.0)
)
SILENT = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.0), attention=sr.Attention(strength=0.0))
NO_NOISE = sr.RoutingConfig(structural=None)
A_PATH = 0x00C0FFEE00C0FFEE


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(IDS).logits


@pytest.fixture
def routed() -> Iterator[sr.RoutedModel]:
    """A routed model that has to be the original again after the test, and to walk its path as before."""
    model = stock_model("llama")
    expected, config = logits(model), copy.deepcopy(model.config.to_dict())
    settings, attention = model.generation_config.to_dict(), model.config._attn_implementation
    with routed_model("llama", CONFIG) as routed:
        before = routed.generate(PROMPT, paths=[A_PATH], max_new_tokens=4)
        yield routed
        assert_original(routed, expected)
        assert model.config.to_dict() == config
        assert model.config._attn_implementation == attention
        assert model.generation_config.to_dict() == settings
        after = routed.generate(PROMPT, paths=[A_PATH], max_new_tokens=4)
        assert torch.equal(after.sequences, before.sequences)
    assert torch.equal(logits(model), expected)


def assert_original(routed: sr.RoutedModel, expected: torch.Tensor) -> None:
    assert torch.equal(logits(routed.model), expected)
    assert routed._context.walk is None
    assert routed._context.passage is None


def assert_refused(routed: sr.RoutedModel, message: str, **arguments) -> None:
    """ValueError whose message matches, after which the model is the original."""
    expected = logits(routed.model)
    arguments = {"input_ids": PROMPT, "max_new_tokens": 4} | arguments
    with pytest.raises(ValueError, match=message):
        routed.generate(**{name: value for name, value in arguments.items() if value is not None})
    assert_original(routed, expected)


# -- generate: paths and seeds


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_paths_below_one_is_refused(routed, number):
    assert_refused(routed, f"paths={number} is no number of paths: ask for at least 1", paths=number)


@pytest.mark.parametrize("paths", [True, "abc", "00c0ffee00c0ffee", 2.0, b"abc", {1, 2}], ids=repr)
def test_paths_that_are_neither_number_nor_list_are_refused(routed, paths):
    assert_refused(routed, re.escape(f"paths={paths!r} is no number and no list"), paths=paths)


@pytest.mark.parametrize("paths", [[], (), [[]]], ids=repr)
def test_no_paths_at_all_are_refused(routed, paths):
    assert_refused(routed, "names no path: give at least one id", paths=paths)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("abc", "path id 'abc' is not 16 hex digits"),
        ("0x00c0ffee00c0ff", "is not 16 hex digits"),
        ("00c0ffee00c0ffee0", "is not 16 hex digits"),
        (-1, "path id=-1 is outside"),
        (1 << 64, "path id=18446744073709551616 is outside"),
        (True, "path id=True is no integer"),
        (1.5, "path id=1.5 is no integer"),
        (None, "path id=None is no integer"),
    ],
    ids=repr,
)
def test_a_bad_path_id_is_named(routed, path, message):
    assert_refused(routed, message, paths=[A_PATH, path])


def test_a_seed_beside_path_ids_is_refused(routed):
    assert_refused(routed, "seed=7 has no effect beside explicit path ids", paths=[A_PATH], seed=7)


@pytest.mark.parametrize("seed", [-1, 1 << 64, True, 1.5, "7"], ids=repr)
def test_a_bad_seed_is_named(routed, seed):
    assert_refused(routed, re.escape(f"seed={seed!r}"), paths=2, seed=seed)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([1, 2, 3], "3 path ids cannot be dealt evenly to 2 prompts: give one a row"),
        ([1], "1 path ids cannot be dealt evenly to 2 prompts"),
        ([], "0 path ids cannot be dealt evenly to 2 prompts|names no path"),
        ([[1, 2]], "one list for each of the 2 prompts, got 1"),
        ([[1], [2], [3]], "one list for each of the 2 prompts, got 3"),
        ([[1], 2], "one list for each of the 2 prompts"),
    ],
    ids=repr,
)
def test_ids_that_do_not_fit_the_prompts_are_refused(routed, paths, message):
    assert_refused(routed, message, input_ids=MANY, attention_mask=MANY_MASK, paths=paths)


def test_several_paths_without_noise_or_sampling_are_refused():
    with routed_model("llama", NO_NOISE) as routed:
        assert_refused(routed, "3 paths were asked for, but the routing has no noise .* pass do_sample=True", paths=3)
        assert routed.generate(PROMPT, paths=1, max_new_tokens=2).sequences.shape == (1, 11)
        assert routed.generate(PROMPT, paths=3, max_new_tokens=2, do_sample=True).sequences.shape == (3, 11)


def test_several_paths_of_strength_zero_are_warned_about_and_are_the_original():
    expected = stock_model("llama").generate(PROMPT, max_new_tokens=4)
    with routed_model("llama", SILENT) as routed:
        with pytest.warns(NoDifference, match="3 paths were asked for, but every strength is 0"):
            out = routed.generate(PROMPT, paths=3, seed=1, max_new_tokens=4)
        assert torch.equal(out.sequences, expected.expand(3, -1))
        assert torch.equal(routed.generate(PROMPT, paths=1, max_new_tokens=4).sequences, expected)
        routed.generate(PROMPT, paths=3, max_new_tokens=4, do_sample=True)


# -- generate: prompts


def test_a_missing_prompt_is_refused(routed):
    assert_refused(routed, "input_ids is missing", input_ids=None)


def test_no_prompts_at_all_are_refused(routed):
    assert_refused(routed, "holds no prompt", input_ids=PROMPT[:0])


def test_an_empty_prompt_is_refused(routed):
    assert_refused(routed, "prompt 0 is empty: give at least one token", input_ids=PROMPT[:, :0])


@pytest.mark.parametrize("masked", [False, True])
def test_a_row_of_nothing_but_padding_is_refused(routed, masked):
    ids, mask = padded(IDS, [9, 0], 9)
    assert_refused(routed, "prompt 1 is empty", input_ids=ids, attention_mask=mask if masked else None)


@pytest.mark.parametrize("masked", [False, True])
def test_padding_at_the_right_is_refused(routed, masked):
    ids, mask = padded(IDS, [9, 4], 9, side="right")
    mask = mask if masked else None
    assert_refused(
        routed, "padded at the right: set tokenizer.padding_side = 'left'", input_ids=ids, attention_mask=mask
    )


def test_a_mask_of_another_shape_is_refused(routed):
    assert_refused(routed, r"attention_mask has shape \(2, 9\) for prompts of shape \(1, 9\)", attention_mask=MANY_MASK)


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1])
def test_a_prompt_that_fills_the_context_is_refused(routed, length):
    assert_refused(
        routed, f"a prompt of {length} tokens fills .* context of {CONTEXT}", input_ids=random_ids(1, length)
    )


def test_more_new_tokens_than_the_context_holds_are_refused(routed):
    message = f"max_new_tokens=120 and a prompt of 9 tokens exceed .* {CONTEXT}: ask for at most {CONTEXT - 9}"
    assert_refused(routed, message, max_new_tokens=120)
    assert_refused(routed, "exceed the model's context", max_new_tokens=None, max_length=CONTEXT + 1)


def test_padding_does_not_count_towards_the_context(routed):
    ids, mask = padded(IDS, [4], CONTEXT + 2)
    out = routed.generate(ids, attention_mask=mask, paths=1, seed=1, max_new_tokens=4)
    alone = routed.generate(IDS[:1, :4], paths=out.paths, max_new_tokens=4)
    assert torch.equal(out.generated, alone.generated)


def test_where_no_length_is_asked_for_the_text_ends_with_the_context_as_in_transformers(routed):
    out = routed.generate(random_ids(1, CONTEXT - 3), paths=2, seed=1)
    assert out.sequences.shape == (2, CONTEXT)


def test_a_text_may_fill_the_context_to_its_end(routed):
    out = routed.generate(random_ids(1, CONTEXT - 2), paths=2, seed=1, max_new_tokens=2)
    assert out.sequences.shape == (2, CONTEXT)


# -- generate: transformers' arguments


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True}, {"num_beams": 4}], ids=str)
def test_num_return_sequences_is_refused(routed, arguments):
    assert_refused(routed, "num_return_sequences=3 .* pass paths=3", num_return_sequences=3, **arguments)


def test_num_return_sequences_of_one_is_not_refused(routed):
    assert routed.generate(PROMPT, num_return_sequences=1, max_new_tokens=2).sequences.shape == (1, 11)


def test_beam_sampling_is_refused(routed):
    assert_refused(routed, "num_beams=2 with do_sample=True is beam sampling", num_beams=2, do_sample=True)


def test_beam_search_along_several_paths_is_refused(routed):
    assert_refused(routed, "num_beams=2 searches along one path a prompt: pass paths=1", num_beams=2, paths=2)
    assert_refused(routed, "num_beams=2 searches along one path a prompt", num_beams=2, paths=[1, 2])


@pytest.mark.parametrize("method", ["assistant_model", "prompt_lookup_num_tokens"])
def test_sampled_assisted_decoding_is_refused(routed, method):
    value = stock_model("qwen3") if method == "assistant_model" else 3
    assert_refused(routed, "assisted decoding with do_sample=True", do_sample=True, **{method: value})


def test_no_assistant_is_no_assisted_decoding(routed):
    out = routed.generate(PROMPT, assistant_model=None, do_sample=True, max_new_tokens=2)
    assert out.sequences.shape == (1, 11)


def test_custom_generate_is_refused(routed):
    message = "custom_generate= is not supported by routed.generate: call the model inside follow"
    assert_refused(routed, message, custom_generate=lambda *args, **kwargs: None)
    assert_refused(routed, message, custom_generate="someone/decoding")


def test_a_cache_of_the_caller_is_refused(routed):
    cache = routed.model(PROMPT, use_cache=True).past_key_values
    assert_refused(routed, "past_key_values= is not supported", past_key_values=cache)


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2"], ids=repr)
def test_a_bad_number_of_rows_at_once_is_refused(routed, number):
    assert_refused(routed, re.escape(f"rows_at_once={number!r} is no number of rows"), rows_at_once=number)


def test_an_unknown_argument_is_refused_as_in_transformers(routed):
    assert_refused(routed, "not used by the model: .'temprature'.", temprature=0.7)
    assert_refused(routed, "not used by the model: .'temprature'.", temprature=0.7, do_sample=True)


def test_stop_strings_without_the_tokenizer_are_refused(routed):
    assert_refused(routed, "needs the tokenizer: pass tokenizer=", stop_strings=["end"])


@pytest.mark.parametrize("arguments", [{"do_sample": True, "temperature": -1.0}, {"max_new_tokens": 0}], ids=str)
def test_values_that_transformers_refuses_are_refused(routed, arguments):
    assert_refused(routed, next(name for name in arguments if name != "do_sample"), **arguments)


@pytest.mark.parametrize("ids", [PROMPT[0], PROMPT.tolist()], ids=["one dimension", "a list"])
def test_ids_that_are_no_matrix_are_refused(routed, ids):
    assert_refused(routed, "input_ids", input_ids=ids)


def test_two_sets_of_prompts_are_refused(routed):
    assert_refused(routed, "input", inputs=PROMPT, input_ids=IDS[1:])


@pytest.mark.parametrize("samples", [False, True])
def test_an_exception_while_generating_leaves_the_original_model(routed, samples):
    expected = logits(routed.model)

    def fail(row, ids):
        raise KeyError("the caller's own mistake")

    with pytest.raises(KeyError, match="own mistake"):
        routed.generate(PROMPT, paths=2, max_new_tokens=4, do_sample=samples, prefix_allowed_tokens_fn=fail)
    assert_original(routed, expected)


# -- follow


@pytest.mark.parametrize("paths", [[A_PATH], [A_PATH, 1, 2]], ids=len)
def test_following_another_number_of_paths_than_rows_is_an_error(routed, paths):
    with (
        routed.follow(paths),
        pytest.raises(RuntimeError, match=f"has 2 rows, but follow.. was given {len(paths)} paths"),
    ):
        routed.model(IDS)


@pytest.mark.parametrize(
    ("paths", "start", "message"),
    [
        ([], 0, "names no path: give one a batch row"),
        ([A_PATH, "abc"], 0, "path id 'abc' is not 16 hex digits"),
        ([A_PATH, -1], 0, "path id=-1 is outside"),
        ([A_PATH, 1 << 64], 0, "is outside"),
        ([A_PATH, True], 0, "path id=True is no integer"),
        ("00c0ffee00c0ffee", 0, "is not 16 hex digits"),
        ([A_PATH, 1], -1, "start=-1 is no position: give an integer ≥ 0"),
        ([A_PATH, 1], [0, -2], "start=-2 is no position"),
        ([A_PATH, 1], 1.0, "start=1.0 is no position"),
        ([A_PATH, 1], True, "start=True is no position"),
        ([A_PATH, 1], None, "start=None is no position"),
        ([A_PATH, 1], [0], "start names 1 positions for 2 paths"),
        ([A_PATH, 1], [0, 1, 2], "start names 3 positions for 2 paths"),
        ([A_PATH, 1], [], "start names 0 positions for 2 paths"),
    ],
)
def test_bad_arguments_of_follow_are_named_before_anything_happens(routed, paths, start, message):
    expected = logits(routed.model)
    with pytest.raises(ValueError, match=message), routed.follow(paths, start=start):
        raise AssertionError("the block must not be entered")
    assert_original(routed, expected)


def test_inner_paths_hold_inside_and_outer_ones_again_after(routed):
    outer, inner, original = [A_PATH, 1], [2, 3], logits(routed.model)
    with routed.follow(inner, start=3):
        expected_inner = logits(routed.model)
    with routed.follow(outer):
        expected_outer = logits(routed.model)
        with routed.follow(inner, start=3):
            assert torch.equal(logits(routed.model), expected_inner)
            with routed.suspended():
                assert torch.equal(logits(routed.model), original)
            assert torch.equal(logits(routed.model), expected_inner)
        assert torch.equal(logits(routed.model), expected_outer)
    assert not torch.equal(expected_outer, expected_inner)
    assert_original(routed, original)


def test_generate_inside_follow_walks_its_own_paths_and_returns_to_the_outer_ones(routed):
    expected = routed.generate(PROMPT, paths=[5, 6], max_new_tokens=4)
    with routed.follow([A_PATH, 1]):
        before = logits(routed.model)
        assert torch.equal(routed.generate(PROMPT, paths=[5, 6], max_new_tokens=4).sequences, expected.sequences)
        assert torch.equal(logits(routed.model), before)


def test_an_exception_inside_follow_restores_what_was_before(routed):
    original = logits(routed.model)
    with routed.follow([A_PATH, 1]):
        before = logits(routed.model)
        with pytest.raises(KeyError), routed.follow([2, 3]):
            raise KeyError
        assert torch.equal(logits(routed.model), before)
    with pytest.raises(KeyError), routed.follow([A_PATH, 1]), routed.suspended():
        raise KeyError
    assert_original(routed, original)


@pytest.mark.parametrize("part", ["mlp", "self_attn"])
def test_a_layer_called_directly_inside_follow_is_an_error(routed, part):
    layer = getattr(routed.model.model.layers[2], part)
    states = torch.ones(1, 3, 32, dtype=torch.float64)
    arguments = (
        {} if part == "mlp" else {"attention_mask": None, "position_embeddings": (states[..., :8], states[..., :8])}
    )
    with routed.follow([A_PATH]), pytest.raises(RuntimeError, match="outside of its model's forward"):
        layer(states, **arguments)
    with routed.suspended():
        layer(states, **arguments)


def test_a_layer_called_after_a_forward_that_failed_is_an_error_too(routed):
    layer = routed.model.model.layers[2].mlp
    with routed.follow([A_PATH]):
        with pytest.raises(IndexError):
            routed.model(PROMPT + 1000)
        with pytest.raises(RuntimeError, match="outside of its model's forward"):
            layer(torch.ones(1, 9, 32, dtype=torch.float64))


def test_a_clean_row_among_paths_is_that_of_the_original(routed):
    original = logits(routed.model)
    with routed.follow([None, A_PATH]):
        mixed = logits(routed.model)
    torch.testing.assert_close(mixed[0], original[0])
    assert (mixed[1] - original[1]).abs().max() > 1e-2
