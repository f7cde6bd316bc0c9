"""Training sets: the same for the same seed, of one length, with ids, labels and prefixes where they belong."""

import hashlib

import numpy as np
import pytest

from stochroute.tasks import IGNORED, TASKS, Circle, Line, Sibling, Story, TokenTask, Triangle
from stochroute.tasks.graph import edges_of

TOKEN_TASKS = [name for name in TASKS if name != "story"]


def token_task(name: str, **settings) -> TokenTask:
    task = TASKS[name](**settings)
    assert isinstance(task, TokenTask)
    return task


@pytest.mark.parametrize("name", TOKEN_TASKS)
def test_a_training_set_depends_on_its_seed_alone(name):
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    one, same, other = (token_task(name, training_size=300, seed=seed).training_set() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.tokens, same.tokens)
    assert (one.tokens != other.tokens).any()
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before


PINNED = {
    "sibling": "904db88adc5673cd",
    "triangle": "a5ab228886ad32f7",
    "circle": "cbc69b124bb8ea69",
    "line": "2d20374052f9966b",
}


@pytest.mark.parametrize("name", TOKEN_TASKS)
def test_training_sets_are_pinned(name):
    """Results are compared over years, so a new numpy must not change the draws unnoticed."""
    tokens = token_task(name, training_size=300).training_set().tokens
    assert hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest()[:16] == PINNED[name]


@pytest.mark.parametrize("name", TOKEN_TASKS)
def test_a_row_is_start_body_end_and_learns_all_but_its_prompt(name):
    task = token_task(name)
    training = task.training_set()
    size = (task.training_size, task.sample_length + 1)
    assert training.tokens.shape == training.labels.shape == size
    assert {array.dtype for array in (training.tokens, training.labels, training.ids)} == {np.dtype("int64")}
    assert training.ids.tolist() == list(range(task.training_size))
    assert (training.prompt_length, training.start) == (1, 0)
    learned = training.labels != IGNORED
    np.testing.assert_array_equal(training.labels[learned], training.tokens[learned])
    np.testing.assert_array_equal(learned[:, 1:], training.tokens[:, 1:] != task.vocabulary.pad)
    assert not learned[:, 0].any()
    asked = training.tokens[:, 0] == task.vocabulary.start
    assert all(task.coherent(row[1:]) and task.memorised(row[1:]) for row in training.tokens[asked][:500])
    assert asked.all() or name == "triangle"


@pytest.mark.parametrize("name", TASKS)
def test_samples_repeat_by_seed_and_are_not_the_training_set(name):
    task = TASKS[name](training_size=50)
    one, same, other = (np.asarray(task.sample(50, seed)).tolist() for seed in (0, 0, 1))
    assert one == same != other
    trained = task.training_texts() if isinstance(task, Story) else token_task(name, training_size=50).training_set()
    assert one != (trained if isinstance(trained, list) else trained.tokens[:, 1:].tolist())


@pytest.mark.parametrize("name", TOKEN_TASKS)
def test_prefixes_stand_before_the_prompt_and_are_not_learned(name):
    task = token_task(name, training_size=40)
    plain = task.training_set()
    prefixes = task.vocabulary.seed_prefixes(40, 5, seed=0)
    training = plain.with_prefixes(prefixes)
    np.testing.assert_array_equal(training.tokens[:, :5], prefixes)
    np.testing.assert_array_equal(training.tokens[:, 5:], plain.tokens)
    assert (training.labels[:, :5] == IGNORED).all()
    np.testing.assert_array_equal(training.labels[:, 5:], plain.labels)
    assert (training.prompt_length, training.start) == (6, 5)
    prompts = task.prompts(40, prefixes)
    asked = training.tokens[:, 5] == task.vocabulary.start
    np.testing.assert_array_equal(prompts[asked], training.tokens[asked, :6])
    np.testing.assert_array_equal(task.prompts(3), [[task.vocabulary.start]] * 3)


