"""The map: one HTML file that holds answers, figures and the drawing library, and asks nothing of a network."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochroute.applications.explore.clusters import Cluster, places
from stochroute.atomic import write_text

if TYPE_CHECKING:
    from stochroute.applications.explore.explored import Explored
    from stochroute.evaluation.embedding import Embedder


def write_map(
    file: Path, explored: "Explored", clusters: Sequence[Cluster], embedder: "Embedder", options: str = ""
) -> None:
    """Writes the map whole or not at all.

    Args:
        file: where to.
        explored: what was found.
        clusters: its answers in groups.
        embedder: gives the answers their places.
        options: of the command line, for the commands that fork and replay: what names the model and its noise.

    Raises:
        ImportError: plotly is missing.
        OSError: there is no room.
    """
    write_text(file, render(explored, clusters, embedder, options))


def render(explored: "Explored", clusters: Sequence[Cluster], embedder: "Embedder", options: str) -> str:
    """The map as HTML.

    The data travel as JSON in a script element that no browser runs; the page's own script draws them, and puts texts
    in as text, never as markup.
    """
    from plotly.offline import get_plotlyjs

    # inside a script element only "<" could end it or open a comment
    data = json.dumps(_data(explored, clusters, embedder, options), ensure_ascii=False, allow_nan=False)
    template = files("stochroute.applications.explore").joinpath("map.html").read_text(encoding="utf-8")
    for mark, content in (("/*PLOTLY*/", get_plotlyjs()), ("/*DATA*/", data.replace("<", "\\u003c"))):
        before, found, after = template.partition(mark)
        assert found, f"the template holds {mark}"
        template = before + content + after
    return template


def _data(explored: "Explored", clusters: Sequence[Cluster], embedder: "Embedder", options: str) -> dict[str, Any]:
    number_of = {row: number for number, one in enumerate(clusters) for row in one.answers}
    count = explored.counts
    spots = [
        {"row": row, "x": x, "y": y, "cluster": number_of[row], "texts": count[explored.texts[row].answer or ""]}
        for row, (x, y) in zip(explored.firsts, places(explored, embedder), strict=True)
    ]
    return {
        **explored.to_dict(),
        "options": options,
        "embedder": embedder.name,
        "rows": [{"path": text.path, "text": text.text, "answer": text.answer is not None} for text in explored.texts],
        "spots": spots,
        "clusters": [
            {"representative": one.representative, "answers": len(one.answers), "texts": one.texts} for one in clusters
        ],
        "tree": explored.tree.to_dict(),
    }
