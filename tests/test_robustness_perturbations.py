"""Perturbations: pure, seeded, of the strength asked for, and each of the kind it says it is."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.robustness.perturbations import KINDS, find_sites, perturb
from stochroute.robustness.tables import Tables, groups, read_tables

SHARED_LISTS = Path(__file__).parent.parent.parent / "shared" / "data" / "textattack_lists.json"
STORY = "Once upon a time, a small bear named Otto lived on an old farm. He didn't know what to do."
TABLES = Tables(
    morphonyms=groups(["延诞蜒"]),
    names=dict.fromkeys(("Otto", "Hugo", "Emma"), ("Otto", "Hugo", "Emma", "New Anna")),
)
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    [STORY, "Otto met Emma. 他延长了。"]
)
kinds = st.sampled_from(list(KINDS))
rates = st.floats(0, 1)
keys = st.integers(0, 2**64 - 1)


@given(texts, kinds, keys)
def test_rate_0_gives_the_text_back(text: str, kind: str, key: int):
    assert perturb(text, kind, 0, key, TABLES) == text


@given(texts, kinds, rates, keys)
def test_the_same_key_gives_the_same_text(text: str, kind: str, rate: float, key: int):
    assert perturb(text, kind, rate, key, TABLES) == perturb(text, kind, rate, key, TABLES)


@given(texts, kinds, keys)
def test_rate_1_changes_the_text_wherever_it_has_a_site(text: str, kind: str, key: int):
    sites = find_sites(text, kind, TABLES)
    for site in sites:
        for start, end in site.spans:
            assert 0 <= start < end <= len(text)
            assert text[start:end] not in site.options
    assert (perturb(text, kind, 1, key, TABLES) != text) == bool(sites)


@given(texts, st.sampled_from(["characters", "homoglyphs", "morphonyms"]), rates, rates, keys)
def test_what_is_changed_at_one_rate_is_changed_alike_at_a_higher_one(
    text: str, kind: str, one: float, other: float, key: int
):
    low, high = sorted((one, other))
    weak, strong = perturb(text, kind, low, key, TABLES), perturb(text, kind, high, key, TABLES)
    assert len(weak) == len(strong) == len(text)
    for before, little, much in zip(text, weak, strong, strict=True):
        assert little in (before, much)


@pytest.mark.parametrize("rate", [0.1, 0.37, 0.5])
def test_the_share_changed_is_the_rate_on_average_and_never_a_site_off(rate: float):
    text = "abcde" * 5
    changed = [
        sum(a != b for a, b in zip(text, perturb(text, "characters", rate, key), strict=True)) for key in range(2000)
    ]
    assert set(changed) <= {int(rate * 25), int(rate * 25) + 1}
    assert sum(changed) / len(changed) == pytest.approx(rate * 25, abs=0.04)


def test_every_site_and_every_option_is_chosen_alike():
    text, trials = "aaaaaaaa", 4000
    places, letters = Counter[int](), Counter[str]()
    for key in range(trials):
        changed = perturb(text, "homoglyphs", 1 / 8, key)
        (place,) = [i for i, letter in enumerate(changed) if letter != "a"]
        places[place] += 1
        letters[changed[place]] += 1
    assert all(abs(count - trials / 8) < 5 * (trials / 8) ** 0.5 for count in places.values())
    assert len(places) == 8
    assert all(abs(count - trials / 2) < 5 * (trials / 4) ** 0.5 for count in letters.values())
    assert len(letters) == 2


def words(text: str) -> list[str]:
    return text.replace(".", "").replace(",", "").split()


@given(keys)
def test_typos_put_a_neighbouring_key_in_one_place_of_each_word(key: int):
    changed = words(perturb(STORY, "typos", 1, key))
    for before, after in zip(words(STORY), changed, strict=True):
        different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(different) == (len(before) > 1)
        for a, b in different:
            assert b.lower() in Tables().neighbours[a.lower()]
            assert a.isupper() == b.isupper()


def test_neighbours_are_the_keys_around():
    neighbours = Tables().neighbours
    assert set(neighbours["g"]) == set("ftyhvb")
    assert set(neighbours["q"]) == set("wa")
    assert all(key in neighbours[other] for key, around in neighbours.items() for other in around)


@given(keys)
def test_swaps_keep_the_letters_of_every_word_and_deletions_lose_one(key: int):
    for before, after in zip(words(STORY), words(perturb(STORY, "swaps", 1, key)), strict=True):
        assert Counter(before) == Counter(after)
    for before, after in zip(words(STORY), words(perturb(STORY, "deletions", 1, key)), strict=True):
        assert len(after) == max(1, len(before) - 1)
        assert not Counter(after) - Counter(before)


@given(keys, rates)
def test_drops_leave_the_other_words_in_order_and_never_nothing(key: int, rate: float):
    left = words(perturb(STORY, "drops", rate, key))
    rest = iter(words(STORY))
    assert all(word in rest for word in left)
    assert left[-1] == "do"


@given(keys)
def test_synonyms_come_from_one_group_and_keep_the_case(key: int):
    assert perturb("Small", "synonyms", 1, key) in {"Little", "Tiny"}
    assert perturb("SMALL", "synonyms", 1, key) in {"LITTLE", "TINY"}
    assert perturb("smallish", "synonyms", 1, key) == "smallish"


def test_contractions_go_both_ways():
    assert perturb("He can't. It is so.", "contractions", 1, 7) == "He cannot. It's so."
    assert perturb("I am here", "contractions", 1, 7) == "I'm here"


@given(keys)
def test_a_name_changes_wherever_it_stands_into_one_that_nobody_has(key: int):
    changed = perturb("Otto met Emma. Otto smiled.", "names", 1, key, TABLES)
    first, second = changed.split(".")[:2]
    assert first.split(" met ")[0] == second.split(" smiled")[0].strip()
    assert first.split(" met ")[0] in {"Hugo", "New Anna"}


def test_names_to_be_kept_stay():
    changed = perturb("Otto met Emma", "names", 1, 7, TABLES, keep=" Otto Hugo")
    assert changed == "Otto met New Anna"


def test_letters_that_look_alike_are_none_of_latin():
    for letter, alike in Tables().homoglyphs.items():
        assert letter.isascii()
        assert alike
        assert not any(other.isascii() for other in alike)


def test_pinned_texts_stay_for_ever():
    assert perturb("Where did Mira live?", "typos", 0.5, 7) == "Wheee djd Mira live?"
    assert perturb("Where did Mira live?", "characters", 0.2, 7) == "WZereNdid >ira lfve?"


@pytest.mark.parametrize(
    ("kind", "rate", "complaint"),
    [
        ("typo", 0.1, "'typo' is unknown \\(did you mean 'typos'\\?\\)"),
        ("typos", -0.1, "outside \\[0, 1\\]"),
        ("typos", 1.5, "outside \\[0, 1\\]"),
        ("typos", float("nan"), "outside \\[0, 1\\]"),
        ("typos", True, "outside \\[0, 1\\]"),
    ],
)
def test_bad_arguments_are_named(kind: str, rate: float, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        perturb("text", kind, rate, 7)


def test_tables_of_a_file_stand_in_for_our_own(tmp_path: Path):
    file = tmp_path / "tables.json"
    file.write_text(json.dumps({"SYNONYMS": [["Fox", "vixen"]], "HOMOGLYPHS": {"a": "ä"}}))
    tables = read_tables(file)
    assert perturb("A fox", "synonyms", 1, 7, tables) == "A vixen"
    assert perturb("small", "synonyms", 1, 7, tables) == "small"
    assert perturb("abba", "homoglyphs", 1, 7, tables) == "äbbä"
    assert tables.contractions == Tables().contractions
    assert tables.digest() != Tables().digest() == Tables().digest()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "no JSON"),
        ("[]", "holds a list"),
        ('{"SYNONYM": []}', "did you mean SYNONYMS"),
        ('{"SYNONYMS": ["ab"]}', "SYNONYMS does not hold"),
        ('{"SYNONYMS": [["a", 1]]}', "SYNONYMS does not hold"),
        ('{"HOMOGLYPHS": {"a": 1}}', "HOMOGLYPHS does not hold"),
        ('{"PERSON_NAMES": ["Otto"]}', "PERSON_NAMES does not hold"),
    ],
)
def test_files_that_hold_no_tables_are_refused(tmp_path: Path, content: str, complaint: str):
    file = tmp_path / "tables.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_tables(file)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_tables(tmp_path / "nothing.json")


@pytest.mark.skipif(not SHARED_LISTS.exists(), reason="the evaluation texts are not on this machine")
def test_textattack_s_own_lists_are_read():
    tables = read_tables(SHARED_LISTS)
    assert perturb("Michael met Michael", "names", 1, 7, tables, keep="").split(" met ")[0] != "Michael"
    assert perturb("I can't", "contractions", 1, 7, tables) == "I cannot"
    assert perturb("延", "morphonyms", 1, 7, tables) in {"诞", "蜒"}
    assert tables.digest() == read_tables(SHARED_LISTS).digest()
