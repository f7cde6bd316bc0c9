"""Malformed samples are incoherent, never a crash; bad settings are errors that say what to do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_tasks import SMALL
from stochroute.tasks import TASKS, Circle, Line, Sibling, Story, Task, TokenTask, Triangle, Vocabulary
from stochroute.tasks.circle import ShuffledEdges

PUBLISHED: dict[str, Task] = {name: task() for name, task in TASKS.items()}
TOKEN_TASKS = {name: task for name, task in PUBLISHED.items() if isinstance(task, TokenTask)} | SMALL
ANY_TOKEN = st.integers(-3, 90) | st.integers(-(2**70), 2**70)
EDITS = st.sampled_from(["replace", "insert", "delete", "repeat an edge", "add it again", "swap", "cut"])


def refused(task: TokenTask, sample) -> None:
    assert task.canonical(sample) is None
    assert not task.coherent(sample)
    assert not task.memorised(sample)
    score = task.score([sample])
    assert (score.creativity, score.coherence, score.unique) == (0, 0, 0)


@pytest.mark.parametrize("task", TOKEN_TASKS.values(), ids=TOKEN_TASKS)
@given(sample=st.lists(ANY_TOKEN, max_size=30), close=st.booleans())
def test_any_tokens_can_be_scored(task, sample, close):
    sample = [*sample, task.vocabulary.end] if close else sample
    score = task.score([sample, ()])
    assert score.coherence == task.coherent(sample) / 2
    body = task.vocabulary.body(sample)
    if body is None or len(body) != task.body_length:
        refused(task, sample)


@pytest.mark.parametrize("task", TOKEN_TASKS.values(), ids=TOKEN_TASKS)
@given(seed=st.integers(0, 1_000), data=st.data())
def test_a_token_that_is_no_symbol_is_refused_wherever_it_stands(task, seed, data):
    sample = task.sample(1, seed)[0].tolist()
    at = data.draw(st.integers(0, len(sample) - 1))
    sample[at] = data.draw(ANY_TOKEN.filter(lambda token: not 0 <= token < task.vocabulary.symbols))
    if at < task.body_length or sample[at] != task.vocabulary.end:
        refused(task, sample)


@pytest.mark.parametrize("task", [Circle(), Line(), Circle(nodes=8, entities=9)], ids=["circle", "line", "8 of 9"])
@given(seed=st.integers(0, 1_000), edit=EDITS, data=st.data())
def test_a_spoiled_circle_or_line_is_refused(task: ShuffledEdges, seed, edit, data):
    sample = task.sample(1, seed)[0].tolist()
    at = data.draw(st.integers(0, task.body_length - 1))
    edge = at // 2 * 2
    if edit == "replace":
        sample[at] = data.draw(st.integers(0, task.entities - 1).filter(lambda entity: entity != sample[at]))
    elif edit == "insert":
        sample.insert(at, data.draw(st.integers(0, task.entities - 1)))
    elif edit == "delete":
        del sample[at]
    elif edit == "repeat an edge":  # in the place of another one, so that the length is right
        other = data.draw(st.integers(0, task.edges - 1).filter(lambda other: other != at // 2)) * 2
        sample[other : other + 2] = sample[edge : edge + 2]
    elif edit == "add it again":  # the edges are right, the length is not
        sample[edge:edge] = sample[edge : edge + 2]
    elif edit == "swap":  # one edge against the direction of all others
        sample[edge : edge + 2] = sample[edge : edge + 2][::-1]
    else:
        sample = [*sample[:edge], *sample[edge + 2 :]]
    refused(task, sample)


def test_cycles_beside_a_chain_are_refused():
    line, circle = Line(entities=5, nodes=5), Circle(entities=6, nodes=6)
    end = line.vocabulary.end
    assert line.coherent([0, 1, 1, 2, 2, 3, 3, 4, end])
    refused(line, [0, 1, 2, 3, 3, 4, 4, 2, end])  # a line of two and a cycle of three
    refused(line, [0, 1, 1, 2, 3, 4, 4, 3, end])
    refused(circle, [0, 1, 1, 2, 2, 0, 3, 4, 4, 5, 5, 3, circle.vocabulary.end])  # two cycles of three
    refused(circle, [0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1, circle.vocabulary.end])  # a node linked to itself


def test_a_triangle_that_is_not_in_the_graph_is_refused():
    task = Triangle()
    a, b, _, c, *_ = task.sample(1, seed=0)[0].tolist()
    end = task.vocabulary.end
    assert task.coherent([a, b, b, c, c, a, end])
    stranger = next(n for n in range(999) if n not in task.neighbours[a] | {a})
    refused(task, [a, b, b, stranger, stranger, a, end])
    refused(task, [a, b, b, c, a, c, end])  # the right edges, but not round
    refused(task, [a, b, b, a, a, a, end])
    refused(task, [task.edge, b, b, c, c, task.edge, end])


@pytest.mark.parametrize("task", TOKEN_TASKS.values(), ids=TOKEN_TASKS)
@pytest.mark.parametrize("sample", [[0.5, 1.0], "0 1 1", [None], [[0, 1]], 7, np.zeros(3), np.zeros((2, 3), dtype=int)])
def test_what_is_no_row_of_integers_is_an_error(task, sample):
    with pytest.raises(ValueError, match="no row of integers: pass the ids"):
        task.score([sample])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sibling(parents=0), "parents=0 is less than 1: give how many parents"),
        (lambda: Sibling(children=-2), "children=-2 is less than 1: give how many children"),
        (lambda: Sibling(children=2.5), "children=2.5 is no integer: give how many children"),  # type: ignore
        (lambda: Sibling(training_size=0), "training_size=0 is less than 1: give how many examples"),
        (lambda: Circle(training_size=True), "training_size=True is no integer: give how many examples"),
        (lambda: Circle(nodes=1), "nodes=1 is less than 2: a chain has at least two nodes"),
        (lambda: Circle(nodes=11), "entities=10 is less than 11: .*raise entities or lower nodes"),
        (lambda: Line(entities=9), "entities=9 is less than 10: .*raise entities or lower nodes"),
        (lambda: Line(prefix_tokens=-1), "prefix_tokens=-1 is less than 0: give how many ids"),
        (lambda: Line(seed=-1), "seed=-1 is outside .*give an integer"),
        (lambda: Line(seed="x"), "seed='x' is no integer: give an integer"),  # type: ignore
        (lambda: Triangle(degree=0), "degree=0 is less than 1: every node needs an edge"),
        (lambda: Triangle(nodes=3), "nodes=3 is less than 4: degree=3 needs more nodes"),
        (lambda: Triangle(nodes=4), "triangles_per_node=6 is more than the 3 .*raise nodes or lower"),
        (lambda: Triangle(triangles_per_node=0), "triangles_per_node=0 is less than 1: every node must"),
        (lambda: Triangle(edges_per_triangle=-1), "edges_per_triangle=-1 is less than 0: give how many edge rows"),
        (lambda: Story(mixture=()), r"mixture=\(\) tells nothing: give at least one"),
        (lambda: Story(mixture=(("de", "story"),)), r"\('de', 'story'\): choose a language of en, zh"),
        (lambda: Story(training_size=0), "training_size=0 is less than 1: give how many texts"),
        (lambda: Story(seed=2**64), "seed=18446744073709551616 is outside .*give an integer"),
        (lambda: Vocabulary(0), "symbols=0 is less than 1: a task needs"),
        (lambda: Circle().sample(0, seed=0), "count=0 is less than 1: ask for at least one sample"),
        (lambda: Circle().sample(1, seed=-1), "seed=-1 is outside"),
        (lambda: Story().sample(0, seed=0), "count=0 is less than 1: ask for at least one sample"),
        (lambda: Circle().renamed_training_set(0, 1), "passes=0 is less than 1: give how often"),
        (lambda: Circle().renamed_training_set(1, -1), "seed=-1 is outside"),
        (lambda: Triangle().turned_training_set(0, 1), "passes=0 is less than 1: give how often"),
        (lambda: Triangle().turned_training_set(1, -1), "seed=-1 is outside"),
        (lambda: Circle().prompts(0), "count=0 is less than 1: ask for at least one prompt"),
        (lambda: Circle().vocabulary.seed_prefixes(0, 4, 0), "count=0 is less than 1: ask for at least one prefix"),
        (lambda: Circle().vocabulary.null_prefixes(4, 0), "length=0 is less than 1: .*leave it out for none"),
        (lambda: Circle(prefix_tokens=0).vocabulary.seed_prefixes(4, 4, 0), "prefix_tokens=0 leaves nothing.*set it"),
        (
            lambda: Circle().training_set().with_prefixes(np.zeros((3, 4), dtype=int)),
            r"prefixes of shape \(3, 4\) do not fit 10000 examples: give shape \(10000,",
        ),
    ],
)
def test_a_bad_setting_is_an_error_that_says_what_to_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("settings", [{"nodes": 4, "triangles_per_node": 3}, {"nodes": 5}, {"nodes": 8, "degree": 7}])
def test_the_smallest_graphs_that_fit_are_drawn(settings):
    task = Triangle(**settings, training_size=3)
    assert min(map(len, task.neighbours)) >= task.degree
    per_node = np.bincount(task.triangles.ravel(), minlength=task.nodes)
    assert per_node.min() >= task.triangles_per_node
