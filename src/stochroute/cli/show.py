"""Shows texts to a person: side by side with their path ids, and in one line how different they are."""

from dataclasses import dataclass, field
from statistics import fmean

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from stochroute.cli.difference import Difference, difference
from stochroute.cli.rows import Row

_COLUMN = 40  # characters of one text beside others, frame included
_LONG_PROMPT = 160  # characters; a longer prompt is not repeated in front of each text


@dataclass
class Summary:
    """What the closing line needs, gathered prompt by prompt."""

    differences: list[Difference] = field(default_factory=list[Difference])
    coherent: int = 0
    plots: int = 0

    def add(self, rows: list[Row], story_world: bool) -> None:
        """Counts the rows of one prompt; with `story_world` the world's checker reads them too."""
        self.differences.append(difference([row.text for row in rows]))
        if story_world:
            from stochroute.world import check

            verdicts = [check(row.prompt + row.text) for row in rows]
            self.coherent += sum(verdict.coherent for verdict in verdicts)
            self.plots += len({verdict.plot for verdict in verdicts if verdict.coherent})

    def line(self, seed: int | None, story_world: bool) -> str:
        """For example "8 paths from seed 7: 8 distinct texts, mean pairwise distance 0.71 (…)"."""
        prompts, paths = len(self.differences), self.differences[0].texts
        what = f"{paths} path{'s' * (paths != 1)}"
        if prompts > 1:
            what = f"{prompts} prompts × {what}"
        origin = "replayed" if seed is None else f"from seed {seed}"
        distinct = sum(d.distinct for d in self.differences)
        parts = [f"{distinct} distinct text{'s' * (distinct != 1)}"]
        distances = [d.distance for d in self.differences if d.distance is not None]
        if distances:
            parts.append(f"mean pairwise distance {fmean(distances):.2f} (1 − words in both / words in either)")
        if story_world:
            parts.append(f"{self.coherent} of {prompts * paths} coherent by the checker")
            parts.append(f"{self.plots} distinct plot{'s' * (self.plots != 1)}")
        return f"{what} {origin}: {', '.join(parts)}"


def show(console: Console, rows: list[Row]) -> None:
    """Prints the texts of one prompt: in columns on a wide terminal, one after another elsewhere."""
    columns = console.width // _COLUMN
    if not console.is_terminal or console.no_color or columns < 2:
        for row in rows:
            console.print(f"── path {row.path}", markup=False, highlight=False, soft_wrap=True)
            console.print(row.prompt + row.text + "\n", markup=False, highlight=False, soft_wrap=True)
        return
    if len(rows[0].prompt) > _LONG_PROMPT:
        console.print(Text(rows[0].prompt, style="dim"))
    panels = [Panel(_text(row), title=row.path, title_align="left", border_style="cyan") for row in rows]
    console.print(Columns(panels, width=console.width // min(columns, 4, len(rows)) - 1, padding=(0, 1)))


def _text(row: Row) -> Text:
    start = (row.prompt, "dim") if len(row.prompt) <= _LONG_PROMPT else ("…", "dim")
    return Text.assemble(start, row.text.rstrip())
