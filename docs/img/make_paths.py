"""Draws paths.svg: eight stories of the embedded model from one prompt, as the tree in which their paths part.

    python docs/img/make_paths.py

Everything in the picture is the model's output; the same command draws the same picture.
"""

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import torch

import stochroute as sr
from stochroute import embedded
from stochroute.world import check

PATHS, SEED = 8, 7  # those of `make demo`
NEW_TOKENS = 256  # a story ends by itself before
WIDTH = 960  # pixels, unless many partings need more
RUN, TAIL = 40, 40  # characters shown, of words that several paths share at most, of the rest of one path at least
CHARACTER, LINE = 6.6, 34  # pixels: the width of a monospaced letter at 11 px, the distance of two paths
BRANCH = 42  # pixels that a curve takes from where paths part to the next words
INK, FAINT, LINE_COLOUR = "#1f2937", "#6b7280", "#0e7490"


@dataclass
class Node:
    """Words that the paths below it share, in order."""

    words: list[str]
    children: list["Node"] = field(default_factory=list["Node"])
    path: str = ""  # of a leaf
    coherent: bool = False
    y: float = 0

    def text(self, most: int, keep_end: bool) -> str:
        """The words, shortened in the middle (keep_end) or at the end."""
        whole = " ".join(self.words)
        if len(whole) <= most:
            return whole
        return f"{whole[: most // 2 - 1]} … {whole[-(most // 2 - 1) :]}" if keep_end else whole[: most - 2] + " …"


def stories() -> list[tuple[str, str, bool]]:
    """(path id, story, whether it is coherent) for each path."""
    model, tokenizer = embedded.load()
    inputs = tokenizer(embedded.DEFAULT_PROMPTS[0], return_tensors="pt", return_token_type_ids=False)
    room = model.config.max_position_embeddings - inputs["input_ids"].shape[1]
    with torch.no_grad():
        out = sr.RoutedModel.from_pretrained(model, embedded.EMBEDDED).generate(
            **inputs, paths=PATHS, seed=SEED, do_sample=False, max_new_tokens=min(NEW_TOKENS, room)
        )
    texts = tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
    return [(sr.format_path(p), text, check(text).coherent) for p, text in zip(out.paths, texts, strict=True)]


def grow(rows: list[tuple[str, list[str], bool]]) -> Node:
    """The tree of (path id, words still to come, coherent)."""
    if len(rows) == 1:
        (path, words, coherent) = rows[0]
        return Node(words, path=path, coherent=coherent)
    shared = 0
    while all(len(words) > shared for _, words, _ in rows) and len({words[shared] for _, words, _ in rows}) == 1:
        shared += 1
    node = Node(rows[0][1][:shared])
    rest = [(path, words[shared:], coherent) for path, words, coherent in rows]
    for first in dict.fromkeys(words[0] if words else "" for _, words, _ in rest):
        group = [row for row in rest if (row[1][0] if row[1] else "") == first]
        # the same text along several paths: nothing left to part them
        node.children += [grow([row]) for row in group] if not first else [grow(group)]
    return node


def place(node: Node, first: float) -> float:
    """Gives every node its height; returns where the next leaf goes."""
    if not node.children:
        node.y = first
        return first + LINE
    for child in node.children:
        first = place(child, first)
    node.y = (node.children[0].y + node.children[-1].y) / 2
    return first


def draw(node: Node, x: float, shapes: list[str]) -> float:
    """Appends the SVG shapes of the node and all below it; returns how far right they reach."""
    room = max(TAIL, int((WIDTH - 16 - x) / CHARACTER))
    text = node.text(RUN, keep_end=True) if node.children else node.text(room, keep_end=False)
    end = x + len(text) * CHARACTER
    shapes.append(f'<text x="{x:.0f}" y="{node.y:.0f}" fill="{INK}">{escape(text)}</text>')
    if not node.children:
        mark = "coherent" if node.coherent else "not coherent"
        shapes.append(
            f'<text x="{x:.0f}" y="{node.y + 13:.0f}" fill="{FAINT}">'
            f'path <tspan fill="{LINE_COLOUR}">{node.path}</tspan>, {mark}</text>'
        )
        return max(end, x + len(f"path {node.path}, {mark}") * CHARACTER)
    right = end
    for child in node.children:
        a, b, middle = end + 6, end + BRANCH - 6, end + BRANCH / 2
        shapes.append(
            f'<path d="M{a:.0f} {node.y - 4:.0f} C{middle:.0f} {node.y - 4:.0f} {middle:.0f} {child.y - 4:.0f} '
            f'{b:.0f} {child.y - 4:.0f}" fill="none" stroke="{LINE_COLOUR}" stroke-width="1.5"/>'
        )
        right = max(right, draw(child, end + BRANCH, shapes))
    return right


def main() -> None:
    tree = grow([(path, text.split(), coherent) for path, text, coherent in stories()])
    height = place(tree, first=28)
    shapes: list[str] = []
    width = draw(tree, 16, shapes) + 16
    Path(__file__).with_name("paths.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">\n'
        f"<title>One prompt, {PATHS} paths, {PATHS} stories</title>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#ffffff"/>\n' + "\n".join(shapes) + "\n</svg>\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
