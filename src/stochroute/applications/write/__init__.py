"""Continuations of a text along many paths: checked against a form, ranked by quality × novelty, grown into a tree.

author = Author(loaded, routed, form_named("story"))
tree = grow(author, "Once upon a time", seed=7, candidates=16, keep=5)
for node in tree.root.children:
    print(node.novelty, node.text)
write_tree(Path("stories.html"), tree)
"""

from stochroute.applications.write.author import Author, Candidate
from stochroute.applications.write.export import to_html, to_markdown, write_tree
from stochroute.applications.write.forms import FORMS, Form, Poem, Quatrain, Story, form_named
from stochroute.applications.write.quality import Clean, Judged
from stochroute.applications.write.selection import Chosen, choose
from stochroute.applications.write.tree import Choice, Node, NoneFits, Tree, expand, grow

__all__ = [
    "Author", "Candidate", "Choice", "Chosen", "Clean", "FORMS", "Form", "Judged", "Node", "NoneFits", "Poem",
    "Quatrain", "Story", "Tree", "choose", "expand", "form_named", "grow", "to_html", "to_markdown", "write_tree",
]  # fmt: skip
