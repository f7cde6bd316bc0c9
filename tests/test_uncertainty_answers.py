"""Answers along paths replay, do not depend on the batch, and leave the model what it was."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

import stochroute as sr
from cli_model import save_tiny_model
from stochroute.paths import derive_paths, parse_path
from stochroute.uncertainty import NO_NOISE, Arm, Question, dropped, noise_injection, single_pass, temperature_only
from stochroute.uncertainty.answers import most_frequent
from stochroute.uncertainty.stopping import stop_place
from uncertainty_models import asker, half_known, tiny

NOISE = sr.RoutingConfig(structural=sr.Structural(strength=0.5, layers="all"), span="all")
QUESTIONS = list(half_known())
ARMS = [
    Arm("paths", NOISE, 1.0),
    Arm("paths, greedy", NOISE, 0.0),
    Arm("generated only", replace(NOISE, span="generated"), 1.0),
    Arm("attention", sr.RoutingConfig(structural=None, attention=sr.Attention(strength=2.0), span="all"), 1.0),
    noise_injection(0.5)[0],
    temperature_only(1.0),
    single_pass(),
]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_an_answer_does_not_depend_on_the_batch(arm):
    together = asker(paths=3).ask(arm, QUESTIONS, [0, 1, 2, 3])
    alone = [asker(paths=3).ask(arm, QUESTIONS, [index])[0] for index in (3, 1)]
    for one in alone:
        same = together[one.index]
        assert (one.texts, one.paths, one.given, one.tokens) == (same.texts, same.paths, same.given, same.tokens)
        for name, values in one.nats.items():
            assert values == pytest.approx(same.nats[name], abs=2e-6)


def test_the_same_seed_gives_the_same_report_and_another_another():
    arm = ARMS[0]
    assert asker(seed=5).ask(arm, QUESTIONS, [0, 1]) == asker(seed=5).ask(arm, QUESTIONS, [0, 1])
    assert asker(seed=5).ask(arm, QUESTIONS, [0])[0].texts != asker(seed=6).ask(arm, QUESTIONS, [0])[0].texts


def test_paths_are_derived_from_seed_and_question_and_replay_the_text():
    model, tokenizer = tiny()
    arm, question = ARMS[1], QUESTIONS[2]
    row = asker(paths=3, seed=9).ask(arm, QUESTIONS, [2])[0]
    assert [parse_path(path) for path in row.paths] == derive_paths(9, 3, prompt=2)
    with arm.attached(model) as routed:
        ids = tokenizer(question.text, return_tensors="pt")
        out = routed.generate(**ids, paths=[row.paths[1]], max_new_tokens=5, do_sample=False)
    assert tokenizer.decode(out.generated[0], skip_special_tokens=True).split("\n")[0].strip() == row.texts[1]


@pytest.mark.parametrize("arm", [*ARMS, Arm("dropout", temperature=1.0, dropout=0.3)], ids=lambda arm: arm.name)
def test_the_model_is_afterwards_what_it_was(arm):
    model, tokenizer = tiny()
    ids = tokenizer("abc", return_tensors="pt")
    before = model(**ids).logits
    state = torch.random.get_rng_state()
    asker(paths=2).ask(arm, QUESTIONS, [0])
    assert torch.equal(model(**ids).logits, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_published_noise_is_one_vector_in_0_alpha_for_all_tokens_and_all_layers_of_the_upper_third(tmp_path):
    save_tiny_model(tmp_path, layers=6)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    ids = tiny()[1](["abcd", "efgh"], return_tensors="pt")
    alpha, blocks = 0.25, [layer.mlp for layer in model.model.layers]
    clean: list[torch.Tensor] = []
    noised: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, output: clean.append(output.clone()))
    with noise_injection(alpha)[0].attached(model) as routed, torch.no_grad():
        for block in blocks:
            block.register_forward_hook(lambda module, args, output: noised.append(output.clone()))
        with routed.follow([1, 2]):
            model(**ids)
    added = [after - before for before, after in zip(clean, noised, strict=True)]
    assert not any(block.any() for block in added[:4])
    vector = added[4][:, :1]  # (paths, 1, channels)
    for block in added[4:]:
        torch.testing.assert_close(block, vector.expand_as(block), atol=1e-6, rtol=0)
    assert not torch.equal(vector[0], vector[1])
    assert vector.min() >= -1e-6
    assert vector.max() <= alpha + 1e-6
    assert vector.mean().item() == pytest.approx(alpha / 2, abs=0.03)
    assert vector.std().item() == pytest.approx(alpha / 12**0.5, abs=0.02)


def test_temperature_alone_draws_from_all_tokens():
    """A hidden top-k of 50 would leave no more than 50 first tokens."""
    rows = asker(paths=400, new_tokens=1).ask(temperature_only(50.0), QUESTIONS, [0])
    assert len(set(rows[0].texts)) > 60  # undecodable bytes all look alike


def test_a_single_pass_gives_one_answer_and_what_it_is_sure_of():
    model, tokenizer = tiny()
    row = asker().ask(single_pass(), QUESTIONS, [1])[0]
    assert len(row.texts) == 1
    assert row.right == [True]
    assert set(row.nats) == {"clean", "surprise"}
    ids = tokenizer(QUESTIONS[1].text, return_tensors="pt")["input_ids"]
    log_p = model(ids).logits[0, -1].float().log_softmax(-1)
    assert row.nats["surprise"][0] == pytest.approx(-log_p.max().item(), abs=1e-5)
    assert row.nats["clean"][0] == pytest.approx(-(log_p.exp() * log_p).sum().item(), abs=1e-5)


def test_only_what_means_something_is_measured():
    whole = {"total", "conditional", "transmission", "clean", "surprise"}
    assert set(asker(paths=2).ask(ARMS[0], QUESTIONS, [0])[0].nats) == whole
    assert set(asker(paths=2).ask(temperature_only(1.0), QUESTIONS, [0])[0].nats) == {"clean", "surprise"}
    dropout = asker(paths=2, likelihoods=True).ask(Arm("d", temperature=1.0, dropout=0.2), QUESTIONS, [0])[0]
    assert set(dropout.nats) == {"total", "conditional", "transmission"}
    assert dropout.transmission is None
    assert asker(paths=2).ask(ARMS[0], QUESTIONS, [0])[0].log_likelihoods is None
    assert len(asker(paths=2, likelihoods=True).ask(ARMS[0], QUESTIONS, [0])[0].log_likelihoods or []) == 2


def test_dropout_keeps_the_mean_and_differs_from_row_to_row():
    model, tokenizer = tiny()
    ids = tokenizer(["abc"] * 2, return_tensors="pt")
    seen: list[torch.Tensor] = []
    with dropped(model, 0.25, seed=3):
        handle = model.model.layers[0].mlp.register_forward_hook(lambda m, a, out: seen.append(out))
        model(**ids)
    handle.remove()
    assert 0.15 < (seen[0] == 0).double().mean() < 0.35
    assert not torch.equal(seen[0][0], seen[0][1])
    with dropped(model, 0.25, seed=3):
        again = model(**ids).logits
    with dropped(model, 0.25, seed=3):
        assert torch.equal(model(**ids).logits, again)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Arm("x", temperature=0.0), "all answers would be the same"),
        (lambda: Arm("x", temperature=-1.0), "temperature=-1.0"),
        (lambda: Arm("x", dropout=1.0), "dropout=1.0"),
        (lambda: Arm("x", NO_NOISE, mean=1.0), "mean=1.0 has no effect"),
        (lambda: Arm("x", NOISE, temperature=0.0, single=True), "a single pass has no"),
        (lambda: noise_injection(0.0), "alpha=0.0"),
        (lambda: asker(paths=1), "one path has nothing to differ from"),
        (lambda: asker(seed=-1), "seed=-1"),
        (lambda: asker(template="Q"), "has no {question}"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(("answers", "index"), [(["b", "a", "a"], 1), (["b", "a"], 0), (["c", "a", "b", "b", "a"], 1)])
def test_the_answer_given_is_the_first_of_the_most_frequent(answers, index):
    assert most_frequent(answers) == index


@pytest.mark.parametrize(("text", "place"), [("\n\n a\nb", 4), ("ab", None), ("a Q: b\n", 2), ("  ", None)])
def test_a_stop_counts_after_something_has_been_said(text, place):
    assert stop_place(text, ("\n", "Q:")) == place


def test_a_text_is_cut_where_it_stops():
    whole = asker(paths=2, new_tokens=8).ask(single_pass(), [Question("q1", ("x",))], [0])[0]
    stop = whole.tokens[3]
    task = replace(asker().task, stop=(stop,))
    row = replace(asker(paths=2, new_tokens=8), task=task).ask(single_pass(), [Question("q1", ("x",))], [0])[0]
    length = whole.tokens.index(stop) + 1 if stop in whole.tokens[1:] else 4
    assert row.tokens == whole.tokens[:length]
    assert stop not in row.texts[0]
