"""Scores against the formulas written out, and semantic entropy under equivalences of several kinds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from stochroute.uncertainty import Answered, mutual_entailment, near_embeddings, same_text, scores_of
from stochroute.uncertainty.equivalence import clusters
from stochroute.uncertainty.scores import EXPLAINED, counted_entropy, weighted_entropy

NATS = {"total": [0.9, 0.5], "conditional": [0.6, 0.4], "transmission": [0.3, 0.1], "clean": [0.7, 0.1]}
ROW = Answered(
    arm="paths",
    index=0,
    group="",
    paths=["0" * 16] * 4,
    texts=["Rome.", "the rome", "Oslo", "Rome."],
    answers=["Rome.", "the rome", "Oslo", "Rome."],
    right=[True, True, False, True],
    given=0,
    tokens=["Rome", "."],
    nats={**NATS, "surprise": [0.5, 0.25]},
    log_likelihoods=[math.log(0.5), math.log(0.2), math.log(0.1), math.log(0.5)],
    transmission=0.2,
)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_counted_entropy_is_scipys(labels):
    assert counted_entropy(labels) == pytest.approx(stats.entropy(np.unique(labels, return_counts=True)[1]))


def test_every_score_is_what_its_name_says():
    found = scores_of(ROW)
    assert set(found) == set(EXPLAINED)
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["answer entropy"] == found["semantic entropy"] == pytest.approx(quarter)
    # of the different texts, Rome weighs 0.5 + 0.2, Oslo 0.1
    assert found["weighted semantic entropy"] == pytest.approx(stats.entropy([0.7, 0.1]))
    assert found["token transmission"] == pytest.approx(0.2)
    assert found["largest token transmission"] == 0.3
    assert found["token total"] == pytest.approx(0.7)
    assert found["answer transmission"] == 0.2
    assert found["single-pass entropy"] == pytest.approx(0.4)
    assert found["1 − p(max)"] == pytest.approx(1 - math.exp(-0.75))


def test_a_score_without_its_numbers_is_left_out():
    one = replace(ROW, texts=["a"], answers=["a"], right=[True], nats={"clean": [0.1], "surprise": [0.1]})
    assert set(scores_of(one)) == {"single-pass entropy", "1 − p(max)"}
    assert "answer transmission" not in scores_of(replace(ROW, transmission=None))
    assert "weighted semantic entropy" not in scores_of(replace(ROW, log_likelihoods=None))


def test_semantic_entropy_counts_meanings():
    def all_alike(question, answers):
        return [[True] * len(answers)] * len(answers)

    assert scores_of(ROW, "q", all_alike)["semantic entropy"] == 0
    assert scores_of(ROW, "q", all_alike)["answer entropy"] > 0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.data())
def test_weighted_entropy_ignores_how_often_a_text_was_drawn(texts, data):
    log_p = {text: data.draw(st.floats(-900, 0)) for text in set(texts)}
    labels = {text: data.draw(st.integers(0, 1)) for text in set(texts)}

    def entropy(drawn):
        return weighted_entropy([labels[t] for t in drawn], drawn, [log_p[t] for t in drawn])

    assert entropy(texts) == pytest.approx(entropy(sorted(set(texts))), abs=1e-9)
    weights = [sum(math.exp(log_p[t] - max(log_p.values())) for t in log_p if labels[t] == label) for label in (0, 1)]
    assert entropy(texts) == pytest.approx(stats.entropy(weights), abs=1e-9)


def test_clusters_join_the_first_that_says_the_same():
    same = [[True, True, False], [True, True, True], [False, True, True]]  # no transitivity
    assert clusters(same) == [0, 0, 1]
    assert clusters(same_text("", ["a", "B", "the A", "b."])) == [0, 1, 0, 1]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Untrained encoders over a few words: one that classifies pairs, one that embeds."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "q", "rome", "oslo", "paris"]
    folder = tmp_path_factory.mktemp("encoders")
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    size = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16}
    config = BertConfig(
        **size, num_hidden_layers=1, num_attention_heads=2, num_labels=2, id2label={0: "no", 1: "ENTAILMENT"}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, model in (("nli", BertForSequenceClassification(config)), ("embedder", BertModel(config))):
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            always = BertForSequenceClassification(config)
            always.classifier.weight.zero_()
            always.classifier.bias.copy_(torch.tensor([-1.0, 1.0]))
        always.save_pretrained(folder / "always")
        tokenizer.save_pretrained(folder / "always")
    return folder


def test_entailment_both_ways_makes_one_meaning(encoders):
    answers = ["rome", "oslo", "rome"]
    assert mutual_entailment(str(encoders / "always"))("q", answers) == [[True] * 3] * 3
    same = mutual_entailment(str(encoders / "nli"))("q", answers)
    assert all(same[i][i] for i in range(3))
    assert same == [list(column) for column in zip(*same, strict=True)]


def test_near_embeddings_are_one_meaning(encoders):
    answers = ["rome", "oslo", "rome"]
    strict = near_embeddings(str(encoders / "embedder"), threshold=0.9999)("q", answers)
    assert strict == [[True, False, True], [False, True, False], [True, False, True]]
    assert near_embeddings(str(encoders / "embedder"), threshold=0.01)("q", answers)[0][1]


def test_models_that_cannot_compare_are_named(encoders):
    config = BertConfig.from_pretrained(encoders / "nli")
    config.id2label = {0: "no", 1: "yes"}
    BertForSequenceClassification(config).save_pretrained(encoders / "labels")
    BertTokenizerFast.from_pretrained(encoders / "nli").save_pretrained(encoders / "labels")
    with pytest.raises(ValueError, match="none of its labels"):
        mutual_entailment(str(encoders / "labels"))
    with pytest.raises(ValueError, match="threshold=0"):
        near_embeddings(str(encoders / "embedder"), threshold=0)
