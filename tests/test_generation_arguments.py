"""Transformers' own arguments, decoding methods and kinds of models mean along paths what they mean without."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

import stochroute as sr
from families import FAMILIES, VOCABULARY
from generation_runs import IDS, LENGTHS, MANY, MANY_MASK, NEW, PROMPT, config, end_of_one_row, forwards, unshared
from matrix import PATHS, routed_model, stock_model
from stochroute.generation.settings import UNTRUNCATED

REAL_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"


# -- transformers' own arguments


class Favour(LogitsProcessor):
    """Adds to the logits of one token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + 4.0 * (torch.arange(VOCABULARY) % 7 == 0)


class StopAtMultiplesOf(StoppingCriteria):
    """Ends a row at a token that is a multiple of a number."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self, input_ids: Tensor, scores: Tensor, **arguments) -> Tensor:
        return input_ids[:, -1] % self.number == 0


ARGUMENTS = {
    "repetition_penalty": {"repetition_penalty": 2.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "suppress_tokens": {"suppress_tokens": list(range(0, 97, 2))},
    "bad_words_ids": {"bad_words_ids": [[token] for token in range(1, 97, 2)]},
    "logits_processor": {"logits_processor": LogitsProcessorList([Favour()])},
    "prefix_allowed_tokens_fn": {"prefix_allowed_tokens_fn": lambda row, ids: [2, 3, 4 + ids.shape[-1] % 5]},
    "eos": {"eos_token_id": [7, *range(10, 90, 3)]},
    "eos after min_new_tokens": {"eos_token_id": list(range(10, 60)), "min_new_tokens": 5},
    "stopping_criteria": {
        "eos_token_id": 1,
        "stopping_criteria": StoppingCriteriaList([StopAtMultiplesOf(3)]),
    },
    "max_length": {"max_new_tokens": None, "max_length": 12},
    "config object": {
        "max_new_tokens": None,
        "generation_config": GenerationConfig(max_new_tokens=5, suppress_tokens=[*range(50)]),
    },
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments_do_what_they_do_in_transformers(routed, arguments):
    arguments = {"max_new_tokens": NEW} | arguments
    arguments = {name: value for name, value in arguments.items() if value is not None}
    paths = sr.derive_paths(2, 4)
    with routed.follow(paths, start=8):
        expected = routed.model.generate(PROMPT.expand(4, -1), **copy.deepcopy(arguments))
    plain = routed.generate(PROMPT, paths=paths, max_new_tokens=NEW)
    for rows_at_once in (None, 1):
        out = routed.generate(PROMPT, paths=paths, rows_at_once=rows_at_once, **arguments)
        assert torch.equal(out.sequences, expected)
    assert out.sequences.shape != plain.sequences.shape or not torch.equal(out.sequences, plain.sequences)


def test_processors_of_the_user_come_before_the_warpers_and_are_not_changed(routed):
    processors = LogitsProcessorList([Favour()])
    asked = {"paths": PATHS, "max_new_tokens": NEW, "logits_processor": processors}
    sampled = routed.generate(PROMPT, do_sample=True, top_k=1, **asked)
    assert torch.equal(sampled.sequences, routed.generate(PROMPT, **asked).sequences)
    assert len(processors) == 1


@pytest.mark.parametrize("rows_at_once", [None, 1])
def test_allowed_tokens_are_asked_for_by_prompt_not_by_row(routed, rows_at_once):
    allowed = [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    asked = {"attention_mask": MANY_MASK, "paths": 2, "seed": 1, "max_new_tokens": NEW, "rows_at_once": rows_at_once}
    out = routed.generate(MANY, prefix_allowed_tokens_fn=lambda prompt, ids: allowed[prompt], **asked)
    for prompt, row in zip(out.prompt_index, out.generated.tolist(), strict=True):
        assert set(row) <= set(allowed[prompt])


def letter_of(token: int) -> str:
    return chr(ord("!") + token)


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of one letter a token."""
    letters = Tokenizer(models.BPE({letter_of(token): token for token in range(VOCABULARY)}, []))
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=letters)