def test_seed_prefixes_belong_to_the_example_and_null_prefixes_to_nobody():
    vocabulary = Circle().vocabulary
    training, fresh = (vocabulary.seed_prefixes(1_000, 4, seed) for seed in (0, 1))
    np.testing.assert_array_equal(vocabulary.seed_prefixes(10, 4, 0), training[:10])
    assert (training != fresh).any(axis=1).all()
    assert set(training.ravel().tolist()) == set(vocabulary.prefixes)
    assert vocabulary.null_prefixes(2, 3).tolist() == [[vocabulary.null] * 3] * 2


def test_no_two_tokens_share_an_id():
    vocabulary = Circle(prefix_tokens=7).vocabulary
    ids = [*range(10), vocabulary.start, vocabulary.end, vocabulary.pad, vocabulary.null, *vocabulary.prefixes]
    assert sorted(ids) == list(range(vocabulary.size))
    assert vocabulary.size == 10 + 4 + 7


def test_a_training_set_may_hold_a_form_twice():
    task = Circle()
    assert len(task.training_forms) < task.training_size == len(task.training_set().tokens)


def test_a_circle_is_memorised_whatever_its_entities_are_called_but_not_in_another_order():
    task = Circle(nodes=8, entities=9, training_size=1)
    row = task.training_set().tokens[0, 1:]
    body = row[:-1]
    assert task.memorised(np.append((body + 4) % 9, row[-1]))
    edges = body.reshape(-1, 2)
    assert not task.memorised([*edges[[1, 0, *range(2, 8)]].ravel(), row[-1]])


def test_line_and_circle_take_all_or_some_entities():
    for task, taken in ((Circle(), 9), (Line(), 10)):
        rows = task.sample(200, seed=0)[:, :-1]
        assert {len(set(row)) for row in rows.tolist()} == {taken}
        assert set(rows.ravel().tolist()) == set(range(10))


@pytest.mark.parametrize("seed", range(2))
def test_the_published_graph_is_what_it_should_be(seed):
    task = Triangle(seed=seed)
    links = np.zeros((999, 999), dtype=int)
    for node, others in enumerate(task.neighbours):
        links[node, list(others)] = 1
    assert (links == links.T).all()
    assert not links.diagonal().any()
    assert links.sum(axis=0).min() >= 3
    corners = ((links @ links) * links).sum(axis=0) // 2  # triangles at each node
    assert corners.min() >= 6
    assert task.number_of_forms == corners.sum() // 3
    assert len({tuple(row) for row in task.triangles.tolist()}) == task.number_of_forms


def test_a_third_of_the_rows_are_triangles_and_every_edge_is_taught():
    task = Triangle()
    tokens = task.training_set().tokens
    is_edge = tokens[:, 0] == task.edge
    assert is_edge.sum() == 10_000
    assert (tokens[~is_edge, 0] == task.vocabulary.start).sum() == 5_000
    assert (tokens[is_edge, 3] == task.vocabulary.end).all()
    assert (tokens[is_edge, 4:] == task.vocabulary.pad).all()
    pairs = tokens[is_edge, 1:3]
    taught, times = np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)
    np.testing.assert_array_equal(taught, edges_of(task.neighbours))
    assert times.max() - times.min() <= 1
    assert 4_700 < (pairs[:, 0] < pairs[:, 1]).sum() < 5_300


def test_the_mix_of_triangles_and_edges_can_be_set():
    only = Triangle(nodes=20, edges_per_triangle=0, training_size=10)
    assert (only.training_set().tokens[:, 0] == only.vocabulary.start).all()
    few = Triangle(nodes=20, edges_per_triangle=4, training_size=11).training_set().tokens
    assert (few[:, 0] == 20).tolist() == [index % 5 != 0 for index in range(11)]


