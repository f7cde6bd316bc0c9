"""The decomposition of entropy against one written in NumPy, and its laws; the strip that draws it."""

import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from stochroute.transmission import (
    HeatStrip,
    TokenNats,
    decompose,
    decompose_each,
    log_likelihoods,
    transmission_of_answers,
    write_picture,
)
from uncertainty_models import tiny

NOISE = sr.Structural(strength=0.8, layers="all")
CONFIGS = {
    "all": sr.RoutingConfig(structural=NOISE, span="all"),
    "generated": sr.RoutingConfig(structural=NOISE),
    "a draw a token": sr.RoutingConfig(structural=replace(NOISE, hold=1), span="all"),
    "attention": sr.RoutingConfig(structural=None, attention=sr.Attention(strength=2.0), span="all"),
}
PROMPT, TEXT, PATHS = [0, 40, 50, 60], [70, 80, 90], [3, 5, 7, 11]


@pytest.fixture(params=CONFIGS)
def routed(request):
    routed = sr.route(tiny()[0], CONFIGS[request.param])
    yield routed
    routed.detach()


def distributions(routed, temperature=1.0):
    """(paths, tokens, v) next-token distributions, one path at a time and through the model's own forward."""
    start = len(PROMPT) - 1 if routed.config.span == "generated" else 0
    rows = []
    for path in PATHS:
        with routed.follow([path], start), torch.no_grad():
            logits = routed.model(torch.tensor([PROMPT + TEXT])).logits[0].numpy() / temperature
        rows.append(np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)))
    return np.stack(rows)[:, len(PROMPT) - 1 : -1]


def entropy(p):
    return -(p * np.log(p)).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_decomposition_is_the_definition(routed, temperature):
    p = distributions(routed, temperature)
    found = decompose(routed, PROMPT, TEXT, PATHS, temperature)
    np.testing.assert_allclose(found.total.numpy(), entropy(p.mean(0)), atol=1e-5)
    np.testing.assert_allclose(found.conditional.numpy(), entropy(p).mean(0), atol=1e-5)
    np.testing.assert_allclose(found.transmission.numpy(), entropy(p.mean(0)) - entropy(p).mean(0), atol=1e-5)


def test_the_parts_add_up_and_stay_within_bounds(routed):
    found = decompose(routed, PROMPT, TEXT, PATHS)
    torch.testing.assert_close(found.total, found.conditional + found.transmission)
    assert (found.transmission > 1e-3).all()
    assert (found.transmission <= math.log(len(PATHS)) + 1e-6).all()


def test_texts_computed_together_are_as_if_alone(routed):
    prompts, texts = [PROMPT, PROMPT[:2], PROMPT], [TEXT, TEXT * 3, TEXT[:1]]
    paths = [PATHS, PATHS[:2], PATHS[1:]]
    together = decompose_each(routed, prompts, texts, paths)
    for prompt, text, ids, found in zip(prompts, texts, paths, together, strict=True):
        alone = decompose(routed, prompt, text, ids)
        for name in vars(alone):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), atol=1e-6, rtol=0)


