"""Which samples hold, and which say the same, against every sample of small tasks written down."""

from collections import Counter
from itertools import permutations, product
from math import factorial

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from small_tasks import SMALL, Body, all_bodies, ended
from stochroute.tasks import Circle, Line, Triangle

every_task = pytest.mark.parametrize("task", SMALL.values(), ids=SMALL)


def least_renaming(body: Body, task: Circle | Line) -> Body:
    """The smallest of all the bodies that this one becomes when entities are renamed: the orbit's own name."""
    return min(tuple(names[entity] for entity in body) for names in permutations(range(task.entities)))


@every_task
def test_of_all_sequences_exactly_the_samples_written_down_are_coherent(task):
    sequences = product(range(task.vocabulary.symbols), repeat=task.body_length)
    assert {body for body in sequences if task.coherent(ended(task, body))} == all_bodies(task)


@every_task
def test_every_form_is_counted_and_has_as_many_samples_as_any_other(task):
    samples = Counter(task.canonical(ended(task, body)) for body in all_bodies(task))
    assert len(samples) == task.number_of_forms
    assert len(set(samples.values())) == 1


@every_task
def test_samples_share_a_form_exactly_if_they_say_the_same(task):
    bodies = all_bodies(task)
    if isinstance(task, Triangle):
        meaning = {body: frozenset(body) for body in bodies}
    elif isinstance(task, Circle | Line):
        meaning = {body: least_renaming(body, task) for body in bodies}
    else:
        meaning = {body: body for body in bodies}
    pairs = {(task.canonical(ended(task, body)), meaning[body]) for body in bodies}
    assert len(pairs) == len({form for form, _ in pairs}) == len({said for _, said in pairs})


@every_task
def test_the_perfect_sampler_is_uniform(task):
    counts = Counter(map(task.canonical, task.sample(200 * task.number_of_forms, seed=0)))
    assert None not in counts
    assert len(counts) == task.number_of_forms
    assert task.number_of_forms == 1 or chisquare(list(counts.values())).pvalue > 1e-4


@every_task
def test_memorised_is_to_have_a_form_of_the_training_set(task):
    training = task.training_set()
    rows = training.tokens[training.tokens[:, 0] == task.vocabulary.start]
    forms = {task.canonical(row[1:]) for row in rows}
    assert forms == task.training_forms
    assert 0 < len(forms) < task.number_of_forms
    for body in all_bodies(task):
        sample = ended(task, body)
        assert task.memorised(sample) == (task.canonical(sample) in forms)
    assert not task.memorised(())
    assert task.chance == len(forms) / task.number_of_forms


@every_task
def test_a_sample_ends_where_it_must_and_nowhere_else(task):
    sample = task.sample(1, seed=0)[0].tolist()
    assert task.coherent(sample)
    for at in range(len(sample)):
        assert not task.coherent(sample[:at])
        assert not task.coherent(sample[:at] + sample[at + 1 :])
        for token in range(task.vocabulary.size):
            same = at == task.body_length and token == task.vocabulary.end
            assert task.coherent([*sample[:at], token, *sample[at:]]) == same


@every_task
def test_what_follows_the_end_is_not_read(task):
    sample = task.sample(1, seed=0)[0].tolist()
    for rest in ([task.vocabulary.pad] * 3, [task.vocabulary.end], sample):
        assert task.canonical(sample + rest) == task.canonical(sample)


@every_task
def test_rows_of_any_integers_are_samples(task):
    rows = task.sample(20, seed=0)
    assert task.score(rows) == task.score(rows.tolist()) == task.score(torch.from_numpy(rows))
    assert task.score(rows) == task.score(rows.astype(np.int32))


@pytest.mark.parametrize("kind", [Circle, Line])
def test_forms_of_chains_grow_as_the_factorial(kind):
    for nodes in range(2, 8):
        chain = kind(entities=nodes, nodes=nodes, training_size=1)
        edges = [(node, (node + 1) % nodes) for node in range(chain.edges)]
        forms = {chain.canonical(ended(chain, sum(order, ()))) for order in permutations(edges)}
        assert None not in forms
        assert len(forms) == chain.number_of_forms == factorial(nodes - 1)
