"""Fills docs/spread.md from the results of benchmarks/spread_noise.py.

python benchmarks/spread_noise_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read
from spread_page import cells

DOCS = Path(__file__).parents[1] / "docs"


def rows(records: list[dict[str, Any]]) -> list[list[str]]:
    """One row a rank, strength and number of paths."""
    table = [
        ["rank", "strength", "paths", "different texts: independent", "spread", "more", "Vendi score", "nats a token"],
        ["---"] * 8,
    ]
    for record in records:
        of = [str(record["rank"]), f"{record['strength']:g}", str(record["paths"])]
        table.append([*of, *cells(record, digits=3)])
    return table


def main() -> None:
    found = read("spread_noise")
    said = (
        f"Greedy texts of {found['tokens']} tokens, latent noise in all layers, {found['prompts']} prompts, "
        f"{found['families']} families each. The last two columns are differences, spread minus independent, with 95 % "
        f"intervals over prompts; the nats are those of the model without noise. Measured by `{found['command']}` on "
        f"{found['date']}, {found['processor']}."
    )
    parts = [f"**{name}**\n\n{markdown(rows(records))}" for name, records in found["models"].items()]
    fill(DOCS / "spread.md", "benchmarks/spread_noise_page.py", "\n\n".join([*parts, said]))


if __name__ == "__main__":
    main()
