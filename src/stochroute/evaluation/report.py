"""The report: one HTML file that holds figures, texts and the drawing library, and asks nothing of a network."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from stochroute.evaluation.run import REPORT_FILE, Run


def write_report(run: Run, result: dict[str, Any]) -> Path:
    """Writes report.html into the run's folder and returns the file."""
    return run.write(REPORT_FILE, render(result))


def render(result: dict[str, Any]) -> str:
    """The report as HTML.

    The figures travel as JSON in a script element that no browser runs; the page's own script draws them, and puts
    texts in as text, never as markup.
    """
    from plotly.offline import get_plotlyjs

    # inside a script element only "<" could end it or open a comment
    data = json.dumps(result, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    template = files("stochroute.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    for mark, content in (("/*PLOTLY*/", get_plotlyjs()), ("/*DATA*/", data)):
        before, found, after = template.partition(mark)
        assert found, f"the template holds {mark}"
        template = before + content + after
    return template