def test_clean_and_surprise_are_the_original_models(routed):
    found = decompose(routed, PROMPT, TEXT, PATHS)
    with torch.no_grad():
        log_p = routed.model(torch.tensor([PROMPT + TEXT])).logits[0, len(PROMPT) - 1 : -1].float().log_softmax(-1)
    torch.testing.assert_close(found.clean, -(log_p.exp() * log_p).sum(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.surprise, -log_p[range(3), TEXT], atol=1e-5, rtol=0)


def test_one_path_twice_decides_nothing(routed):
    found = decompose(routed, PROMPT, TEXT, [9, 9])
    assert found.transmission.abs().max() < 1e-6


def test_without_noise_the_path_decides_nothing():
    routed = sr.route(tiny()[0], sr.RoutingConfig(structural=replace(NOISE, strength=0.0)))
    found = decompose(routed, PROMPT, TEXT, PATHS)
    routed.detach()
    assert found.transmission.abs().max() < 1e-6
    torch.testing.assert_close(found.total, found.clean)


def test_likelihoods_of_answers_are_sums_over_their_tokens(routed):
    answers = [TEXT, TEXT[:1], [90, 20]]
    found = log_likelihoods(routed, PROMPT, answers, PATHS, 0.7)
    assert found.shape == (3, 4)
    own = np.log(distributions(routed, 0.7))[:, range(3), TEXT]
    np.testing.assert_allclose(found[0].numpy(), own.sum(-1), atol=1e-4)
    np.testing.assert_allclose(found[1].numpy(), own[:, 0], atol=1e-5)


def test_transmission_of_one_token_answers_is_the_transmission_of_the_token(routed):
    """Over every answer in proportion to its probability, the estimate is the decomposition, exactly."""
    answers = [[token] for token in range(routed.model.config.vocab_size)]
    log_p = log_likelihoods(routed, PROMPT, answers, PATHS)
    expected = sum(
        float(log_p[a, k].exp()) / len(PATHS) * transmission_of_answers(log_p[a : a + 1], [k])
        for a in range(len(answers))
        for k in range(len(PATHS))
    )
    assert expected == pytest.approx(float(decompose(routed, PROMPT, [0], PATHS).transmission[0]), abs=1e-5)


def test_transmission_of_answers_at_its_bounds():
    sure = torch.tensor([[0.0, -80.0], [-80.0, 0.0]])  # each path says its own answer
    assert transmission_of_answers(sure, [0, 1]) == pytest.approx(math.log(2))
    assert transmission_of_answers(torch.full((2, 2), -1.0), [0, 1]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((PROMPT, TEXT, [3]), "one path has nothing to differ from"),
        (([], TEXT, PATHS), "at least one of each"),
        ((PROMPT, [], PATHS), "at least one of each"),
        ((PROMPT, TEXT, PATHS, 0.0), "temperature=0.0 must be above 0"),
        ((PROMPT, TEXT, [3, -1]), "path id"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    routed = sr.route(tiny()[0], CONFIGS["all"])
    try:
        with pytest.raises(ValueError, match=words):
            decompose(routed, *arguments)
    finally:
        routed.detach()


def strip(tokens, transmission):
    values = torch.tensor(transmission)
    nats = TokenNats(values + 1, torch.ones_like(values), values, values, values)
    return HeatStrip("Say:", tokens, nats, paths=8)


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)


@given(st.lists(st.tuples(printable, st.floats(0, 2)), min_size=1, max_size=40))
def test_the_svg_is_xml_with_every_token_in_order(rows):
    tokens = [token for token, _ in rows]
    root = ElementTree.fromstring(strip(tokens, [value for _, value in rows]).to_svg())
    shown = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert shown == [token.replace(" ", "\u00a0") for token in tokens]


def test_the_hottest_token_is_the_reddest():
    drawn = strip(["a", "b", "c"], [0.0, 0.4, 0.1])
    backgrounds = [str(span.style).split(" on ")[1] for span in drawn.to_rich().spans if " on " in str(span.style)]
    assert backgrounds[0] == "#ffffff"
    assert backgrounds[1] == "#be123c"
    assert drawn.to_rich().plain == "Say:abc"
    assert "most at token 2, 'b': 0.400 of at most 2.079" in drawn.summary()
    assert drawn.to_dict()["tokens"] == ["a", "b", "c"]


def test_pictures_are_whole_files_or_none(tmp_path):
    one = strip(["<b>", "&"], [0.1, 0.2])
    write_picture(tmp_path / "a.html", [one, one])
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 2
    assert "<b>" not in page
    write_picture(tmp_path / "a.svg", [one])
    ElementTree.parse(tmp_path / "a.svg")
    for name, strips, words in (("b.svg", [one, one], "holds one text"), ("b.png", [one], "neither .html nor .svg")):
        with pytest.raises(ValueError, match=words):
            write_picture(tmp_path / name, strips)
    with pytest.raises(OSError, match="missing"):
        write_picture(tmp_path / "missing" / "a.html", [one])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "a.svg"]
