"""Trees of continuations: what they hold comes from paths that can be walked again, and keeps the form."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import stochroute as sr
from poet import save_poet
from stochroute.applications.write import (
    FORMS,
    Author,
    Choice,
    Clean,
    Judged,
    NoneFits,
    Tree,
    expand,
    form_named,
    grow,
    to_html,
    to_markdown,
    write_tree,
)  # fmt: skip
from stochroute.applications.write.export import to_json
from stochroute.applications.write.tree import Node
from stochroute.evaluation.judging import Judge
from stochroute.evaluation.words import words
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, continuation, load_model
from stochroute.paths import derive_paths, format_path, parse_path

STRENGTH = 0.8
CHOICE = Choice(candidates=8, keep=3)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(None, "cpu", "auto")


@pytest.fixture(scope="module")
def poet(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(save_poet(tmp_path_factory.mktemp("poet")), "cpu", "auto")


def author_of(loaded: LoadedModel, form: str, **options) -> Author:
    """An author; `routed.detach()` ends it."""
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=sr.Structural(strength=STRENGTH)))
    return Author(loaded, routed, form_named(form), **options)


@pytest.fixture(scope="module")
def verses(poet: LoadedModel) -> Tree:
    author = author_of(poet, "五绝")
    tree = grow(author, Clean(poet, author.routed), "明月", 1, Choice(6, 2), depth=4)
    author.routed.detach()
    return tree


def test_a_model_that_learnt_quatrains_writes_quatrains_line_by_line(verses: Tree):
    ways = list(verses.texts())
    finished = [way for way in ways if way[-1].finished]
    assert finished
    for way in finished:
        assert FORMS["五绝"].problems("".join(node.text for node in way), finished=True) == ()
        assert len(way) == 5
    texts = ["".join(node.text for node in way) for way in ways]
    assert len(set(texts)) == len(texts) > 2


def test_whole_quatrains_come_too_and_what_breaks_the_form_is_left_out(poet: LoadedModel):
    author = author_of(poet, "五绝")
    tree = grow(author, Clean(poet, author.routed), "白云", 3, CHOICE)
    raw = author.candidates("白云", derive_paths(3, 8))
    author.routed.detach()
    fitting = {c.text for c in raw if not FORMS["五绝"].problems("白云" + c.text, finished=True)}
    assert tree.root.fitting == len(fitting)
    assert tree.root.candidates == 8
    assert {node.text for node in tree.root.children} <= fitting


def test_every_text_is_what_its_path_writes_alone(loaded: LoadedModel):
    author = author_of(loaded, "story")
    tree = grow(author, Clean(loaded, author.routed), "Once upon a time", 7, Choice(6, 2), depth=2)
    for way in tree.texts():
        before = "Once upon a time"
        for node in way[1:]:
            ids = loaded.tokenizer(before)["input_ids"]
            assert node.receipt is not None
            out = author.routed.generate(torch.tensor([ids]), paths=[node.receipt.path], max_new_tokens=40)
            alone = continuation(loaded, ids, out.generated[0].tolist())
            assert alone.startswith(node.text)
            before += node.text
    author.routed.detach()


def test_every_spread_continuation_comes_back_from_its_id_alone(loaded: LoadedModel):
    decoding = Decoding(temperature=1.0, spread=True)
    author = author_of(loaded, "story", decoding=decoding, batch=4)
    tree = grow(author, Clean(loaded, author.routed), "Once upon a time", 7, Choice(6, 2), depth=2)
    for way in tree.texts():
        before, source = "Once upon a time", 7
        for node in way[1:]:
            assert node.receipt is not None
            path = parse_path(node.receipt.path)
            assert path in derive_paths(source, 6, spread=True)
            (alone,) = author.candidates(before, [path], steps=1)
            assert (alone.text, alone.receipt) == (node.text, node.receipt)
            before, source = before + node.text, path
    author.routed.detach()


def test_spread_noise_writes_along_siblings(loaded: LoadedModel):
    noise = sr.Structural(form="latent", rank=4, strength=STRENGTH, spread=True)
    author = Author(loaded, sr.route(loaded.model, sr.RoutingConfig(structural=noise)), form_named("story"))
    tree = grow(author, Clean(loaded, author.routed), "Once upon a time", 7, Choice(3, 2), depth=1)
    author.routed.detach()
    written = [node.receipt for way in tree.texts() for node in way[1:]]
    assert {parse_path(receipt.path) for receipt in written if receipt} <= set(derive_paths(7, 3, spread=True))
    assert written


def test_spread_candidates_are_more_different_than_independent_ones(loaded: LoadedModel):
    different = dict.fromkeys((False, True), 0)
    for spread in different:
        routed = sr.route(loaded.model, sr.RoutingConfig(structural=None))
        author = Author(loaded, routed, form_named("story"), Decoding(temperature=1.0, spread=spread))
        for seed in range(4):
            ids = derive_paths(seed, 16, spread=spread)
            written = author.candidates("Once upon a time, there was a fox named Mira who lived", ids, steps=1)
            different[spread] += len({candidate.text for candidate in written})
        routed.detach()
    assert different[True] > different[False]


def test_a_part_of_the_tree_grown_alone_is_the_same(loaded: LoadedModel):
    author = author_of(loaded, "story")
    quality = Clean(loaded, author.routed)
    tree = grow(author, quality, "Once upon a time", 7, CHOICE, depth=2)
    child = tree.root.children[1]
    alone = expand(author, quality, Node(child.text, child.receipt), "Once upon a time" + child.text, 99, CHOICE, 1)
    author.routed.detach()
    assert alone.children == child.children
    assert child.receipt is not None
    assert tree.root.children[0].receipt is not None
    roots = {format_path(p) for p in derive_paths(7, 8)}
    assert {c.receipt.path for c in tree.root.children if c.receipt} <= roots
    followers = {format_path(p) for p in derive_paths(parse_path(child.receipt.path), 8)}
    assert {c.receipt.path for c in child.children if c.receipt} <= followers


def test_quality_is_the_mean_nats_of_a_word_under_the_model_without_noise(loaded: LoadedModel):
    author = author_of(loaded, "story")
    before, texts = "Once upon a time", [", there was a fox named Mira who lived by a wide river.", ", the the the."]
    found = Clean(loaded, author.routed).nats(before, texts)
    author.routed.detach()
    for text, nats in zip(texts, found, strict=True):
        ids = loaded.tokenizer(before + text, return_tensors="pt").input_ids
        start = len(loaded.tokenizer(before).input_ids)
        with torch.no_grad():
            log_p = loaded.model(ids).logits[0].double().log_softmax(-1)
        by_hand = -sum(float(log_p[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])) / len(words(text))
        assert nats == pytest.approx(by_hand, abs=1e-4)
    assert found[0] < found[1]


def test_a_judge_decides_instead_where_one_is_named(loaded: LoadedModel, poet: LoadedModel):
    judge = Judge(loaded, poet.model)
    texts = ["月照江岸，", "风满柴门。"]
    expected = judge.nats(["明"] * 2, texts) / 5
    assert np.allclose(Judged(judge).nats("明", texts), expected)
    author = author_of(poet, "五绝")
    tree = grow(author, Judged(judge), "明月", 1, CHOICE)
    author.routed.detach()
    assert tree.judge == "the embedded model"


def test_the_kept_ones_come_in_the_order_of_quality_and_novelty(loaded: LoadedModel):
    author = author_of(loaded, "story")
    tree = grow(author, Clean(loaded, author.routed), "Once upon a time", 7, Choice(8, 8))
    author.routed.detach()
    children = tree.root.children
    assert children[0].nats == min(child.nats for child in children)
    assert children[0].novelty == 1.0
    gains = [-2 * child.nats + np.log(child.novelty) for child in children]
    assert gains == sorted(gains, reverse=True)  # a text chosen later would have been worth no more earlier


@pytest.mark.parametrize("form", ["poem", "五绝", "七绝"])
def test_a_form_that_the_model_cannot_write_is_an_error_that_counts_why(loaded: LoadedModel, form: str):
    author = author_of(loaded, form)
    with pytest.raises(NoneFits, match=rf"none of 4 continuations by the embedded model is a {form}: \d × "):
        grow(author, Clean(loaded, author.routed), "Once upon a time", 7, Choice(4, 2))
    author.routed.detach()


def test_an_opening_that_breaks_the_form_is_refused_before_anything_is_written(poet: LoadedModel):
    author = author_of(poet, "五绝")
    with pytest.raises(ValueError, match="the opening is no beginning of a 五绝: line 1 has 4 characters, not 5"):
        grow(author, Clean(poet, author.routed), "明月江岸，春风", 1, CHOICE)
    author.routed.detach()


@pytest.mark.parametrize(("options", "message"), [
    ({"candidates": 0}, "keep=5"), ({"keep": 0}, "keep=0"), ({"keep": 17}, "keep=17"), ({"weight": -1.0}, "weight=-1"),
    ({"weight": float("nan")}, "weight=nan"),
])  # fmt: skip
def test_bad_choices_are_named(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Choice(**options)  # pyright: ignore[reportArgumentType]


def test_pages_hold_every_text_and_nothing_of_a_text_becomes_markup(verses: Tree, tmp_path: Path):
    nasty = Node("<script>alert(1)</script> *bold* [x](y)\n1. & <!--TREE-->", verses.root.children[0].receipt, 1.0, 0.5)
    tree = Tree(Node("A & <b>", None, children=(*verses.root.children, nasty)), "五绝", "m<i>", "j", 1)
    page, text = to_html(tree), to_markdown(tree)
    for way in tree.texts():
        for node in way[1:]:
            assert html.escape(node.text.strip()) in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "m&lt;i&gt;" in page
    assert page.count("<li>") == page.count("</li>") == sum(1 for _ in nodes(tree.root)) - 1
    assert not re.search(r"(src|href|url\()", page)  # nothing is fetched
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert "\\<script\\>" in text
    assert "\\*bold\\*" in text
    assert to_json(tree) == json.dumps(tree.to_dict(), ensure_ascii=False, indent=1) + "\n"
    for name, content in (("a.html", page), ("a.md", text), ("a.json", to_json(tree))):
        write_tree(tmp_path / name, tree)
        assert (tmp_path / name).read_text(encoding="utf-8") == content
    with pytest.raises(ValueError, match="ends in"):
        write_tree(tmp_path / "a.pdf", tree)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json", "a.md"]


def nodes(node: Node):
    yield node
    for child in node.children:
        yield from nodes(child)
