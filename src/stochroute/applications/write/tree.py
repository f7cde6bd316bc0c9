"""A tree of continuations: at every node several go on, chosen for quality and for being unlike each other.

The path ids of a node's continuations are derived from the node's own path id, those of the root from the seed, so
that any part of the tree can be grown alone and comes out the same. Where tokens are spread, the continuations of a
node are a family of their own.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from stochroute.applications.write.author import Author, Candidate
from stochroute.applications.write.quality import Quality
from stochroute.applications.write.selection import choose
from stochroute.generation.receipts import Receipt
from stochroute.paths import derive_paths, parse_path

FORMAT = "stochroute write 1"


class NoneFits(ValueError):
    """None of the candidates keeps the rules of the form; the message says which rules were broken, and how often."""


@dataclass(frozen=True)
class Node:
    """A continuation of its parent.

    Attributes:
        text: what it adds; the opening for the root.
        receipt: of its path; None for the root.
        nats: −ln p a word of its text; 0 for the root.
        novelty: against the siblings before it, in [0, 1].
        finished: whether nothing comes after it.
        children: the continuations that were kept, the best first.
        candidates: how many were written for it.
        fitting: how many of them kept the form's rules and were distinct.
    """

    text: str
    receipt: Receipt | None = None
    nats: float = 0.0
    novelty: float = 1.0
    finished: bool = False
    children: tuple["Node", ...] = field(default=())
    candidates: int = 0
    fitting: int = 0


@dataclass(frozen=True)
class Tree:
    """A grown tree.

    Attributes:
        root: the opening, with all that continues it.
        form: name of the form.
        model: name of the model that wrote.
        judge: name of the model that said how likely the texts are.
        seed: of the root's paths.
    """

    root: Node
    form: str
    model: str
    judge: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        named = {"form": self.form, "model": self.model, "judge": self.judge, "seed": self.seed}
        return {"format": FORMAT, **named, "root": _to_dict(self.root)}

    def texts(self) -> Iterator[tuple[Node, ...]]:
        """Every way from the root to a leaf, the root included, in order."""
        yield from _ways((self.root,))


@dataclass(frozen=True)
class Choice:
    """How continuations are chosen.

    Attributes:
        candidates: written at every node.
        keep: how many of them go on, at most.
        weight: of quality against novelty, see `choose`.
    """

    candidates: int = 16
    keep: int = 5
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.candidates:
            raise ValueError(f"keep={self.keep}: keep at least 1 and at most the {self.candidates} candidates")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight={self.weight}: must be at least 0 and finite; 0 looks at novelty alone")


def grow(
    author: Author,
    quality: Quality,
    opening: str,
    seed: int,
    choice: Choice,
    depth: int | None = None,
    on_node: Callable[[int], None] | None = None,
) -> Tree:
    """A tree of continuations of the opening.

    Args:
        author: who writes.
        quality: who says how good it is.
        seed: of the paths.
        choice: how many are written and kept.
        depth: steps of the form from the root to a leaf; None writes whole texts at once.
        on_node: called with the number of nodes expanded so far.

    Raises:
        NoneFits: nothing that was written after the opening keeps the form's rules.
        ValueError: the opening does not fit the model or breaks the form's rules itself.
    """
    closed = "".join(author.form.parts(opening)[:-1])  # the last step may have only begun
    problems = author.form.problems(closed, finished=False) if closed else ()
    if problems:
        raise ValueError(f"the opening is no beginning of a {author.form.name}: {'; '.join(problems)}")
    count = 0

    def expanded(node: Node, before: str, left: int) -> Node:
        nonlocal count
        node = expand(author, quality, node, before, seed, choice, None if depth is None else 1)
        count += 1
        if on_node is not None:
            on_node(count)
        if left == 1:
            return node
        children: list[Node] = []
        for child in node.children:
            if not child.finished:
                try:
                    child = expanded(child, before + child.text, left - 1)
                except NoneFits:
                    child = replace(child, candidates=choice.candidates)  # an end that nobody can go on from
            children.append(child)
        return replace(node, children=tuple(children))

    root = expanded(Node(opening), opening, 1 if depth is None else depth)
    return Tree(root, author.form.name, author.loaded.name, quality.name, seed)


def expand(
    author: Author, quality: Quality, node: Node, before: str, seed: int, choice: Choice, steps: int | None
) -> Node:
    """The node with its continuations.

    Args:
        before: the text up to and with the node.
        seed: of the root's paths; any other node's follow from its own path.
        steps: of the form, for each continuation; None for whole texts.

    Raises:
        NoneFits: none of the candidates keeps the form's rules.
    """
    source = seed if node.receipt is None else parse_path(node.receipt.path)
    spread = author.decoding.spread or author.routed.config.spreads
    paths = derive_paths(source, choice.candidates, spread=spread)
    written = author.candidates(before, paths, steps)
    fitting: dict[str, Candidate] = {}
    broken: Counter[str] = Counter()
    for candidate in written:
        finished = steps is None or candidate.finished
        problems = ("adds nothing",) if not candidate.text.strip() else author.form.problems(
            before + candidate.text, finished
        )  # fmt: skip
        if problems:
            broken[problems[0]] += 1
        else:
            fitting.setdefault(candidate.text.strip(), candidate)
    if not fitting:
        most = "; ".join(f"{count} × {what}" for what, count in broken.most_common(3))
        raise NoneFits(f"none of {len(written)} continuations by {author.loaded.name} is a {author.form.name}: {most}")
    candidates = list(fitting.values())
    texts = [candidate.text for candidate in candidates]
    nats = quality.nats(before, texts)
    children = tuple(
        Node(texts[c.index], candidates[c.index].receipt, float(nats[c.index]), c.novelty,
             steps is None or candidates[c.index].finished)
        for c in choose(texts, nats, choice.keep, choice.weight)
    )  # fmt: skip
    return replace(node, children=children, candidates=len(written), fitting=len(fitting))


def _to_dict(node: Node) -> dict[str, Any]:
    receipt = None if node.receipt is None else node.receipt.to_dict()
    return {"text": node.text, "nats_a_word": node.nats, "novelty": node.novelty, "finished": node.finished,
            "candidates": node.candidates, "fitting": node.fitting, "receipt": receipt,
            "children": [_to_dict(child) for child in node.children]}  # fmt: skip


def _ways(way: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    if not way[-1].children:
        yield way
    for child in way[-1].children:
        yield from _ways((*way, child))
