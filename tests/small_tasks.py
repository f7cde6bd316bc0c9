"""Tasks small enough to write down every sample, and every sample written down from the task's definition."""

from itertools import pairwise, permutations, product

from stochroute.tasks import Circle, Line, Sibling, TokenTask, Triangle

Body = tuple[int, ...]

SMALL: dict[str, TokenTask] = {
    "sibling": Sibling(parents=2, children=2, training_size=3),
    "triangle": Triangle(nodes=6, degree=2, triangles_per_node=2, training_size=9),
    "circle": Circle(entities=4, nodes=4, training_size=3),
    "circle, one entity left out": Circle(entities=4, nodes=3, training_size=1),
    "line": Line(entities=4, nodes=4, training_size=3),
    "line, one entity left out": Line(entities=5, nodes=4, training_size=3),
}


def all_bodies(task: TokenTask) -> set[Body]:
    """Every coherent sample of the task, without its end."""
    if isinstance(task, Sibling):
        pairs, families = range(task.children), task.parents * task.children
        return {
            (p * task.children + i, families + p * task.children + j, 2 * families + p)
            for p, i, j in product(range(task.parents), pairs, pairs)
        }
    if isinstance(task, Triangle):
        linked = {(a, b) for a, others in enumerate(task.neighbours) for b in others}
        corners = permutations(range(task.nodes), 3)
        return {(a, b, b, c, c, a) for a, b, c in corners if {(a, b), (b, c), (c, a)} <= linked}
    assert isinstance(task, Circle | Line)
    bodies = set()
    for chain in permutations(range(task.entities), task.nodes):
        edges = list(pairwise(chain)) + [(chain[-1], chain[0])] * isinstance(task, Circle)
        bodies |= {sum(shuffled, ()) for shuffled in permutations(edges)}
    return bodies


def ended(task: TokenTask, body: Body) -> Body:
    """The sample with this body."""
    return (*body, task.vocabulary.end)
