"""explore: it samples until nothing new comes, keeps what it has, and its tree, forks and map are true to the texts."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from cli_model import save_tiny_model
from stochroute.applications.explore import (
    Exploration,
    Explored,
    SameMeaning,
    SamePlot,
    SameText,
    Text,
    cluster,
    explore,
    read_run,
    write_map,
)
from stochroute.applications.explore.tree import Node, branching, tree, words_of
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, load_model
from stochroute.paths import derive_paths, format_path
from stochroute.world import draw_text

TEXTS = st.lists(st.text(alphabet="ab ,天地", max_size=12), min_size=1, max_size=8)
SHORT = Exploration(seed=3, batch=4, most=20, new_tokens=2, decoding=Decoding(temperature=1.0))


class Letters:
    """Embeds a text as its counts of letters."""

    name = "letters"

    def embed(self, texts: Any) -> np.ndarray:
        counts = np.array([[text.count(letter) + 1e-3 for letter in "abcdef"] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(save_tiny_model(tmp_path_factory.mktemp("tiny")), "cpu", "float64")


def walk(loaded: LoadedModel, settings: Exploration = SHORT, **options: Any) -> Explored:
    routed = sr.route(loaded.model)
    try:
        return explore("ab", settings, loaded, routed, SameText(), **options)
    finally:
        routed.detach()


def made(*texts: str) -> Explored:
    return Explored("ab", tuple(Text(format_path(i), t, True, t or None) for i, t in enumerate(texts)), 4, 0.9)


def test_paths_are_those_of_the_seed_whatever_the_batch(loaded: LoadedModel):
    found = walk(loaded)
    assert [text.path for text in found.texts] == [format_path(path) for path in derive_paths(3, 20)]
    other = walk(loaded, Exploration(**{**vars(SHORT), "batch": 7, "most": 13}))
    assert other.texts == found.texts[:13]


def test_it_stops_when_new_paths_bring_nothing_new(loaded: LoadedModel):
    greedy = Exploration(seed=3, batch=10, most=400, new_tokens=1, until=0.9)
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=sr.Structural(strength=0.001)))
    try:
        found = explore("ab", greedy, loaded, routed, SameText())
    finally:
        routed.detach()
    assert found.saturated
    assert len(found.texts) < 400
    before = Explored(found.prompt, found.texts[:-10], 10, 0.9)
    assert not before.saturated, "not a batch more than it takes"


def test_a_run_cut_anywhere_goes_on_to_the_same_file(loaded: LoadedModel, tmp_path: Path):
    whole = tmp_path / "whole.jsonl"
    found = walk(loaded, output=whole)
    data = whole.read_bytes()
    for cut in (0, 5, 100, len(data) // 2, len(data) - 1, len(data)):
        file = tmp_path / "cut.jsonl"
        file.write_bytes(data[:cut])
        assert walk(loaded, output=file, resume=True) == found
        assert file.read_bytes() == data
    with pytest.raises(ValueError, match="exists"):
        walk(loaded, output=whole)
    with pytest.raises(ValueError, match="seed was 3, now 4"):
        walk(loaded, Exploration(**{**vars(SHORT), "seed": 4}), output=whole, resume=True)
    assert whole.read_bytes() == data
    further = walk(loaded, Exploration(**{**vars(SHORT), "most": 24}), output=whole, resume=True)
    assert further.texts[:20] == found.texts
    assert len(further.texts) == 24


def test_a_fork_is_the_prompt_with_the_first_words_of_the_path(loaded: LoadedModel, tmp_path: Path):
    walk(loaded, output=tmp_path / "run.jsonl")
    found = read_run(tmp_path / "run.jsonl")
    text = found.texts[5]
    assert found.fork(text.path, 0) == "ab"
    assert found.fork(text.path, len(words_of(text.text))) == "ab" + text.text
    with pytest.raises(ValueError, match=r"has \d+ words"):
        found.fork(text.path, 99)
    with pytest.raises(ValueError, match="none of the 20"):
        found.fork("0" * 16)
    (tmp_path / "other.jsonl").write_text('{"something": 1}\n')
    with pytest.raises(ValueError, match="is no exploration"):
        read_run(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="No such file"):
        read_run(tmp_path / "none.jsonl")


def test_a_fork_without_a_place_is_where_the_path_leaves_its_nearest():
    found = made(" the fox ran home", " the fox ran away", " the bear slept")
    assert found.fork(format_path(0)) == "ab the fox ran"
    assert found.fork(format_path(2)) == "ab the"


@given(st.text())
def test_words_are_the_text_cut_up(text: str):
    assert "".join(words_of(text)) == text


@given(TEXTS)
def test_the_tree_holds_every_text_and_branches_only_where_texts_part(texts: list[str]):
    root = tree(texts)

    def leaves(node: Node, before: str) -> list[tuple[str, int]]:
        if not node.children:
            return [(before + node.words, row) for row in node.rows]
        assert len(node.children) > 1
        assert sorted(row for child in node.children for row in child.rows) == sorted(node.rows)
        assert all(child.at == node.end for child in node.children)
        firsts = [words_of(child.words)[:1] for child in node.children]
        assert all(one != other for one, other in pairwise(sorted(firsts)))
        return [leaf for child in node.children for leaf in leaves(child, before + node.words)]

    assert sorted((row, text) for text, row in leaves(root, "")) == sorted(enumerate(texts))


@given(TEXTS)
def test_branching_is_the_longest_beginning_shared_with_another_text(texts: list[str]):
    for row, text in enumerate(texts):
        shared = branching(texts, row)
        others = [words_of(other) for other in texts if other != text]
        own = words_of(text)
        assert shared == max((sum(1 for _ in _common(own, other)) for other in others), default=0)


def _common(one: list[str], other: list[str]):
    for a, b in zip(one, other, strict=False):
        if a != b:
            return
        yield a


def test_readers_tell_answers_apart_by_words_by_meaning_and_by_plot():
    assert SameText().read("", " The  fox.") == SameText().read("", "the fox .")
    assert SameText().read("", " \n") is None
    meaning = SameMeaning(Letters(), 0.99)
    assert meaning.read("", "aab") == meaning.read("", "aba") == "aab"
    assert meaning.read("", "ccc") == "ccc"
    story = draw_text(1, 2)
    assert SamePlot().read(story[:20], story[20:]) is not None
    assert SamePlot().read("", "no story") is None


def test_clusters_hold_each_answer_once_and_the_middle_represents_it():
    found = made("aaab", "aaa", "aaaa", "ccc", "cccc", "ccd", "", "aaa")
    groups = cluster(found, Letters(), 2)
    assert sorted(row for one in groups for row in one.answers) == [0, 1, 2, 3, 4, 5]
    assert [set(one.answers) for one in groups] == [{0, 1, 2}, {3, 4, 5}]
    assert [one.texts for one in groups] == [4, 3]
    assert found.texts[groups[0].representative].text in ("aaa", "aaaa")
    assert [len(one.answers) for one in cluster(found, Letters(), 99)] == [1] * 6
    assert cluster(made(""), Letters(), 3) == []


def test_the_map_is_one_file_that_holds_all_and_asks_for_nothing(tmp_path: Path):
    found = made(" a </script><b>x", " a fox", " a bear", "", " a fox")
    file = tmp_path / "map.html"
    write_map(file, found, cluster(found, Letters(), 2), Letters(), "--strength 0.1")
    page = file.read_text(encoding="utf-8")
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert [row["text"] for row in data["rows"]] == [text.text for text in found.texts]
    assert data["options"] == "--strength 0.1"
    assert (data["texts"], data["no_answer"], data["answers_seen"]) == (5, 1, 3)
    own = page.replace(re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[0], "")
    assert not re.search(r"""(src|href)\s*=|url\(|@import|fetch\(""", own)
    assert "prefers-color-scheme: dark" in own
    assert "width=device-width" in own
    assert [file.name for file in tmp_path.iterdir()] == ["map.html"]


def test_settings_out_of_range_are_refused():
    for changes, complaint in (
        ({"until": 1.0}, "until"),
        ({"most": 0}, "most=0"),
        ({"batch": 0}, "batch=0"),
        ({"stop": ("",)}, "stop"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Exploration(**changes)
