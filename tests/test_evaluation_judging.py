"""Judges: likelihood against transformers' own loss, whatever tokenizer and batch; and judges that cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from cli_model import CONTEXT
from evaluation_runs import load
from evaluation_runs import models as tiny_models
from stochroute.evaluation.embedding import EncoderEmbedder, Entailment
from stochroute.evaluation.judging import Judge, Reward
from stochroute.loading import LoadedModel

VOCABULARY = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "cat": 5, "dog": 6, "sat": 7}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, LoadedModel]:
    generator, judge = tiny_models(tmp_path_factory.mktemp("models"))
    return load(generator), load(judge)


def word_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def test_nats_are_transformers_loss_on_the_text_alone(pair: tuple[LoadedModel, LoadedModel]):
    prompts, texts = ["ab", "the cat", "从前"], [" cde", " sat.", "有"]
    found = Judge(pair[1], pair[0].model).nats(prompts, texts)
    for prompt, text, nats in zip(prompts, texts, found, strict=True):
        before = len(pair[1].tokenizer(prompt)["input_ids"])
        ids = torch.tensor([pair[1].tokenizer(prompt + text)["input_ids"]])
        labels = ids.clone()
        labels[:, :before] = -100
        loss = pair[1].model(input_ids=ids, labels=labels).loss.item()
        assert nats == pytest.approx(loss * (ids.shape[1] - before), rel=1e-6)


def test_nats_do_not_depend_on_the_batch_and_add_up(pair: tuple[LoadedModel, LoadedModel]):
    judge = Judge(pair[1], pair[0].model, batch=2)
    texts = ["c", "cdefgh", "", "xy"]
    together = judge.nats(["ab"] * 4, texts)
    alone = [judge.nats(["ab"], [text])[0] for text in texts]
    assert together == pytest.approx(alone)
    assert together[2] == 0
    parts = judge.nats(["ab"], ["cd"])[0] + judge.nats(["abcd"], ["ef"])[0]
    assert judge.nats(["ab"], ["cdef"])[0] == pytest.approx(parts)


def test_a_prompt_too_long_for_the_judge_loses_its_beginning(pair: tuple[LoadedModel, LoadedModel]):
    judge = Judge(pair[1], pair[0].model)
    text = "e" * 10
    found = judge.nats(["z" * 40 + "a" * (CONTEXT - 10)], [text])[0]
    assert found == pytest.approx(judge.nats(["a" * (CONTEXT - 10)], [text])[0])
    with pytest.raises(ValueError, match=f"holds {CONTEXT} tokens"):
        judge.nats(["a"], ["e" * 2 * CONTEXT])


def test_the_generator_may_not_judge_itself_wherever_it_comes_from(
    tmp_path: Path, pair: tuple[LoadedModel, LoadedModel]
):
    pair[0].model.save_pretrained(tmp_path / "copy")
    pair[0].tokenizer.save_pretrained(tmp_path / "copy")
    with pytest.raises(ValueError, match="is the generator itself"):
        Judge(load(str(tmp_path / "copy")), pair[0].model)


def test_a_judge_that_cannot_spell_a_text_does_not_judge_it(pair: tuple[LoadedModel, LoadedModel]):
    with torch.random.fork_rng():
        model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                             num_attention_heads=2, max_position_embeddings=32))  # fmt: skip
    loaded = LoadedModel("words", model.eval(), word_tokenizer(), False, 32, frozenset(), 1)
    judge = Judge(loaded, pair[0].model)
    assert judge.nats(["the cat"], [" sat"])[0] > 0  # another tokenizer is welcome
    with pytest.raises(ValueError, match="no token for a character of ' flew'"):
        judge.nats(["the cat"], [" flew"])


def test_features_are_the_last_hidden_states(pair: tuple[LoadedModel, LoadedModel]):
    texts = ["ab", "a longer text"]
    found = Judge(pair[1], pair[0].model).features(texts)
    for text, row in zip(texts, found, strict=True):
        ids = torch.tensor([pair[1].tokenizer(text)["input_ids"]])
        states = pair[1].model(ids, output_hidden_states=True).hidden_states[-1]
        assert row == pytest.approx(states[0, -1].detach().float().numpy(), abs=1e-5)


def classifier(labels: int, names: dict[int, str] | None = None) -> BertForSequenceClassification:
    config = BertConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                        num_labels=labels, id2label=names)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(config).eval()


def test_a_reward_model_rewards_prompt_and_text_together():
    model, tokenizer = classifier(1), word_tokenizer()
    found = Reward("r", model, tokenizer).rewards(["the cat", "the dog"], ["sat", "sat"])
    for prompt, value in zip(("the cat", "the dog"), found, strict=True):
        assert value == pytest.approx(model(**tokenizer(prompt, "sat", return_tensors="pt")).logits.item())
    with pytest.raises(ValueError, match="gives 2 numbers a text"):
        Reward("r", classifier(2), tokenizer)


def test_an_nli_model_decides_by_entailment_both_ways():
    tokenizer = word_tokenizer()
    for favourite, same in ((0, True), (1, False)):
        model = classifier(2, {0: "ENTAILMENT", 1: "other"})
        torch.nn.init.zeros_(model.classifier.weight)
        model.classifier.bias.data = torch.eye(2)[favourite]
        assert Entailment("nli", model, tokenizer).same(["the cat", "the dog"])(1, 0) is same
    with pytest.raises(ValueError, match="none of them 'entailment'"):
        Entailment("nli", classifier(2), tokenizer)


def test_an_encoder_gives_the_mean_of_its_states_whatever_stands_beside_a_text():
    with torch.random.fork_rng():
        model = BertModel(BertConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                     num_attention_heads=2)).eval()  # fmt: skip
    embedder = EncoderEmbedder("bert", model, word_tokenizer())
    together = embedder.embed(["the cat", "the dog sat the cat"])
    alone = embedder.embed(["the cat"])
    assert together[0] == pytest.approx(alone[0], abs=1e-6)
    states = model(**word_tokenizer()("the cat", return_tensors="pt")).last_hidden_state[0].mean(0).detach().numpy()
    assert alone[0] == pytest.approx(states / np.linalg.norm(states), abs=1e-6)
