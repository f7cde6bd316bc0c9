"""A tree of continuations as a page: Markdown, HTML in one file, or JSON."""

import html
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from stochroute.applications.write.tree import Node, Tree
from stochroute.atomic import write_text

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~])")
_LIST_MARK = re.compile(r"^(\s*)([-+]|\d+[.)])(?=\s)", re.MULTILINE)


def write_tree(file: Path, tree: Tree) -> None:
    """Writes the tree in the format that the file's ending names (.md, .html or .json), replacing the file in one step.

    Raises:
        ValueError: another ending.
        OSError: the folder cannot be written.
    """
    write_text(file, _format_of(file)(tree))


def to_json(tree: Tree) -> str:
    """Everything, with the receipts that walk each path again."""
    return json.dumps(tree.to_dict(), ensure_ascii=False, indent=1) + "\n"


def to_markdown(tree: Tree) -> str:
    """The opening as a heading, and a numbered list in which every continuation holds its own."""
    opening = " ".join(tree.root.text.split()) or f"A {tree.form}"
    return f"# {_plain(opening)}\n\n{_plain(_about(tree))}\n\n" + "".join(_items(tree.root, ""))


def to_html(tree: Tree) -> str:
    """One page that asks nothing of a network: continuations fold out into their own, readable on a phone and in the
    dark."""
    template = files("stochroute.applications.write").joinpath("page.html").read_text(encoding="utf-8")
    title = " ".join(tree.root.text.split()) or f"A {tree.form}"
    parts = {"TITLE": html.escape(title), "ABOUT": html.escape(_about(tree)), "TREE": _list(tree.root)}
    return re.sub("<!--(TITLE|ABOUT|TREE)-->", lambda mark: parts[mark.group(1)], template)


def _format_of(file: Path) -> Callable[[Tree], str]:
    formats = {".md": to_markdown, ".html": to_html, ".json": to_json}
    if file.suffix not in formats:
        raise ValueError(f"{file}: name a file that ends in {', '.join(formats)}")
    return formats[file.suffix]


def _about(tree: Tree) -> str:
    count = sum(1 for _ in tree.texts())
    return (
        f"{count} text{'s' * (count != 1)} by {tree.model}, form {tree.form}, seed {tree.seed}; "
        f"nats a word by {tree.judge}"
    )


def _measures(node: Node) -> str:
    path = "" if node.receipt is None else f"path {node.receipt.path} · "
    return f"{path}{node.nats:.2f} nats a word · novelty {node.novelty:.2f}"


def _items(node: Node, indent: str) -> list[str]:
    found: list[str] = []
    for number, child in enumerate(node.children, 1):
        mark = f"{number}. "
        inner = indent + " " * len(mark)
        text = _plain(child.text.strip()).replace("\n", f"  \n{inner}")  # two blanks break a line
        found.append(f"{indent}{mark}{text}  \n{inner}*{_measures(child)}*\n")
        found += _items(child, inner)
    return found


def _plain(text: str) -> str:
    """The text with Markdown's own signs made harmless."""
    return _LIST_MARK.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", text))


def _list(node: Node) -> str:
    if not node.children:
        return ""
    items: list[str] = []
    for child in node.children:
        text = html.escape(child.text.strip())
        measures = f"<small>{html.escape(_measures(child))}</small>"
        line = f"<span>{text}</span>{measures}"
        inner = f"<details><summary>{line}</summary>{_list(child)}</details>" if child.children else f"<p>{line}</p>"
        items.append(f"<li>{inner}</li>")
    return f"<ol>{''.join(items)}</ol>"
