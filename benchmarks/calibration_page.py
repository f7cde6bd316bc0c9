"""Fills docs/calibration.md and docs/img/calibration.svg from the results of benchmarks/calibration.py.

python benchmarks/calibration_page.py            # the figure is made anew: a minute
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

import stochroute as sr
from stochroute import embedded
from stochroute.world import draw_text

DOCS = Path(__file__).parents[1] / "docs"


def rows(models: dict[str, Any]) -> list[list[str]]:
    """One row a calibration."""
    table = [["model", "routing", "budget", "measured over budget", "pairs", "transmission", "passes"], ["---"] * 7]
    for name, model in models.items():
        for run in model["runs"]:
            low, high = (nats / run["budget"] for nats in run["measured_interval"])
            ratio = f"{run['measured_over_budget']:.2f} ({low:.2f} – {high:.2f})"
            table.append(
                [
                    name,
                    run["routing"],
                    f"{run['budget']:g}",
                    ratio,
                    f"{run['calibrated_on_pairs']} / {run['pairs']}",
                    f"{run['transmission']:.3f}",
                    f"{run['forward_passes']:,}",
                ]
            )
    return table


def draw_figure() -> None:
    """One calibration of the embedded model."""
    model, tokenizer = embedded.load()
    routing = sr.RoutingConfig(structural=sr.Structural(layers="all"), attention=sr.Attention())
    prompts = [row[:32] for row in tokenizer([draw_text(11, i) for i in range(64)])["input_ids"]]
    sr.route(model, routing).calibrate(prompts, budget=0.05, pairs=128).save_plot(DOCS / "img" / "calibration.svg")


def main() -> None:
    result = read("calibration")
    said = (
        "Calibrated on some prompts and paths, measured on others; pairs: of the calibration / of the measurement; "
        "intervals of 95 % over prompts and paths of the measurement; transmission in nats; passes: sequences through "
        f"the model for one calibration. Measured by `{result['command']}` and the like, finished on {result['date']}, "
        f"{result['processor']}, threads: {result['threads']}, torch {result['torch']}."
    )
    fill(DOCS / "calibration.md", "benchmarks/calibration_page.py", f"{markdown(rows(result['models']))}\n\n{said}")
    draw_figure()


if __name__ == "__main__":
    main()