@pytest.mark.parametrize("samples", [False, True])
def test_texts_end_at_stop_strings(routed, samples):
    asked = {"paths": 5, "seed": 3, "max_new_tokens": NEW, "do_sample": samples, "eos_token_id": 1}
    free = routed.generate(PROMPT, **asked)
    end = end_of_one_row(free)
    out = routed.generate(PROMPT, stop_strings=[letter_of(end)], tokenizer=letter_tokenizer(), **asked)
    for row, text in zip(out.generated.tolist(), free.generated.tolist(), strict=True):
        expected = text[: text.index(end) + 1] if end in text else text
        assert row[: len(expected)] == expected
        assert set(row[len(expected) :]) <= {0}
    assert out.receipts[0].decoding["stop_strings"] == [letter_of(end)]


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("own", [[], ["!"]], ids=["the model's", "both"])
def test_stop_strings_may_stand_in_the_models_own_generation_config(routed, monkeypatch, samples, own):
    asked = {"paths": 5, "seed": 3, "max_new_tokens": NEW, "do_sample": samples, "eos_token_id": 1}
    asked |= {"tokenizer": letter_tokenizer()}
    end = letter_of(end_of_one_row(routed.generate(PROMPT, **asked)))
    expected = routed.generate(PROMPT, stop_strings=own or [end], **asked)
    monkeypatch.setattr(routed.model.generation_config, "stop_strings", [end])
    out = routed.generate(PROMPT, **asked | ({"stop_strings": own} if own else {}))
    assert torch.equal(out.sequences, expected.sequences)


@pytest.mark.parametrize("samples", [False, True])
def test_a_stopped_text_is_the_same_alone_where_the_model_has_no_eos_token(routed, samples):
    asked = {"max_new_tokens": NEW, "do_sample": samples}
    free = routed.generate(PROMPT, paths=5, seed=3, **asked)
    stop = {"stop_strings": [letter_of(end_of_one_row(free))], "tokenizer": letter_tokenizer()}
    together = routed.generate(PROMPT, paths=free.paths, **stop, **asked)
    chunked = routed.generate(PROMPT, paths=free.paths, rows_at_once=1, **stop, **asked)
    assert torch.equal(together.sequences, chunked.sequences)


class Listener(BaseStreamer):
    """Keeps what it hears."""

    def __init__(self):
        self.heard, self.ended = [], False

    def put(self, value: Tensor) -> None:
        self.heard += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("samples", [False, True])
def test_one_path_can_be_streamed(span, samples):
    listener = Listener()
    with routed_model("llama", config(span)) as routed:
        out = routed.generate(PROMPT, paths=1, seed=6, max_new_tokens=NEW, do_sample=samples, streamer=listener)
    assert listener.heard == out.sequences[0].tolist()
    assert listener.ended


@pytest.mark.parametrize("samples", [False, True])
def test_logits_are_those_that_transformers_returns_for_the_same_prefix(routed, samples):
    warp = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9} if samples else {}
    asked = warp | {"repetition_penalty": 1.5, "output_scores": True, "output_logits": True}
    asked |= {"return_dict_in_generate": True}
    out = routed.generate(PROMPT, paths=PATHS, max_new_tokens=4, **asked)
    for step in range(4):
        prefix = out.sequences[:, : 9 + step]
        with torch.random.fork_rng(devices=[]), routed.follow(PATHS, start=8):
            stock = routed.model.generate(prefix, max_new_tokens=1, **asked)
        for ours, theirs in ((out.scores[step], stock.scores[0]), (out.logits[step], stock.logits[0])):
            assert ours.dtype == theirs.dtype == torch.float32
            torch.testing.assert_close(ours, theirs)
    assert out.scores[0].isinf().any() == samples


@pytest.mark.parametrize("samples", [False, True])
def test_scores_need_no_further_argument_because_the_output_is_never_a_bare_tensor(routed, samples):
    out = routed.generate(
        PROMPT, paths=2, seed=1, max_new_tokens=2, do_sample=samples, output_scores=True, output_logits=True
    )
    assert [step.shape for step in out.scores] == [(2, VOCABULARY)] * 2
    assert [step.shape for step in out.logits] == [(2, VOCABULARY)] * 2


@pytest.mark.parametrize("samples", [False, True])
def test_scores_may_be_asked_for_in_the_models_own_generation_config(routed, monkeypatch, samples):
    asked = {"paths": 2, "seed": 1, "max_new_tokens": 2, "do_sample": samples}
    expected = routed.generate(PROMPT, output_scores=True, return_dict_in_generate=True, **asked)
    monkeypatch.setattr(routed.model.generation_config, "output_scores", True)
    monkeypatch.setattr(routed.model.generation_config, "return_dict_in_generate", True)
    out = routed.generate(PROMPT, **asked)
    assert len(out.scores) == 2
    assert all(torch.equal(ours, other) for ours, other in zip(out.scores, expected.scores, strict=True))