def test_the_order_of_siblings_is_fixed_and_children_are_not_shared():
    task = Sibling(parents=3, children=4, training_size=100)
    first, second, parent, _ = task.sample(2_000, seed=0).T
    assert (len(set(first)), len(set(second)), len(set(parent))) == (12, 12, 3)
    assert not set(first) & set(second)
    for child in (first, second):
        assert len(set(zip(child, parent, strict=True))) == 12
    assert not task.coherent([second[0], first[0], parent[0], task.vocabulary.end])


@pytest.mark.parametrize("task", [Circle(training_size=60), Line(training_size=60)], ids=["circle", "line"])
def test_renamed_examples_keep_their_form_their_id_and_what_is_learned(task):
    plain, renamed = task.training_set(), task.renamed_training_set(passes=3, seed=5)
    assert len(renamed) == 3 * len(plain)
    np.testing.assert_array_equal(renamed.ids, np.tile(plain.ids, 3))
    np.testing.assert_array_equal(renamed.labels == IGNORED, np.tile(plain.labels == IGNORED, (3, 1)))
    np.testing.assert_array_equal(renamed.labels[:, 1:], renamed.tokens[:, 1:])
    forms = [task.canonical(row[1:]) for row in plain.tokens]
    assert [task.canonical(row[1:]) for row in renamed.tokens] == 3 * forms
    assert len(np.unique(renamed.tokens, axis=0)) == len(renamed)  # no pass repeats another
    np.testing.assert_array_equal(renamed.tokens, task.renamed_training_set(3, 5).tokens)
    assert (renamed.tokens != task.renamed_training_set(3, 6).tokens).any()


def test_renaming_takes_every_name_equally_often():
    task = Circle(training_size=1)
    first = task.renamed_training_set(passes=20_000, seed=0).tokens[:, 1]
    counts = np.bincount(first, minlength=task.entities)
    assert len(counts) == task.entities
    assert abs(counts - 2_000).max() < 6 * 2_000**0.5


def test_turned_examples_stay_the_same_triangles_and_edges():
    task = Triangle(nodes=30, training_size=90)
    plain, turned = task.training_set(), task.turned_training_set(passes=4, seed=5)
    assert len(turned) == 4 * len(plain)
    np.testing.assert_array_equal(turned.ids, np.tile(plain.ids, 4))
    np.testing.assert_array_equal(turned.labels == IGNORED, np.tile(plain.labels == IGNORED, (4, 1)))
    told = turned.labels != IGNORED
    np.testing.assert_array_equal(turned.labels[told], turned.tokens[told])
    forms = [task.canonical(row[1:]) for row in plain.tokens]
    assert [task.canonical(row[1:]) for row in turned.tokens] == 4 * forms
    is_edge = plain.tokens[:, 0] == task.edge
    edges, again = (np.sort(rows.tokens[rows.tokens[:, 0] == task.edge, 1:3], axis=1) for rows in (plain, turned))
    np.testing.assert_array_equal(again, np.tile(edges, (4, 1)))
    np.testing.assert_array_equal(turned.tokens[np.tile(is_edge, 4), 3:], np.tile(plain.tokens[is_edge, 3:], (4, 1)))
    np.testing.assert_array_equal(turned.tokens, task.turned_training_set(4, 5).tokens)
    assert (turned.tokens != task.turned_training_set(4, 6).tokens).any()


def test_turning_tells_a_triangle_in_each_of_its_six_ways_equally_often():
    task = Triangle(nodes=20, edges_per_triangle=0, training_size=1)
    ways, times = np.unique(task.turned_training_set(passes=12_000, seed=0).tokens[:, 1:7], axis=0, return_counts=True)
    assert len(ways) == 6
    assert abs(times - 2_000).max() < 6 * 2_000**0.5


def test_a_training_set_is_a_dataset_by_the_names_that_training_expects():
    rows = Circle(training_size=5).training_set()
    assert len(rows) == 5
    assert set(rows[3]) == {"input_ids", "labels", "example"}
    assert rows[3]["example"] == 3
    np.testing.assert_array_equal(rows[3]["input_ids"], rows.tokens[3])
