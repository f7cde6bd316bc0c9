"""A random graph full of triangles, for the triangle task."""

from itertools import combinations

import numpy as np

Neighbours = list[set[int]]  # node -> its neighbours


def draw_graph(nodes: int, degree: int, triangles: int, stream: np.random.Generator) -> Neighbours:
    """An undirected graph in which every node has at least `degree` edges and lies in at least `triangles` triangles.

    Two stages. Each node in turn is linked to uniform strangers until it has `degree` edges. Then, in rounds, every
    node that lies in too few triangles has one open wedge closed, uniformly among those it belongs to. A wedge is two
    edges a–b–c; it is open when a and c are strangers. Rounds, instead of finishing node after node, let a triangle
    serve all three of its corners before more are added. A node without an open wedge is linked to a stranger.

    Ends, and within the bounds, if nodes > degree and (nodes − 1)(nodes − 2)/2 ≥ triangles.
    """
    neighbours: Neighbours = [set() for _ in range(nodes)]
    for node in range(nodes):
        while len(neighbours[node]) < degree:
            _link(neighbours, *_pick(_strangers(neighbours, node), stream))
    while poor := [node for node in range(nodes) if _triangles_at(neighbours, node) < triangles]:
        for node in poor:
            if _triangles_at(neighbours, node) < triangles:
                _link(neighbours, *_pick(_open_wedges(neighbours, node) or _strangers(neighbours, node), stream))
    return neighbours


def edges_of(neighbours: Neighbours) -> np.ndarray:
    """int64 (edges, 2): every edge once, smaller node first, sorted."""
    pairs = [(node, other) for node, others in enumerate(neighbours) for other in sorted(others) if node < other]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def triangles_of(neighbours: Neighbours) -> np.ndarray:
    """int64 (triangles, 3): every triangle once, its nodes ascending, sorted."""
    triples = [
        (low, middle, high)
        for low, middle in edges_of(neighbours).tolist()
        for high in sorted(neighbours[low] & neighbours[middle])
        if high > middle
    ]
    return np.array(triples, dtype=np.int64).reshape(-1, 3)


def _link(neighbours: Neighbours, one: int, other: int) -> None:
    neighbours[one].add(other)
    neighbours[other].add(one)


def _pick(pairs: list[tuple[int, int]], stream: np.random.Generator) -> tuple[int, int]:
    return pairs[int(stream.integers(len(pairs)))]


def _strangers(neighbours: Neighbours, node: int) -> list[tuple[int, int]]:
    """(node, other) for every other node that is not its neighbour."""
    return [(node, other) for other in range(len(neighbours)) if other != node and other not in neighbours[node]]


def _open_wedges(neighbours: Neighbours, node: int) -> list[tuple[int, int]]:
    """The two ends of every open wedge that the node is an end or the middle of, each pair once."""
    near = set().union(*(neighbours[other] for other in neighbours[node])) - neighbours[node] - {node}
    as_end = [(node, other) for other in sorted(near)]
    as_middle = [(a, b) for a, b in combinations(sorted(neighbours[node]), 2) if b not in neighbours[a]]
    return as_end + as_middle


def _triangles_at(neighbours: Neighbours, node: int) -> int:
    """In how many triangles the node lies."""
    return sum(len(neighbours[node] & neighbours[other]) for other in neighbours[node]) // 2