def test_scores_are_none_where_nobody_asked_for_them(routed):
    out = routed.generate(PROMPT, paths=PATHS, max_new_tokens=2, do_sample=True)
    assert out.scores is None
    assert out.logits is None


# -- decoding methods


def test_beam_search_along_one_path_a_prompt_replays(span):
    asked = {"num_beams": 3, "max_new_tokens": NEW}
    with routed_model("llama", config(span)) as routed:
        out = routed.generate(MANY, attention_mask=MANY_MASK, paths=[[p] for p in PATHS], **asked)
        chunked = routed.generate(MANY, attention_mask=MANY_MASK, paths=PATHS, rows_at_once=1, **asked)
        assert torch.equal(chunked.sequences, out.sequences)
        for prompt, length in enumerate(LENGTHS):
            alone = routed.generate(IDS[prompt : prompt + 1, :length], paths=PATHS[prompt : prompt + 1], **asked)
            assert torch.equal(alone.generated[0], out.generated[prompt])
        other = routed.generate(PROMPT, paths=[PATHS[1]], **asked)
    assert not torch.equal(other.generated[0], out.generated[0])


def test_beam_search_at_strength_0_is_transformers_beam_search():
    asked = {"num_beams": 3, "max_new_tokens": NEW, "length_penalty": 0.5}
    expected = stock_model("llama").generate(MANY, attention_mask=MANY_MASK, **asked)
    with routed_model("llama", config(strength=0.0)) as routed:
        out = routed.generate(MANY, attention_mask=MANY_MASK, paths=1, **asked)
    assert torch.equal(out.sequences, expected)


@pytest.fixture(scope="module")
def assistant():
    """A model that agrees with the main one often, but not always."""
    model = FAMILIES["llama"].build()
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return model


@pytest.mark.parametrize("method", ["assistant_model", "prompt_lookup_num_tokens"])
def test_greedy_assisted_decoding_gives_the_tokens_of_greedy_decoding(span, method, assistant):
    help = {method: assistant if method == "assistant_model" else 3}
    asked = {"attention_mask": MANY_MASK, "paths": 2, "seed": 5, "max_new_tokens": 12}
    with routed_model("llama", config(span, strength=0.3)) as routed:
        expected = routed.generate(MANY, **asked)
        out, shapes = forwards(routed, input_ids=MANY, **asked, **help)
    assert torch.equal(out.sequences, expected.sequences)
    assert any(1 < tokens < 6 for _, tokens in shapes)  # several candidates were verified at once


def test_prompts_may_be_embeddings(span):
    with routed_model("llama", config(span)) as routed:
        embeds = routed.model.get_input_embeddings()(MANY).detach()
        for samples in (False, True):
            asked = {"attention_mask": MANY_MASK, "paths": 2, "seed": 5, "max_new_tokens": NEW, "do_sample": samples}
            out = routed.generate(inputs_embeds=embeds, **asked)
            expected = routed.generate(MANY, **asked)
            assert (out.prompt_width, out.starts) == (0, expected.starts)
            assert torch.equal(out.generated, expected.generated)


def test_ids_of_embedded_prompts_are_not_dropped_in_silence(routed):
    embeds = routed.model.get_input_embeddings()(IDS[1:2]).detach()
    ids_only = routed.generate(PROMPT, paths=PATHS, max_new_tokens=NEW)
    try:
        both = routed.generate(PROMPT, inputs_embeds=embeds, paths=PATHS, max_new_tokens=NEW)
    except ValueError:
        return
    assert not torch.equal(both.generated, ids_only.generated)


def test_a_prompt_of_one_token_is_enough(span):
    with routed_model("llama", config(span)) as routed:
        out = routed.generate(PROMPT[:, :1], paths=PATHS, max_new_tokens=NEW)
        assert out.starts == [0, 0, 0]
        assert torch.equal(out.sequences, unshared(routed, PROMPT[:, :1], PATHS, use_cache=False))


# -- models of all sorts


