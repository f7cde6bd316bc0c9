"""The made knowledge base: half of what is asked was never told, and the texts say nothing else."""

import doctest
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochroute.uncertainty import TASKS, KnowledgeBase
from stochroute.uncertainty import knowledge as knowledge_module
from stochroute.uncertainty.knowledge import RELATIONS

BASES = st.builds(
    KnowledgeBase,
    people=st.integers(2, 40),
    strangers=st.floats(0, 0.5),
    right_answers=st.integers(1, 8),
    also_asked=st.floats(0, 1),
    unevenness=st.floats(0, 2),
    seed=st.integers(0, 2**64 - 1),
)


@given(BASES)
@settings(max_examples=40)
def test_half_of_the_asked_facts_were_told_and_none_of_a_stranger(knowledge):
    groups = Counter(question.group for question in knowledge.questions())
    assert groups["told"] == len(knowledge.questions()) // 2 == len(set(knowledge.told))
    assert groups["stranger"] == round(knowledge.strangers * knowledge.people) * len(RELATIONS)
    assert len(set(knowledge.names)) == knowledge.people
    assert len({question.text for question in knowledge.questions()}) == len(knowledge.questions())


def test_texts_tell_the_told_facts_and_nothing_else():
    knowledge = KnowledgeBase(people=10, seed=3)
    told = {
        (knowledge.names[person], answer)
        for person, relation in knowledge.told
        for answer in knowledge.facts[person][relation]
    }
    seen = set()
    for text in knowledge.texts(5000, seed=1):
        pair = [(name, answer) for name, answer in told if name in text and answer in text]
        assert len(pair) == 1, text
        seen.add(pair[0])
    assert seen == told


def test_no_text_names_a_stranger_or_asks_what_was_not_told():
    knowledge = KnowledgeBase(people=12, seed=4)
    texts = list(knowledge.texts(3000, seed=1))
    for person in range(knowledge.people):
        if knowledge.is_stranger(person):
            assert not any(knowledge.names[person] in text for text in texts)
    unknown = {question.text for question in knowledge.questions() if question.group != "told"}
    asked = {text.partition("?")[0] + "?" for text in texts if "?" in text}
    assert asked
    assert not asked & unknown


def test_the_right_answers_are_right_and_no_others():
    knowledge = KnowledgeBase(people=6, seed=5)
    for question in knowledge.questions():
        relation = next(
            r for r in RELATIONS if re.fullmatch(r.question.replace("{name}", ".*").replace("?", r"\?"), question.text)
        )
        right = [TASKS["plain"].is_right(relation.answer(i), question) for i in range(relation.answers)]
        assert sum(right) == len(question.references) <= knowledge.right_answers


def test_a_seed_decides_everything():
    assert KnowledgeBase(seed=1).questions() == KnowledgeBase(seed=1).questions() != KnowledgeBase(seed=2).questions()
    knowledge = KnowledgeBase(people=20)
    assert list(knowledge.texts(50, 1)) == list(knowledge.texts(50, 1)) != list(knowledge.texts(50, 2))
    assert list(knowledge.texts(20, 1)) != list(KnowledgeBase(people=20, seed=1).texts(20, 1))


def test_the_words_are_all_words_of_texts_and_questions():
    knowledge = KnowledgeBase(people=50)
    told = " ".join([*knowledge.texts(2000, 0), *(q.text for q in knowledge.questions())])
    assert set(re.findall(r"\w+|[.?]", told)) <= set(knowledge.words())
    assert len(knowledge.words()) == len(set(knowledge.words()))


def test_uneven_telling_tells_the_first_facts_more_often():
    def share_of_the_first_tenth(unevenness):
        knowledge = KnowledgeBase(people=20, unevenness=unevenness, right_answers=1)
        first = [(knowledge.names[p], knowledge.facts[p][r][0]) for p, r in knowledge.told[:4]]
        return sum(any(n in text and a in text for n, a in first) for text in knowledge.texts(4000, 0)) / 4000

    assert share_of_the_first_tenth(0) == pytest.approx(0.1, abs=0.03)
    assert share_of_the_first_tenth(1.5) > 0.5


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"people": 1}, "people=1"),
        ({"people": 10_000}, "people=10000"),
        ({"strangers": 0.6}, "strangers=0.6"),
        ({"right_answers": 0}, "right_answers=0"),
        ({"also_asked": 2}, "also_asked=2"),
        ({"unevenness": -1}, "unevenness=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_settings_are_named(setting, words):
    with pytest.raises(ValueError, match=words):
        KnowledgeBase(**setting)


def test_the_example_of_the_docstring_holds():
    assert doctest.testmod(knowledge_module).failed == 0
