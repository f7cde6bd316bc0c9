"""Walks a tree on a terminal: the text so far, several ways to go on, a number to take one."""

from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stochroute.applications.write.author import Author
from stochroute.applications.write.quality import Quality
from stochroute.applications.write.tree import Choice, Node, NoneFits, Tree, expand

_HELP = "a number goes on · b goes back · q leaves"


@dataclass
class Walker:
    """Grows a tree where a person goes.

    Attributes:
        console: where it is shown.
        author, quality, seed, choice: as in `grow`.
    """

    console: Console
    author: Author
    quality: Quality
    seed: int
    choice: Choice

    def walk(self, opening: str) -> Tree:
        """The tree with everything that was seen, once the person leaves by q or Ctrl-D.

        Raises:
            NoneFits: nothing that was written after the opening keeps the form's rules.
        """
        way = [self._expanded(Node(opening), opening)]
        self.console.print(_HELP, style="dim")
        while True:
            self._show(way)
            try:
                line = input("› ").strip()
            except EOFError:
                self.console.print()
                break
            except KeyboardInterrupt:
                self._say(_HELP)
                continue
            if line == "q":
                break
            try:
                self._step(way, line)
            except KeyboardInterrupt:
                self._say("interrupted: nothing was added")
            except ValueError as error:
                self._say(str(error))
        while len(way) > 1:
            self._back(way)
        return Tree(way[0], self.author.form.name, self.author.loaded.name, self.quality.name, self.seed)

    def _step(self, way: list[Node], line: str) -> None:
        node = way[-1]
        if line == "b":
            if len(way) == 1:
                raise ValueError("this is the opening: there is nothing to go back to")
            self._back(way)
            return
        if not line.isdecimal() or not 1 <= int(line) <= len(node.children):
            offered = f"1 to {len(node.children)}, " if node.children else ""
            raise ValueError(f"{line!r} is no way to go: write {offered}b or q")
        child = node.children[int(line) - 1]
        if not child.finished and not child.children:
            child = self._expanded(child, self._text(way) + child.text)
        way.append(child)

    def _back(self, way: list[Node]) -> None:
        """Leaves the last node, and puts what was grown below it into its parent."""
        child = way.pop()
        children = tuple(child if c.receipt == child.receipt else c for c in way[-1].children)
        way[-1] = replace(way[-1], children=children)

    def _expanded(self, node: Node, before: str) -> Node:
        with self.console.status("writing"):
            try:
                return expand(self.author, self.quality, node, before, self.seed, self.choice, steps=1)
            except NoneFits:
                if node.receipt is None:
                    raise
                return replace(node, finished=True)

    def _show(self, way: list[Node]) -> None:
        self.console.print(Text(self._text(way), style="bold"))
        node = way[-1]
        if not node.children:
            self._say("the end; b goes back, q leaves")
            return
        table = Table.grid(padding=(0, 2))
        for number, child in enumerate(node.children, 1):
            figures = f"{child.nats:.2f} nats a word, novelty {child.novelty:.2f}"
            table.add_row(Text(f"{number:2}", style="bold"), Text(child.text.strip()), Text(figures, style="cyan"))
        self.console.print(table)

    def _text(self, way: list[Node]) -> str:
        return "".join(node.text for node in way)

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))