def test_the_models_own_generate_stays_that_of_transformers():
    model = stock_model("llama")
    asked = {"attention_mask": MANY_MASK, "max_new_tokens": NEW}
    expected, settings = model.generate(MANY, **asked), model.generation_config.to_dict()
    with routed_model("llama", config()) as routed:
        assert torch.equal(model.generate(MANY, **asked), expected)
        routed.generate(MANY, paths=2, seed=1, do_sample=True, top_k=3, **asked)
        assert torch.equal(model.generate(MANY, **asked), expected)
        assert model.generation_config.to_dict() == settings
    assert torch.equal(model.generate(MANY, **asked), expected)


def test_a_model_with_a_device_map_generates_the_same(tmp_path, routed):
    expected = routed.generate(MANY, paths=2, seed=1, max_new_tokens=NEW)
    FAMILIES["llama"].build().save_pretrained(tmp_path)
    placed = AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"}, dtype=torch.float64)
    out = sr.route(placed, config()).generate(MANY, paths=2, seed=1, max_new_tokens=NEW)
    assert torch.equal(out.sequences, expected.sequences)


def adapted_model(family: str):
    """The family's model with untrained, non-zero LoRA adapters."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    names, transposed = (["q_proj", "v_proj"], False) if family == "llama" else (["c_attn"], True)
    lora = peft.LoraConfig(
        target_modules=names, init_lora_weights=False, fan_in_fan_out=transposed, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        torch.manual_seed(0)
        return peft.get_peft_model(FAMILIES[family].build(), lora).double().eval()


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("prompts", ["one prompt", "left-padded prompts"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_with_adapters_generates_as_with_merged_weights(family, prompts, samples):
    asked = {"paths": 2, "seed": 1, "max_new_tokens": NEW, "do_sample": samples}
    asked |= {"input_ids": PROMPT} if prompts == "one prompt" else {"input_ids": MANY, "attention_mask": MANY_MASK}
    routed = sr.route(adapted_model(family), config())
    out = routed.generate(**asked)
    merged = sr.route(routed.detach().merge_and_unload(), config()).generate(**asked)
    with routed_model(family, config()) as plain:
        assert not torch.equal(plain.generate(**asked).sequences, out.sequences)
    assert torch.equal(out.sequences, merged.sequences)


@pytest.mark.skipif(not REAL_MODELS.is_dir(), reason="the folder ../shared/models of real models is not here")
def test_chats_through_a_template_are_each_chat_alone():
    tokenizer = AutoTokenizer.from_pretrained(REAL_MODELS / "stories3M", padding_side="left", pad_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    model = AutoModelForCausalLM.from_pretrained(REAL_MODELS / "stories3M", dtype=torch.float64)
    routed = sr.route(model, sr.RoutingConfig(structural=sr.Structural(strength=0.4)))
    chats = [
        [{"role": "user", "content": text}] for text in ("Tell me of Tom.", "Once upon a time, Lily had a big dog.")
    ]
    encode = {"return_tensors": "pt", "return_dict": True, "padding": True}
    asked = {"paths": 2, "seed": 1, "max_new_tokens": 12}
    out = routed.generate(**tokenizer.apply_chat_template(chats, **encode), **asked)
    for chat in range(2):
        rows = slice(2 * chat, 2 * chat + 2)
        inputs = tokenizer.apply_chat_template(chats[chat : chat + 1], **encode)
        alone = routed.generate(**inputs, **(asked | {"paths": out.paths[rows], "seed": None}))
        assert tokenizer.batch_decode(alone.generated) == tokenizer.batch_decode(out.generated[rows])
    assert len(set(tokenizer.batch_decode(out.generated))) == 4


def test_untruncated_sampling_is_untruncated_whatever_the_model_prefers():
    routed = sr.route(copy.deepcopy(stock_model("llama")), sr.RoutingConfig(structural=None))
    defaults = routed.model.generation_config
    defaults.do_sample, defaults.top_k, defaults.top_p, defaults.min_p, defaults.typical_p = True, 3, 0.3, 0.5, 0.3
    out = routed.generate(PROMPT, paths=2, seed=1, max_new_tokens=3, output_scores=True, do_sample=True, **UNTRUNCATED)
    assert all(bool(scores.isfinite().all()) for scores in out.scores)
    cut = routed.generate(PROMPT, paths=2, seed=1, max_new_tokens=3, output_scores=True)
    assert not any(bool(scores.isfinite().all()) for scores in cut.scores)
    assert out.receipts[0].decoding.keys() & UNTRUNCATED.keys() == {"top_k", "top_p", "min_p", "typical_p"}
